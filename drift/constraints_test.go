package drift

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kedge-ml/kedge/dist"
)

// TestShareLimitsAsSciPy: beta.ppf(.95, k+1, n-k) and binom.ppf(.999, m, that) of
// SciPy 1.17.1.
func TestShareLimitsAsSciPy(t *testing.T) {
	for _, c := range []struct {
		k, n, m  uint64
		upper    float64
		quantile uint64
	}{
		{0, 5000, 250, 0.000598967002314913, 2},
		{3, 5000, 250, 0.0015499942797062, 3},
		{12, 480, 20, 0.0401911528176795, 4},
		{5000, 5000, 10, 1, 10},
		{1, 7, 7, 0.520702973591307, 7},
		{40, 100000, 100000, 0.000520662267224694, 76},
		{0, 1, 1, 0.95, 1},
	} {
		got := upperShare(c.k, c.n, limitTrust)
		if math.Abs(got-c.upper) > 1e-7*c.upper {
			t.Errorf("upper limit of %d in %d: %v, want %v", c.k, c.n, got, c.upper)
		}
		if q := binomialQuantile(1-limitChance, c.m, c.upper); q != c.quantile {
			t.Errorf("quantile of %d rows at %v: %d, want %d", c.m, c.upper, q, c.quantile)
		}
	}
}

// numberWindows are windows of numbers on the grid of all of them.
func numberWindows(t *testing.T, windows, rows int, draw func(window, row int) float64) (*dist.Grid, []*dist.Summary) {
	t.Helper()
	all := make([][]float64, windows)
	for w := range all {
		for i := range rows {
			all[w] = append(all[w], draw(w, i))
		}
	}
	g, err := dist.NumericGrid(slices.Concat(all...), dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var out []*dist.Summary
	for _, xs := range all {
		out = append(out, dist.Summarize(g, xs))
	}
	return g, out
}

func textWindows(t *testing.T, windows, rows int, draw func() string) (*dist.Grid, []*dist.Summary) {
	t.Helper()
	counts, all := map[string]uint64{}, make([][]string, windows)
	for w := range all {
		for range rows {
			x := draw()
			all[w] = append(all[w], x)
			counts[x]++
		}
	}
	g, err := dist.CategoryGrid(counts, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var out []*dist.Summary
	for _, xs := range all {
		out = append(out, dist.SummarizeCategories(g, xs))
	}
	return g, out
}

func suggested(t *testing.T, g *dist.Grid, windows []*dist.Summary) map[LimitKind]Limit {
	t.Helper()
	found, err := LearnConstraints("x", g, windows)
	if err != nil {
		t.Fatal(err)
	}
	out := map[LimitKind]Limit{}
	for _, l := range found {
		out[l.Kind] = l
	}
	return out
}

// TestSuggestionsHoldOnFreshWindows: what a reference suggests is broken by
// hardly a window of the same world, and by one in which something happened.
func TestSuggestionsHoldOnFreshWindows(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	share := func() float64 {
		if rng.Float64() < 0.02 {
			return math.NaN()
		}
		return 5 + rng.NormFloat64()
	}
	g, windows := numberWindows(t, 40, 250, func(int, int) float64 { return share() })
	got := suggested(t, g, windows)
	for kind, l := range got {
		if l.Withheld() || l.Windows != 40 {
			t.Errorf("%s of a calm column: %+v", kind, l)
		}
	}
	if lo, hi := got[MinLimit].Value, got[MaxLimit].Value; lo < 0 || lo > 1.6 || hi < 8.4 || hi > 12 {
		t.Errorf("range %v to %v", lo, hi)
	}
	const fresh = 4000
	broken := map[LimitKind]int{}
	for range fresh {
		xs := make([]float64, 250)
		for i := range xs {
			xs[i] = share()
		}
		w := dist.Summarize(g, xs)
		for kind, l := range got {
			if l.brokenBy(g, w, nil, 0) {
				broken[kind]++
			}
		}
	}
	for kind, n := range broken {
		if n > fresh*limitChance*2 {
			t.Errorf("%s: %d of %d fresh windows break it", kind, n, fresh)
		}
	}
	xs := make([]float64, 250)
	for i := range xs {
		xs[i] = map[bool]float64{true: math.NaN(), false: 20}[i%5 == 0]
	}
	for kind, want := range map[LimitKind]bool{MissingLimit: true, MaxLimit: true, MinLimit: false} {
		if w := dist.Summarize(g, xs); got[kind].brokenBy(g, w, nil, 0) != want {
			t.Errorf("%s broken by what happened: %v", kind, !want)
		}
	}
}

// TestSuggestionsAreTriedOnTheReference: a column that climbs breaks whatever
// its past suggests, so nothing is suggested; what is never negative stays so; a
// constant stays one.
func TestSuggestionsAreTriedOnTheReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 64))
	g, windows := numberWindows(t, 40, 250, func(w, _ int) float64 {
		return rng.Float64() * math.Pow(2, float64(w))
	})
	if l := suggested(t, g, windows)[MaxLimit]; !l.Withheld() || l.Broken != 2 { // of the last twentieth
		t.Errorf("largest value of a column that doubles: %+v", l)
	}
	if l := suggested(t, g, windows)[MinLimit]; l.Withheld() || l.Value != 0 {
		t.Errorf("smallest value of it: %+v", l)
	}
	g, windows = numberWindows(t, 40, 250, func(int, int) float64 { return 3 })
	got := suggested(t, g, windows)
	if got[MinLimit].Value != 3 || got[MaxLimit].Value != 3 || got[MissingLimit].Value <= 0 || got[MissingLimit].Value > 0.01 {
		t.Errorf("a constant: %+v", got)
	}
}

