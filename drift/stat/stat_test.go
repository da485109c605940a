package stat

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// sample draws values that tie often.
func sample(t *rapid.T, label string, least int) []float64 {
	value := rapid.OneOf(
		rapid.Map(rapid.IntRange(-4, 4), func(i int) float64 { return float64(i) }),
		rapid.Float64Range(-5, 5),
	)
	return rapid.SliceOfN(value, least, 40).Draw(t, label)
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(b)) }

// share counts the part of xs at most x.
func share(xs []float64, x float64) float64 {
	n := 0.0
	for _, v := range xs {
		if v <= x {
			n++
		}
	}
	return n / float64(len(xs))
}

func TestKSDistanceComparesEveryPoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := sample(t, "a", 1), sample(t, "b", 1)
		want := 0.0
		for _, x := range slices.Concat(a, b) {
			want = max(want, math.Abs(share(a, x)-share(b, x)))
		}
		if got, err := KSDistance(NewLadder(a, b)); err != nil || !near(got, want) {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
	})
}

func TestMannWhitneyUCountsPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := sample(t, "a", 1), sample(t, "b", 1)
		want := 0.0
		for _, x := range a {
			for _, y := range b {
				switch {
				case x > y:
					want++
				case x == y:
					want += 0.5
				}
			}
		}
		if got, err := MannWhitneyU(NewLadder(a, b)); err != nil || !near(got, want) {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
	})
}

// midrank is the mean rank of x in pooled.
func midrank(pooled []float64, x float64) float64 {
	less, equal := 0.0, 0.0
	for _, v := range pooled {
		switch {
		case v < x:
			less++
		case v == x:
			equal++
		}
	}
	return less + (equal+1)/2
}

func TestCramerVonMisesSumsRanks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := Clean(sample(t, "a", 2)), Clean(sample(t, "b", 2))
		pooled := slices.Concat(a, b)
		n, m := float64(len(a)), float64(len(b))
		u := 0.0
		for i, x := range a {
			d := midrank(pooled, x) - float64(i+1)
			u += n * d * d
		}
		for i, x := range b {
			d := midrank(pooled, x) - float64(i+1)
			u += m * d * d
		}
		want := u/(n*m*(n+m)) - (4*n*m-1)/(6*(n+m))
		if got, err := CramerVonMises(NewLadder(a, b)); err != nil || !near(got.Statistic, want) {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
	})
}

// Wasserstein by optimal matching of equal sizes: sorted against sorted.
func TestWassersteinMatchesSortedSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := sample(t, "a", 1)
		b := rapid.SliceOfN(rapid.Float64Range(-5, 5), len(a), len(a)).Draw(t, "b")
		x, y := Clean(a), Clean(b)
		want := 0.0
		for i := range x {
			want += math.Abs(x[i]-y[i]) / float64(len(x))
		}
		if got, err := Wasserstein(NewLadder(a, b)); err != nil || !near(got, want) {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
	})
}

// A test does not change when both samples go through an increasing map, and a
// two-sided one does not when the sides change places.
func TestRankTestsSeeOnlyRanks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := sample(t, "a", 5), sample(t, "b", 5)
		levels := slices.Compact(Clean(slices.Concat(a, b)))
		bend := func(xs []float64) []float64 {
			out := slices.Clone(xs)
			for i := range out {
				k, _ := slices.BinarySearch(levels, out[i])
				out[i] = float64(k * k)
			}
			return out
		}
		for name, f := range rankTests() {
			plain, err := f(NewLadder(a, b))
			bent, _ := f(NewLadder(bend(a), bend(b)))
			swapped, _ := f(NewLadder(b, a))
			if err != nil {
				continue
			}
			if !near(plain.P, bent.P) || !near(plain.Statistic, bent.Statistic) || !near(plain.P, swapped.P) {
				t.Fatalf("%s: %v, bent %v, swapped %v", name, plain, bent, swapped)
			}
		}
	})
}

func rankTests() map[string]func(Ladder) (Test, error) {
	return map[string]func(Ladder) (Test, error){
		"ks": KS, "ks asymptotic": KSAsymptotic, "ks limit": KSLimit, "cvm": CramerVonMises, "anderson": Anderson,
		"mann-whitney": func(l Ladder) (Test, error) { return MannWhitney(l, TwoSided) },
	}
}

// Whatever comes in, an answer is a number or a reason.
func TestAnswersAreNumbersOrReasons(t *testing.T) {
	odd := rapid.OneOf(rapid.Float64Range(-2, 2), rapid.SampledFrom([]float64{0, 1, math.NaN(), math.Inf(1), math.MaxFloat64, 5e-324}))
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(odd, 0, 12).Draw(t, "a")
		b := rapid.SliceOfN(odd, 0, 12).Draw(t, "b")
		l := NewLadder(a, b)
		for name, f := range rankTests() {
			answer, err := f(l)
			checkAnswer(t, name, answer, err)
		}
		if slices.Contains(a, math.MaxFloat64) || slices.Contains(b, math.MaxFloat64) {
			return // sums of such values leave the floats
		}
		x, y := Clean(a), Clean(b)
		for name, f := range map[string]func(a, b Moments) (Test, error){"student": Student, "welch": Welch} {
			answer, err := f(MomentsOf(x), MomentsOf(y))
			checkAnswer(t, name, answer, err)
		}
		answer, err := EppsSingleton(x, y)
		checkAnswer(t, "epps-singleton", answer, err)
	})
}

