package drift_test

import (
	"errors"
	"math"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/stat"
	"pgregory.net/rapid"
)

func drawColumn(t *rapid.T, label string, least int) []float64 {
	value := rapid.OneOf(
		rapid.Map(rapid.IntRange(-3, 3), func(i int) float64 { return float64(i) }),
		rapid.Float64Range(-4, 4),
	)
	shift := rapid.Float64Range(-2, 2).Draw(t, label+" shift")
	xs := rapid.SliceOfN(value, least, 200).Draw(t, label)
	for i := range xs {
		xs[i] += math.Round(shift)
	}
	return xs
}

// The statistic of the rows lies in the interval that the summaries state.
func TestSummariesHoldTheRowsStatistic(t *testing.T) {
	rows := map[string]drift.RowDetector{}
	for _, d := range drift.RowDetectors() {
		rows[d.Name()] = d
	}
	rapid.Check(t, func(t *rapid.T) {
		ref, cur := drawColumn(t, "ref", 2), drawColumn(t, "cur", 2)
		g, err := dist.NumericGrid(ref, dist.GridConfig{Cells: rapid.IntRange(2, 40).Draw(t, "cells")})
		if err != nil {
			t.Fatal(err)
		}
		c, err := drift.Compare(g, dist.Summarize(g, ref), dist.Summarize(g, cur))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range drift.SummaryDetectors() {
			exact, ok := rows[d.Name()]
			if !ok {
				continue
			}
			got, err := d.Compare(c)
			want, rowErr := exact.CompareRows(ref, cur)
			if (err == nil) != (rowErr == nil) {
				if d.Name() != "anderson" { // one cell is one value to it
					t.Fatalf("%s: summaries %v, rows %v", d.Name(), err, rowErr)
				}
				continue
			}
			if math.Abs(want.Statistic) > 1e9 {
				continue // a quotient of rounding errors
			}
			slack := 1e-9 * (1 + math.Abs(want.Statistic))
			if err == nil && (want.Statistic < got.Low-slack || want.Statistic > got.High+slack) {
				t.Fatalf("%s: rows give %v, summaries %v in [%v, %v]", d.Name(), want.Statistic, got.Statistic, got.Low, got.High)
			}
		}
	})
}

// With the default grid the intervals are narrow enough to be of use.
func TestDefaultGridIntervalsAreNarrow(t *testing.T) {
	ref, cur := make([]float64, 20_000), make([]float64, 20_000)
	for i := range ref {
		ref[i] = math.Sin(float64(i)) * math.Exp(math.Cos(float64(i)*1.7))
		cur[i] = math.Sin(float64(i)*1.1)*math.Exp(math.Cos(float64(i)*1.3)) + 0.05
	}
	g, _ := dist.NumericGrid(ref, dist.GridConfig{})
	c, err := drift.Compare(g, dist.Summarize(g, ref), dist.Summarize(g, cur))
	if err != nil {
		t.Fatal(err)
	}
	ks, _ := c.KS()
	w, _ := c.Wasserstein()
	if ks.High-ks.Low > 0.01 {
		t.Errorf("KS in [%v, %v]", ks.Low, ks.High)
	}
	if w.High > 1.2*w.Low {
		t.Errorf("Wasserstein in [%v, %v]", w.Low, w.High)
	}
}

func TestEveryDetectorAnswersOnOddWindows(t *testing.T) {
	numbers, _ := dist.NumericGrid([]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, dist.GridConfig{})
	names, _ := dist.CategoryGrid(map[string]uint64{"a": 3, "b": 1}, dist.GridConfig{})
	empty := []*dist.Summary{dist.Summarize(numbers, nil), dist.SummarizeCategories(names, nil)}
	for i, g := range []*dist.Grid{numbers, names} {
		full := dist.Summarize(g, []float64{1, 2, 3})
		if g.Categorical() {
			full = dist.SummarizeCategories(g, []string{"a", "new"})
		}
		missing := dist.NewBuilder(g)
		missing.AddMissing()
		for _, pair := range [][2]*dist.Summary{{full, empty[i]}, {empty[i], full}, {full, missing.Summary()}, {full, full}, {empty[i], empty[i]}} {
			c, err := drift.Compare(g, pair[0], pair[1])
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range drift.SummaryDetectors() {
				r, err := d.Compare(c)
				var none *stat.NotComputable
				if err != nil && !errors.As(err, &none) {
					t.Errorf("%s: %v is no reason", d.Name(), err)
				}
				if math.IsNaN(r.Statistic) || math.IsNaN(r.P) || r.P < 0 || r.P > 1 {
					t.Errorf("%s: %+v", d.Name(), r)
				}
			}
		}
	}
}

func TestContributionsNameTheNewCategory(t *testing.T) {
	g, _ := dist.CategoryGrid(map[string]uint64{"a": 50, "b": 50}, dist.GridConfig{})
	window := append(make([]string, 0, 100), "a", "a", "b", "b", "new", "new", "new")
	c, _ := drift.Compare(g, dist.SummarizeCategories(g, []string{"a", "b"}), dist.SummarizeCategories(g, window))
	parts, err := c.Contributions(stat.JS)
	if err != nil {
		t.Fatal(err)
	}
	sum, largest := 0.0, drift.Contribution{}
	for _, p := range parts {
		sum += p.Part
		if p.Part > largest.Part {
			largest = p
		}
	}
	if largest.Label != "UNSEEN" || math.Abs(sum-1) > 1e-12 {
		t.Fatalf("contributions %+v", parts)
	}
}

// The reconstruction error misses case d26's broken correlation; the
// correlation distance finds it, and stays quiet between halves of a reference.
func TestCorrelationDistanceFindsTheBreakThatPCAMisses(t *testing.T) {
	for _, c := range loadCases(t) {
		if c.Kind != "pca" {
			continue
		}
		ref, cur := rowsOf(c, "ref"), rowsOf(c, "cur")
		half := len(cur) / 2
		broken, err := drift.CorrelationDistance(ref, cur[half:])
		if err != nil || broken.P > 1e-6 {
			t.Errorf("%s: broken correlations have p = %v (%v)", c.Name, broken.P, err)
		}
		calm, err := drift.CorrelationDistance(ref[:len(ref)/2], ref[len(ref)/2:])
		if err != nil || calm.P < 0.001 || calm.Statistic > broken.Statistic/2 {
			t.Errorf("%s: halves of the reference have %+v (%v)", c.Name, calm, err)
		}
	}
}
