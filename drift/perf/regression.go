package perf

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Regression are rows of true and predicted numbers, without missing values.
type Regression struct{ Truth, Predicted []float64 }

func (r Regression) each(f func(y, h float64) float64) []float64 {
	out := make([]float64, len(r.Truth))
	for i, y := range r.Truth {
		out[i] = f(y, r.Predicted[i])
	}
	return out
}

func (r Regression) mean(f func(y, h float64) float64) (Value, error) {
	if len(r.Truth) == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	return meanOf(r.each(f)), nil
}

// ME is the mean of prediction minus truth.
func (r Regression) ME() (Value, error) { return r.mean(func(y, h float64) float64 { return h - y }) }

// MAE is the mean absolute error.
func (r Regression) MAE() (Value, error) {
	return r.mean(func(y, h float64) float64 { return math.Abs(h - y) })
}

// MSE is the mean squared error.
func (r Regression) MSE() (Value, error) {
	return r.mean(func(y, h float64) float64 { return (h - y) * (h - y) })
}

// RMSE is the root of MSE; its error is by the delta method.
func (r Regression) RMSE() (Value, error) {
	m, err := r.MSE()
	if err != nil || m.Value == 0 {
		return Value{}, err
	}
	root := math.Sqrt(m.Value)
	return Value{root, m.StdErr / (2 * root)}, nil
}

// MAPE is the mean absolute error relative to the truth, as a fraction; a truth
// of 0 counts as the resolution of doubles, as in scikit-learn.
func (r Regression) MAPE() (Value, error) {
	return r.mean(func(y, h float64) float64 { return math.Abs(h-y) / max(math.Abs(y), 0x1p-52) })
}

// MedAE is the median absolute error.
func (r Regression) MedAE() (Value, error) {
	return r.ordered(func(sorted []float64) float64 { return stat.Quantile(sorted, 0.5) })
}

// MaxError is the largest absolute error.
func (r Regression) MaxError() (Value, error) {
	return r.ordered(func(sorted []float64) float64 { return sorted[len(sorted)-1] })
}

func (r Regression) ordered(f func(sorted []float64) float64) (Value, error) {
	if len(r.Truth) == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	errs := r.each(func(y, h float64) float64 { return math.Abs(h - y) })
	slices.Sort(errs)
	return Value{Value: f(errs)}, nil
}

// Pinball is the mean quantile loss at a level.
func (r Regression) Pinball(level float64) (Value, error) {
	return r.mean(func(y, h float64) float64 { return max(level*(y-h), (level-1)*(y-h)) })
}

// R2 is the share of the truth's variance that the prediction explains. Its
// error is by the delta method on the squared errors.
func (r Regression) R2() (Value, error) {
	return r.explained(func(y, h float64) float64 { return y - h }, 0)
}

// ExplainedVariance is R2 after the mean error is taken out.
func (r Regression) ExplainedVariance() (Value, error) {
	me, err := r.ME()
	if err != nil {
		return Value{}, err
	}
	return r.explained(func(y, h float64) float64 { return y - h }, -me.Value)
}

func (r Regression) explained(residual func(y, h float64) float64, shift float64) (Value, error) {
	if len(r.Truth) < 2 {
		return Value{}, refuse(stat.TooFew, "explained variance needs two rows")
	}
	truth := stat.MomentsOf(r.Truth)
	n := float64(truth.N)
	if truth.Variance == 0 {
		return Value{}, refuse(stat.Constant, "the truth does not vary")
	}
	total := truth.Variance * (n - 1) / n
	ratio := meanOf(r.each(func(y, h float64) float64 { return square(residual(y, h) - shift) })).Value / total
	influence := meanOf(r.each(func(y, h float64) float64 {
		return (square(residual(y, h)-shift) - ratio*square(y-truth.Mean)) / total
	}))
	return Value{1 - ratio, influence.StdErr}, nil
}

func square(x float64) float64 { return x * x }

// Regression metrics that have a sampling error, by NannyML's names.
const (
	MAE  Metric = "mae"
	MSE  Metric = "mse"
	RMSE Metric = "rmse"
	MAPE Metric = "mape"
)

// WindowStdErr is the sampling error that a metric has in a window of so many
// rows like these. It is 0 for a metric without one.
func (r Regression) WindowStdErr(m Metric, rows int) float64 {
	var part func(y, h float64) float64
	switch m {
	case MAE:
		part = func(y, h float64) float64 { return math.Abs(y - h) }
	case MAPE:
		part = func(y, h float64) float64 { return math.Abs(y-h) / y }
	case MSE, RMSE:
		part = func(y, h float64) float64 { return (y - h) * (y - h) }
	default:
		return 0
	}
	parts := stat.MomentsOf(r.each(part))
	n := float64(parts.N)
	if n < 2 {
		return 0
	}
	stderr := math.Sqrt(parts.Variance * (n - 1) / n / float64(rows))
	if m == RMSE && parts.Mean > 0 {
		return stderr / (2 * math.Sqrt(parts.Mean))
	}
	return stderr
}
