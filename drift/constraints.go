package drift

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/mathext"

	"github.com/kedge-ml/kedge/dist"
)

// Limit is a constraint that a reference suggests for one column.
type Limit struct {
	Column  string
	Kind    LimitKind
	Value   float64  // of every kind but DomainLimit
	Values  []string // of DomainLimit
	Windows int      // of the reference that could try it
	Broken  int      // of them, which broke what all the others suggest
}

// LimitKind names the member of a [Constraint] that a limit becomes.
type LimitKind string

// Kinds of limits.
const (
	MissingLimit LimitKind = "max_missing"
	UnseenLimit  LimitKind = "max_unseen"
	MinLimit     LimitKind = "min"
	MaxLimit     LimitKind = "max"
	DomainLimit  LimitKind = "values"
)

// Withheld says that a limit is none: more than one in a hundred of the
// reference's own windows, and more than one, broke what the others suggest.
func (l Limit) Withheld() bool { return l.Broken > max(1, l.Windows/100) }

const (
	limitChance = 0.001 // of a window that breaks a share by chance, at the upper limit of the reference's share …
	limitTrust  = 0.95  // … of this confidence
	limitMargin = 0.1   // least room beyond the extremes, of the range between them
	limitBlocks = 20    // parts that the reference is cut into
	limitDomain = 50    // categories that a list of values may have
)

// LearnConstraints suggests what every window should keep, from the windows of a
// reference, in order of time, on one grid.
//
// Shares (missing, unseen) get the limit that a window breaks by chance once in
// a thousand: the binomial quantile for a window of the reference's smaller
// sizes, at the upper Clopper–Pearson limit of the reference's share; the share
// of unseen values is expected as Good and Turing do, by values that came once.
// A range gets room beyond its extremes: as much again as any twentieth of the
// reference went beyond the others, a tenth of the range at least, and never
// below zero where nothing was (after Deequ's NonNegativeNumbersRule). A category
// gets its list of values when all of them keep coming (Deequ's
// CategoricalRangeRule).
//
// Every limit is tried on the reference itself: each twentieth is held against
// what the other nineteen suggest. See [Limit.Withheld].
func LearnConstraints(column string, g *dist.Grid, windows []*dist.Summary) ([]Limit, error) {
	windows = slices.DeleteFunc(slices.Clone(windows), func(w *dist.Summary) bool { return w.Rows() == 0 })
	if len(windows) == 0 {
		return nil, nil
	}
	size := usualSize(windows)
	blocks, err := blocksOf(g, windows)
	if err != nil {
		return nil, err
	}
	out := limitsOf(column, g, blocks, size)
	if len(blocks) < 2 {
		return out, nil
	}
	for i, b := range blocks {
		others := limitsOf(column, g, slices.Concat(blocks[:i], blocks[i+1:]), size)
		for k := range out {
			tried := out[k]
			if at := slices.IndexFunc(others, func(l Limit) bool { return l.Kind == tried.Kind }); at >= 0 {
				tried = others[at]
			}
			for _, w := range b.windows {
				out[k].Windows++
				if tried.brokenBy(g, w, blocks, i) {
					out[k].Broken++
				}
			}
		}
	}
	return out, nil
}

// usualSize is a size that nineteen of twenty windows exceed: a small window
// breaks a share sooner.
func usualSize(windows []*dist.Summary) uint64 {
	sizes := make([]uint64, len(windows))
	for i, w := range windows {
		sizes[i] = w.Rows()
	}
	slices.Sort(sizes)
	return sizes[len(sizes)/20]
}

// block is a stretch of the reference.
type block struct {
	windows []*dist.Summary
	sum     *dist.Summary
	dense   []uint64
}

