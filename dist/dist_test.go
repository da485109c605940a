package dist

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// columns draws samples with what real columns have: ties, gaps, missing and
// infinite values.
func columns(t *rapid.T, label string) []float64 {
	value := rapid.OneOf(
		rapid.Float64Range(-1e6, 1e6),
		rapid.Map(rapid.IntRange(-3, 3), func(i int) float64 { return float64(i) }),
		rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1e-300}),
	)
	return rapid.SliceOfN(value, 0, 400).Draw(t, label)
}

func drawGrid(t *rapid.T) *Grid {
	sample := append(columns(t, "reference"), 1, 2)
	g, err := NumericGrid(sample, GridConfig{Cells: rapid.IntRange(2, 64).Draw(t, "cells")})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func close(a, b, scale float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(scale)) }

// same compares what must be exact exactly and sums within rounding.
func same(a, b *Summary) error {
	x, y := *a, *b
	x.Sum, x.M2, x.Weight, x.Cells = y.Sum, y.M2, y.Weight, y.Cells
	if fmt.Sprintf("%+v", x) != fmt.Sprintf("%+v", y) {
		return fmt.Errorf("counts differ:\n%+v\n%+v", *a, *b)
	}
	if !close(a.Sum, b.Sum, 1e6) || !close(a.M2, b.M2, math.Max(a.M2, 1e6)) || !close(a.Weight, b.Weight, a.Weight) {
		return fmt.Errorf("sums differ: %v %v, %v %v", a.Sum, b.Sum, a.M2, b.M2)
	}
	if len(a.Cells) != len(b.Cells) {
		return fmt.Errorf("%d cells and %d", len(a.Cells), len(b.Cells))
	}
	for i, c := range a.Cells {
		if d := b.Cells[i]; c.Index != d.Index || c.Count != d.Count || !close(c.Sum, d.Sum, 1e6) {
			return fmt.Errorf("cell %v and %v", c, d)
		}
	}
	return nil
}

// brute counts the slow way: every cell asks every value.
func brute(g *Grid, xs []float64) *Summary {
	s := &Summary{GridID: g.ID(), Weight: float64(len(xs))}
	var ok []float64
	for _, x := range xs {
		switch {
		case math.IsNaN(x):
			s.NaN++
		case math.IsInf(x, 1):
			s.PosInf++
		case math.IsInf(x, -1):
			s.NegInf++
		default:
			ok = append(ok, x)
			s.Distinct.Hashes = append(s.Distinct.Hashes, HashFloat(x))
		}
	}
	slices.Sort(s.Distinct.Hashes)
	s.Distinct.Hashes = slices.Compact(s.Distinct.Hashes)
	if len(s.Distinct.Hashes) > DistinctSize {
		s.Distinct.Hashes = s.Distinct.Hashes[:DistinctSize]
	}
	s.Count = uint64(len(ok))
	for _, x := range ok {
		s.Sum += x
	}
	for _, x := range ok {
		s.M2 += (x - s.Sum/float64(len(ok))) * (x - s.Sum/float64(len(ok)))
	}
	if len(ok) > 0 {
		s.Min, s.Max = slices.Min(ok), slices.Max(ok)
	}
	for i := range g.Cells() {
		lo, hi := g.Bounds(i)
		c := Cell{Index: uint32(i)}
		for _, x := range ok {
			if lo <= x && x < hi {
				c.Count++
				c.Sum += x
			}
		}
		if c.Count > 0 {
			s.Cells = append(s.Cells, c)
		}
	}
	return s
}

func TestSummaryCountsLikeBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrid(t)
		xs := columns(t, "window")
		if err := same(Summarize(g, xs), brute(g, xs)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMergeIsTheSummaryOfAllRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrid(t)
		a, b, c := columns(t, "a"), columns(t, "b"), columns(t, "c")
		whole := Summarize(g, slices.Concat(a, b, c))
		left := merged(t, merged(t, Summarize(g, a), Summarize(g, b)), Summarize(g, c))
		right := merged(t, Summarize(g, c), merged(t, Summarize(g, b), Summarize(g, a)))
		for _, got := range []*Summary{left, right} {
			if err := same(got, whole); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func merged(t *rapid.T, a, b *Summary) *Summary {
	out := *a
	if err := out.Merge(b); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestMergeRefusesAnotherGrid(t *testing.T) {
	a, _ := EdgeGrid([]float64{1})
	b, _ := EdgeGrid([]float64{2})
	s := Summarize(a, []float64{0, 3})
	if err := s.Merge(Summarize(b, []float64{0})); !errors.Is(err, ErrGridMismatch) {
		t.Fatalf("merging across grids answered %v", err)
	}
	if err := s.Merge(&Summary{}); err != nil || s.Count != 2 {
		t.Fatalf("merging nothing: %v, count %d", err, s.Count)
	}
	empty := Summary{}
	if err := empty.Merge(s); err != nil || empty.GridID != a.ID() || empty.Min != 0 || empty.Max != 3 {
		t.Fatalf("merging into nothing: %v, %+v", err, empty)
	}
}

func TestMergeLeavesItsArgumentsCellsAlone(t *testing.T) {
	g, _ := EdgeGrid([]float64{1, 2, 3})
	a, b := Summarize(g, []float64{0, 1.5}), Summarize(g, []float64{2.5, 0})
	before := fmt.Sprint(b.Cells, b.Distinct)
	_ = a.Merge(b)
	_ = a.Merge(b)
	if got := fmt.Sprint(b.Cells, b.Distinct); got != before {
		t.Fatalf("other became %s, was %s", got, before)
	}
}

func TestHugeCountsStayExact(t *testing.T) {
	g, _ := EdgeGrid([]float64{0})
	a := &Summary{GridID: g.ID(), Count: 1 << 60, Cells: []Cell{{0, 1<<60 - 1, 0}, {1, 1, 0}}}
	for range 7 {
		if err := a.Merge(&Summary{GridID: g.ID(), Count: 3, Cells: []Cell{{0, 3, 0}}}); err != nil {
			t.Fatal(err)
		}
	}
	if a.Count != 1<<60+21 || a.Cells[0].Count != 1<<60+20 {
		t.Fatalf("count %d, cell %d", a.Count, a.Cells[0].Count)
	}
}

func TestGridCellsHoldEqualMassAndAtoms(t *testing.T) {
	xs := make([]float64, 0, 30_000)
	for i := range 20_000 {
		xs = append(xs, float64(i)*0.37)
	}
	for range 10_000 {
		xs = append(xs, 42)
	}
	g, err := NumericGrid(xs, GridConfig{Cells: 100})
	if err != nil {
		t.Fatal(err)
	}
	if c := g.Cell(42); !g.Atom(c) || g.Label(c) != "= 42" {
		t.Fatalf("42 fell into %q", g.Label(c))
	}
	for _, c := range Summarize(g, xs).Cells {
		if !g.Atom(int(c.Index)) && c.Count > 201 {
			t.Fatalf("cell %s holds %d of 20,000 spread over 100 cells", g.Label(int(c.Index)), c.Count)
		}
	}
	again, _ := NumericGrid(xs, GridConfig{Cells: 100})
	finer, _ := NumericGrid(xs, GridConfig{Cells: 101})
	if again.ID() != g.ID() || finer.ID() == g.ID() {
		t.Fatal("a grid's identity does not follow its content")
	}
}

func TestFewValuesMakeALosslessGrid(t *testing.T) {
	xs := []float64{3, 1, 2, 2, 3, 3}
	g, err := NumericGrid(xs, GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Summarize(g, xs).Cells {
		if !g.Atom(int(c.Index)) {
			t.Fatalf("cell %s is no atom", g.Label(int(c.Index)))
		}
	}
}

func TestCategoriesKnowOtherFromUnseen(t *testing.T) {
	counts := map[string]uint64{}
	for i := range 30 {
		counts[fmt.Sprintf("c%02d", i)] = uint64(100 - i)
	}
	g, err := CategoryGrid(counts, GridConfig{Categories: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"c00": 0, "c09": 9, "c10": g.Other(), "c29": g.Other(), "new": g.Unseen(), "": g.Unseen()}
	for name, cell := range want {
		if got := g.CategoryCell(name); got != cell {
			t.Errorf("%q fell into %s, want %s", name, g.Label(got), g.Label(cell))
		}
	}
}

func TestBadConfigsAndSamplesAreRefused(t *testing.T) {
	bad := []GridConfig{{Cells: 1}, {Cells: MaxCells + 1}, {AtomMass: 1}, {AtomMass: math.NaN()}, {Categories: -1}}
	for _, cfg := range bad {
		if _, err := NumericGrid([]float64{1, 2}, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	for _, sample := range [][]float64{nil, {math.NaN(), math.Inf(1)}} {
		if _, err := NumericGrid(sample, GridConfig{}); !errors.Is(err, ErrNoSample) {
			t.Errorf("sample %v answered %v", sample, err)
		}
	}
	if _, err := EdgeGrid([]float64{2, 1}); err == nil {
		t.Error("descending edges were accepted")
	}
}

func TestQuantilesHoldTheOrderStatistic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrid(t)
		xs := columns(t, "window")
		s := Summarize(g, xs)
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		est, ok, err := s.Quantile(g, q)
		if err != nil {
			t.Fatal(err)
		}
		ordered := finite(xs)
		slices.Sort(ordered)
		if ok != (len(ordered) > 0) {
			t.Fatalf("ok %v for %d values", ok, len(ordered))
		}
		if !ok {
			return
		}
		want := ordered[max(int(math.Ceil(q*float64(len(ordered)))), 1)-1]
		if want < est.Low || want > est.High || est.Value < est.Low || est.Value > est.High {
			t.Fatalf("quantile %v is %v, estimate %+v", q, want, est)
		}
	})
}

func TestDistinctIsExactBelowItsSizeAndCloseAbove(t *testing.T) {
	var d Distinct
	for i := range 200 {
		d.Add(HashFloat(float64(i % 150)))
	}
	if n, e := d.Estimate(); n != 150 || e != 0 {
		t.Fatalf("150 values counted as %v ± %v", n, e)
	}
	for i := range 100_000 {
		d.Add(HashFloat(float64(i)))
	}
	if n, e := d.Estimate(); math.Abs(n-100_000) > 4*e {
		t.Fatalf("100,000 values counted as %v ± %v", n, e)
	}
}

// Golden values of xxHash64, seed 0.
func TestHashIsXX64(t *testing.T) {
	want := map[string]uint64{
		"":    0xef46db3751d8e999,
		"a":   0xd24ec4f1a98c6e5b,
		"abc": 0x44bc2cf5ad770999,
		"0123456789012345678901234567890123456789": 0xca6fc80cbde1a931,
		strings.Repeat("é", 40):                    0xb1ec6d9d41a61799,
	}
	for s, h := range want {
		if got := Hash(s); got != h {
			t.Errorf("Hash(%q) = %#x, want %#x", s, got, h)
		}
	}
}

func TestJSONAndBinaryKeepEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrid(t)
		s := Summarize(g, columns(t, "window"))
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON, fromBinary Summary
		if err := json.Unmarshal(text, &fromJSON); err != nil {
			t.Fatal(err)
		}
		packed, _ := s.MarshalBinary()
		if err := fromBinary.UnmarshalBinary(packed); err != nil {
			t.Fatal(err)
		}
		for _, got := range []Summary{fromJSON, fromBinary} {
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", *s) {
				t.Fatalf("became %+v, was %+v", got, *s)
			}
		}
		roundTripGrid(t, g)
	})
}

