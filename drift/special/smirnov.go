package special

import "math"

// smirnovSumLimit is the size up to which Smirnov adds every term.
const smirnovSumLimit = 1024

// smirnovAsymptotic is the size from which the asymptotic form is used.
const smirnovAsymptotic = 1_000_000

// Smirnov is P(D⁺ ≥ d) for the one-sided one-sample statistic of n observations
// (scipy.special.smirnov). Above a million observations it is the asymptotic
// form exp(-(6nd+1)²/18n).
func Smirnov(n int, d float64) float64 {
	switch {
	case n <= 0 || math.IsNaN(d):
		return math.NaN()
	case d <= 0:
		return 1
	case d >= 1:
		return 0
	}
	fn := float64(n)
	if n > smirnovAsymptotic {
		return math.Exp(-(6*fn*d + 1) * (6*fn*d + 1) / (18 * fn))
	}
	return clip(d * smirnovSum(fn, d))
}

// smirnovSum adds C(n,j)·p^(j-1)·(1-p)^(n-j) with p = d + j/n over j ≤ n(1-d).
// The terms of a large sample are a smooth function of j that vanishes at both
// ends faster than any power, where a sum over every s-th term times s is the
// whole sum to all digits (Euler-Maclaurin without end corrections).
func smirnovSum(n, d float64) float64 {
	stride := max(1, n/smirnovSumLimit)
	if n*d < 40 {
		stride = 1 // the first terms are not negligible
	}
	sum := 0.0
	for j := 0.0; j <= math.Floor(n*(1-d)); j += stride {
		p := d + j/n
		if p >= 1 {
			break
		}
		sum += binomialAt(n, j, p, -n*d) / p
	}
	return sum * stride
}

// binomialAt is the binomial probability of j in n trials of probability p,
// where excess = j - n·p is given because the caller knows it without
// cancellation; j need not be whole. Loader's saddle point form keeps full relative precision.
func binomialAt(n, j, p, excess float64) float64 {
	switch j {
	case 0:
		return math.Exp(n * math.Log1p(-p))
	case n:
		return math.Exp(n * math.Log(p))
	}
	lc := stirlingError(n) - stirlingError(j) - stirlingError(n-j) -
		deviance(j, n*p, excess) - deviance(n-j, n*(1-p), -excess)
	return math.Exp(lc) * math.Sqrt(n/(2*math.Pi*j*(n-j)))
}

// deviance is x·ln(x/m) + m - x with x - m given.
func deviance(x, m, diff float64) float64 {
	if math.Abs(diff) < 0.1*(x+m) {
		v := diff / (x + m)
		sum := diff * v
		term := 2 * x * v
		for j := 1; ; j++ {
			term *= v * v
			next := sum + term/float64(2*j+1)
			if next == sum {
				return next
			}
			sum = next
		}
	}
	return x*math.Log(x/m) - diff
}

// stirlingError is ln x! minus Stirling's approximation of it.
func stirlingError(x float64) float64 {
	if x < 16 {
		lg, _ := math.Lgamma(x + 1)
		return lg - (x+0.5)*math.Log(x) + x - 0.5*math.Log(2*math.Pi)
	}
	xx := x * x
	return (1.0/12 - (1.0/360-(1.0/1260-(1.0/1680-1.0/1188/xx)/xx)/xx)/xx) / x
}
