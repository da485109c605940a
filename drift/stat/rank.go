package stat

import (
	"math"

	"github.com/kedge-ml/kedge/drift/special"
)

// CramerVonMises is T on mid-ranks with the asymptotic p-value
// (scipy.stats.cramervonmises_2samp, method "asymptotic"). The p-value is not
// resolved below about 1e-7.
func CramerVonMises(l Ladder) (Test, error) {
	if err := l.check(); err != nil {
		return Test{}, err
	}
	if l.N < 2 || l.M < 2 {
		return Test{}, refuse(TooFew, "Cramér-von Mises on %d and %d values", l.N, l.M)
	}
	t := cvmStatistic(l)
	return Test{Statistic: t, P: CramerVonMisesP(l.N, l.M, t)}, nil
}

// cvmStatistic sums squared differences of mid-ranks and positions. A group of
// a and b ties after A and B smaller values adds
// n·(a(B+b/2)² + a(a²-1)/12) + m·(b(A+a/2)² + b(b²-1)/12).
func cvmStatistic(l Ladder) float64 {
	n, m := float64(l.N), float64(l.M)
	var below, belowB, u float64
	for i := range l.A {
		a, b := float64(l.A[i]), float64(l.B[i])
		x, y := belowB+b/2, below+a/2
		u += n*(a*x*x+a*(a*a-1)/12) + m*(b*y*y+b*(b*b-1)/12)
		below, belowB = below+a, belowB+b
	}
	return u/(n*m*(n+m)) - (4*n*m-1)/(6*(n+m))
}

// CramerVonMisesP is the asymptotic p-value of a statistic T of nu and mu values.
func CramerVonMisesP(nu, mu uint64, t float64) float64 {
	n, m := float64(nu), float64(mu)
	k, all := n*m, n+m
	mean := (1 + 1/all) / 6
	variance := (all + 1) * (4*k*all - 3*(n*n+m*m) - 2*k) / (45 * all * all * 4 * k)
	normed := 1.0/6 + (t-mean)/math.Sqrt(45*variance)
	if normed < 0.003 {
		return 1
	}
	return max(0, 1-special.CramerVonMisesLimit(normed))
}

// CramerVonMisesExact is T with the exact permutation p-value, for small
// samples (Xiao, Gordon and Yakovlev 2006).
func CramerVonMisesExact(l Ladder) (Test, error) {
	if err := l.check(); err != nil {
		return Test{}, err
	}
	if l.N < 2 || l.M < 2 {
		return Test{}, refuse(TooFew, "Cramér-von Mises on %d and %d values", l.N, l.M)
	}
	if max(l.N, l.M) > 40 {
		return Test{}, refuse(TooLarge, "exact Cramér-von Mises on %d and %d values", l.N, l.M)
	}
	t := cvmStatistic(l)
	return Test{Statistic: t, P: cvmPermutations(int(l.N), int(l.M), t)}, nil
}

// cvmPermutations counts arrangements by the value of the integer
// ζ = Σ (i·L/n - j·L/m)² along their lattice path; T = nm/(n+m)²·ζ/L².
func cvmPermutations(n, m int, t float64) float64 {
	lcm := n * m / gcd(n, m)
	stepA, stepB := lcm/n, lcm/m
	rows := make([]map[int]float64, n+1)
	for j := 0; j <= m; j++ {
		var left map[int]float64
		for i := 0; i <= n; i++ {
			here := make(map[int]float64)
			if i == 0 && j == 0 {
				here[0] = 1
			}
			d := i*stepA - j*stepB
			for _, from := range []map[int]float64{left, rows[i]} {
				for z, count := range from {
					here[z+d*d] += count
				}
			}
			rows[i], left = here, here
		}
	}
	all := float64(n + m)
	scale := float64(n*m) / (all * all) / float64(lcm) / float64(lcm)
	hit, total := 0.0, 0.0
	for z, count := range rows[n] {
		total += count
		if float64(z)*scale >= t-1e-9*(1+t) {
			hit += count
		}
	}
	return hit / total
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Alternative says on which side a test looks.
type Alternative int

// Alternatives: TwoSided, or Less when the reference tends to be smaller than
// the window.
const (
	TwoSided Alternative = iota
	Less
)

// MannWhitneyU is U of the reference: the number of pairs in which its value is
// the larger, ties counting one half.
func MannWhitneyU(l Ladder) (float64, error) {
	if err := l.check(); err != nil {
		return 0, err
	}
	u, below := 0.0, 0.0
	for i := range l.A {
		b := float64(l.B[i])
		u += float64(l.A[i]) * (below + b/2)
		below += b
	}
	return u, nil
}

// MannWhitney is U of the reference with the normal p-value, corrected for ties
// and continuity (scipy.stats.mannwhitneyu, method "asymptotic").
func MannWhitney(l Ladder, side Alternative) (Test, error) {
	u, err := MannWhitneyU(l)
	if err != nil {
		return Test{}, err
	}
	n, m := float64(l.N), float64(l.M)
	all := n + m
	ties := 0.0
	for i := range l.A {
		t := float64(l.A[i] + l.B[i])
		ties += t * (t*t - 1)
	}
	spread := math.Sqrt(n * m / 12 * (all + 1 - ties/(all*(all-1))))
	z := (side.pick(u, n*m-u) - n*m/2 - 0.5) / spread
	if spread == 0 {
		return Test{Statistic: u, P: 1}, nil // all values tie: no order to see
	}
	return Test{Statistic: u, P: min(1, side.factor()*normalTail(z))}, nil
}

// MannWhitneyExact is U of the reference with the exact p-value, no ties
// assumed.
func MannWhitneyExact(l Ladder, side Alternative) (Test, error) {
	u, err := MannWhitneyU(l)
	if err != nil {
		return Test{}, err
	}
	n, m := float64(l.N), float64(l.M)
	if n*m > 1e7 {
		return Test{}, refuse(TooLarge, "exact Mann-Whitney on %d and %d values", l.N, l.M)
	}
	p, _ := special.MannWhitneyTail(int(l.N), int(l.M), int(side.pick(u, n*m-u)))
	return Test{Statistic: u, P: min(1, side.factor()*p)}, nil
}

// pick chooses the U whose upper tail is the p-value.
func (s Alternative) pick(ref, cur float64) float64 {
	if s == Less {
		return cur
	}
	return max(ref, cur)
}

func (s Alternative) factor() float64 {
	if s == Less {
		return 1
	}
	return 2
}

// normalTail is P(Z > z).
func normalTail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }
