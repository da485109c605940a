package stat

import (
	"math"

	"github.com/kedge-ml/kedge/drift/special"
)

// maxExactKS is the size up to which KS counts paths (SciPy's method "auto").
const maxExactKS = 10_000

// KSDistance is D, the largest distance between the two empirical distribution
// functions.
func KSDistance(l Ladder) (float64, error) {
	if err := l.check(); err != nil {
		return 0, err
	}
	var a, b uint64
	worst := 0.0
	for i := range l.A {
		a, b = a+l.A[i], b+l.B[i]
		worst = max(worst, math.Abs(float64(a)/float64(l.N)-float64(b)/float64(l.M)))
	}
	return worst, nil
}

// KSAsymptotic is D with its p-value from the one-sample law at round(nm/(n+m))
// observations (scipy.stats.ks_2samp, method "asymp").
func KSAsymptotic(l Ladder) (Test, error) {
	d, err := KSDistance(l)
	if err != nil {
		return Test{}, err
	}
	p, err := KSTail(l.N, l.M, d)
	return Test{Statistic: d, P: p}, err
}

// KSTail is the p-value that KSAsymptotic gives to a distance.
func KSTail(n, m uint64, d float64) (float64, error) {
	en := math.RoundToEven(effectiveSize(n, m))
	if en < 1 {
		return 0, refuse(TooFew, "Kolmogorov-Smirnov on %d and %d values", n, m)
	}
	return special.KolmogorovTail(int(min(en, math.MaxInt32)), d), nil
}

// effectiveSize is nm/(n+m).
func effectiveSize(n, m uint64) float64 {
	a, b := float64(n), float64(m)
	return a / (a + b) * b
}

// KSLimit is D with its p-value from Kolmogorov's limiting law, for counts that
// the finite law cannot take.
func KSLimit(l Ladder) (Test, error) {
	d, err := KSDistance(l)
	if err != nil {
		return Test{}, err
	}
	return Test{Statistic: d, P: special.KolmogorovLimit(math.Sqrt(effectiveSize(l.N, l.M)) * d)}, nil
}

// KSExact is D with its exact permutation p-value (no ties assumed); it falls
// back to KSAsymptotic where the exact law cannot be counted, as SciPy does.
func KSExact(l Ladder) (Test, error) {
	d, err := KSDistance(l)
	if err != nil {
		return Test{}, err
	}
	if p, ok := special.TwoSampleKS(l.N, l.M, d); ok {
		return Test{Statistic: d, P: p}, nil
	}
	return KSAsymptotic(l)
}

// KS is SciPy's default: exact up to 10,000 values a side, asymptotic above.
func KS(l Ladder) (Test, error) {
	if max(l.N, l.M) <= maxExactKS {
		return KSExact(l)
	}
	return KSAsymptotic(l)
}
