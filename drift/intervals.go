package drift

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// CramerVonMises takes a cell's values as if they lay in any order, all orders
// being as likely; only values that are equal are ties. The interval covers every
// order. P is that of equal values in any order too: SciPy's treatment of ties
// makes the statistic grow with the difference of the sizes, drift or not.
func (c *Comparison) CramerVonMises() (Result, error) {
	l, err := c.ladder()
	if err != nil {
		return Result{}, err
	}
	if _, err := stat.CramerVonMises(l); err != nil {
		return Result{}, err
	}
	n, m := float64(c.n), float64(c.m)
	var tied, shuffled, low, high, below, belowB float64
	for _, s := range c.spans() {
		a, b := float64(s.a), float64(s.b)
		lo, hi := cvmBounds(n, m, below, belowB, a, b, s.atom)
		mean := cvmShuffled(n, m, below, belowB, a, b)
		shuffled += mean
		if tied += mean; s.atom {
			tied += lo - mean // of an atom the bounds are one
		}
		low, high, below, belowB = low+lo, high+hi, below+a, belowB+b
	}
	scale, shift := n*m*(n+m), (4*n*m-1)/(6*(n+m))
	of := func(u float64) float64 { return u/scale - shift }
	return Result{Statistic: of(tied), Low: of(low), High: of(high), P: stat.CramerVonMisesP(c.n, c.m, of(shuffled)), HasP: true}, nil
}

// cvmShuffled is what a cell of a and b values after A and B smaller ones adds to
// n·Σ(rank-position)² + m·Σ(rank-position)² in the mean over all orders of its
// values.
func cvmShuffled(n, m, A, B, a, b float64) float64 {
	return n*(a*B*B+B*a*b+a*b*(2*b+1)/6) + m*(b*A*A+A*a*b+a*b*(2*a+1)/6)
}

// cvmBounds bounds what a cell of a and b values after A and B smaller ones adds
// to n·Σ(rank-position)² + m·Σ(rank-position)². Let S be the number of its pairs
// in which the reference's value is the larger, ties counting half. The sum is
// nA-free terms plus 2S·(nB-mA) plus squares, which lie between those of equal
// shares (Jensen) and those of all-or-nothing shares; ties within a sample add
// at most (a³-a)/12.
func cvmBounds(n, m, A, B, a, b float64, atom bool) (low, high float64) {
	ties := n*a*(a*a-1)/12 + m*b*(b*b-1)/12
	if atom {
		v := n*a*(B+b/2)*(B+b/2) + m*b*(A+a/2)*(A+a/2) + ties
		return v, v
	}
	base := n*a*B*B + m*b*A*A + 2*m*A*a*b
	slope := 2 * (n*B - m*A)
	high = base + ties + max(m*a*a*b, slope*a*b+n*b*a*b)
	if a == 0 || b == 0 {
		return base, high
	}
	best := min(max((2*m*a-slope)/(2*(n/a+m/b)), 0), a*b)
	return base + slope*best + n*best*best/a + m*(a*b-best)*(a*b-best)/b, high
}

// Anderson treats a cell's values as ties, like CramerVonMises.
func (c *Comparison) Anderson() (Result, error) {
	l, err := c.ladder()
	if err != nil {
		return Result{}, err
	}
	t, err := stat.Anderson(l)
	if err != nil {
		return Result{}, err
	}
	n, m := float64(c.n), float64(c.m)
	all := n + m
	var low, high, below float64
	for _, s := range c.spans() {
		h := float64(s.a + s.b)
		lo, hi := andersonBounds(s, below, h, all-below-h, min(n, m))
		low, high, below = low+lo, high+hi, below+h
	}
	scale, deviation := n*m*(all-1)/all, stat.AndersonDeviation(c.n, c.m)
	r := tested("", t)
	r.Low, r.High = (low*scale-1)/deviation, (high*scale-1)/deviation
	return r, nil
}

// andersonBounds bounds the sum over a cell's values of h·D²/(ce + (c+e)h/4),
// where h values tie after c smaller and before e larger ones and D is the
// distance of the distribution functions at their middle. At the ends of the
// range, where the weight has no bound, D is at most the share of values beyond.
func andersonBounds(s span, c, h, e, smaller float64) (low, high float64) {
	least, most := s.squares()
	if s.atom {
		d := (s.f0 + s.f1 - s.g0 - s.g1) / 2
		v := h * d * d / (c*e + (c+e)*h/4)
		if c+e == 0 {
			v = 0
		}
		return v, v
	}
	all := c + h + e
	middle := max(c*(all-c), (c+h)*(all-c-h))
	if c < all/2 && c+h > all/2 {
		middle = all * all / 4
	}
	high = math.Inf(1)
	if c*e > 0 {
		high = most * h / (c * e)
	}
	if e > 0 {
		high = min(high, 2*(c+h)*h/(smaller*smaller*e))
	}
	if c > 0 {
		high = min(high, 2*(e+h)*h/(smaller*smaller*c))
	}
	if middle > 0 {
		low = least * h / middle
	}
	return low, high
}
