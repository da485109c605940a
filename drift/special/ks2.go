package special

import "math"

// TwoSampleKS is the exact permutation probability P(D ≥ d) of two samples of
// sizes n and m without ties, by counting lattice paths that leave the band
// |i/n - j/m| < d (Hodges 1957). It takes time in proportion to the band; ok is
// false where the integers of the method would overflow.
func TwoSampleKS(n, m uint64, d float64) (p float64, ok bool) {
	if n < m {
		n, m = m, n
	}
	if m == 0 || n > math.MaxInt32 {
		return 0, false
	}
	g := gcd(n, m)
	ng, mg := int64(n/g), int64(m/g)
	if float64(ng)*float64(m) > math.MaxInt32*float64(g) {
		return 0, false
	}
	h := int64(math.RoundToEven(d * float64(n/g) * float64(m)))
	switch {
	case h <= 0:
		return 1, true
	case n == m:
		return clip(equalSizesKS(int(n), int(h))), true
	}
	return clip(outsideBand(int64(n), int64(m), ng, mg, h)), true
}

// equalSizesKS is P(D ≥ h/n) for equal sizes: an alternating sum of binomial
// quotients, evaluated from the smallest term.
func equalSizesKS(n, h int) float64 {
	p := 0.0
	for k := n / h; k >= 0; k-- {
		term := 1.0
		for j := range h {
			term *= float64(n-k*h-j) / float64(n+k*h+j+1)
		}
		p = term * (1 - p)
	}
	return 2 * p
}

// outsideBand walks the lattice column by column. out[j-low] is the share of
// paths to (i, j) that have touched |ng·j - mg·i'| ≥ h on their way; a path
// comes from the left with probability i/(i+j) and from below with j/(i+j).
// Points outside the band have share 1.
func outsideBand(n, m, ng, mg, h int64) float64 {
	low, high := int64(0), min(ceilDiv(h, ng), m+1)
	prev := make([]float64, m+2)
	next := make([]float64, m+2)
	for i := int64(1); i <= n; i++ {
		newLow := min(max(floorDiv(mg*i-h, ng)+1, 0), m)
		newHigh := min(ceilDiv(mg*i+h, ng), m+1)
		if newHigh <= newLow {
			return 1
		}
		below := 1.0
		if newLow == 0 {
			below = 0
		}
		for j := newLow; j < newHigh; j++ {
			left := 1.0
			if j >= low && j < high {
				left = prev[j]
			}
			below = (left*float64(i) + below*float64(j)) / float64(i+j)
			next[j] = below
		}
		prev, next, low, high = next, prev, newLow, newHigh
	}
	if high != m+1 {
		return 1
	}
	return prev[m]
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func ceilDiv(a, b int64) int64 { return -floorDiv(-a, b) }