func roundTripGrid(t *rapid.T, g *Grid) {
	text, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var back Grid
	if err := json.Unmarshal(text, &back); err != nil || back.ID() != g.ID() {
		t.Fatalf("grid came back as %d, was %d (%v)", back.ID(), g.ID(), err)
	}
}

func TestSumsBeyondFloatsStayWritable(t *testing.T) {
	s := Summarize(nil, []float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64})
	if _, err := json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Variance(); ok {
		t.Fatal("an overflown variance is offered as a number")
	}
}

func FuzzUnmarshalBinary(f *testing.F) {
	g, _ := NumericGrid([]float64{1, 2, 3, 4, 5}, GridConfig{})
	for _, xs := range [][]float64{nil, {1}, {1, 2, 2, 9, math.NaN()}} {
		b, _ := Summarize(g, xs).MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again Summary
		if s.UnmarshalBinary(b) != nil {
			return
		}
		packed, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(packed); err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
		if fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", again) {
			t.Fatalf("became %+v, was %+v", again, s)
		}
	})
}

func FuzzGridJSON(f *testing.F) {
	f.Add([]byte(`{"edges":[1,2,3],"deciles":[2]}`))
	f.Add([]byte(`{"categories":["a","b"],"rest":["ff"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var g Grid
		if json.Unmarshal(b, &g) != nil {
			return
		}
		for i := range g.Cells() {
			_ = g.Label(i)
		}
		if _, err := json.Marshal(&g); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkBuilderAdd(b *testing.B) {
	xs := make([]float64, 10_000)
	for i := range xs {
		xs[i] = math.Sin(float64(i)) * 100
	}
	g, _ := NumericGrid(xs, GridConfig{})
	bd := NewBuilder(g)
	i := 0
	for b.Loop() {
		bd.Add(xs[i%len(xs)])
		i++
	}
}

func BenchmarkMerge(b *testing.B) {
	xs := make([]float64, 10_000)
	for i := range xs {
		xs[i] = math.Sin(float64(i)) * 100
	}
	g, _ := NumericGrid(xs, GridConfig{})
	s := Summarize(g, xs)
	for b.Loop() {
		t := *s
		_ = t.Merge(s)
	}
}
