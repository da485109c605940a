package trainer

import (
	"context"
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// AutoResult is what training without choices came to, and why.
type AutoResult struct {
	Best     *Result // passed its gate or says why not
	Baseline *Result // the linear model, on the same rows
	Search   *SearchResult
	Choices  []string // one sentence per decision
}

// TrainAuto trains for people who do not want to choose: it picks task, metric,
// back-end and budget from the rows, fits a linear model as the stated
// baseline, searches trees unless trees is nil, and judges the winner on rows
// that neither has seen. Parameters that the job sets are kept.
func TrainAuto(ctx context.Context, owner string, j Job, trees Backend, rec Record) (*AutoResult, error) {
	rows, err := j.Load(ctx)
	if err != nil {
		return nil, err
	}
	return trainAuto(ctx, owner, j, rows, trees, rec)
}

// trainAuto is [TrainAuto] on rows that were loaded before.
func trainAuto(ctx context.Context, owner string, j Job, rows *Prepared, trees Backend, rec Record) (out *AutoResult, err error) {
	out = new(AutoResult)
	note := func(format string, args ...any) { out.Choices = append(out.Choices, fmt.Sprintf(format, args...)) }
	metric := metricOf(rows.Task)
	note("task %s, from the label; judged by %s on the newest rows (%d train, %d choose, %d test)",
		rows.Task, metric, rows.Train.Rows(), rows.Valid.Rows(), rows.Test.Rows())

	linear := j
	linear.Backend, linear.Params.Extra, linear.Params.Device = Linear{}, nil, CPU
	if rows.Task != model.Quantiles {
		if out.Baseline, err = TrainPrepared(ctx, owner, linear, rows, rec, nil); err != nil {
			return out, fmt.Errorf("baseline: %w", err)
		}
		note("baseline: a linear model, %s %.5g on validation rows", metric, validation(out.Baseline, metric))
	}
	if trees == nil || rows.Valid.Rows() == 0 {
		if out.Best = out.Baseline; out.Best == nil {
			return out, fmt.Errorf("%w: quantiles need a back-end of trees and validation rows", ErrParam)
		}
		why := "there are no validation rows to choose by"
		if trees == nil {
			why = "this machine has no XGBoost library (" + xgb.Environment + " or trainer.library names it)"
		}
		note("trees were not tried: %s", why)
		return out, nil
	}
	return out, out.search(ctx, owner, j, rows, trees, rec, note)
}

// search tries trees and takes the better of both on the validation rows. The
// test rows decide nothing here; they only say how good the choice is.
func (a *AutoResult) search(ctx context.Context, owner string, j Job, rows *Prepared, trees Backend, rec Record, note func(string, ...any)) error {
	j.Backend = trees
	s := autoSearch(rows, &j.Params)
	note("back-end %s: %d trials of at most %d rounds by TPE, stopped early by ASHA", trees.Name(), s.Trials, j.Params.Rounds)
	var err error
	if a.Search, err = s.run(ctx, owner, j, rows, rec, nil); err != nil {
		return err
	}
	a.Best = a.Search.Best
	metric := metricOf(rows.Task)
	if a.Baseline == nil {
		return nil
	}
	found, base := validation(a.Best, metric), validation(a.Baseline, metric)
	if better(metric, found, base) <= 0 {
		note("trees reach %s %.5g, no better than the linear model's %.5g: the simpler model is taken", metric, found, base)
		a.Best = a.Baseline
		return nil
	}
	note("trees reach %s %.5g against the linear model's %.5g; on the test %.5g against %.5g", metric, found, base,
		a.Best.Report.Metrics[metric], a.Baseline.Report.Metrics[metric])
	return nil
}

func validation(r *Result, metric string) float64 {
	if v, ok := r.Run.Metrics["valid"][metric]; ok {
		return v
	}
	return math.NaN()
}

// autoSearch sets the budget: about the same work whatever the rows' number,
// within bounds. It fills what the parameters leave open.
func autoSearch(rows *Prepared, p *Params) *Search {
	const values = 60e6 // of rows × inputs, over all trials
	size := float64(rows.Train.Rows() * len(rows.Train.Columns))
	trials := int(min(max(values/size, 8), 30))
	if p.Rounds == 0 {
		p.Rounds = 500
	}
	if p.EarlyStop == 0 {
		p.EarlyStop = 25
	}
	if p.Device == "" {
		p.Device = Auto
	}
	return &Search{
		Space: Space{
			"eta":              {Low: 0.02, High: 0.3, Log: true},
			"max_depth":        {Low: 3, High: 9, Int: true},
			"min_child_weight": {Low: 1, High: 30, Log: true},
			"subsample":        {Low: 0.6, High: 1},
			"colsample_bytree": {Low: 0.5, High: 1},
			"reg_lambda":       {Low: 0.1, High: 20, Log: true},
		},
		Sampler: TPE, Pruning: ASHA, Trials: trials, Seed: p.Seed,
	}
}
