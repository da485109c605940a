package dist

import (
	"math"
	"slices"
)

// finite returns the finite values in a new slice.
func finite(xs []float64) []float64 {
	out := make([]float64, 0, len(xs))
	for _, x := range xs {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			out = append(out, x+0) // -0 becomes 0, so that one value has one spelling
		}
	}
	return out
}

// minAtom keeps chance ties of a small sample from becoming atoms.
const minAtom = 5

// splitAtoms returns the values that get cells of their own and the sorted
// sample without them.
func splitAtoms(sorted []float64, cfg GridConfig) (atoms, remainder []float64) {
	threshold := max(minAtom, int(math.Floor(cfg.AtomMass*float64(len(sorted))))+1)
	if distinctUpTo(sorted, cfg.Cells) {
		threshold = 1
	}
	remainder = make([]float64, 0, len(sorted))
	for i := 0; i < len(sorted); {
		j := i + 1
		for j < len(sorted) && sorted[j] == sorted[i] {
			j++
		}
		if j-i >= threshold {
			atoms = append(atoms, sorted[i])
		} else {
			remainder = append(remainder, sorted[i:j]...)
		}
		i = j
	}
	return atoms, remainder
}

// distinctUpTo reports whether a sorted sample has at most limit values.
func distinctUpTo(sorted []float64, limit int) bool {
	n := 1
	for i := 1; i < len(sorted) && n <= limit; i++ {
		if sorted[i] != sorted[i-1] {
			n++
		}
	}
	return n <= limit
}

// quantileEdges returns the order statistics that cut a sorted sample into
// cells of equal mass.
func quantileEdges(sorted []float64, cells int) []float64 {
	n := len(sorted)
	var edges []float64
	for i := 1; i < cells && n > 0; i++ {
		edges = append(edges, sorted[min(n-1, i*n/cells)])
	}
	return slices.Compact(edges)
}

// innerDeciles are numpy's quantiles at .1 … .9 (linear interpolation) without
// duplicates: the bins that the PSI of practice is taken on.
func innerDeciles(sorted []float64) []float64 {
	edges := make([]float64, 0, 9)
	for k := 1; k <= 9; k++ {
		edges = append(edges, sampleQuantile(sorted, float64(k)/10))
	}
	return slices.Compact(edges)
}

// sampleQuantile interpolates linearly between order statistics, the way
// numpy.quantile does to the last bit.
func sampleQuantile(sorted []float64, q float64) float64 {
	virtual := q * float64(len(sorted)-1)
	lo := math.Floor(virtual)
	a := sorted[int(lo)]
	b := sorted[min(int(lo)+1, len(sorted)-1)]
	gamma := virtual - lo
	if gamma >= 0.5 {
		return b - (b-a)*(1-gamma)
	}
	return a + (b-a)*gamma
}

func hashRest(names []string) (hashes []uint64, open bool) {
	if len(names) > MaxRest {
		return nil, true
	}
	for _, name := range names {
		hashes = append(hashes, Hash(name))
	}
	slices.Sort(hashes)
	return slices.Compact(hashes), false
}
