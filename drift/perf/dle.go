package perf

import (
	"context"
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Inputs are what a model was asked, column by column.
type Inputs struct {
	Columns []InputColumn
	Rows    int
}

// InputColumn is one input of every row: a number, NaN where it is missing, or
// a category's code from 0.
type InputColumn struct {
	Name       string
	Values     []float64
	Categories int // how many codes there are; 0: the column holds numbers
}

// LossModel answers how large each row's loss is expected to be.
type LossModel func(rows Inputs) ([]float64, error)

// Learner fits a model of a loss, one a row. The last column that it is given
// is the prediction itself.
type Learner func(ctx context.Context, in Inputs, loss []float64) (LossModel, error)

// predictionColumn is the name under which the prediction is an input.
const predictionColumn = "(prediction)"

// DLE estimates a regression's metrics without labels (direct loss estimation,
// as NannyML 0.13 does it): a model of the loss, learnt on the reference from
// the inputs and the prediction, is averaged over a window's rows. It holds
// while the same inputs go with the same errors: it sees that rows moved to
// where the model is worse, not that the world changed.
type DLE struct {
	losses map[Metric]LossModel
	errors map[Metric]float64 // of one row, on the reference
}

// lossOf are the losses that models are learnt of. RMSE is the root of MSE's.
func lossOf(m Metric) func(y, h float64) float64 {
	switch m {
	case MAE:
		return func(y, h float64) float64 { return math.Abs(h - y) }
	case MAPE:
		return func(y, h float64) float64 { return math.Abs(h-y) / max(math.Abs(y), 0x1p-52) }
	}
	return func(y, h float64) float64 { return (h - y) * (h - y) }
}

// FitDLE learns on a reference with labels; in are the inputs of its rows.
func FitDLE(ctx context.Context, ref Regression, in Inputs, learn Learner) (*DLE, error) {
	if len(ref.Truth) == 0 {
		return nil, refuse(stat.EmptyReference, "no rows")
	}
	d := &DLE{losses: map[Metric]LossModel{}, errors: map[Metric]float64{}}
	whole := withPrediction(in, ref.Predicted)
	for _, m := range []Metric{MAE, MAPE, MSE} {
		f, err := learn(ctx, whole, ref.each(lossOf(m)))
		if err != nil {
			return nil, fmt.Errorf("learn the loss %s: %w", m, err)
		}
		d.losses[m] = f
	}
	for _, m := range []Metric{MAE, MAPE, MSE, RMSE} {
		d.errors[m] = ref.WindowStdErr(m, 1)
	}
	return d, nil
}

func withPrediction(in Inputs, predicted []float64) Inputs {
	columns := append(make([]InputColumn, 0, len(in.Columns)+1), in.Columns...)
	return Inputs{append(columns, InputColumn{Name: predictionColumn, Values: predicted}), len(predicted)}
}

// Estimate gives MAE, MAPE, MSE and RMSE of a window of at least one row.
func (d *DLE) Estimate(in Inputs, predicted []float64) (map[Metric]Estimate, error) {
	if len(predicted) == 0 {
		return nil, refuse(stat.EmptyCurrent, "no rows")
	}
	values := map[Metric]float64{}
	for m, f := range d.losses {
		loss, err := f(withPrediction(in, predicted))
		if err != nil {
			return nil, fmt.Errorf("expect the loss %s: %w", m, err)
		}
		for _, x := range loss {
			values[m] += max(x, 0) / float64(len(loss)) // a loss below nothing is the learner's fault
		}
	}
	values[RMSE] = math.Sqrt(values[MSE])
	out := make(map[Metric]Estimate, len(values))
	for m, v := range values {
		out[m] = band(m, v, math.Abs(d.errors[m])/math.Sqrt(float64(len(predicted))))
	}
	return out, nil
}
