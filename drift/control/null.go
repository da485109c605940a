package control

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/kedge-ml/kedge/drift/stat"
	"gonum.org/v1/gonum/mathext"
)

// CorrectedPSI takes out of a population stability index what chance alone puts
// in. Without drift PSI is about (1/n+1/m)·χ² with bins-1 degrees of freedom;
// value is what is left after its mean, at least 0, and p its upper tail. It
// holds where every bin expects five rows on either side; see [Bootstrap].
func CorrectedPSI(psi float64, bins int, n, m uint64) (value, p float64) {
	unit := 1/float64(n) + 1/float64(m)
	df := float64(bins - 1)
	if df < 1 {
		return psi, 1
	}
	return max(0, psi-df*unit), gammaTail(df/2, psi/unit/2)
}

func gammaTail(shape, x float64) float64 {
	if x <= 0 {
		return 1
	}
	return mathext.GammaIncRegComp(shape, x)
}

// SparseChiSquared is the test of homogeneity for tables with many rare
// categories. The statistic is Pearson's; its p-value comes from a gamma law
// with the exact mean and variance that the statistic has over all tables with
// these margins, where the χ² law of large tables is wrong.
func SparseChiSquared(c stat.Counts) (stat.Test, error) {
	t, err := c.ChiSquared()
	if err != nil || t.DF == 0 {
		return t, err
	}
	mean, variance := chiSquaredMoments(c)
	if !(mean > 0 && variance > 0) {
		return t, nil
	}
	t.P = gammaTail(mean*mean/variance, t.Statistic*mean/variance)
	return t, nil
}

// chiSquaredMoments are the exact mean and variance of Pearson's statistic of a
// 2×k table over all tables with its margins: moments of a multivariate
// hypergeometric, by factorial moments. They differ by many digits, so the sums
// are taken in extended precision.
func chiSquaredMoments(c stat.Counts) (mean, variance float64) {
	n, m := float64(stat.Total(c.Ref)), float64(stat.Total(c.Cur))
	all := n + m
	if all < 4 {
		return 0, 0
	}
	k, inverses := 0.0, 0.0
	for i := range c.Ref {
		if s := float64(c.Ref[i] + c.Cur[i]); s > 0 {
			k++
			inverses += 1 / s
		}
	}
	h := fallingQuotients(n, all)
	square := sumOf(
		product(h[3], wide(0).Sub(product(wide(all-k), wide(all-k)), wide(4*all-10*k+6*inverses))),
		product(h[2], wide(0).Add(product(wide(2*(k-1)), wide(all-k)), wide(6*all-18*k+12*inverses))),
		product(h[1], wide(k*k+6*k-7*inverses)),
		product(h[0], wide(inverses)))
	first := sumOf(product(h[1], wide(all-k)), product(h[0], wide(k)))
	scale := wide(0).Quo(product(wide(all), wide(all)), product(wide(n), wide(m)))
	centred := wide(0).Sub(first, wide(0).Quo(product(wide(n), wide(n)), wide(all)))
	mean, _ = product(scale, centred).Float64()
	spread := wide(0).Sub(square, product(first, first))
	variance, _ = product(product(scale, scale), spread).Float64()
	return mean, variance
}

// fallingQuotients are n(n-1)…(n-r+1) / all(all-1)…(all-r+1) for r = 1 … 4.
func fallingQuotients(n, all float64) (h [4]*big.Float) {
	q := wide(1)
	for r := range h {
		q = product(q, wide(0).Quo(wide(n-float64(r)), wide(all-float64(r))))
		h[r] = q
	}
	return h
}

func wide(x float64) *big.Float { return new(big.Float).SetPrec(256).SetFloat64(x) }

func product(a, b *big.Float) *big.Float { return wide(0).Mul(a, b) }

func sumOf(xs ...*big.Float) *big.Float {
	out := wide(0)
	for _, x := range xs {
		out.Add(out, x)
	}
	return out
}

// Null is a statistic's distribution without drift, by simulation.
type Null struct{ sorted []float64 }

