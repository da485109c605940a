package trainer

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
)

// elec reads the electricity market: half hours from 1996-05-07.
func elec(t testing.TB) *Matrix {
	t.Helper()
	f, err := os.Open(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := ReadCSV(f, Table{Label: "class", Start: time.Date(1996, 5, 7, 0, 0, 0, 0, time.UTC), Step: 30 * time.Minute}, DefaultBuilderConfig())
	if err != nil {
		t.Fatal(err)
	}
	if m.Rows() != 45312 || len(m.Columns) != 6 {
		t.Fatalf("%d rows of %d inputs", m.Rows(), len(m.Columns))
	}
	return m
}

// employment reads census people, spread evenly over their year.
func employment(t testing.TB, path string) *Matrix {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadParquet(f, info.Size(), Table{
		Label: "employed", Drop: []string{"id", "year", "prediction", "predicted_probability"},
		Start: time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC), Step: 365 * 24 * time.Hour / 68785,
	}, DefaultBuilderConfig())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Trained on the first third of the electricity market, a model does well on
// what follows at once, then falls behind as the market changes; trained again
// on the middle third, it recovers on the last.
func TestElecFallsAndRetrainingRecovers(t *testing.T) {
	x := xgboost(t)
	m := elec(t)
	third := m.Rows() / 3
	fit := func(from int) *Result {
		j := jobOn(m.Select(m.all()[from:]), x, Params{Rounds: 100, EarlyStop: 20, Device: Auto, Seed: 1, Extra: map[string]string{"max_depth": "6", "eta": "0.1"}})
		j.Name = "elec"
		j.Split = func(*Matrix) (Split, error) {
			return Split{TrainTo: time.UnixMicro(m.Time[from+third*85/100]), ValidTo: time.UnixMicro(m.Time[from+third])}, nil
		}
		res, err := Train(t.Context(), "me", j, Record{})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	first := fit(0)
	t.Logf("first third: validation %.3f, then test %.3f, baseline %.3f, refused %v", first.Run.Metrics["valid"]["logloss"],
		first.Run.Metrics["test"]["logloss"], first.Run.Metrics["baseline"]["logloss"], first.Run.Refused)
	if first.Run.Metrics["valid"]["logloss"] > 0.45 || first.Run.Metrics["test"]["logloss"] < 0.6 {
		t.Error("no fall to be seen")
	}
	stale := logloss(t, first, m, 2*third)
	second := fit(third)
	fresh := logloss(t, second, m, 2*third)
	t.Logf("last third: %.3f by the old model, %.3f by the new one", stale, fresh)
	if fresh > stale-0.05 {
		t.Errorf("retraining did not recover: %.3f, then %.3f", stale, fresh)
	}
}

// logloss measures a model on all rows from the given one on.
func logloss(t *testing.T, res *Result, m *Matrix, from int) float64 {
	t.Helper()
	p, err := res.Artifact.Predictor(model.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	part := m.Select(m.all()[from:])
	if err := Prepare(part, model.Binary); err != nil {
		t.Fatal(err)
	}
	metrics, err := Measure(part, model.Binary, PredictAll(p, part), nil)
	if err != nil {
		t.Fatal(err)
	}
	return metrics["logloss"]
}

// Trained on the people of 2015, a model is calibrated enough to be a candidate.
func TestEmploymentPassesItsGate(t *testing.T) {
	x := xgboost(t)
	path := testenv.Shared(t, "data/employment_MA_reference.pq")
	m := employment(t, path)
	max := 0.5
	j := jobOn(m, x, Params{Rounds: 60, EarlyStop: 10, Device: Auto, Seed: 1})
	j.Segments, j.Gate = []string{"SEX"}, Gate{Max: &max}
	res, err := Train(context.Background(), "me", j, Record{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows, test %v, baseline %v", m.Rows(), res.Run.Metrics["test"], res.Run.Metrics["baseline"])
	if !res.Run.Passed || res.Run.Metrics["test"]["auc"] < 0.85 || len(res.Report.Segments) != 2 {
		t.Errorf("passed %v (%v), segments %v", res.Run.Passed, res.Run.Refused, res.Report.Segments)
	}
	in := res.Artifact.Signature.Inputs
	t.Logf("%s has %d categories, most important is %s", in[1].Name, len(in[1].Categories), res.Report.Importance[0].Input)
}
