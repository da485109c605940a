package stat

import "math"

// Anderson is the two-sample Anderson–Darling statistic on mid-ranks,
// standardised (Scholz and Stephens 1987), with the interpolated p-value that
// scipy.stats.anderson_ksamp gives: it lies in [0.001, 0.25].
func Anderson(l Ladder) (Test, error) {
	if err := l.check(); err != nil {
		return Test{}, err
	}
	switch {
	case l.Distinct() < 2:
		return Test{}, refuse(Constant, "Anderson-Darling on a single value")
	case l.N+l.M < 4:
		return Test{}, refuse(TooFew, "Anderson-Darling on %d and %d values", l.N, l.M)
	}
	a2 := andersonSum(l)
	standard := (a2 - 1) / math.Sqrt(andersonVariance(float64(l.N), float64(l.M)))
	return Test{Statistic: standard, P: andersonP(standard)}, nil
}

// andersonSum adds both samples' weighted squared distances from the pooled
// distribution function.
func andersonSum(l Ladder) float64 {
	n, m := float64(l.N), float64(l.M)
	all := n + m
	var belowA, belowB, sum float64
	for i := range l.A {
		a, b := float64(l.A[i]), float64(l.B[i])
		t := a + b
		mid := belowA + belowB + t/2
		weight := t / all / (mid*(all-mid) - all*t/4)
		da := all*(belowA+a/2) - mid*n
		db := all*(belowB+b/2) - mid*m
		sum += weight * (da*da/n + db*db/m)
		belowA, belowB = belowA+a, belowB+b
	}
	return sum * (all - 1) / all
}

// andersonVariance is the variance of the statistic under no drift for k = 2
// samples. Its double sum g has the closed form H2(N-1) - 2·H(N-1)/N.
func andersonVariance(n, m float64) float64 {
	all := n + m
	h, h2 := harmonic(all - 1)
	g := h2 - 2*h/all
	inv := 1/n + 1/m
	const k = 2.0
	a := (4*g-6)*(k-1) + (10-6*g)*inv
	b := (2*g-4)*k*k + 8*h*k + (2*g-14*h-4)*inv - 8*h + 4*g - 6
	c := (6*h+2*g-2)*k*k + (4*h-4*g+6)*k + (2*h-6)*inv + 4*h
	d := (2*h+6)*k*k - 4*h*k
	return (a*all*all*all + b*all*all + c*all + d) / ((all - 1) * (all - 2) * (all - 3))
}

// harmonic returns the sums of 1/i and of 1/i² for i = 1 … n.
func harmonic(n float64) (h, h2 float64) {
	if n < 64 {
		for i := 1.0; i <= n; i++ {
			h += 1 / i
			h2 += 1 / (i * i)
		}
		return h, h2
	}
	const gamma = 0.57721566490153286060651209008240243
	r := 1 / n
	h = math.Log(n) + gamma + r/2 - r*r/12 + r*r*r*r/120
	h2 = math.Pi*math.Pi/6 - r + r*r/2 - r*r*r/6 + r*r*r*r*r/30
	return h, h2
}

// andersonP interpolates log p quadratically in the statistic through the
// critical values of Scholz and Stephens' table 2 for two samples.
func andersonP(a2 float64) float64 {
	const lowest, highest = 0.325, 6.546
	switch {
	case a2 < lowest:
		return 0.25
	case a2 > highest:
		return 0.001
	}
	c := andersonFit()
	return math.Exp(c[0] + a2*(c[1]+a2*c[2]))
}

// andersonFit is the least-squares parabola through (critical value, log p).
func andersonFit() [3]float64 {
	critical := [7]float64{0.325, 1.226, 1.961, 2.718, 3.752, 4.592, 6.546}
	level := [7]float64{0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001}
	var s [5]float64
	var r [3]float64
	for i, x := range critical {
		y, power := math.Log(level[i]), 1.0
		for j := range s {
			s[j] += power
			if j < 3 {
				r[j] += power * y
			}
			power *= x
		}
	}
	return solve3([3][4]float64{
		{s[0], s[1], s[2], r[0]},
		{s[1], s[2], s[3], r[1]},
		{s[2], s[3], s[4], r[2]},
	})
}

// solve3 solves three equations by Gaussian elimination; the caller knows that
// they are regular.
func solve3(a [3][4]float64) (x [3]float64) {
	for i := range 3 {
		for r := i + 1; r < 3; r++ {
			f := a[r][i] / a[i][i]
			for c := i; c < 4; c++ {
				a[r][c] -= f * a[i][c]
			}
		}
	}
	for i := 2; i >= 0; i-- {
		x[i] = a[i][3]
		for c := i + 1; c < 3; c++ {
			x[i] -= a[i][c] * x[c]
		}
		x[i] /= a[i][i]
	}
	return x
}

// AndersonDeviation is what the raw statistic is divided by to standardise it.
func AndersonDeviation(n, m uint64) float64 {
	return math.Sqrt(andersonVariance(float64(n), float64(m)))
}
