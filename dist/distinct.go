package dist

import (
	"math"
	"slices"
)

// DistinctSize is how many hashes a distinct sketch keeps: its relative
// standard error is 1/√(DistinctSize-2), 6.3 %. Below it the count is exact.
const DistinctSize = 256

// Distinct estimates a number of distinct values by the smallest hashes met
// (K minimum values; Beyer et al., SIGMOD 2007). Merging is exact: the sketch
// of the union is the union's sketch. The zero value has met nothing.
type Distinct struct {
	Hashes []uint64 `json:"hashes,omitempty"` // ascending, at most DistinctSize
}

// IsZero reports whether nothing was met.
func (d Distinct) IsZero() bool { return len(d.Hashes) == 0 }

// Add notes one value's hash.
func (d *Distinct) Add(h uint64) {
	if len(d.Hashes) == DistinctSize && h >= d.Hashes[DistinctSize-1] {
		return
	}
	i, found := slices.BinarySearch(d.Hashes, h)
	if found {
		return
	}
	if len(d.Hashes) == DistinctSize {
		d.Hashes = d.Hashes[:DistinctSize-1]
	}
	d.Hashes = slices.Insert(d.Hashes, i, h)
}

// Estimate returns the number of distinct values and its standard error, 0
// while the count is exact.
func (d Distinct) Estimate() (n, stderr float64) {
	if len(d.Hashes) < DistinctSize {
		return float64(len(d.Hashes)), 0
	}
	largest := (float64(d.Hashes[DistinctSize-1]) + 1) / math.Exp2(64)
	n = (DistinctSize - 1) / largest
	return n, n / math.Sqrt(DistinctSize-2)
}

// merge walks two ascending lists and keeps the smallest hashes of both.
func (d *Distinct) merge(o Distinct) {
	if len(o.Hashes) == 0 {
		return
	}
	a, b := d.Hashes, o.Hashes
	out := make([]uint64, 0, min(len(a)+len(b), DistinctSize))
	for len(out) < DistinctSize && len(a)+len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	d.Hashes = out
}

func (d Distinct) clone() Distinct { return Distinct{slices.Clone(d.Hashes)} }
