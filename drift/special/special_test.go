package special

import (
	"encoding/json"
	"math"
	"math/big"
	"os"
	"testing"
)

// golden holds SciPy's answers; testdata/golden.py wrote them.
type golden struct {
	Limit, Tail, Smirnov, CVM, BesselK, KS2, MWU [][]float64
}

func loadGolden(t *testing.T) golden {
	t.Helper()
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func check(t *testing.T, name string, rows [][]float64, rtol float64, f func(row []float64) float64) {
	t.Helper()
	if len(rows) == 0 {
		t.Errorf("%s: no golden rows", name)
	}
	for _, row := range rows {
		want, got := row[len(row)-1], f(row)
		if !(math.Abs(got-want) <= rtol*math.Abs(want)+1e-12) {
			t.Errorf("%s%v = %.17g, want %.17g", name, row[:len(row)-1], got, want)
		}
	}
}

func TestAgainstSciPy(t *testing.T) {
	g := loadGolden(t)
	check(t, "KolmogorovLimit", g.Limit, 1e-12, func(r []float64) float64 { return KolmogorovLimit(r[0]) })
	check(t, "KolmogorovTail", g.Tail, 1e-8, func(r []float64) float64 { return KolmogorovTail(int(r[0]), r[1]) })
	check(t, "Smirnov", g.Smirnov, 1e-10, func(r []float64) float64 { return Smirnov(int(r[0]), r[1]) })
	check(t, "CramerVonMisesLimit", g.CVM, 1e-12, func(r []float64) float64 { return CramerVonMisesLimit(r[0]) })
	check(t, "besselKScaled", g.BesselK, 1e-12, func(r []float64) float64 { return besselKScaled(0.25, r[0]) })
	check(t, "TwoSampleKS", g.KS2, 1e-9, func(r []float64) float64 {
		p, ok := TwoSampleKS(uint64(r[0]), uint64(r[1]), r[2])
		if !ok {
			return math.NaN()
		}
		return p
	})
	check(t, "MannWhitneyTail", g.MWU, 1e-10, func(r []float64) float64 {
		p, _ := MannWhitneyTail(int(r[0]), int(r[1]), int(r[2]))
		return p
	})
}

// Small tails keep relative precision: no 1 minus something.
func TestTailsKeepRelativePrecision(t *testing.T) {
	if got, want := KolmogorovLimit(8), 2*math.Exp(-128); math.Abs(got/want-1) > 1e-12 {
		t.Errorf("KolmogorovLimit(8) = %g, want %g", got, want)
	}
	for _, d := range []float64{0.3, 0.6, 0.9, 0.99} {
		if got, want := Smirnov(60, d), smirnovBig(60, d); math.Abs(got/want-1) > 1e-12 {
			t.Errorf("Smirnov(60, %v) = %g, want %g", d, got, want)
		}
	}
}

// smirnovBig adds Smirnov's sum in 400-bit arithmetic.
func smirnovBig(n int, d float64) float64 {
	num := func(x float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(x) }
	power := func(x *big.Float, k int) *big.Float {
		out := num(1)
		for range k {
			out.Mul(out, x)
		}
		return out
	}
	sum := num(0)
	for j := 0; float64(j) <= float64(n)*(1-d); j++ {
		share := num(0).Quo(num(float64(j)), num(float64(n)))
		p := num(0).Add(num(d), share)
		q := num(0).Sub(num(1), p)
		term := num(0).SetInt(new(big.Int).Binomial(int64(n), int64(j)))
		term.Mul(term, power(p, j)).Mul(term, power(q, n-j)).Quo(term, p)
		sum.Add(sum, term)
	}
	out, _ := sum.Mul(sum, num(d)).Float64()
	return out
}

// arrangements calls visit with every order of n and m indistinguishable
// things: the worst distance of the two shares on the way, and how many pairs
// stand in order.
func arrangements(n, m int, visit func(worst float64, pairs int)) {
	var walk func(i, j, pairs int, worst float64)
	walk = func(i, j, pairs int, worst float64) {
		worst = max(worst, math.Abs(float64(i)/float64(n)-float64(j)/float64(m)))
		if i == n && j == m {
			visit(worst, pairs)
			return
		}
		if i < n {
			walk(i+1, j, pairs+j, worst)
		}
		if j < m {
			walk(i, j+1, pairs, worst)
		}
	}
	walk(0, 0, 0, 0)
}

func TestTwoSampleKSCountsArrangements(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for m := 1; m <= 6; m++ {
			lcm := n * m / int(gcd(uint64(n), uint64(m)))
			for h := 0; h <= lcm; h++ {
				d := float64(h) / float64(lcm)
				total, hit := 0.0, 0.0
				arrangements(n, m, func(worst float64, _ int) {
					total++
					if worst >= d-1e-9 {
						hit++
					}
				})
				if got, ok := TwoSampleKS(uint64(n), uint64(m), d); !ok || math.Abs(got-hit/total) > 1e-12 {
					t.Errorf("n=%d m=%d d=%v: %v, want %v", n, m, d, got, hit/total)
				}
			}
		}
	}
}

func TestMannWhitneyCountsArrangements(t *testing.T) {
	for n := 1; n <= 5; n++ {
		for m := 1; m <= 5; m++ {
			counts, total := make([]float64, n*m+1), 0.0
			arrangements(n, m, func(_ float64, pairs int) { counts[pairs]++; total++ })
			tail := 0.0
			for u := n * m; u >= 0; u-- {
				tail += counts[u] / total
				if got, ok := MannWhitneyTail(n, m, u); !ok || math.Abs(got-tail) > 1e-12 {
					t.Errorf("n=%d m=%d u=%d: %v, want %v", n, m, u, got, tail)
				}
			}
		}
	}
}

func TestTailsFallAndStayProbabilities(t *testing.T) {
	for _, n := range []int{1, 2, 17, 140, 141, 5000, 100_001, 2_000_000} {
		last := 1.0
		for i := range 400 {
			d := float64(i) / 400 * 6 / math.Sqrt(float64(n))
			p := KolmogorovTail(n, d)
			if !(p >= 0 && p <= 1) || p > last+2e-5 {
				t.Fatalf("n=%d d=%v: tail %v after %v", n, d, p, last)
			}
			last = p
		}
	}
}

func TestImpossibleSizesSaySo(t *testing.T) {
	if _, ok := TwoSampleKS(100_003, 99_991, 0.1); ok {
		t.Error("coprime sizes beyond 32 bits were accepted")
	}
	if _, ok := TwoSampleKS(5, 0, 0.1); ok {
		t.Error("an empty sample was accepted")
	}
	if _, ok := MannWhitneyTail(10_000, 10_000, 5); ok {
		t.Error("a table of 10^8 counts was accepted")
	}
}

func BenchmarkKolmogorovTail(b *testing.B) {
	for b.Loop() {
		KolmogorovTail(5000, 0.02)
	}
}
