package drift_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
)

func same[T any](n int, x T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = x
	}
	return out
}

// A column that stands still, or moves for the first time, is said to.
func TestAColumnThatStoppedIsSaidTo(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 7))
	moving, colours := normals(rng, 4000, 0), make([]string, 4000)
	for i := range colours {
		colours[i] = []string{"red", "green", "blue"}[i%3]
	}
	numbers := func(ref, cur []float64) drift.Column {
		g, err := dist.NumericGrid(ref, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return drift.Column{Name: "x", Baseline: &drift.Baseline{Grid: g, Reference: dist.Summarize(g, ref)}, Window: dist.Summarize(g, cur), Importance: 0.5}
	}
	texts := func(cur []string) drift.Column {
		g, err := dist.CategoryGrid(map[string]uint64{"red": 1334, "green": 1333, "blue": 1333}, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return drift.Column{Name: "x", Baseline: &drift.Baseline{Grid: g, Reference: dist.SummarizeCategories(g, colours)}, Window: dist.SummarizeCategories(g, cur), Importance: 0.5}
	}
	for name, c := range map[string]struct {
		column drift.Column
		says   string // "": nothing of the kind
	}{
		"a number that stands still":     {numbers(moving, same(500, 7.25)), "all 500 values are 7.25"},
		"a number that moves at last":    {numbers(same(4000, 3.0), normals(rng, 500, 3)), "it was always 3 in the reference"},
		"a number that moves elsewhere":  {numbers(moving, normals(rng, 500, 2)), ""},
		"a constant that is another":     {numbers(same(4000, 3.0), same(500, 4.0)), ""},
		"a category that stands still":   {texts(same(500, "green")), "all 500 values are green"},
		"new values, who knows how many": {texts(append(same(250, "pink"), same(250, "grey")...)), ""},
	} {
		j := drift.Judge([]drift.Column{c.column}, 0, drift.DefaultOptions())[0]
		s := drift.Sentence(c.column, j)
		if !j.Drifted || !strings.Contains(s, "x moved") {
			t.Errorf("%s: %s", name, s)
		}
		c.column.Names = true // of somebody: it moved, and no value of it is named
		if s := drift.Sentence(c.column, j); !strings.Contains(s, "x moved") || strings.Contains(s, "7.25") || strings.Contains(s, "always 3") || strings.Contains(s, "green") || strings.Contains(s, "mean") {
			t.Errorf("%s, of keys: %s", name, s)
		}
		if still := strings.Contains(s, "values are") || strings.Contains(s, "it was always"); still != (c.says != "") || !strings.Contains(s, c.says) {
			t.Errorf("%s: %q, want %q in it", name, s, c.says)
		}
	}
}
