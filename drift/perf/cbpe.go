package perf

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Metric names a metric that CBPE or DLE estimates.
type Metric string

// Metrics, by NannyML's names.
const (
	ROCAUC           Metric = "roc_auc"
	AveragePrecision Metric = "average_precision"
	F1               Metric = "f1"
	Precision        Metric = "precision"
	Recall           Metric = "recall"
	Specificity      Metric = "specificity"
	Accuracy         Metric = "accuracy"
	TruePositive     Metric = "true_positive"
	TrueNegative     Metric = "true_negative"
	FalsePositive    Metric = "false_positive"
	FalseNegative    Metric = "false_negative"
	BusinessValue    Metric = "business_value"
)

// bandWidth is how many standard errors a band reaches to each side.
const bandWidth = 3

// Estimate is an expected metric without labels. StdErr is the sampling error
// that a window of this size has on the reference; the band is three of them
// wide to each side, cut to what the metric can be.
type Estimate struct {
	Value, StdErr float64
	Lower, Upper  float64
}

// Rows are a binary model's answers with, on the reference, the truth.
type Rows struct {
	Score     []float64
	Predicted []bool
	Truth     []bool // reference and realised metrics only
}

func (r Rows) scored() Scored { return Scored{r.Score, r.Truth} }

// Slice is a half-open range of rows.
func (r Rows) Slice(from, to int) Rows {
	out := Rows{Score: r.Score[from:to], Predicted: r.Predicted[from:to]}
	if r.Truth != nil {
		out.Truth = r.Truth[from:to]
	}
	return out
}

// CBPE estimates a binary classifier's metrics from its scores alone
// (confidence-based performance estimation, as NannyML 0.13 does it): scores
// are calibrated on the reference where that helps, and expected outcomes are
// summed. It holds while scores stay calibrated: it sees that rows moved, not
// that the world changed.
type CBPE struct {
	Calibrator *Isotonic // nil when the scores are calibrated as they are
	Value      ValueMatrix
	errors     map[Metric]errorRule
}

// errorRule is a metric's deviation on the reference and how it scales.
type errorRule struct {
	std      float64
	fraction float64 // share of rows that count for the metric
	sum      bool    // the metric grows with the rows
	known    bool
}

func (e errorRule) at(rows int) float64 {
	if !e.known {
		return 0
	}
	if e.sum {
		return e.std * math.Sqrt(float64(rows))
	}
	return e.std / math.Sqrt(float64(rows)*e.fraction)
}

// FitCBPE fits on a reference with labels.
func FitCBPE(ref Rows, value ValueMatrix) (*CBPE, error) {
	if len(ref.Score) == 0 {
		return nil, refuse(stat.EmptyReference, "no rows")
	}
	c := &CBPE{Value: value}
	outcomes := numbers(ref.Truth)
	if needsCalibration(ref.Score, ref.Truth) {
		c.Calibrator = FitIsotonic(ref.Score, outcomes)
	}
	c.errors = samplingErrors(ref, value)
	return c, nil
}

func numbers(truth []bool) []float64 {
	out := make([]float64, len(truth))
	for i, y := range truth {
		out[i] = float64(index(y))
	}
	return out
}

// Metrics lists what Estimate and Realized answer.
func Metrics() []Metric {
	return []Metric{ROCAUC, AveragePrecision, F1, Precision, Recall, Specificity, Accuracy,
		TruePositive, TrueNegative, FalsePositive, FalseNegative, BusinessValue}
}

// Bounds is the range a metric can take.
func (m Metric) Bounds() (low, high float64) {
	switch m {
	case BusinessValue:
		return math.Inf(-1), math.Inf(1)
	case TruePositive, TrueNegative, FalsePositive, FalseNegative, MAE, MAPE, MSE, RMSE:
		return 0, math.Inf(1)
	}
	return 0, 1
}

// Estimate gives every metric of a window of at least one row. A metric whose
// denominator is expected to be empty is missing.
func (c *CBPE) Estimate(rows Rows) (map[Metric]Estimate, error) {
	if len(rows.Score) == 0 {
		return nil, refuse(stat.EmptyCurrent, "no rows")
	}
	p := rows.Score
	if c.Calibrator != nil {
		p = c.Calibrator.All(rows.Score)
	}
	values := fromConfusion(expectedConfusion(p, rows.Predicted), c.Value)
	if auc, ok := expectedAUC(p, rows.Score); ok {
		values[ROCAUC] = auc
	}
	if ap, ok := expectedAP(p, rows.Score); ok {
		values[AveragePrecision] = ap
	}
	out := make(map[Metric]Estimate, len(values))
	for m, v := range values {
		out[m] = band(m, v, c.errors[m].at(len(rows.Score)))
	}
	return out, nil
}

