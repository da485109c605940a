package special

import "math"

// CramerVonMisesLimit is the lower tail of the limiting law of the
// Cramér–von Mises statistic (Csörgő and Faraway 1996, equation 1.3). Like
// SciPy it adds terms until one is below 1e-7, so upper tails below about 1e-7
// are not resolved.
func CramerVonMisesLimit(x float64) float64 {
	if x <= 0 {
		return 0
	}
	sum := 0.0
	for k := 0.0; ; k++ {
		a, _ := math.Lgamma(k + 0.5)
		b, _ := math.Lgamma(k + 1)
		u := math.Exp(a-b) / (math.Pow(math.Pi, 1.5) * math.Sqrt(x))
		y := 4*k + 1
		q := y * y / (16 * x)
		term := u * math.Sqrt(y) * math.Exp(-2*q) * besselKScaled(0.25, q)
		sum += term
		if term < 1e-7 {
			return sum
		}
	}
}

// besselKScaled is e^x·K_ν(x), the modified Bessel function of the second kind,
// by the trapezoidal rule on ∫ exp(-x(cosh t - 1))·cosh(νt) dt. The integrand
// falls doubly exponentially, so the rule converges geometrically.
func besselKScaled(nu, x float64) float64 {
	const step = 1.0 / 32
	sum := 0.5
	for i := 1; ; i++ {
		t := float64(i) * step
		term := math.Exp(-x*2*math.Sinh(t/2)*math.Sinh(t/2)) * math.Cosh(nu*t)
		sum += term
		if term < 1e-18*sum {
			return sum * step
		}
	}
}
