package perf_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/drift/perf"
)

// losses holds NannyML's DLE on rows of its own making; testdata/dle.py wrote it.
type losses struct {
	Chunk    int
	Columns  []string
	Ref, Cur [][]any
	Loss     map[string][]float64
	Chunks   []map[string]any
}

// numbers are a column's.
func (l losses) numbers(rows [][]any, column string) []float64 {
	at := slices.Index(l.Columns, column)
	out := make([]float64, len(rows))
	for i, r := range rows {
		out[i] = r[at].(float64)
	}
	return out
}

// What follows from a learner's word on every row is NannyML's, with the word of
// NannyML's own learners (testdata/dle.py).
func TestLossesBecomeNannyMLsEstimates(t *testing.T) {
	raw, err := os.ReadFile("testdata/dle.json")
	if err != nil {
		t.Fatal(err)
	}
	var g losses
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	ref := perf.Regression{Truth: g.numbers(g.Ref, "y"), Predicted: g.numbers(g.Ref, "h")}
	from := 0
	asked := map[string]int{}
	names := []string{"mae", "mape", "mse"} // in the order in which FitDLE asks for them
	learner := func(_ context.Context, in perf.Inputs, loss []float64) (perf.LossModel, error) {
		if last := in.Columns[len(in.Columns)-1]; last.Values[0] != ref.Predicted[0] || in.Rows != len(loss) {
			t.Errorf("the last of %d inputs is %s, want the prediction", len(in.Columns), last.Name)
		}
		name := names[len(asked)]
		asked[name]++
		return func(rows perf.Inputs) ([]float64, error) { return g.Loss[name][from : from+rows.Rows], nil }, nil
	}
	d, err := perf.FitDLE(t.Context(), ref, perf.Inputs{}, learner)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i, want := range g.Chunks {
		from = i * g.Chunk
		got, err := d.Estimate(perf.Inputs{}, g.numbers(g.Cur, "h")[from:from+g.Chunk])
		if err != nil {
			t.Fatal(err)
		}
		for key, raw := range want {
			metric, member, _ := strings.Cut(key, "/")
			e := got[perf.Metric(metric)]
			have, ok := map[string]float64{"value": e.Value, "sampling_error": e.StdErr, "upper_confidence_boundary": e.Upper, "lower_confidence_boundary": e.Lower}[member]
			w, number := raw.(float64)
			if !ok || !number {
				continue
			}
			seen++
			if math.Abs(have-w) > 1e-8*math.Abs(w) {
				t.Errorf("chunk %d: %s = %v, NannyML has %v", i, key, have, w)
			}
		}
	}
	if seen != 48 {
		t.Errorf("%d members compared, want 48", seen)
	}
}

// A learner that fails is an error, no rows are a reason, and a loss below
// nothing counts as none.
func TestLossesThatCannotBe(t *testing.T) {
	broken := errors.New("out of memory")
	ref := perf.Regression{Truth: []float64{1, 2}, Predicted: []float64{1, 3}}
	if _, err := perf.FitDLE(t.Context(), ref, perf.Inputs{}, func(context.Context, perf.Inputs, []float64) (perf.LossModel, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
	below := func(context.Context, perf.Inputs, []float64) (perf.LossModel, error) {
		return func(rows perf.Inputs) ([]float64, error) { return []float64{-4, 1}, nil }, nil
	}
	d, err := perf.FitDLE(t.Context(), ref, perf.Inputs{}, below)
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.Estimate(perf.Inputs{}, []float64{1, 2})
	if err != nil || e[perf.MAE].Value != 0.5 || e[perf.RMSE].Value != math.Sqrt(0.5) || e[perf.MAE].Lower != 0 {
		t.Errorf("estimate %+v, %v", e, err)
	}
	if _, err := d.Estimate(perf.Inputs{}, nil); err == nil {
		t.Error("an estimate of no rows")
	}
	if _, err := perf.FitDLE(t.Context(), perf.Regression{}, perf.Inputs{}, below); err == nil {
		t.Error("a fit on no rows")
	}
}
