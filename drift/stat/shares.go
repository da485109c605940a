package stat

import "math"

// ShareFloor is what an empty share counts as in the population stability index
// of practice.
const ShareFloor = 1e-4

// Shares are two distributions over the same cells.
type Shares struct{ P, Q []float64 } // reference, current

// SharesOf divides counts by their totals.
func SharesOf(ref, cur []uint64) (Shares, error) {
	n, m := Total(ref), Total(cur)
	if err := checkSizes(n, m); err != nil {
		return Shares{}, err
	}
	s := Shares{make([]float64, len(ref)), make([]float64, len(cur))}
	for i := range ref {
		s.P[i] = float64(ref[i]) / float64(n)
		s.Q[i] = float64(cur[i]) / float64(m)
	}
	return s, nil
}

// Total adds counts.
func Total(counts []uint64) uint64 {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return n
}

// Divergence names a distance between shares that is a function of a sum over
// cells, so that each cell has a contribution.
type Divergence int

// Divergences. JS is the Jensen–Shannon distance in base 2 (at most 1), JSNat
// the same with natural logarithms, JSDivergence its square in bits. KL is
// KL(ref‖cur) in nats with empty shares floored. LInfinity is the largest
// difference and not a sum: its one contribution is that cell's.
const (
	PSI Divergence = iota
	JS
	JSNat
	JSDivergence
	KL
	Hellinger
	TVD
	LInfinity
)

// Distance evaluates a divergence.
func (s Shares) Distance(d Divergence) float64 {
	if d == LInfinity {
		worst := 0.0
		for i := range s.P {
			worst = max(worst, math.Abs(s.P[i]-s.Q[i]))
		}
		return worst
	}
	sum := 0.0
	for _, t := range s.terms(d) {
		sum += t
	}
	sum = max(sum, 0)
	switch d {
	case JS, Hellinger:
		return math.Sqrt(sum)
	case JSNat:
		return math.Sqrt(sum * math.Ln2)
	}
	return sum
}

// Contributions says which share of the distance each cell makes; they add up
// to 1, or are all 0 when the distributions agree.
func (s Shares) Contributions(d Divergence) []float64 {
	terms := s.terms(d)
	sum := 0.0
	for _, t := range terms {
		sum += t
	}
	for i := range terms {
		if sum > 0 {
			terms[i] /= sum
		} else {
			terms[i] = 0
		}
	}
	return terms
}

func (s Shares) terms(d Divergence) []float64 {
	out := make([]float64, len(s.P))
	for i := range out {
		out[i] = term(d, s.P[i], s.Q[i])
	}
	if d == LInfinity {
		keepLargest(out)
	}
	return out
}

// term is one cell's part of the sum. For the Jensen–Shannon family it is in
// bits, whatever the distance is reported in.
func term(d Divergence, p, q float64) float64 {
	switch d {
	case PSI:
		p, q = max(p, ShareFloor), max(q, ShareFloor)
		return (q - p) * math.Log(q/p)
	case JS, JSNat, JSDivergence:
		mid := (p + q) / 2
		return (entropyTerm(p, mid) + entropyTerm(q, mid)) / 2
	case KL:
		p, q = max(p, ShareFloor), max(q, ShareFloor)
		return p * math.Log(p/q)
	case Hellinger:
		diff := math.Sqrt(p) - math.Sqrt(q)
		return diff * diff / 2
	case TVD:
		return math.Abs(p-q) / 2
	}
	return math.Abs(p - q)
}

func entropyTerm(p, mid float64) float64 {
	if p == 0 {
		return 0
	}
	return p * math.Log2(p/mid)
}

func keepLargest(xs []float64) {
	best := 0
	for i, x := range xs {
		if x > xs[best] {
			best = i
		}
	}
	for i := range xs {
		if i != best {
			xs[i] = 0
		}
	}
}

// Entropy is the Shannon entropy of shares in bits.
func Entropy(shares []float64) float64 {
	h := 0.0
	for _, p := range shares {
		if p > 0 {
			h -= p * math.Log2(p)
		}
	}
	return h
}
