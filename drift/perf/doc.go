// Package perf measures models: against labels (binary, multi-class and
// regression metrics, calibration, value, fairness), and without them (CBPE, DLE
// with a learner that is given to it).
//
// Promises: pure functions; values are scikit-learn's; each has a standard
// error where one is known; what does not exist for the data (one class, no
// prediction of a class) is [stat.NotComputable], never NaN.
// Units: shares in [0, 1]; losses in the label's units or nats.
// May not: read a clock, do I/O, know where labels come from.
package perf

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Value is a metric and the standard error that comes from how few rows there
// are. StdErr is 0 where it is not known.
type Value struct{ Value, StdErr float64 }

func refuse(r stat.Reason, detail string) error {
	return &stat.NotComputable{Reason: r, Detail: detail}
}

// meanOf is a mean with the error of its own rows.
func meanOf(xs []float64) Value {
	m := stat.MomentsOf(xs)
	if m.N < 2 {
		return Value{Value: m.Mean}
	}
	return Value{m.Mean, math.Sqrt(m.Variance / float64(m.N))}
}

// share is a proportion with its binomial error.
func share(hits, n float64) (Value, error) {
	if n <= 0 {
		return Value{}, refuse(stat.OneClass, "no row to divide by")
	}
	p := hits / n
	return Value{p, math.Sqrt(p * (1 - p) / n)}, nil
}