func blocksOf(g *dist.Grid, windows []*dist.Summary) ([]block, error) {
	var out []block
	n := min(limitBlocks, len(windows))
	for i := range n {
		b := block{windows: windows[i*len(windows)/n : (i+1)*len(windows)/n], sum: &dist.Summary{GridID: g.ID()}}
		for _, w := range b.windows {
			if err := b.sum.Merge(w); err != nil {
				return nil, err
			}
		}
		var err error
		if b.dense, err = b.sum.Dense(g); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// limitsOf are what blocks suggest for windows of a size.
func limitsOf(column string, g *dist.Grid, blocks []block, size uint64) []Limit {
	var rows, missing, count uint64
	worst := 0.0
	for _, b := range blocks {
		rows, missing, count = rows+b.sum.Rows(), missing+b.sum.Rows()-b.sum.Count, count+b.sum.Count
		for _, w := range b.windows {
			rate, _ := w.MissingRate()
			worst = max(worst, rate)
		}
	}
	out := []Limit{{Column: column, Kind: MissingLimit, Value: roundUp(max(worst, shareLimit(missing, rows, size)))}}
	switch {
	case count == 0:
	case !g.Categorical():
		lo, hi := rangeLimits(blocks)
		out = append(out, Limit{Column: column, Kind: MinLimit, Value: lo}, Limit{Column: column, Kind: MaxLimit, Value: hi})
	case !g.RestOpen:
		out = append(out, categoryLimit(column, g, blocks, count, size))
	}
	return out
}

// shareLimit is the share that a window of a size goes beyond by chance once in
// a thousand.
func shareLimit(k, n, size uint64) float64 {
	if size == 0 {
		return 1
	}
	return float64(binomialQuantile(1-limitChance, size, upperShare(k, n, limitTrust))) / float64(size)
}

// upperShare is the upper limit of Clopper and Pearson, one-sided.
func upperShare(k, n uint64, confidence float64) float64 {
	if k >= n {
		return 1
	}
	return mathext.InvRegIncBeta(float64(k+1), float64(n-k), confidence)
}

// binomialQuantile is the smallest k with P(X ≤ k) ≥ q.
func binomialQuantile(q float64, n uint64, p float64) uint64 {
	if p >= 1 {
		return n
	}
	return uint64(sort.Search(int(n), func(k int) bool {
		return mathext.RegIncBeta(float64(n)-float64(k), float64(k)+1, 1-p) >= q
	}))
}

// rangeLimits are the extremes with room beyond them.
func rangeLimits(blocks []block) (low, high float64) {
	lows, highs := extremes(blocks)
	lo, hi := slices.Min(lows), slices.Max(highs)
	below, above := 0.0, 0.0
	for i := range lows {
		if len(lows) < 2 {
			break
		}
		least := slices.Min(slices.Concat(lows[:i], lows[i+1:]))
		most := slices.Max(slices.Concat(highs[:i], highs[i+1:]))
		below, above = max(below, least-lows[i]), max(above, highs[i]-most)
	}
	room := limitMargin * (hi - lo)
	low, high = roundDown(lo-max(room, below)), roundUp(hi+max(room, above))
	if lo >= 0 {
		low = max(low, 0)
	}
	if hi <= 0 {
		high = min(high, 0)
	}
	if lo == hi {
		low, high = lo, hi
	}
	return low, high
}

func extremes(blocks []block) (lows, highs []float64) {
	for _, b := range blocks {
		if b.sum.Count > 0 {
			lows, highs = append(lows, b.sum.Min), append(highs, b.sum.Max)
		}
	}
	return lows, highs
}

// categoryLimit is the list of values where all of them keep coming, else a
// share of new ones.
func categoryLimit(column string, g *dist.Grid, blocks []block, count, size uint64) Limit {
	total := make([]uint64, g.Cells())
	in := make([]int, g.Cells())
	for _, b := range blocks {
		for i, n := range b.dense {
			total[i] += n
			if n > 0 {
				in[i]++
			}
		}
	}
	rare := total[g.Other()] > 0 || total[g.Unseen()] > 0
	var values []string
	for i, name := range g.Categories {
		if total[i] > 0 {
			rare = rare || in[i] < 2 && len(blocks) > 1 || total[i] == 1
			values = append(values, name)
		}
	}
	if !rare && len(values) <= limitDomain {
		slices.Sort(values)
		return Limit{Column: column, Kind: DomainLimit, Values: values}
	}
	expected := uint64(math.Ceil(expectedUnseen(g, total) * float64(count)))
	return Limit{Column: column, Kind: UnseenLimit, Value: roundUp(shareLimit(expected, count, size))}
}

// brokenBy says that a window of the block left out breaks what the other blocks
// suggest. A value is unseen that none of them has.
func (l Limit) brokenBy(g *dist.Grid, w *dist.Summary, blocks []block, left int) bool {
	switch l.Kind {
	case MissingLimit:
		rate, _ := w.MissingRate()
		return rate > l.Value
	case MinLimit:
		return w.Count > 0 && w.Min < l.Value
	case MaxLimit:
		return w.Count > 0 && w.Max > l.Value
	case DomainLimit, UnseenLimit:
	}
	fresh := uint64(0)
	for _, c := range w.Cells {
		known := false
		for i, b := range blocks {
			known = known || i != left && b.dense[c.Index] > 0
		}
		if !known {
			fresh += c.Count
		}
	}
	if l.Kind == DomainLimit {
		return fresh > 0
	}
	return float64(fresh) > l.Value*float64(max(w.Count, 1))
}

// roundUp and roundDown keep three digits, outward: a limit is read by people.
func roundUp(x float64) float64 { return -roundDown(-x) }

func roundDown(x float64) float64 {
	text := strconv.FormatFloat(x, 'e', 2, 64)
	y, err := strconv.ParseFloat(text, 64)
	if err != nil || y <= x || math.IsInf(x, 0) {
		return y
	}
	mantissa, exponent, _ := strings.Cut(text, "e")
	digits, _ := strconv.Atoi(strings.ReplaceAll(mantissa, ".", "")) // of our own text
	power, _ := strconv.Atoi(exponent)
	if y, err = strconv.ParseFloat(fmt.Sprintf("%de%d", digits-1, power-2), 64); err != nil {
		return x
	}
	return y
}
