package perf

import (
	"slices"
	"sort"
)

// Isotonic is a non-decreasing calibration curve: linear between its points,
// constant beyond them (sklearn.isotonic.IsotonicRegression, out_of_bounds
// "clip").
type Isotonic struct {
	X []float64 `json:"x"`
	Y []float64 `json:"y"`
}

// FitIsotonic pools adjacent violators of equally long, non-empty scores and
// outcomes.
func FitIsotonic(scores, outcomes []float64) *Isotonic {
	xs, ys, ws := mergeEqual(scores, outcomes)
	fitted := poolViolators(ys, ws)
	return trim(xs, fitted)
}

// mergeEqual averages the outcomes of equal scores, ascending.
func mergeEqual(scores, outcomes []float64) (xs, ys, ws []float64) {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	for i, k := range order {
		if i == 0 || scores[k] != xs[len(xs)-1] {
			xs, ys, ws = append(xs, scores[k]), append(ys, 0), append(ws, 0)
		}
		ys[len(ys)-1] += outcomes[k]
		ws[len(ws)-1]++
	}
	for i := range ys {
		ys[i] /= ws[i]
	}
	return xs, ys, ws
}

// poolViolators is the weighted least-squares non-decreasing fit.
func poolViolators(ys, ws []float64) []float64 {
	type block struct {
		sum, weight float64
		length      int
	}
	var blocks []block
	for i, y := range ys {
		blocks = append(blocks, block{y * ws[i], ws[i], 1})
		for n := len(blocks); n > 1 && blocks[n-2].sum/blocks[n-2].weight >= blocks[n-1].sum/blocks[n-1].weight; n-- {
			a, b := blocks[n-2], blocks[n-1]
			blocks = append(blocks[:n-2], block{a.sum + b.sum, a.weight + b.weight, a.length + b.length})
		}
	}
	var out []float64
	for _, b := range blocks {
		for range b.length {
			out = append(out, b.sum/b.weight)
		}
	}
	return out
}

// trim keeps the ends of constant stretches.
func trim(xs, ys []float64) *Isotonic {
	f := &Isotonic{}
	for i := range xs {
		inner := i > 0 && i+1 < len(xs)
		if inner && ys[i] == ys[i-1] && ys[i] == ys[i+1] {
			continue
		}
		f.X, f.Y = append(f.X, xs[i]), append(f.Y, ys[i])
	}
	return f
}

// At calibrates one score.
func (f *Isotonic) At(x float64) float64 {
	last := len(f.X) - 1
	switch {
	case x <= f.X[0]:
		return f.Y[0]
	case x >= f.X[last]:
		return f.Y[last]
	}
	i := sort.SearchFloat64s(f.X, x)
	if f.X[i] == x {
		return f.Y[i]
	}
	slope := (f.Y[i] - f.Y[i-1]) / (f.X[i] - f.X[i-1])
	return f.Y[i-1] + slope*(x-f.X[i-1])
}

// All calibrates scores into a new slice.
func (f *Isotonic) All(xs []float64) []float64 {
	out := make([]float64, len(xs))
	for i, x := range xs {
		out[i] = f.At(x)
	}
	return out
}
