package app

import (
	"context"
	"fmt"
	"os"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/tree"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// lossLearner fits losses with XGBoost in a process of its own, where its
// library is found; nil where it is not.
func (a *App) lossLearner() perf.Learner {
	root, err := os.Getwd()
	if err != nil {
		return nil
	}
	library, err := xgb.Find(a.cfg.Trainer.Library, root)
	if err != nil {
		a.tel.Scope("drift").Log.Info("without XGBoost's library, the error of models of numbers is not estimated before labels come")
		return nil
	}
	return learnLosses(library)
}

// learnLosses grows the trees that LightGBM grows unless told otherwise, as
// NannyML has them.
func learnLosses(library string) perf.Learner {
	params := trainer.Params{Task: model.Regression, Rounds: 100, Threads: 1, Device: trainer.CPU, Metric: "rmse", Extra: map[string]string{
		"grow_policy": "lossguide", "max_leaves": "31", "max_depth": "0", "eta": "0.1", "min_child_weight": "20", "lambda": "0", "max_bin": "255"}}
	return func(ctx context.Context, in perf.Inputs, loss []float64) (perf.LossModel, error) {
		m := lossMatrix(in)
		m.Label = make([]float32, len(loss))
		for i, x := range loss {
			m.Label[i] = float32(x)
		}
		fitted, err := (&trainer.XGBoost{Library: library}).Fit(ctx, trainer.Data{Train: m}, params, trainer.Watch{})
		if err != nil {
			return nil, err
		}
		trees, err := tree.Read(fitted.Model, tree.DefaultLimits())
		if err != nil {
			return nil, fmt.Errorf("read the trees of a loss: %w", err)
		}
		return func(rows perf.Inputs) ([]float64, error) { return predictLosses(trees, rows) }, nil
	}
}

// lossMatrix is the inputs as the trainer takes them.
func lossMatrix(in perf.Inputs) *trainer.Matrix {
	m := &trainer.Matrix{Columns: make([]trainer.Column, len(in.Columns))}
	for i, c := range in.Columns {
		values := make([]float32, len(c.Values))
		for row, x := range c.Values {
			values[row] = float32(x)
		}
		m.Columns[i] = trainer.Column{Field: trainer.Field{Name: c.Name, Type: "Float64", Category: c.Categories > 0}, Values: values, Categories: make([]string, c.Categories)}
	}
	return m
}

func predictLosses(trees *tree.Ensemble, in perf.Inputs) ([]float64, error) {
	if trees.Features() != len(in.Columns) {
		return nil, fmt.Errorf("expect losses: %d inputs, want %d", len(in.Columns), trees.Features())
	}
	rows, answers := make([]float32, in.Rows*len(in.Columns)), make([]float32, in.Rows)
	for i, c := range in.Columns {
		for row, x := range c.Values {
			rows[row*len(in.Columns)+i] = float32(x)
		}
	}
	trees.Predict(answers, rows)
	out := make([]float64, in.Rows)
	for i, x := range answers {
		out[i] = float64(x)
	}
	return out, nil
}
