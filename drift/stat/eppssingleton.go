package stat

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/mathext"
)

// EppsSingleton compares the two empirical characteristic functions at 0.4 and
// 0.8 over half the pooled interquartile range
// (scipy.stats.epps_singleton_2samp). It needs the rows themselves, without
// missing and infinite values.
func EppsSingleton(ref, cur []float64) (Test, error) {
	if err := checkSizes(uint64(len(ref)), uint64(len(cur))); err != nil {
		return Test{}, err
	}
	if len(ref) < 5 || len(cur) < 5 {
		return Test{}, refuse(TooFew, "Epps-Singleton on %d and %d values, want 5", len(ref), len(cur))
	}
	pooled := slices.Concat(ref, cur)
	slices.Sort(pooled)
	half := (Quantile(pooled, 0.75) - Quantile(pooled, 0.25)) / 2
	if half == 0 {
		return Test{}, refuse(Constant, "the pooled interquartile range is zero")
	}
	return eppsSingleton(ref, cur, half)
}

func eppsSingleton(ref, cur []float64, half float64) (Test, error) {
	n, m := float64(len(ref)), float64(len(cur))
	meanA, covA := waveMoments(ref, half)
	meanB, covB := waveMoments(cur, half)
	cov := mat.NewDense(4, 4, nil)
	for i := range 4 {
		for j := range 4 {
			cov.Set(i, j, (n+m)/n*covA[i][j]+(n+m)/m*covB[i][j])
		}
	}
	inverse, ok := pseudoInverse(cov)
	if !ok {
		return Test{}, refuse(Constant, "the covariance of the characteristic functions is singular")
	}
	diff := mat.NewVecDense(4, nil)
	for i := range 4 {
		diff.SetVec(i, meanA[i]-meanB[i])
	}
	w := (n + m) * mat.Inner(diff, inverse, diff)
	if max(n, m) < 25 {
		w /= 1 + math.Pow(n+m, -0.45) + 10.1*(math.Pow(n, -1.7)+math.Pow(m, -1.7))
	}
	df := float64(rank(inverse))
	return Test{Statistic: w, P: chiSquaredTail(w, df), DF: df}, nil
}

// waveMoments returns mean and biased covariance of cos and sin of both
// frequencies, in the order cos(.4) cos(.8) sin(.4) sin(.8).
func waveMoments(xs []float64, half float64) (mean [4]float64, cov [4][4]float64) {
	waves := make([][4]float64, len(xs))
	n := float64(len(xs))
	for i, x := range xs {
		s1, c1 := math.Sincos(0.4 / half * x)
		s2, c2 := math.Sincos(0.8 / half * x)
		waves[i] = [4]float64{c1, c2, s1, s2}
		for k, v := range waves[i] {
			mean[k] += v
		}
	}
	for k := range mean {
		mean[k] /= n
	}
	for _, w := range waves {
		for i := range 4 {
			for j := range 4 {
				cov[i][j] += (w[i] - mean[i]) * (w[j] - mean[j]) / n
			}
		}
	}
	return mean, cov
}

// pseudoInverse is Moore and Penrose's, dropping singular values below 1e-13
// of the largest. A column of few values has an exactly singular covariance,
// whose zero comes out as rounding noise; numpy's cut of 1e-15 lies inside it.
func pseudoInverse(a *mat.Dense) (*mat.Dense, bool) {
	var svd mat.SVD
	if !svd.Factorize(a, mat.SVDThin) {
		return nil, false
	}
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	values := svd.Values(nil)
	if !(values[0] > 1e-20) { // waves are at most 1: this is the rounding of zero
		return nil, false
	}
	scale := mat.NewDense(len(values), len(values), nil)
	for i, s := range values {
		if s > 1e-13*values[0] {
			scale.Set(i, i, 1/s)
		}
	}
	var out, half mat.Dense
	half.Mul(&v, scale)
	out.Mul(&half, u.T())
	return &out, true
}

// rank counts singular values above n·ε of the largest, as numpy does.
func rank(a *mat.Dense) int {
	var svd mat.SVD
	if !svd.Factorize(a, mat.SVDNone) {
		return 0
	}
	values := svd.Values(nil)
	n := 0
	for _, s := range values {
		if s > values[0]*float64(len(values))*0x1p-52 {
			n++
		}
	}
	return n
}

// chiSquaredTail is P(χ² > x) with df degrees of freedom; none leave nothing to
// test.
func chiSquaredTail(x, df float64) float64 {
	switch {
	case df <= 0 || x <= 0:
		return 1
	case math.IsInf(x, 1):
		return 0
	}
	return mathext.GammaIncRegComp(df/2, x/2)
}
