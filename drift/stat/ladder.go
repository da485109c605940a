package stat

import (
	"math"
	"slices"
)

// Ladder is two samples pooled: the distinct values in ascending order, and how
// often each side has them. Every rank statistic is a walk up the ladder; a
// window known only by cells is a ladder whose rungs are the cells.
type Ladder struct {
	X    []float64
	A, B []uint64 // occurrences in the reference and in the current window
	N, M uint64   // totals of A and B
}

// NewLadder pools two samples. Missing and infinite values are left out.
func NewLadder(ref, cur []float64) Ladder {
	return LadderOfSorted(Clean(ref), Clean(cur))
}

// Clean returns the finite values, sorted, in a new slice.
func Clean(xs []float64) []float64 {
	out := make([]float64, 0, len(xs))
	for _, x := range xs {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			out = append(out, x)
		}
	}
	slices.Sort(out)
	return out
}

// LadderOfSorted pools two sorted samples of finite values.
func LadderOfSorted(ref, cur []float64) Ladder {
	l := Ladder{N: uint64(len(ref)), M: uint64(len(cur))}
	size := len(ref) + len(cur)
	l.X = make([]float64, 0, size)
	l.A, l.B = make([]uint64, 0, size), make([]uint64, 0, size)
	for len(ref) > 0 || len(cur) > 0 {
		x := lower(ref, cur)
		a, b := run(ref, x), run(cur, x)
		ref, cur = ref[a:], cur[b:]
		l.X = append(l.X, x)
		l.A, l.B = append(l.A, uint64(a)), append(l.B, uint64(b))
	}
	return l
}

// LadderOfCounts is the ladder of counted values, which must ascend. Rungs that
// neither side has are left out.
func LadderOfCounts(x []float64, a, b []uint64) Ladder {
	var l Ladder
	for i := range a {
		if a[i]+b[i] == 0 {
			continue
		}
		if x != nil {
			l.X = append(l.X, x[i])
		}
		l.A, l.B = append(l.A, a[i]), append(l.B, b[i])
		l.N += a[i]
		l.M += b[i]
	}
	return l
}

func lower(ref, cur []float64) float64 {
	switch {
	case len(cur) == 0:
		return ref[0]
	case len(ref) == 0:
		return cur[0]
	}
	return min(ref[0], cur[0])
}

func run(sorted []float64, x float64) int {
	n := 0
	for n < len(sorted) && sorted[n] == x {
		n++
	}
	return n
}

// check refuses a ladder with an empty side.
func (l Ladder) check() error { return checkSizes(l.N, l.M) }

func checkSizes(n, m uint64) error {
	switch {
	case n == 0:
		return refuse(EmptyReference, "the reference has no usable value")
	case m == 0:
		return refuse(EmptyCurrent, "the window has no usable value")
	}
	return nil
}

// Distinct is the number of different values on both sides together.
func (l Ladder) Distinct() int { return len(l.A) }

// DistinctRef is the number of different values of the reference.
func (l Ladder) DistinctRef() int { return nonZero(l.A) }

func nonZero(counts []uint64) int {
	n := 0
	for _, c := range counts {
		if c > 0 {
			n++
		}
	}
	return n
}
