package special

import "math"

// KolmogorovLimit is the upper tail of Kolmogorov's limiting law,
// P(√n·D > x) as n grows (scipy.special.kolmogorov).
func KolmogorovLimit(x float64) float64 {
	if x <= 0 {
		return 1
	}
	if x < 0.82 {
		return 1 - jacobiSum(x)
	}
	sum := 0.0
	for k := 1.0; ; k++ {
		term := 2 * math.Exp(-2*k*k*x*x)
		if int(k)%2 == 0 {
			term = -term
		}
		sum += term
		if math.Abs(term) <= 1e-18*math.Abs(sum) {
			return clip(sum)
		}
	}
}

// jacobiSum is the lower tail by the theta-transformed series, which converges
// fast where the alternating one does not.
func jacobiSum(x float64) float64 {
	sum := 0.0
	for k := 1.0; k < 20; k++ {
		odd := 2*k - 1
		sum += math.Exp(-odd * odd * math.Pi * math.Pi / (8 * x * x))
	}
	return clip(math.Sqrt(2*math.Pi) / x * sum)
}

// KolmogorovTail is P(D ≥ d) for the two-sided one-sample statistic of n
// observations (scipy.stats.kstwo.sf). It follows the choice of methods of
// Simard and L'Ecuyer (2011): exact where that is cheap, otherwise
// approximations with at least five correct digits.
func KolmogorovTail(n int, d float64) float64 {
	t := float64(n) * d
	switch {
	case n <= 0 || math.IsNaN(d):
		return math.NaN()
	case d >= 1:
		return 0
	case d <= 0 || t <= 0.5:
		return 1
	case t <= 1:
		return clip(1 - rubenGambino(n, t))
	case t >= float64(n)-1:
		return clip(2 * math.Pow(1-d, float64(n)))
	case d >= 0.5:
		return clip(2 * Smirnov(n, d))
	case n <= 140:
		return kolmogorovSmall(n, d)
	}
	return kolmogorovLarge(n, d)
}

// rubenGambino is n!·((2t-1)/n)^n, the lower tail below 1/n.
func rubenGambino(n int, t float64) float64 {
	lg, _ := math.Lgamma(float64(n) + 1)
	return math.Exp(lg - float64(n)*math.Log(float64(n)) + float64(n)*math.Log(2*t-1))
}

func kolmogorovSmall(n int, d float64) float64 {
	if float64(n)*d*d <= 4 {
		return clip(1 - durbin(n, d))
	}
	return clip(2 * Smirnov(n, d))
}

func kolmogorovLarge(n int, d float64) float64 {
	ndd := float64(n) * d * d
	switch {
	case ndd >= 370:
		return 0
	case ndd >= 2.2:
		return clip(2 * Smirnov(n, d))
	case ndd <= 0.04: // the lower tail is below 1e-12
		return 1
	case n <= 100_000 && float64(n)*math.Pow(d, 1.5) <= 1.4:
		return clip(1 - durbin(n, d))
	}
	return clip(1 - pelzGood(n, d))
}

// durbin is the lower tail by Durbin's matrix as Marsaglia, Tsang and Wang
// (2003) compute it: the k-th diagonal element of n!/nⁿ·Hⁿ.
func durbin(n int, d float64) float64 {
	nd := float64(n) * d
	k := int(math.Ceil(nd))
	h := durbinMatrix(k, float64(k)-nd)
	power, exponent := h.power(n)
	p := power.at(k-1, k-1)
	for i := 1; i <= n; i++ {
		p *= float64(i) / float64(n)
		if p < 0x1p-128 {
			p *= 0x1p128
			exponent -= 128
		}
	}
	return clip(math.Ldexp(p, exponent))
}

func durbinMatrix(k int, h float64) square {
	m := 2*k - 1
	v := make([]float64, m)
	w := make([]float64, m)
	fac := 1.0
	for j := range m {
		w[j] = fac
		fac /= float64(j + 1)
		v[j] = (1 - math.Pow(h, float64(j+1))) * fac
	}
	tail := math.Pow(max(2*h-1, 0), float64(m)) - 2*math.Pow(h, float64(m))
	v[m-1] = (1 + tail) * fac
	out := newSquare(m)
	for i := 1; i < m; i++ {
		for r := i - 1; r < m; r++ {
			out.set(r, i, w[r-i+1])
		}
	}
	for r := range m {
		out.set(r, 0, v[r])
		out.set(m-1, r, v[m-1-r])
	}
	return out
}

// square is a dense square matrix.
type square struct {
	n int
	v []float64
}

func newSquare(n int) square             { return square{n, make([]float64, n*n)} }
func (a square) at(i, j int) float64     { return a.v[i*a.n+j] }
func (a square) set(i, j int, v float64) { a.v[i*a.n+j] = v }
func (a square) row(i int) []float64     { return a.v[i*a.n : (i+1)*a.n] }
func (a square) scale(f float64) {
	for i := range a.v {
		a.v[i] *= f
	}
}

func (a square) times(b square) square {
	out := newSquare(a.n)
	for i := range a.n {
		dst := out.row(i)
		for k, f := range a.row(i) {
			if f == 0 {
				continue
			}
			for j, g := range b.row(k) {
				dst[j] += f * g
			}
		}
	}
	return out
}

// power raises a matrix by squaring and keeps the scale in a binary exponent.
func (a square) power(n int) (out square, exponent int) {
	out = newSquare(a.n)
	for i := range a.n {
		out.set(i, i, 1)
	}
	mid, aExp := a.n/2, 0
	for ; n > 0; n /= 2 {
		if n%2 == 1 {
			out = out.times(a)
			exponent += aExp
			if math.Abs(out.at(mid, mid)) > 0x1p128 {
				out.scale(0x1p-128)
				exponent += 128
			}
		}
		if n == 1 {
			break
		}
		a = a.times(a)
		aExp *= 2
		if math.Abs(a.at(mid, mid)) > 0x1p128 {
			a.scale(0x1p-128)
			aExp += 128
		}
	}
	return out, exponent
}

func clip(p float64) float64 { return min(max(p, 0), 1) }
