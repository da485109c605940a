package dist

import (
	"fmt"
	"math"
)

// Quantile is an estimate and the range that certainly holds the true sample
// quantile (the value of rank ceil(q·n)).
type Quantile struct{ Value, Low, High float64 }

// Quantile reads a quantile (0 ≤ q ≤ 1) off the cells. Inside a cell the value
// is interpolated; the range is the cell, cut by the window's own minimum and
// maximum. ok is false without numbers or on a categorical grid.
func (s *Summary) Quantile(g *Grid, q float64) (est Quantile, ok bool, err error) {
	if s.GridID != g.ID() {
		return est, false, fmt.Errorf("quantile: %w", ErrGridMismatch)
	}
	if g.Categorical() || s.Count == 0 || !(q >= 0 && q <= 1) {
		return est, false, nil
	}
	rank := min(max(uint64(math.Ceil(q*float64(s.Count))), 1), s.Count)
	var before uint64
	for _, c := range s.Cells {
		if before+c.Count >= rank {
			return s.within(g, c, rank-before), true, nil
		}
		before += c.Count
	}
	return est, false, fmt.Errorf("quantile: cells hold %d of %d values", before, s.Count)
}

// within places the k-th of a cell's values.
func (s *Summary) within(g *Grid, c Cell, k uint64) Quantile {
	lo, hi := s.CellRange(g, int(c.Index))
	if g.Atom(int(c.Index)) || lo >= hi {
		return Quantile{lo, lo, lo}
	}
	share := (float64(k) - 0.5) / float64(c.Count)
	return Quantile{lo + share*(hi-lo), lo, hi}
}

// CellRange is the range of values that a cell of this summary can hold: the
// cell's bounds cut by the window's minimum and maximum.
func (s *Summary) CellRange(g *Grid, cell int) (lo, hi float64) {
	lo, hi = g.Bounds(cell)
	if g.Atom(cell) {
		return lo, lo
	}
	return max(lo, s.Min), min(hi, s.Max)
}
