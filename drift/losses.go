package drift

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
)

const (
	// lossCells bounds the rows × inputs that a model of losses is learnt from.
	lossCells = 4_000_000
	// lossCategories are how many values of an input are told apart; rarer ones
	// count as missing.
	lossCategories = 100
)

// lossInputs turn a model's inputs into what a learner takes: a text's values
// are numbered by how often the reference had them.
type lossInputs struct {
	numbers, texts []string
	codes          map[string]map[string]float64 // by text, then value
}

// inputsOf are the inputs that a table's predictions carry.
func inputsOf(sc *event.Schema) (in lossInputs) {
	for _, f := range sc.Fields {
		if f.Role != event.ValueRole || f.Type.List || identifier(f.Name) {
			continue
		}
		switch f.Type.Elem {
		case event.Bool, event.Int32, event.Int64, event.Float32, event.Float64:
			in.numbers = append(in.numbers, f.Name)
		case event.String:
			in.texts = append(in.texts, f.Name)
		}
	}
	return in
}

// rows is how many rows are read for so many inputs: with more than forty of
// them, a window's metrics too come from a smaller sample.
func (in *lossInputs) rows() int {
	return min(sampleRows, lossCells/(len(in.numbers)+len(in.texts)+1))
}

// learn numbers the values of texts.
func (in *lossInputs) learn(s *store.RowSample) {
	in.codes = map[string]map[string]float64{}
	for _, name := range in.texts {
		counts := map[string]int{}
		for _, v := range s.Texts[name] {
			if v != "" {
				counts[v]++
			}
		}
		values := make([]string, 0, len(counts))
		for v := range counts {
			values = append(values, v)
		}
		slices.SortFunc(values, func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
		in.codes[name] = map[string]float64{}
		for i, v := range values[:min(len(values), lossCategories)] {
			in.codes[name][v] = float64(i)
		}
	}
}

// of are some rows of a sample as a learner takes them.
func (in *lossInputs) of(s *store.RowSample, index []int) perf.Inputs {
	out := perf.Inputs{Rows: len(index)}
	add := func(name string, categories int, value func(row int) float64) {
		c := perf.InputColumn{Name: name, Categories: categories, Values: make([]float64, len(index))}
		for i, row := range index {
			c.Values[i] = value(row)
		}
		out.Columns = append(out.Columns, c)
	}
	for _, name := range in.numbers {
		add(name, 0, func(row int) float64 { return s.Numbers[name][row] })
	}
	for _, name := range in.texts {
		codes := in.codes[name]
		if len(codes) == 0 {
			continue
		}
		add(name, len(codes), func(row int) float64 {
			if code, ok := codes[s.Texts[name][row]]; ok {
				return code
			}
			return math.NaN()
		})
	}
	return out
}

// learnLosses fits what the inputs say about the errors of a model of numbers.
// A learner that fails costs the expected values, not the realised ones.
func (p *performance) learnLosses(ctx context.Context, f *fit, from, to time.Time) error {
	if f.task != "regression" || p.learner == nil {
		return nil
	}
	in := p.inputs
	o, sample, err := p.store.OutcomesWith(ctx, p.table, p.join(), nil, in.numbers, in.texts, from, to, in.rows())
	if err != nil {
		return err
	}
	p.silence(o)
	r := rowsOf(o, f.task)
	in.learn(sample)
	dle, err := perf.FitDLE(ctx, r.numbers, in.of(sample, r.index), p.learner)
	if err != nil {
		if ctx.Err() == nil {
			p.log.Warn("what a model's error will be is not estimated: its losses could not be learnt", "model", p.subject, telemetry.LogError, err)
		}
		return ctx.Err()
	}
	f.dle, f.inputs = dle, in
	return nil
}

// expectedLosses are the errors that the inputs of predictions promise, with
// labels or without.
func (f *fit) expectedLosses(o *store.Outcomes, sample *store.RowSample) (map[perf.Metric]perf.Estimate, error) {
	var index []int
	var predicted []float64
	for i, v := range o.Value {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			index, predicted = append(index, i), append(predicted, v)
		}
	}
	return f.dle.Estimate(f.inputs.of(sample, index), predicted)
}
