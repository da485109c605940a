package perf

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// MultiCBPE estimates a multi-class model's metrics from its probabilities
// alone: every class is calibrated against the rest where that helps, the
// probabilities of a row are made to add up to 1 again, and one-versus-rest
// estimates are averaged (NannyML's CBPE, classification_multiclass).
type MultiCBPE struct {
	Calibrators []*Isotonic // nil where a class needs none
	Value       [][]float64 // worth of each truth × prediction; may be nil
	rules       map[Metric][]errorRule
	accuracy    errorRule
	business    errorRule
	cells       [][]errorRule
}

// FitMultiCBPE fits on a reference with labels and probabilities.
func FitMultiCBPE(ref Classified, value [][]float64) (*MultiCBPE, error) {
	if len(ref.Truth) == 0 {
		return nil, refuse(stat.EmptyReference, "no rows")
	}
	c := &MultiCBPE{Value: value, rules: map[Metric][]errorRule{}}
	for class := range ref.Classes {
		s := ref.scored(class)
		var f *Isotonic
		if needsCalibration(s.Score, s.Truth) {
			f = FitIsotonic(s.Score, numbers(s.Truth))
		}
		c.Calibrators = append(c.Calibrators, f)
		c.addRules(ref, class, s)
	}
	c.wholeRules(ref)
	return c, nil
}

// addRules keeps one class's part of the class-wise errors.
func (c *MultiCBPE) addRules(ref Classified, class int, s Scored) {
	m, n := ref.OneVsRest(class), float64(len(ref.Truth))
	for metric, rule := range map[Metric]errorRule{
		ROCAUC:           aucError(s.Score, s.Truth),
		AveragePrecision: apError(Rows{Score: s.Score, Truth: s.Truth}),
		F1:               hitError(m.TP, m.FP+m.FN, n),
		Precision:        hitError(m.TP, m.FP, n),
		Recall:           hitError(m.TP, m.FN, n),
		Specificity:      hitError(m.TN, m.FP, n),
	} {
		c.rules[metric] = append(c.rules[metric], rule)
	}
}

func (c *MultiCBPE) wholeRules(ref Classified) {
	n := float64(len(ref.Truth))
	hits, worth := 0.0, []float64{}
	for i, y := range ref.Truth {
		if y == ref.Predicted[i] {
			hits++
		}
		if c.Value != nil {
			worth = append(worth, c.Value[y][ref.Predicted[i]])
		}
	}
	c.accuracy = hitError(hits, n-hits, n)
	c.business = errorRule{std: math.Sqrt(stat.MomentsOf(worth).Variance), sum: true, known: c.Value != nil}
	for _, row := range ref.Matrix() {
		rules := make([]errorRule, len(row))
		for j, count := range row {
			rules[j] = countError(count, n)
		}
		c.cells = append(c.cells, rules)
	}
}

// stdErr puts class-wise errors together as NannyML does: as the error of a
// mean of independent classes, widened by a fifth for ROC AUC, and as the root
// mean square for average precision.
func (c *MultiCBPE) stdErr(m Metric, rows int) float64 {
	sum, k := 0.0, float64(len(c.rules[m]))
	for _, r := range c.rules[m] {
		e := r.at(rows)
		sum += e * e
	}
	switch m {
	case ROCAUC:
		return math.Sqrt(sum) / k * 1.2
	case AveragePrecision:
		return math.Sqrt(sum / k)
	}
	return math.Sqrt(sum) / k
}

// MultiEstimate is what MultiCBPE answers for a window. Confusion[i][j] is the
// expected number of rows of class i predicted as j.
type MultiEstimate struct {
	Metrics   map[Metric]Estimate
	Confusion [][]Estimate
}

// Estimate gives every metric of a window of at least one row.
func (c *MultiCBPE) Estimate(rows Classified) (MultiEstimate, error) {
	n := len(rows.Predicted)
	if n == 0 {
		return MultiEstimate{}, refuse(stat.EmptyCurrent, "no rows")
	}
	p := c.calibrate(rows)
	out := MultiEstimate{Metrics: map[Metric]Estimate{}}
	for m, v := range classMeans(rows, p) {
		out.Metrics[m] = band(m, v, c.stdErr(m, n))
	}
	cells := expectedMatrix(rows, p)
	hits, worth := 0.0, 0.0
	for i := range cells {
		hits += cells[i][i]
		var line []Estimate
		for j, v := range cells[i] {
			line = append(line, band(TruePositive, v, c.cells[i][j].at(n)))
			if c.Value != nil {
				worth += v * c.Value[i][j]
			}
		}
		out.Confusion = append(out.Confusion, line)
	}
	out.Metrics[Accuracy] = band(Accuracy, hits/float64(n), c.accuracy.at(n))
	if c.Value != nil {
		out.Metrics[BusinessValue] = band(BusinessValue, worth, c.business.at(n))
	}
	return out, nil
}

// calibrate maps each class's probability and makes rows add up to 1; a row of
// zeros becomes uniform.
func (c *MultiCBPE) calibrate(rows Classified) [][]float64 {
	out := make([][]float64, len(rows.Proba))
	for i, row := range rows.Proba {
		out[i] = make([]float64, len(row))
		sum := 0.0
		for k, v := range row {
			if f := c.Calibrators[k]; f != nil {
				v = f.At(v)
			}
			out[i][k] = v
			sum += v
		}
		for k := range row {
			if sum == 0 {
				out[i][k] = 1 / float64(len(row))
			} else {
				out[i][k] /= sum
			}
		}
	}
	return out
}

func expectedMatrix(rows Classified, p [][]float64) [][]float64 {
	m := make([][]float64, len(rows.Classes))
	for i := range m {
		m[i] = make([]float64, len(rows.Classes))
	}
	for r, j := range rows.Predicted {
		for i, v := range p[r] {
			m[i][j] += v
		}
	}
	return m
}

// classMeans averages the one-versus-rest estimates; a class without expected
// rows counts 0.
func classMeans(rows Classified, p [][]float64) map[Metric]float64 {
	out := map[Metric]float64{ROCAUC: 0, AveragePrecision: 0, F1: 0, Precision: 0, Recall: 0, Specificity: 0}
	k := float64(len(rows.Classes))
	for class := range rows.Classes {
		q, raw, predicted := classColumns(rows, p, class)
		m := expectedConfusion(q, predicted)
		for metric, f := range map[Metric]func() (Value, error){F1: m.F1, Precision: m.Precision, Recall: m.Recall, Specificity: m.Specificity} {
			v, _ := f()
			out[metric] += v.Value / k
		}
		auc, _ := expectedAUC(q, raw)
		ap, _ := expectedAP(q, raw)
		out[ROCAUC] += auc / k
		out[AveragePrecision] += ap / k
	}
	return out
}

func classColumns(rows Classified, p [][]float64, class int) (calibrated, raw []float64, predicted []bool) {
	for i := range rows.Predicted {
		calibrated = append(calibrated, p[i][class])
		raw = append(raw, rows.Proba[i][class])
		predicted = append(predicted, rows.Predicted[i] == class)
	}
	return calibrated, raw, predicted
}
