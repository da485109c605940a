package special

import "math"

// mannWhitneyLimit bounds the table of the exact Mann–Whitney law.
const mannWhitneyLimit = 10_000_000

// MannWhitneyTail is the exact P(U ≥ u) for samples of sizes n and m without
// ties. ok is false where the table of counts would be too large.
func MannWhitneyTail(n, m, u int) (p float64, ok bool) {
	if n < 0 || m < 0 || n*m > mannWhitneyLimit {
		return 0, false
	}
	law := mannWhitneyLaw(n, m)
	tail := 0.0
	for v := len(law) - 1; v >= max(u, 0); v-- {
		tail += law[v]
	}
	return clip(tail), true
}

// mannWhitneyLaw returns P(U = u) for u = 0 … n·m. It multiplies the Gaussian
// binomial ∏ (1-q^(m+i))/(1-q^i) out, dividing by the ordinary binomial
// (m+i)/i on the way so that nothing overflows.
func mannWhitneyLaw(n, m int) []float64 {
	if n > m {
		n, m = m, n
	}
	law := make([]float64, n*m+1)
	law[0] = 1
	for i := 1; i <= n; i++ {
		top := i * m
		for u := top; u >= m+i; u-- {
			law[u] -= law[u-m-i]
		}
		for u := i; u <= top; u++ {
			law[u] += law[u-i]
		}
		scale := float64(i) / float64(m+i)
		for u := range top + 1 {
			law[u] *= scale
		}
	}
	for u := range law {
		law[u] = math.Max(law[u], 0)
	}
	return law
}
