package peer

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// nannyEstimated is the reference size from which NannyML bins KS and
// Wasserstein, and the number of bins.
const nannyEstimated = 10_000

// Fitted is one of NannyML's univariate methods fitted on a reference column.
type Fitted struct {
	method string
	value  func(chunk Column) (float64, float64, error)
}

// FitNannyML fits a method on a reference column: jensen_shannon and hellinger
// on either kind, kolmogorov_smirnov and wasserstein on numbers, chi2 and
// l_infinity on categories.
func FitNannyML(method string, ref Column) (*Fitted, error) {
	fit := fitNumbers
	if ref.Category {
		fit = fitCategories
	}
	value, err := fit(method, ref)
	return &Fitted{method, value}, err
}

// Value compares a chunk with the reference. P is the p-value of chi2 and 0
// otherwise.
func (f *Fitted) Value(chunk Column) (value, p float64, err error) { return f.value(chunk) }

type chunkValue = func(chunk Column) (float64, float64, error)

func fitNumbers(method string, column Column) (chunkValue, error) {
	ref := stat.Clean(column.Numbers)
	if len(ref) == 0 {
		return nil, &stat.NotComputable{Reason: stat.EmptyReference}
	}
	var on func(chunk []float64) (float64, error)
	switch method {
	case "jensen_shannon":
		on = binned(ref, stat.JS)
	case "hellinger":
		on = binned(ref, stat.Hellinger)
	case "kolmogorov_smirnov":
		on = nannyKS(ref)
	case "wasserstein":
		on = nannyWasserstein(ref)
	default:
		return nil, &stat.NotComputable{Reason: stat.WrongData, Detail: "no numeric method is called " + method}
	}
	return func(chunk Column) (float64, float64, error) {
		cur := stat.Clean(chunk.Numbers)
		if len(cur) == 0 {
			return 0, 0, &stat.NotComputable{Reason: stat.EmptyCurrent}
		}
		v, err := on(cur)
		return v, 0, err
	}, nil
}

// binned compares on Doane's bins of the reference; what falls outside them
// makes one more bin.
func binned(ref []float64, d stat.Divergence) func([]float64) (float64, error) {
	edges := stat.Doane(ref)
	counts := append(stat.ClosedBins(ref, edges), 0)
	return func(cur []float64) (float64, error) {
		chunk := stat.ClosedBins(cur, edges)
		chunk = append(chunk, uint64(len(cur))-stat.Total(chunk))
		s, err := stat.SharesOf(counts, chunk)
		return s.Distance(d), err
	}
}

// nannyKS is D on the rows, or on 10,000 bins of a large reference.
func nannyKS(ref []float64) func([]float64) (float64, error) {
	if len(ref) < nannyEstimated {
		return func(cur []float64) (float64, error) { return stat.KSDistance(stat.LadderOfSorted(ref, cur)) }
	}
	edges := stat.LinearEdges(ref[0], ref[len(ref)-1], nannyEstimated)
	refCDF := cumulative(stat.ClosedBins(ref, edges), len(ref), 0)
	return func(cur []float64) (float64, error) {
		below, _ := slices.BinarySearch(cur, edges[0])
		cdf := cumulative(stat.ClosedBins(cur, edges), len(cur), float64(below)/float64(len(cur)))
		worst := 0.0
		for i := range cdf {
			worst = max(worst, math.Abs(refCDF[i]-cdf[i]))
		}
		return worst, nil
	}
}

func cumulative(counts []uint64, n int, start float64) []float64 {
	out := make([]float64, len(counts))
	sum := 0.0
	for i, c := range counts {
		sum += float64(c) / float64(n)
		out[i] = sum + start
	}
	return out
}

// nannyWasserstein is the distance of the rows, or on 10,000 bins of a large
// reference with tail terms that count one row too many, as the tool does.
func nannyWasserstein(ref []float64) func([]float64) (float64, error) {
	if len(ref) < nannyEstimated {
		return func(cur []float64) (float64, error) { return stat.Wasserstein(stat.LadderOfSorted(ref, cur)) }
	}
	first, last := outerEdges(ref)
	edges := stat.LinearEdges(first, last, nannyEstimated)
	width := edges[1] - edges[0]
	refCDF := cumulative(stat.ClosedBins(ref, edges), len(ref), 0)
	return func(cur []float64) (float64, error) {
		n := float64(len(cur))
		low, _ := slices.BinarySearch(cur, first)
		high, _ := slices.BinarySearch(cur, math.Nextafter(last, math.Inf(1)))
		lowArea, lowShare := outside(cur[:low], first, n, func(y float64) float64 { return y })
		highArea, _ := outside(cur[high:], last, n, func(y float64) float64 { return 1 - y })
		within := 0.0
		for i, c := range cumulative(stat.ClosedBins(cur, edges), len(cur), lowShare) {
			within += math.Abs(refCDF[i]-c) * width
		}
		return within + lowArea + highArea, nil
	}
}

func outerEdges(sorted []float64) (first, last float64) {
	first, last = sorted[0], sorted[len(sorted)-1]
	if first == last {
		return first - 0.5, last + 0.5
	}
	return first, last
}

// outside is the area of the tail beyond an edge, and the share it is given.
func outside(tail []float64, edge, n float64, height func(cdf float64) float64) (area, share float64) {
	if len(tail) == 0 {
		return 0, 0
	}
	xs := append(slices.Clone(tail), edge)
	slices.Sort(xs)
	for i := 0; i+1 < len(xs); i++ {
		area += height(float64(i+1)/float64(len(xs))) * (xs[i+1] - xs[i])
	}
	share = (float64(len(tail)) + 1) / n
	return area * share, share
}

func fitCategories(method string, column Column) (chunkValue, error) {
	ref := column.Categories
	if len(ref) == 0 {
		return nil, &stat.NotComputable{Reason: stat.EmptyReference}
	}
	on := map[string]func(c stat.Counts) (float64, float64, error){
		"jensen_shannon": leftover(stat.JS),
		"hellinger":      leftover(stat.Hellinger),
		"l_infinity": func(c stat.Counts) (float64, float64, error) {
			s, err := stat.SharesOf(c.Ref, c.Cur)
			return s.Distance(stat.LInfinity), 0, err
		},
		"chi2": func(c stat.Counts) (float64, float64, error) {
			t, err := c.ChiSquaredYates()
			return t.Statistic, t.P, err
		},
	}[method]
	if on == nil {
		return nil, &stat.NotComputable{Reason: stat.WrongData, Detail: "no categorical method is called " + method}
	}
	return func(chunk Column) (float64, float64, error) {
		if len(chunk.Categories) == 0 {
			return 0, 0, &stat.NotComputable{Reason: stat.EmptyCurrent}
		}
		return on(countBoth(ref, chunk.Categories))
	}, nil
}

// leftover pools all categories that the reference does not know.
func leftover(d stat.Divergence) func(stat.Counts) (float64, float64, error) {
	return func(c stat.Counts) (float64, float64, error) {
		pooled := stat.Counts{Ref: []uint64{0}, Cur: []uint64{0}}
		for i := range c.Ref {
			if c.Ref[i] == 0 {
				pooled.Cur[0] += c.Cur[i]
				continue
			}
			pooled.Ref = append(pooled.Ref, c.Ref[i])
			pooled.Cur = append(pooled.Cur, c.Cur[i])
		}
		s, err := stat.SharesOf(pooled.Ref, pooled.Cur)
		return s.Distance(d), 0, err
	}
}
