package stat

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Counts are two windows counted over the same categories.
type Counts struct{ Ref, Cur []uint64 }

// used leaves out categories that neither side has.
func (c Counts) used() (Counts, error) {
	if err := checkSizes(Total(c.Ref), Total(c.Cur)); err != nil {
		return c, err
	}
	var out Counts
	for i := range c.Ref {
		if c.Ref[i]+c.Cur[i] > 0 {
			out.Ref = append(out.Ref, c.Ref[i])
			out.Cur = append(out.Cur, c.Cur[i])
		}
	}
	return out, nil
}

// ChiSquared is the 2×k test of homogeneity
// (scipy.stats.chi2_contingency, correction=False).
func (c Counts) ChiSquared() (Test, error) { return c.homogeneity(0, pearson) }

// ChiSquaredYates is ChiSquared with Yates' correction at one degree of
// freedom, which SciPy applies by default.
func (c Counts) ChiSquaredYates() (Test, error) { return c.homogeneity(0.5, pearson) }

// G is the likelihood ratio test of homogeneity.
func (c Counts) G() (Test, error) { return c.homogeneity(0, likelihoodRatio) }

// homogeneity compares both rows with what their totals make one expect.
func (c Counts) homogeneity(yates float64, cell func(observed, expected float64) float64) (Test, error) {
	c, err := c.used()
	if err != nil {
		return Test{}, err
	}
	n, m := float64(Total(c.Ref)), float64(Total(c.Cur))
	df := float64(len(c.Ref) - 1)
	if df == 0 {
		return Test{P: 1}, nil
	}
	if df > 1 {
		yates = 0
	}
	sum := 0.0
	for i := range c.Ref {
		a, b := float64(c.Ref[i]), float64(c.Cur[i])
		ea, eb := n*(a+b)/(n+m), m*(a+b)/(n+m) // SciPy's order: at 10⁹ counts rounding shows in the ninth digit of G
		sum += cell(pull(a, ea, yates), ea) + cell(pull(b, eb, yates), eb)
	}
	return Test{Statistic: sum, P: chiSquaredTail(sum, df), DF: df}, nil
}

// pull moves an observation towards its expectation, at most onto it.
func pull(observed, expected, by float64) float64 {
	diff := expected - observed
	return observed + math.Copysign(min(by, math.Abs(diff)), diff)
}

func pearson(observed, expected float64) float64 {
	return (observed - expected) * (observed - expected) / expected
}

func likelihoodRatio(observed, expected float64) float64 {
	if observed == 0 {
		return 0
	}
	return 2 * observed * math.Log(observed/expected)
}

// CramersV is √(χ²/N), the effect size of ChiSquared, between 0 and 1.
func (c Counts) CramersV() (float64, error) {
	t, err := c.ChiSquared()
	if err != nil {
		return 0, err
	}
	return math.Sqrt(t.Statistic / (float64(Total(c.Ref)) + float64(Total(c.Cur)))), nil
}

// GoodnessOfFit tests the window against the reference's shares as if those
// were known exactly (scipy.stats.chisquare). A category that the reference
// does not know gives a statistic of +Inf and p = 0.
func (c Counts) GoodnessOfFit() (Test, error) {
	c, err := c.used()
	if err != nil {
		return Test{}, err
	}
	ratio := float64(Total(c.Cur)) / float64(Total(c.Ref))
	sum := 0.0
	for i := range c.Ref {
		sum += pearson(float64(c.Cur[i]), float64(c.Ref[i])*ratio)
	}
	return goodness(sum, len(c.Ref))
}

// binary returns the one 2×2 table of at most two categories.
func (c Counts) binary() (a0, a1, b0, b1 uint64, err error) {
	used, err := c.used()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	switch {
	case len(c.Ref) == 2:
		used = c
	case len(used.Ref) > 2:
		return 0, 0, 0, 0, refuse(NotBinary, "%d categories", len(used.Ref))
	case len(used.Ref) == 1:
		used.Ref, used.Cur = append(slices.Clone(used.Ref), 0), append(slices.Clone(used.Cur), 0)
	}
	return used.Ref[0], used.Ref[1], used.Cur[0], used.Cur[1], nil
}

// TwoProportionZ compares the share of the second category with the pooled
// standard error, two-sided.
func (c Counts) TwoProportionZ() (Test, error) {
	a0, a1, b0, b1, err := c.binary()
	if err != nil {
		return Test{}, err
	}
	n, m := float64(a0+a1), float64(b0+b1)
	pooled := float64(a1+b1) / (n + m)
	if pooled == 0 || pooled == 1 {
		return Test{P: 1}, nil // both windows hold one and the same category
	}
	z := (float64(a1)/n - float64(b1)/m) / math.Sqrt(pooled*(1-pooled)*(1/n+1/m))
	return Test{Statistic: z, P: 2 * normalTail(math.Abs(z))}, nil
}

// fisherLimit bounds the tables that Fisher adds up.
const fisherLimit = 10_000_000

// Fisher is the exact test of a 2×2 table, two-sided: the probability of all
// tables with the same margins that are no more likely than the one seen. The
// statistic is the sample odds ratio; it is +Inf when only its denominator is 0.
func (c Counts) Fisher() (Test, error) {
	a0, a1, b0, b1, err := c.binary()
	if err != nil {
		return Test{}, err
	}
	n, m, k := a0+a1, b0+b1, a0+b0
	low, high := k-min(k, m), min(k, n)
	if high-low > fisherLimit {
		return Test{}, refuse(TooLarge, "Fisher's test over %d tables", high-low)
	}
	if low == high {
		return Test{}, refuse(Constant, "both windows hold one and the same category")
	}
	law := hypergeometric{n, m, k}
	seen := law.log(a0)
	p := 0.0
	for x := low; x <= high; x++ {
		if l := law.log(x); l <= seen+1e-12*math.Abs(seen)+1e-14 {
			p += math.Exp(l)
		}
	}
	odds := float64(a0) * float64(b1) / (float64(a1) * float64(b0))
	return Test{Statistic: odds, P: min(p, 1)}, nil
}

// hypergeometric draws k of n+m and counts those of the n.
type hypergeometric struct{ n, m, k uint64 }

// log is the log probability of x, by products of binomial probabilities at
// the common share, which keep relative precision where factorials lose it.
func (h hypergeometric) log(x uint64) float64 {
	p := float64(h.k) / float64(h.n+h.m)
	lp := func(n, k uint64) float64 { return distuv.Binomial{N: float64(n), P: p}.LogProb(float64(k)) }
	return lp(h.n, x) + lp(h.m, h.k-x) - lp(h.n+h.m, h.k)
}

// GoodnessOfFitG is the likelihood ratio form of GoodnessOfFit.
func (c Counts) GoodnessOfFitG() (Test, error) {
	c, err := c.used()
	if err != nil {
		return Test{}, err
	}
	ratio := float64(Total(c.Cur)) / float64(Total(c.Ref))
	sum := 0.0
	for i := range c.Ref {
		sum += likelihoodRatio(float64(c.Cur[i]), float64(c.Ref[i])*ratio)
	}
	return goodness(sum, len(c.Ref))
}

func goodness(sum float64, categories int) (Test, error) {
	if categories < 2 {
		return Test{}, refuse(Constant, "goodness of fit on a single category")
	}
	df := float64(categories - 1)
	return Test{Statistic: sum, P: chiSquaredTail(sum, df), DF: df}, nil
}
