package drift_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// The smallest distance that a preview promises is where the judgement of a tick
// begins to tell: a window a little farther out is told, one a little nearer is
// not, whether the floor decides, or chance, or that many columns are asked.
func TestSmallestDistanceIsWhereJudgingBegins(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for _, c := range []struct {
		name             string
		windows, rows, m int // of the reference; columns of the tick
		unrest           float64
		categories       int // 0: numbers
	}{
		{"chance decides", 10, 60, 1, 0, 0},
		{"chance, of many columns", 200, 60, 40, 0, 0},
		{"the stated distance", 10, 4000, 1, 0, 0},
		{"unrest", 40, 1000, 1, 0.3, 0},
		{"unrest, of many columns", 40, 1000, 20, 0.3, 0},
		{"categories", 10, 600, 1, 0, 6},
		{"categories of many columns", 10, 900, 20, 0, 6},
	} {
		baseline, cut := evenWorld(t, rng, c.windows, c.rows, c.unrest, c.categories)
		smallest := drift.SmallestDistance(baseline, float64(c.rows), 2*c.m, drift.DefaultOptions())
		for _, times := range []float64{0.8, 1.2} {
			columns := []drift.Column{{Name: "x", Baseline: baseline, Window: cut(times * smallest), Importance: 0.5}}
			for range c.m - 1 {
				columns = append(columns, drift.Column{Name: "still", Baseline: baseline, Window: baseline.Reference, Importance: 0.5})
			}
			j := drift.Judge(columns, 0, drift.DefaultOptions())[0]
			if math.Abs(j.Effect/smallest-times) > 0.08 {
				t.Fatalf("%s: the window was to be %.3g away and is %.3g", c.name, times*smallest, j.Effect)
			}
			if j.Drifted != (times > 1) {
				t.Errorf("%s: the smallest distance is said to be %.3g; a window %.3g away: drifted %v (p %.3g, adjusted %.3g, floor %.3g)", c.name, smallest, j.Effect, j.Drifted, j.P, j.Adjusted, j.Floor)
			}
		}
	}
}

// evenWorld is a reference whose windows' rows lie evenly, moved by as much as
// unrest says, and a maker of windows at a distance from all of it.
func evenWorld(t *testing.T, rng *rand.Rand, windows, rows int, unrest float64, categories int) (*drift.Baseline, func(distance float64) *dist.Summary) {
	t.Helper()
	grid, count := evenly(t, rows, categories)
	var parts []drift.SlotWindow
	for range windows {
		parts = append(parts, drift.SlotWindow{Summary: count(unrest*math.Abs(rng.NormFloat64())/2, rng)})
	}
	b, err := drift.LearnBaseline(grid, parts, 1)
	if err != nil {
		t.Fatal(err)
	}
	return b, func(distance float64) *dist.Summary {
		low, high := 0.0, 1.0
		for range 40 { // how many rows must move is found by trying
			moved := (low + high) / 2
			if at(t, b, count(moved, nil)) < distance {
				low = moved
			} else {
				high = moved
			}
		}
		return count(high, nil)
	}
}

// at is how far a window is from the whole reference.
func at(t *testing.T, b *drift.Baseline, w *dist.Summary) float64 {
	t.Helper()
	c, err := drift.Compare(b.Grid, b.Reference, w)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Shape(5)
	if err != nil {
		t.Fatal(err)
	}
	return r.Statistic
}

// evenly makes windows of which a share of the lowest rows is moved to the top;
// without a generator rows lie evenly and not by chance.
func evenly(t *testing.T, rows, categories int) (*dist.Grid, func(moved float64, rng *rand.Rand) *dist.Summary) {
	t.Helper()
	value := func(i int, moved float64, rng *rand.Rand) float64 {
		v := (float64(i) + 0.5) / float64(rows)
		if rng != nil {
			v = rng.Float64()
		}
		if v < moved {
			v = 0.999
		}
		return v
	}
	if categories > 0 {
		names := strings.Split("abcdefghij", "")[:categories]
		counts := map[string]uint64{}
		for _, n := range names {
			counts[n] = 1000
		}
		grid, err := dist.CategoryGrid(counts, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return grid, func(moved float64, rng *rand.Rand) *dist.Summary {
			texts := make([]string, rows)
			for i := range texts {
				texts[i] = names[int(value(i, moved, rng)*float64(categories))]
			}
			return dist.SummarizeCategories(grid, texts)
		}
	}
	sample := make([]float64, 10_000)
	for i := range sample {
		sample[i] = (float64(i) + 0.5) / 10_000
	}
	grid, err := dist.NumericGrid(sample, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return grid, func(moved float64, rng *rand.Rand) *dist.Summary {
		xs := make([]float64, rows)
		for i := range xs {
			xs[i] = value(i, moved, rng)
		}
		return dist.Summarize(grid, xs)
	}
}

// A reference in which a column moves is said to drift within itself, one that
// stands still is not; its length is held against the rhythms, and the false
// incidents of a policy are counted.
func TestPreviewOfAReference(t *testing.T) {
	m := newMinutes(t)
	define(t, m.reg, drift.MonitorKind, "early", `{"view":"user","season":"10m","reference":{"from":"2026-03-01T00:00:00Z","to":"2026-03-01T00:40:00Z"},"window":"1m"}`, "")
	m.add(20, 0)
	m.add(25, 1)
	m.sch.Look(t.Context(), time.Now().Add(time.Minute)) // nothing has come for a while
	p := ask(t, m.sch.Preview, query.Request{View: "user"})
	said := ""
	for _, n := range p.Notices {
		said += n.Severity + ": " + n.Text + "\n"
	}
	for _, want := range []string{"warning: amount drifts within its own reference: the halves are 0.3", "warning: the reference is 40m0s long: the rhythm of the day",
		"info: the reference is 40m0s long, 4.0 times its season of 10m0s: 10 of 10 windows of the season have been there 3 times",
		"info: where nothing drifts at most 14.4 windows a day have a drifted column; if windows are independent, 4.3 incidents in 30 days come of that"} {
		if !strings.Contains(said, want) {
			t.Errorf("not said: %s; but\n%s", want, said)
		}
	}
	if strings.Contains(said, "calm drifts") {
		t.Errorf("what stands still is said to drift: %s", said)
	}
	self, plain := values[*float64](t, p, "self_drift"), values[*float64](t, p, "a_plain_test_would_tell")
	if *self[0] < 0.3 || *self[1] > 0.1 || *plain[0] < 0.9 || *plain[1] > 0.3 {
		t.Errorf("halves are %v and %v apart, a plain test tells %v and %v", *self[0], *self[1], *plain[0], *plain[1])
	}
}
