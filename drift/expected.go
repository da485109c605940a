package drift

import (
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/store"
)

// fitExpected fits what the model's own probabilities promise, where it states
// any.
func (f *fit) fitExpected(r *rows, worth Worth) (err error) {
	switch {
	case f.task == "binary":
		f.cbpe, err = perf.FitCBPE(r.rows(), worth.binary())
	case f.task == "multiclass" && r.classes.Proba != nil:
		f.classes = r.classes.Classes
		f.multi, err = perf.FitMultiCBPE(r.classes, worth.of(f.classes))
	}
	return err
}

// expected are the metrics that calibrated scores, or the inputs of a model of
// numbers, promise of predictions, with labels or without; an error says why
// there are none, although the reference had what they are made of.
func (f *fit) expected(o *store.Outcomes, sample *store.RowSample) (map[perf.Metric]perf.Estimate, error) {
	switch {
	case f.cbpe != nil:
		rows := perf.Rows{}
		for i, s := range o.Score {
			if !math.IsNaN(s) {
				rows.Score, rows.Predicted = append(rows.Score, s), append(rows.Predicted, s >= threshold(o.Threshold[i]))
			}
		}
		return f.cbpe.Estimate(rows)
	case f.multi != nil:
		return f.expectedClasses(o)
	case f.dle != nil:
		return f.expectedLosses(o, sample)
	}
	return nil, nil
}

// expectedClasses leaves out rows of a class that the reference never had, and
// answers nothing when they are many: they are another model's.
func (f *fit) expectedClasses(o *store.Outcomes) (map[perf.Metric]perf.Estimate, error) {
	number := map[string]int{}
	for i, c := range f.classes {
		number[c] = i
	}
	rows := perf.Classified{Classes: f.classes}
	for i, c := range o.Class {
		k, known := number[c]
		if p := chances(o.Scores[i], f.classes); known && p != nil {
			rows.Predicted, rows.Proba = append(rows.Predicted, k), append(rows.Proba, p)
		}
	}
	if len(rows.Predicted)*2 < len(o.Class) {
		return nil, &stat.NotComputable{Reason: stat.WrongData, Detail: fmt.Sprintf("%d of %d predictions have a class that the reference had, and scores", len(rows.Predicted), len(o.Class))}
	}
	e, err := f.multi.Estimate(rows)
	if err != nil {
		return nil, err
	}
	if len(f.classes) <= mostClasses {
		for i, row := range e.Confusion {
			for j, n := range row {
				e.Metrics[perf.Metric(confusionMetric(f.classes[i], f.classes[j]))] = n
			}
		}
	}
	return e.Metrics, nil
}
