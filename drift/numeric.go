package drift

import (
	"math"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/stat"
)

// ladder is the comparison with cells for values. It refuses categories.
func (c *Comparison) ladder() (stat.Ladder, error) {
	if c.Grid.Categorical() {
		return stat.Ladder{}, &stat.NotComputable{Reason: stat.WrongData, Detail: "the test needs numbers"}
	}
	return stat.LadderOfCounts(nil, c.a, c.b), nil
}

// span is what is known of a cell: the distribution functions at its two ends,
// its range of values, and whether it can hold one value only.
type span struct {
	f0, f1, g0, g1 float64
	low, high      float64
	atom           bool
	a, b           uint64
	cell           int
}

// spans lists the cells that either side uses.
func (c *Comparison) spans() []span {
	var out []span
	var below, belowB uint64
	n, m := float64(c.n), float64(c.m)
	for i := range c.a {
		a, b := c.a[i], c.b[i]
		if a+b == 0 {
			continue
		}
		s := span{f0: float64(below) / n, g0: float64(belowB) / m, a: a, b: b, cell: i, atom: c.Grid.Atom(i)}
		below, belowB = below+a, belowB+b
		s.f1, s.g1 = float64(below)/n, float64(belowB)/m
		s.low, s.high = c.rangeOf(i)
		s.atom = s.atom || s.low >= s.high
		out = append(out, s)
	}
	return out
}

// rangeOf is the range of values of a cell that either window can hold.
func (c *Comparison) rangeOf(cell int) (low, high float64) {
	low, high = c.Grid.Bounds(cell)
	return max(low, min(c.Ref.Min, c.Cur.Min)), min(high, max(c.Ref.Max, c.Cur.Max))
}

// widest is the largest distance that the distribution functions can reach
// inside the cell, in either direction.
func (s span) widest() float64 {
	if s.atom {
		return max(math.Abs(s.f0-s.g0), math.Abs(s.f1-s.g1))
	}
	return max(s.f1-s.g0, s.g1-s.f0)
}

// squares are the smallest and largest squared distances inside the cell.
func (s span) squares() (least, most float64) {
	top, bottom := s.f1-s.g0, s.f0-s.g1
	most = max(top*top, bottom*bottom)
	if top > 0 && bottom < 0 {
		return 0, most
	}
	return min(top*top, bottom*bottom), most
}

// KS is the Kolmogorov–Smirnov distance at the cells' ends, which is the least
// it can be; High adds what could hide inside a cell. P belongs to Statistic.
func (c *Comparison) KS() (Result, error) {
	l, err := c.ladder()
	if err != nil {
		return Result{}, err
	}
	t, err := stat.KSAsymptotic(l)
	r := tested("", t)
	for _, s := range c.spans() {
		r.High = max(r.High, s.widest())
	}
	return r, err
}

// MannWhitney counts pairs inside a cell as ties; the interval gives them all to
// one side or the other.
func (c *Comparison) MannWhitney() (Result, error) {
	l, err := c.ladder()
	if err != nil {
		return Result{}, err
	}
	t, err := stat.MannWhitney(l, stat.TwoSided)
	r := tested("", t)
	for _, s := range c.spans() {
		if !s.atom {
			half := float64(s.a) * float64(s.b) / 2
			r.Low, r.High = r.Low-half, r.High+half
		}
	}
	return r, err
}

// Wasserstein is the area between the distribution functions. Where they do not
// cross inside a cell the cell's sums give its area exactly; where they may, the
// sums give the least and the corners the most.
func (c *Comparison) Wasserstein() (Result, error) {
	if _, err := c.ladder(); err != nil {
		return Result{}, err
	}
	if _, err := stat.SharesOf([]uint64{c.n}, []uint64{c.m}); err != nil {
		return Result{}, err
	}
	sumA, sumB := sumsByCell(c.Ref), sumsByCell(c.Cur)
	r := Result{}
	last := math.Inf(-1)
	var f, g float64
	for _, s := range c.spans() {
		if !math.IsInf(last, -1) {
			gap := math.Abs(f-g) * (s.low - last)
			r.Low, r.High = r.Low+gap, r.High+gap
		}
		low, high := c.cellArea(s, sumA[uint32(s.cell)], sumB[uint32(s.cell)])
		r.Low, r.High = r.Low+low, r.High+high
		last, f, g = s.high, s.f1, s.g1
	}
	r.Statistic = (r.Low + r.High) / 2
	return r, nil
}

func sumsByCell(s *dist.Summary) map[uint32]float64 {
	out := make(map[uint32]float64, len(s.Cells))
	for _, c := range s.Cells {
		out[c.Index] = c.Sum
	}
	return out
}

// cellArea bounds the area between the functions inside one cell. The integral
// of a distribution function over [low, high] is high·F(high) - low·F(low) minus
// the mean of the values inside times their share.
func (c *Comparison) cellArea(s span, sumA, sumB float64) (low, high float64) {
	width := s.high - s.low
	if s.atom || width <= 0 {
		return 0, 0
	}
	under := (s.f0-s.g0)*width + (float64(s.a)*s.high-sumA)/float64(c.n) - (float64(s.b)*s.high-sumB)/float64(c.m)
	low = math.Abs(under)
	if s.f0 >= s.g1 || s.g0 >= s.f1 {
		return low, low // the functions keep their order throughout the cell
	}
	return low, max(low, s.widest()*width)
}

// WassersteinNormed divides by the reference's population deviation, at least
// 0.001.
func (c *Comparison) WassersteinNormed() (Result, error) {
	r, err := c.Wasserstein()
	if err != nil {
		return r, err
	}
	scale := max(math.Sqrt(c.Ref.M2/float64(max(c.Ref.Count, 1))), 0.001)
	r.Statistic, r.Low, r.High = r.Statistic/scale, r.Low/scale, r.High/scale
	return r, nil
}

// Welch compares means; cells are not needed.
func (c *Comparison) Welch() (Result, error) {
	if c.Grid.Categorical() {
		return Result{}, &stat.NotComputable{Reason: stat.WrongData, Detail: "the test needs numbers"}
	}
	t, err := stat.Welch(momentsOf(c.Ref), momentsOf(c.Cur))
	return tested("", t), err
}

func momentsOf(s *dist.Summary) stat.Moments {
	mean, _ := s.Mean()
	variance, _ := s.Variance()
	return stat.Moments{N: s.Count, Mean: mean, Variance: variance}
}
