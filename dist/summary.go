package dist

import (
	"errors"
	"fmt"
	"math"
)

// ErrGridMismatch means that two summaries were counted on different grids.
var ErrGridMismatch = errors.New("summaries are on different grids")

// Cell is one cell's share of a summary. Sum is the sum of its values and 0 for
// categories.
type Cell struct {
	Index uint32  `json:"i"`
	Count uint64  `json:"n"`
	Sum   float64 `json:"sum,omitempty"`
}

// Summary is what a column looked like in a window. The zero value is the
// summary of no rows on no grid.
//
// Rows = Count + Missing + NaN + PosInf + NegInf. Min, Max, Sum and M2 are over
// the Count finite numbers and 0 for categories. M2 is the sum of squared
// deviations from the mean, not of squares: a column of timestamps keeps its
// variance.
type Summary struct {
	GridID   uint64   `json:"grid,omitempty,string"` // 0: no grid yet, moments and counts only
	Count    uint64   `json:"count"`
	Missing  uint64   `json:"missing,omitempty"`
	NaN      uint64   `json:"nan,omitempty"`
	PosInf   uint64   `json:"pos_inf,omitempty"`
	NegInf   uint64   `json:"neg_inf,omitempty"`
	Weight   float64  `json:"weight,omitempty"` // sum of the rows' weights
	Min      float64  `json:"min"`
	Max      float64  `json:"max"`
	Sum      float64  `json:"sum"`
	M2       float64  `json:"m2"`
	Cells    []Cell   `json:"cells,omitempty"` // ascending by Index, no empty ones
	Distinct Distinct `json:"distinct,omitzero"`
}

// Rows is the number of rows, whatever they held.
func (s *Summary) Rows() uint64 { return s.Count + s.Missing + s.NaN + s.PosInf + s.NegInf }

// Mean is the mean of the finite numbers; ok is false when there are none or
// their sum is beyond the range of floats.
func (s *Summary) Mean() (mean float64, ok bool) {
	if s.Count == 0 || math.Abs(s.Sum) == math.MaxFloat64 {
		return 0, false
	}
	return s.Sum / float64(s.Count), true
}

// Variance is the sample variance (n-1); ok is false below two numbers or
// beyond the range of floats.
func (s *Summary) Variance() (v float64, ok bool) {
	if s.Count < 2 || s.M2 == math.MaxFloat64 {
		return 0, false
	}
	return s.M2 / float64(s.Count-1), true
}

// Std is the sample standard deviation (n-1); ok is false below two numbers.
func (s *Summary) Std() (std float64, ok bool) {
	v, ok := s.Variance()
	return math.Sqrt(v), ok
}

// MissingRate is the share of rows without a usable value: missing, NaN and
// infinite.
func (s *Summary) MissingRate() (rate float64, ok bool) {
	if s.Rows() == 0 {
		return 0, false
	}
	return float64(s.Rows()-s.Count) / float64(s.Rows()), true
}

// Dense returns the counts of all cells of the summary's grid.
func (s *Summary) Dense(g *Grid) ([]uint64, error) {
	if s.GridID != g.ID() {
		return nil, fmt.Errorf("expand summary: %w", ErrGridMismatch)
	}
	counts := make([]uint64, g.Cells())
	for _, c := range s.Cells {
		if int(c.Index) >= len(counts) {
			return nil, fmt.Errorf("expand summary: cell %d of a grid of %d cells", c.Index, len(counts))
		}
		counts[c.Index] = c.Count
	}
	return counts, nil
}

// Merge adds other into s. Counts add exactly; sums add in floating point, so
// merging in another order may differ in their last bits. An empty summary
// without a grid merges with anything.
func (s *Summary) Merge(other *Summary) error {
	if other.GridID == 0 && other.Rows() == 0 {
		return nil
	}
	if s.GridID == 0 && s.Rows() == 0 {
		s.GridID = other.GridID
	}
	if s.GridID != other.GridID {
		return fmt.Errorf("merge: %w (%d and %d)", ErrGridMismatch, s.GridID, other.GridID)
	}
	s.mergeMoments(other)
	s.Missing += other.Missing
	s.NaN += other.NaN
	s.PosInf += other.PosInf
	s.NegInf += other.NegInf
	s.Weight += other.Weight
	s.Cells = mergeCells(s.Cells, other.Cells)
	s.Distinct.merge(other.Distinct)
	return nil
}

// mergeMoments is Chan's update of the centred second moment.
func (s *Summary) mergeMoments(o *Summary) {
	if o.Count == 0 {
		return
	}
	if s.Count == 0 {
		s.Count, s.Min, s.Max, s.Sum, s.M2 = o.Count, o.Min, o.Max, o.Sum, o.M2
		return
	}
	n, m := float64(s.Count), float64(o.Count)
	delta := o.Sum/m - s.Sum/n
	s.M2 = saturate(s.M2 + o.M2 + delta*delta*(n*m/(n+m)))
	s.Sum = saturate(s.Sum + o.Sum)
	s.Count += o.Count
	s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
}

// saturate keeps a sum that left the range of floats finite, so that every
// summary can be written as JSON. A saturated moment is no estimate any more.
func saturate(v float64) float64 {
	if math.IsNaN(v) {
		return math.MaxFloat64
	}
	return min(max(v, -math.MaxFloat64), math.MaxFloat64)
}

// mergeCells adds two ascending lists into a new one.
func mergeCells(a, b []Cell) []Cell {
	if len(b) == 0 {
		return a
	}
	out := make([]Cell, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Index < b[0].Index:
			out, a = append(out, a[0]), a[1:]
		case a[0].Index > b[0].Index:
			out, b = append(out, b[0]), b[1:]
		default:
			out = append(out, Cell{a[0].Index, a[0].Count + b[0].Count, saturate(a[0].Sum + b[0].Sum)})
			a, b = a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}