func checkAnswer(t *rapid.T, name string, answer Test, err error) {
	var none *NotComputable
	switch {
	case err != nil && !errors.As(err, &none):
		t.Fatalf("%s: %v is no reason", name, err)
	case err == nil && (math.IsNaN(answer.Statistic) || !(answer.P >= 0 && answer.P <= 1)):
		t.Fatalf("%s: %+v", name, answer)
	}
}

func TestCountTestsAnswerNumbersOrReasons(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "categories")
		one := rapid.SliceOfN(rapid.Uint64Range(0, 9), n, n)
		c := Counts{one.Draw(t, "ref"), one.Draw(t, "cur")}
		for name, f := range map[string]func() (Test, error){"chi2": c.ChiSquared, "yates": c.ChiSquaredYates, "g": c.G,
			"gof": c.GoodnessOfFit, "z": c.TwoProportionZ, "fisher": c.Fisher} {
			answer, err := f()
			if name == "fisher" && math.IsNaN(answer.Statistic) && err == nil {
				t.Fatalf("odds of %+v", c)
			}
			checkAnswer(t, name, answer, err)
		}
	})
}

// bruteFisher enumerates tables with the margins of the one seen.
func bruteFisher(a0, a1, b0, b1 uint64) float64 {
	choose := func(n, k uint64) float64 {
		out := 1.0
		for i := range k {
			out *= float64(n-i) / float64(i+1)
		}
		return out
	}
	n, m, k := a0+a1, b0+b1, a0+b0
	law := func(x uint64) float64 { return choose(n, x) * choose(m, k-x) / choose(n+m, k) }
	p, seen := 0.0, law(a0)
	for x := k - min(k, m); x <= min(k, n); x++ {
		if v := law(x); v <= seen*(1+1e-9) {
			p += v
		}
	}
	return p
}

func TestFisherAddsUpTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(label string) uint64 { return rapid.Uint64Range(1, 12).Draw(t, label) }
		a0, a1, b0, b1 := d("a0"), d("a1"), d("b0"), d("b1")
		got, err := Counts{[]uint64{a0, a1}, []uint64{b0, b1}}.Fisher()
		if want := bruteFisher(a0, a1, b0, b1); err != nil || !near(got.P, want) {
			t.Fatalf("%v (%v), want %v", got.P, err, want)
		}
	})
}

// Distances are 0 between equal shares, symmetric where they should be, and at
// their bound between disjoint ones; contributions add up to 1.
func TestDistancesKeepTheirBounds(t *testing.T) {
	bound := map[Divergence]float64{JS: 1, JSNat: math.Sqrt(math.Ln2), JSDivergence: 1, Hellinger: 1, TVD: 1, LInfinity: 1}
	disjoint, _ := SharesOf([]uint64{5, 0}, []uint64{0, 7})
	equal, _ := SharesOf([]uint64{2, 4, 6}, []uint64{1, 2, 3})
	for d, want := range bound {
		if got := disjoint.Distance(d); !near(got, want) {
			t.Errorf("distance %d of disjoint shares %v, want %v", d, got, want)
		}
	}
	for _, d := range []Divergence{PSI, JS, JSNat, JSDivergence, KL, Hellinger, TVD, LInfinity} {
		if got := equal.Distance(d); got > 1e-12 {
			t.Errorf("distance %d of equal shares %v", d, got)
		}
		s, _ := SharesOf([]uint64{10, 20, 70, 0}, []uint64{30, 5, 60, 5})
		sum := 0.0
		for _, c := range s.Contributions(d) {
			sum += c
		}
		if d != KL && !near(sum, 1) {
			t.Errorf("contributions to distance %d add up to %v", d, sum)
		}
	}
}

func TestEqualWidthBinsOfIntegersAreAtLeastOneWide(t *testing.T) {
	xs := []float64{0, 1, 1, 2, 2, 2, 3, 3}
	if got := len(Sturges(xs, true)) - 1; got != 3 {
		t.Errorf("%d bins of integers 0 to 3, want 3", got)
	}
	if got := len(Sturges(xs, false)) - 1; got != 4 {
		t.Errorf("%d bins of numbers 0 to 3, want 4", got)
	}
	if got := ClosedBins([]float64{7, 7}, Sturges([]float64{7, 7}, false)); !slices.Equal(got, []uint64{2}) {
		t.Errorf("a constant falls into %v", got)
	}
}