func band(m Metric, v, stderr float64) Estimate {
	low, high := m.Bounds()
	return Estimate{v, stderr, max(low, v-bandWidth*stderr), min(high, v+bandWidth*stderr)}
}

// StdErr is the sampling error that a metric has in a window of so many rows.
func (c *CBPE) StdErr(m Metric, rows int) float64 { return c.errors[m].at(rows) }

// Realized gives every metric of rows with labels; those that do not exist are
// missing: F1, precision and recall need both classes among labels and among
// predictions.
func Realized(rows Rows, value ValueMatrix) map[Metric]float64 {
	c := Count(rows.Truth, rows.Predicted)
	values := fromConfusion(c, value)
	if (c.TP+c.FN)*(c.TN+c.FP) == 0 || (c.TP+c.FP)*(c.TN+c.FN) == 0 {
		for _, m := range []Metric{F1, Precision, Recall} {
			delete(values, m)
		}
	}
	if v, err := rows.scored().ROCAUC(); err == nil {
		values[ROCAUC] = v.Value
	}
	if v, err := rows.scored().AveragePrecision(); err == nil {
		values[AveragePrecision] = v.Value
	}
	return values
}

func fromConfusion(c Confusion, value ValueMatrix) map[Metric]float64 {
	out := map[Metric]float64{TruePositive: c.TP, TrueNegative: c.TN, FalsePositive: c.FP, FalseNegative: c.FN,
		BusinessValue: c.Business(value).Value}
	for m, f := range map[Metric]func() (Value, error){F1: c.F1, Precision: c.Precision, Recall: c.Recall,
		Specificity: c.Specificity, Accuracy: c.Accuracy} {
		if v, err := f(); err == nil {
			out[m] = v.Value
		}
	}
	return out
}

// expectedConfusion adds up the probabilities of each outcome.
func expectedConfusion(p []float64, predicted []bool) Confusion {
	var c Confusion
	for i, q := range p {
		if predicted[i] {
			c.TP, c.FP = c.TP+q, c.FP+1-q
		} else {
			c.FN, c.TN = c.FN+q, c.TN+1-q
		}
	}
	return c
}

// descending orders calibrated probabilities by the model's own score. Rows of
// equal scores share their mean, so that the order of rows does not matter.
func descending(p, score []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case score[a] > score[b]:
			return -1
		case score[a] < score[b]:
			return 1
		}
		return 0
	})
	out := make([]float64, len(p))
	for from := 0; from < len(order); {
		to, sum := from, 0.0
		for to < len(order) && score[order[to]] == score[order[from]] {
			sum += p[order[to]]
			to++
		}
		for i := from; i < to; i++ {
			out[i] = sum / float64(to-from)
		}
		from = to
	}
	return out
}

// expectedAUC is the area under the curve of expected positives and negatives,
// whose cumulative counts NannyML rounds to five decimals.
func expectedAUC(p, score []float64) (float64, bool) {
	ordered := descending(p, score)
	tps, fps := make([]float64, len(p)+1), make([]float64, len(p)+1)
	sum := 0.0
	for i, q := range ordered {
		sum += q
		tps[i+1], fps[i+1] = round5(sum), round5(float64(i+1)-sum)
	}
	pos, neg := tps[len(p)], fps[len(p)]
	if pos == 0 || neg == 0 {
		return 0, false
	}
	area := 0.0
	for i := range p {
		area += (fps[i+1] - fps[i]) / neg * (tps[i+1] + tps[i]) / pos / 2
	}
	return area, true
}

func expectedAP(p, score []float64) (float64, bool) {
	ordered := descending(p, score)
	tps := make([]float64, len(p)+1)
	sum := 0.0
	for i, q := range ordered {
		sum += q
		tps[i+1] = round5(sum)
	}
	pos := tps[len(p)]
	if pos == 0 {
		return 0, false
	}
	ap := 0.0
	for i := range p {
		ap += (tps[i+1] - tps[i]) / pos * tps[i+1] / float64(i+1)
	}
	return ap, true
}

func round5(x float64) float64 { return math.RoundToEven(x*1e5) / 1e5 }