// TestSuggestedDomains: four values that keep coming are a list; a thousand are
// a share of new ones, which fresh windows keep.
func TestSuggestedDomains(t *testing.T) {
	rng := rand.New(rand.NewPCG(65, 66))
	four := func() string { return string(rune('a' + min(3, int(rng.ExpFloat64()*1.2)))) }
	g, windows := textWindows(t, 40, 250, four)
	if l := suggested(t, g, windows)[DomainLimit]; !slices.Equal(l.Values, []string{"a", "b", "c", "d"}) || l.Broken != 0 {
		t.Errorf("four values: %+v", l)
	}
	zipf := rand.NewZipf(rng, 1.1, 1, 100_000)
	g, windows = textWindows(t, 40, 250, func() string { return fmt.Sprint(zipf.Uint64()) })
	got := suggested(t, g, windows)
	l, ok := got[UnseenLimit]
	if _, list := got[DomainLimit]; !ok || list || l.Withheld() || l.Value < 0.05 || l.Value > 0.5 {
		t.Fatalf("a hundred thousand values: %+v", got)
	}
	ref := &dist.Summary{GridID: g.ID()}
	for _, w := range windows {
		if err := ref.Merge(w); err != nil {
			t.Fatal(err)
		}
	}
	broken, cried := 0, 0
	column := Column{Baseline: &Baseline{Grid: g, Reference: ref}}
	for range 1000 {
		var names []string
		for range 250 {
			names = append(names, fmt.Sprint(zipf.Uint64()))
		}
		column.Window = dist.SummarizeCategories(g, names)
		if unseenShare(column) > l.Value {
			broken++
		}
		if judgeUnseen(column).Drifted {
			cried++
		}
	}
	if broken > 5 || cried > 5 {
		t.Errorf("of 1,000 fresh windows %d break %+v, %d have more new values than expected", broken, l, cried)
	}
	b := dist.NewBuilder(g)
	for k := range 250 {
		b.AddCategory(map[bool]string{true: fmt.Sprint("new", k), false: "0"}[k%4 > 0])
	}
	column.Window = b.Summary()
	if !judgeUnseen(column).Drifted || unseenShare(column) <= l.Value {
		t.Errorf("three of four values new: %v, limit %v", unseenShare(column), l.Value)
	}
}

// TestExpectedUnseenBoundsTheRare: of rare values that are counted together,
// never fewer are taken for single ones than there are, by every way to deal
// them out.
func TestExpectedUnseenBoundsTheRare(t *testing.T) {
	rng := rand.New(rand.NewPCG(67, 68))
	for range 300 {
		counts := map[string]uint64{}
		for i := range 2 + rng.IntN(40) {
			counts[fmt.Sprint(i)] = 1 + uint64(rng.ExpFloat64()*3)
		}
		g, err := dist.CategoryGrid(counts, dist.GridConfig{Categories: 1 + rng.IntN(len(counts))})
		if err != nil {
			t.Fatal(err)
		}
		dense, n, once := make([]uint64, g.Cells()), uint64(0), 0
		for name, c := range counts {
			dense[g.CategoryCell(name)] += c
			n += c
			if c == 1 {
				once++
			}
		}
		got := expectedUnseen(g, dense) * float64(n)
		if got < float64(once)-1e-9 || len(g.Rest) == 0 && math.Abs(got-float64(once)) > 1e-9 {
			t.Errorf("%d of %v came once, expected %v", once, counts, got)
		}
	}
}

// TestLimitsAreReadable: three digits, outward.
func TestLimitsAreReadable(t *testing.T) {
	for x, want := range map[float64]float64{0.123456: 0.124, 8.4321: 8.44, -3.999: -3.99, 0.008: 0.008, 120: 120, 1234567: 1240000, 0: 0, -1e-300: -1e-300, 1e308: 1e308} {
		if got := roundUp(x); got != want {
			t.Errorf("%v up: %v, want %v", x, got, want)
		}
		if got := roundDown(-x); got != -want {
			t.Errorf("%v down: %v, want %v", -x, got, -want)
		}
	}
}