// P is the share of simulated values at least as large, the one seen included.
func (n *Null) P(v float64) float64 {
	i, _ := slices.BinarySearch(n.sorted, v)
	return float64(len(n.sorted)-i+1) / float64(len(n.sorted)+1)
}

// Quantile is the simulated value that a share of the draws stays below.
func (n *Null) Quantile(q float64) float64 { return stat.Quantile(n.sorted, q) }

// Bootstrap simulates a statistic of two windows drawn from the same shares.
// The seed decides the draws: equal arguments give an equal law.
func Bootstrap(shares []float64, n, m uint64, draws int, seed uint64, statistic func(stat.Counts) (float64, error)) *Null {
	rng := rand.New(rand.NewPCG(seed, 0x6b65646765))
	out := &Null{}
	for range draws {
		v, err := statistic(stat.Counts{Ref: Multinomial(rng, shares, n), Cur: Multinomial(rng, shares, m)})
		if err == nil {
			out.sorted = append(out.sorted, v)
		}
	}
	slices.Sort(out.sorted)
	return out
}

// Multinomial draws counts of n rows over shares.
func Multinomial(rng *rand.Rand, shares []float64, n uint64) []uint64 {
	out := make([]uint64, len(shares))
	left, mass := n, 1.0
	for i, p := range shares {
		if left == 0 || mass <= 0 {
			break
		}
		k := Binomial(rng, left, min(1, p/mass))
		out[i] = k
		left -= k
		mass -= p
	}
	if len(out) > 0 {
		out[len(out)-1] += left
	}
	return out
}

// binomialByNormal is the variance from which a rounded normal stands for the
// binomial.
const binomialByNormal = 400

// Binomial draws successes of n trials: by inversion where few are expected,
// by a rounded normal where the law is as smooth as one.
func Binomial(rng *rand.Rand, n uint64, p float64) uint64 {
	switch {
	case p <= 0 || n == 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - Binomial(rng, n, 1-p)
	}
	mean := float64(n) * p
	if mean*(1-p) > binomialByNormal {
		v := math.Round(mean + rng.NormFloat64()*math.Sqrt(mean*(1-p)))
		return uint64(min(max(v, 0), float64(n)))
	}
	return binomialByGaps(rng, n, p)
}

// binomialByGaps jumps from success to success by geometric gaps.
func binomialByGaps(rng *rand.Rand, n uint64, p float64) uint64 {
	var hits uint64
	at, scale := 0.0, math.Log1p(-p)
	for {
		at += math.Floor(math.Log(1-rng.Float64())/scale) + 1
		if at > float64(n) {
			return hits
		}
		hits++
	}
}

// NullKey names a cached law: what was counted, how finely sizes are told apart.
type NullKey struct {
	Grid      uint64
	Statistic string
	N, M      int // sizes in steps of a tenth of a power of two
}

// KeyOf rounds sizes so that windows of about equal size share a law.
func KeyOf(grid uint64, statistic string, n, m uint64) NullKey {
	step := func(v uint64) int { return int(math.Floor(10 * math.Log2(float64(max(v, 1))))) }
	return NullKey{grid, statistic, step(n), step(m)}
}

// Seed derives the draws' seed from the key.
func (k NullKey) Seed() uint64 {
	h := k.Grid
	for _, c := range k.Statistic {
		h = h*0x100000001b3 ^ uint64(c)
	}
	return h*31 + uint64(k.N)*1009 + uint64(k.M)
}

// NullCache keeps simulated laws. It is safe for concurrent use.
type NullCache struct {
	mu   sync.Mutex
	laws map[NullKey]*Null
}

// Get returns the law of a key, making it once.
func (c *NullCache) Get(k NullKey, simulate func(seed uint64) *Null) *Null {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.laws == nil {
		c.laws = map[NullKey]*Null{}
	}
	if c.laws[k] == nil {
		c.laws[k] = simulate(k.Seed())
	}
	return c.laws[k]
}
