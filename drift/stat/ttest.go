package stat

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Moments are a sample's size, mean and sample variance (n-1).
type Moments struct {
	N              uint64
	Mean, Variance float64
}

// MomentsOf computes moments in two passes, the second of which also corrects
// the mean. Missing and infinite values must be gone already.
func MomentsOf(xs []float64) Moments {
	m := Moments{N: uint64(len(xs))}
	n := max(1, float64(len(xs)))
	for _, x := range xs {
		m.Mean += x
	}
	m.Mean /= n
	squares, rest := 0.0, 0.0
	for _, x := range xs {
		d := x - m.Mean
		squares += d * d
		rest += d
	}
	if len(xs) > 1 {
		m.Variance = (squares - rest*rest/n) / (n - 1)
	}
	m.Mean += rest / n
	return m
}

// Student is the pooled t-test, two-sided; the statistic has the sign of
// mean(ref) - mean(cur) (scipy.stats.ttest_ind).
func Student(ref, cur Moments) (Test, error) {
	if err := checkMoments(ref, cur); err != nil {
		return Test{}, err
	}
	n, m := float64(ref.N), float64(cur.N)
	df := n + m - 2
	if df < 1 {
		return Test{}, refuse(TooFew, "t-test on %d and %d values", ref.N, cur.N)
	}
	pooled := ((n-1)*ref.Variance + (m-1)*cur.Variance) / df
	return tTest(ref.Mean-cur.Mean, math.Sqrt(pooled*(1/n+1/m)), df), nil
}

// Welch is the t-test for unequal variances, two-sided; the statistic has the
// sign of mean(ref) - mean(cur) (scipy.stats.ttest_ind, equal_var=False). Between
// constants that differ it is infinite, and p is 0.
func Welch(ref, cur Moments) (Test, error) {
	if err := checkMoments(ref, cur); err != nil {
		return Test{}, err
	}
	if ref.N < 2 || cur.N < 2 {
		return Test{}, refuse(TooFew, "Welch's test on %d and %d values", ref.N, cur.N)
	}
	n, m := float64(ref.N), float64(cur.N)
	a, b := ref.Variance/n, cur.Variance/m
	df := 1.0
	if a+b > 0 { // by shares: the squares of large variances are no numbers
		r, s := a/(a+b), b/(a+b)
		df = 1 / (r*r/(n-1) + s*s/(m-1))
	}
	return tTest(ref.Mean-cur.Mean, math.Sqrt(a+b), df), nil
}

func checkMoments(ref, cur Moments) error {
	if err := checkSizes(ref.N, cur.N); err != nil {
		return err
	}
	if ref.Variance == 0 && cur.Variance == 0 && ref.Mean == cur.Mean {
		return refuse(Constant, "t-test between equal constants")
	}
	if sum := ref.Variance + cur.Variance; math.IsInf(sum, 0) || math.IsNaN(sum) {
		return refuse(TooLarge, "t-test: the variance is beyond the range of doubles")
	}
	return nil
}

func tTest(diff, stderr, df float64) Test {
	t := diff / stderr
	if math.IsInf(t, 0) {
		return Test{Statistic: t, P: 0, DF: df}
	}
	return Test{Statistic: t, P: mathext.RegIncBeta(df/2, 0.5, df/(df+t*t)), DF: df}
}
