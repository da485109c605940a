package perf

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Confusion is the binary confusion matrix. Counts are floats because estimates
// without labels are fractional.
type Confusion struct{ TP, FP, TN, FN float64 }

// Count builds the matrix of equally long labels and predictions.
func Count(truth, predicted []bool) Confusion {
	var c Confusion
	for i, y := range truth {
		switch {
		case y && predicted[i]:
			c.TP++
		case y:
			c.FN++
		case predicted[i]:
			c.FP++
		default:
			c.TN++
		}
	}
	return c
}

// Rows is the number of rows.
func (c Confusion) Rows() float64 { return c.TP + c.FP + c.TN + c.FN }

// Accuracy is the share of right predictions.
func (c Confusion) Accuracy() (Value, error) { return share(c.TP+c.TN, c.Rows()) }

// Precision is the share of positive predictions that are right.
func (c Confusion) Precision() (Value, error) { return share(c.TP, c.TP+c.FP) }

// Recall is the share of positives that were found (true positive rate).
func (c Confusion) Recall() (Value, error) { return share(c.TP, c.TP+c.FN) }

// Specificity is the share of negatives that were left alone.
func (c Confusion) Specificity() (Value, error) { return share(c.TN, c.TN+c.FP) }

// FalsePositiveRate is 1 minus Specificity.
func (c Confusion) FalsePositiveRate() (Value, error) { return share(c.FP, c.TN+c.FP) }

// SelectionRate is the share of rows predicted positive.
func (c Confusion) SelectionRate() (Value, error) { return share(c.TP+c.FP, c.Rows()) }

// F1 is the harmonic mean of precision and recall; its error is by the delta
// method on the multinomial counts.
func (c Confusion) F1() (Value, error) {
	d := 2*c.TP + c.FP + c.FN
	if d == 0 {
		return Value{}, refuse(stat.OneClass, "neither positives nor positive predictions")
	}
	f := 2 * c.TP / d
	slopeTP, slopeF := 2*(c.FP+c.FN)/(d*d), -2*c.TP/(d*d)
	mean := slopeTP*c.TP + slopeF*(c.FP+c.FN)
	variance := slopeTP*slopeTP*c.TP + slopeF*slopeF*(c.FP+c.FN) - mean*mean/c.Rows()
	return Value{f, math.Sqrt(max(variance, 0))}, nil
}

// BalancedAccuracy is the mean of recall and specificity.
func (c Confusion) BalancedAccuracy() (Value, error) {
	r, err := c.Recall()
	if err != nil {
		return Value{}, err
	}
	s, err := c.Specificity()
	return Value{(r.Value + s.Value) / 2, math.Hypot(r.StdErr, s.StdErr) / 2}, err
}

// MCC is Matthews' correlation; like scikit-learn it is 0 when a margin is
// empty.
func (c Confusion) MCC() (Value, error) {
	if c.Rows() == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	d := (c.TP + c.FP) * (c.TP + c.FN) * (c.TN + c.FP) * (c.TN + c.FN)
	if d == 0 {
		return Value{}, nil
	}
	return Value{Value: (c.TP*c.TN - c.FP*c.FN) / math.Sqrt(d)}, nil
}

// ValueMatrix is what each outcome is worth: rows are the truth, columns the
// prediction, [[TN, FP], [FN, TP]].
type ValueMatrix [2][2]float64

// Business is the total value of the outcomes, with the error of the sum.
func (c Confusion) Business(m ValueMatrix) Value {
	n := c.Rows()
	sum, squares := 0.0, 0.0
	for _, o := range [][2]float64{{c.TN, m[0][0]}, {c.FP, m[0][1]}, {c.FN, m[1][0]}, {c.TP, m[1][1]}} {
		sum += o[0] * o[1]
		squares += o[0] * o[1] * o[1]
	}
	if n == 0 {
		return Value{}
	}
	return Value{sum, math.Sqrt(max(squares-sum*sum/n, 0))}
}
