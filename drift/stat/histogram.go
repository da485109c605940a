package stat

import (
	"math"
	"slices"
)

// Quantile interpolates linearly between the order statistics of a sorted,
// non-empty sample (numpy.quantile).
func Quantile(sorted []float64, q float64) float64 {
	virtual := q * float64(len(sorted)-1)
	low := math.Floor(virtual)
	a := sorted[int(low)]
	b := sorted[min(int(low)+1, len(sorted)-1)]
	g := virtual - low
	if g >= 0.5 {
		return b - (b-a)*(1-g)
	}
	return a + (b-a)*g
}

// Deciles are the inner deciles of a sorted sample without duplicates; none of an
// empty one.
func Deciles(sorted []float64) []float64 {
	if len(sorted) == 0 {
		return nil
	}
	edges := make([]float64, 0, 9)
	for k := 1; k <= 9; k++ {
		edges = append(edges, Quantile(sorted, float64(k)/10))
	}
	return slices.Compact(edges)
}

// OpenBins counts a sorted sample into the bins (-∞, e₀), [e₀, e₁), … [eₖ, ∞).
func OpenBins(sorted, inner []float64) []uint64 {
	counts := make([]uint64, len(inner)+1)
	from := 0
	for i, e := range inner {
		to, _ := slices.BinarySearch(sorted, e)
		counts[i] = uint64(to - from)
		from = to
	}
	counts[len(inner)] = uint64(len(sorted) - from)
	return counts
}

// ClosedBins counts a sorted sample into [e₀, e₁), … [eₖ₋₁, eₖ]; values outside
// count nowhere (numpy.histogram).
func ClosedBins(sorted, edges []float64) []uint64 {
	counts := make([]uint64, len(edges)-1)
	from, _ := slices.BinarySearch(sorted, edges[0])
	for i := 1; i < len(edges); i++ {
		to, _ := slices.BinarySearch(sorted, edges[i])
		if i == len(edges)-1 {
			to = upperBound(sorted, edges[i])
		}
		counts[i-1] = uint64(to - from)
		from = to
	}
	return counts
}

func upperBound(sorted []float64, x float64) int {
	i, _ := slices.BinarySearch(sorted, math.Nextafter(x, math.Inf(1)))
	return i
}

// Sturges are numpy's equal-width edges of log2(n)+1 bins over a sorted,
// non-empty sample. Samples of integers get bins at least 1 wide.
func Sturges(sorted []float64, integers bool) []float64 {
	spread := sorted[len(sorted)-1] - sorted[0]
	width := spread / (math.Log2(float64(len(sorted))) + 1)
	if integers && width > 0 && width < 1 {
		width = 1
	}
	return equalWidth(sorted, width)
}

// Doane are numpy's equal-width edges after Doane's rule, which adds bins for
// skewness, over a sorted, non-empty sample.
func Doane(sorted []float64) []float64 {
	n := float64(len(sorted))
	if n <= 2 {
		return equalWidth(sorted, 0)
	}
	sg := math.Sqrt(6 * (n - 2) / ((n + 1) * (n + 3)))
	mean, third := 0.0, 0.0
	for _, x := range sorted {
		mean += x
	}
	mean /= n
	sigma := 0.0
	for _, x := range sorted {
		sigma += (x - mean) * (x - mean)
	}
	sigma = math.Sqrt(sigma / n)
	if sigma == 0 {
		return equalWidth(sorted, 0)
	}
	for _, x := range sorted {
		z := (x - mean) / sigma
		third += z * z * z
	}
	spread := sorted[len(sorted)-1] - sorted[0]
	return equalWidth(sorted, spread/(1+math.Log2(n)+math.Log2(1+math.Abs(third/n)/sg)))
}

// equalWidth lays edges of about the given width over a sample's range; width 0
// means one bin.
func equalWidth(sorted []float64, width float64) []float64 {
	first, last := sorted[0], sorted[len(sorted)-1]
	if first == last {
		first, last = first-0.5, last+0.5
	}
	bins := 1
	if width > 0 {
		bins = int(math.Ceil((last - first) / width))
	}
	return LinearEdges(first, last, bins)
}

// LinearEdges are bins+1 evenly spaced numbers from first to last
// (numpy.linspace).
func LinearEdges(first, last float64, bins int) []float64 {
	edges := make([]float64, bins+1)
	step := (last - first) / float64(bins)
	for i := range edges {
		edges[i] = float64(i)*step + first
	}
	edges[bins] = last
	return edges
}
