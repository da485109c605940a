package drift_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
)

func normals(rng *rand.Rand, n int, mean float64) []float64 {
	xs := make([]float64, n)
	for i := range xs {
		xs[i] = mean + rng.NormFloat64()
	}
	return xs
}

// learnt is a baseline of 30 windows of 200 normal rows.
func learnt(t *testing.T, rng *rand.Rand) *drift.Baseline {
	t.Helper()
	rows := normals(rng, 6000, 0)
	g, err := dist.NumericGrid(rows, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var windows []drift.SlotWindow
	for from := 0; from < len(rows); from += 200 {
		windows = append(windows, drift.SlotWindow{Summary: dist.Summarize(g, rows[from:from+200])})
	}
	b, err := drift.LearnBaseline(g, windows, 1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOneDriftedColumnAmongManyIsNamedAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var columns []drift.Column
	for i := range 20 {
		b := learnt(t, rng)
		mean := 0.0
		if i == 7 {
			mean = 1.5
		}
		columns = append(columns, drift.Column{Name: string(rune('a' + i)), Baseline: b, Window: dist.Summarize(b.Grid, normals(rng, 200, mean)), Importance: 0.5})
	}
	for _, j := range drift.Judge(columns, 0, drift.DefaultOptions()) {
		want := j.Column == "h" && j.Detector == "ks"
		if j.Drifted != want {
			t.Errorf("%s %s: drifted %v, effect %.3f, floor %.3f, p %.3g", j.Column, j.Detector, j.Drifted, j.Effect, j.Floor, j.Adjusted)
		}
		if want && (j.Severity < control.Warning || !j.Learnt || j.Low > j.Effect || j.High < j.Effect) {
			t.Errorf("%+v", j)
		}
	}
}

// A column turning missing is found although its survivors look as before.
func TestAColumnTurningMissingIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	b := learnt(t, rng)
	w := dist.NewBuilder(b.Grid)
	for i := range 200 {
		if i%3 == 0 {
			w.AddMissing()
		} else {
			w.Add(rng.NormFloat64())
		}
	}
	for _, j := range drift.Judge([]drift.Column{{Name: "x", Baseline: b, Window: w.Summary()}}, 0, drift.DefaultOptions()) {
		if j.Drifted != (j.Detector == "missing_rate") {
			t.Errorf("%s: drifted %v (effect %.3f, floor %.3f)", j.Detector, j.Drifted, j.Effect, j.Floor)
		}
	}
}

func TestWindowsWithoutAnAnswerSayWhyAndChangeNothing(t *testing.T) {
	b := learnt(t, rand.New(rand.NewPCG(3, 3)))
	missing := dist.NewBuilder(b.Grid)
	for range 50 {
		missing.AddMissing()
	}
	other, _ := dist.EdgeGrid([]float64{0})
	cases := map[string]struct {
		window *dist.Summary
		shape  stat.Reason
	}{
		"empty":             {dist.Summarize(b.Grid, nil), stat.EmptyCurrent},
		"all missing":       {missing.Summary(), stat.EmptyCurrent},
		"another grid":      {dist.Summarize(other, []float64{1}), "failed"},
		"not finite at all": {dist.Summarize(b.Grid, []float64{math.NaN(), math.Inf(1)}), stat.EmptyCurrent},
	}
	for name, c := range cases {
		w := drift.NewWatch(drift.DefaultOptions(), control.DefaultPolicy())
		for _, f := range w.Take([]drift.Column{{Name: "x", Baseline: b, Window: c.window}}, 0, elecTime(0)) {
			if f.Detector == "ks" && (f.Reason != c.shape || f.Drifted || f.Calm) {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if s, ok := w.Incidents["x\x00ks"]; ok {
			t.Errorf("%s: the incident became %+v", name, s)
		}
	}
}

// Before the reference has windows the stated fallback decides: a tenth of the
// rows moved counts, a hundredth does not, however many rows prove it.
func TestFallbackFloorDecidesWithoutWindows(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	rows := normals(rng, 100_000, 0)
	g, _ := dist.NumericGrid(rows, dist.GridConfig{})
	b, err := drift.LearnBaseline(g, []drift.SlotWindow{{Summary: dist.Summarize(g, rows)}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for mean, want := range map[float64]bool{0.03: false, 0.25: true} {
		window := dist.Summarize(g, normals(rng, 100_000, mean))
		j := drift.Judge([]drift.Column{{Name: "x", Baseline: b, Window: window}}, 0, drift.DefaultOptions())[0]
		if j.Drifted != want || j.Learnt || j.P > 1e-6 {
			t.Errorf("shift %v: %+v", mean, j)
		}
	}
}

// A Sunday-night level at noon is news, although the whole reference knows it.
func TestSeasonFindsTheRightValueAtTheWrongHour(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	means := []float64{-2, -1, 0, 1, 2}
	var rows []float64
	var parts [][]float64
	for i := range 60 {
		part := normals(rng, 150, means[i%5])
		parts, rows = append(parts, part), append(rows, part...)
	}
	g, _ := dist.NumericGrid(rows, dist.GridConfig{})
	var windows []drift.SlotWindow
	for i, p := range parts {
		windows = append(windows, drift.SlotWindow{Slot: i % 5, Summary: dist.Summarize(g, p)})
	}
	b, err := drift.LearnBaseline(g, windows, 1)
	if err != nil {
		t.Fatal(err)
	}
	judge := func(slot int, mean float64) drift.Judgement {
		w := dist.Summarize(g, normals(rng, 150, mean))
		return drift.Judge([]drift.Column{{Name: "x", Baseline: b, Window: w}}, slot, drift.DefaultOptions())[0]
	}
	if j := judge(0, 0); !j.Drifted || !j.Seasonal {
		t.Errorf("noon at midnight: %+v", j)
	}
	for slot, mean := range means {
		if j := judge(slot, mean); j.Drifted {
			t.Errorf("slot %d as always: %+v", slot, j)
		}
	}
}
