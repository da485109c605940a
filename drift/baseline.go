package drift

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/special"
	"github.com/kedge-ml/kedge/drift/stat"
)

// SlotWindow is one window of a reference: its summary, and its slot in the
// season (hour of week, day of week; 0 when there is no season).
type SlotWindow struct {
	Slot    int
	Summary *dist.Summary
}

// minSlotWindows is how many windows a slot needs to be a reference of its own.
const minSlotWindows = 3

// Baseline is what a column is held against: the reference as one summary and
// slot by slot, and how far the reference's own windows lie from the rest of it.
type Baseline struct {
	Grid      *dist.Grid
	Reference *dist.Summary
	Slots     map[int]*dist.Summary // references of one slot each; nil without a season
	Shape     *control.Floor        // distances from the whole reference; nil when not learnt
	Season    *control.Floor        // distances from the same slot's other windows; nil without a season
	Missing   *control.Floor        // differences of missing rates; nil when not learnt
	Self      *SelfDrift            `json:",omitempty"` // nil when not learnt
}

// SelfDrift is how far a reference drifts within itself.
type SelfDrift struct {
	Halves float64 // distance of its second half of windows from its first
	Plain  float64 // share of its windows that a test of independent rows, at 5 %, tells from the rest of it
}

// LearnBaseline merges a reference's windows, in time order, and compares each
// with the rest (A/A). Windows up to block positions away are left out of the
// rest, because a window to come is no neighbour of the reference's middle
// either. With more than one slot a window is also compared with the others of
// its slot: what is far from the year may be near for a Sunday night, and what
// is near may be far.
func LearnBaseline(g *dist.Grid, windows []SlotWindow, block int) (*Baseline, error) {
	b := &Baseline{Grid: g, Reference: &dist.Summary{GridID: g.ID()}}
	l := learner{b: b, windows: windows, block: block, slots: map[int][]int{}}
	for i, w := range windows {
		if err := b.Reference.Merge(w.Summary); err != nil {
			return nil, fmt.Errorf("learn baseline: %w", err)
		}
		counts, err := w.Summary.Dense(g)
		if err != nil {
			return nil, fmt.Errorf("learn baseline: %w", err)
		}
		l.counts = append(l.counts, counts)
		l.slots[w.Slot] = append(l.slots[w.Slot], i)
		l.rows += float64(w.Summary.Rows())
	}
	if len(windows) > 2*block+1 {
		l.learn()
	}
	return b, nil
}

// learner holds what the A/A comparisons share.
type learner struct {
	b       *Baseline
	windows []SlotWindow
	counts  [][]uint64
	slots   map[int][]int // windows of each slot
	block   int
	rows    float64
}

func (l *learner) learn() {
	total := make([]uint64, l.b.Grid.Cells())
	for _, c := range l.counts {
		add(total, c, 1)
	}
	var shapes, gaps []control.Window
	plain := 0.0
	for i, w := range l.windows {
		from, to := max(0, i-l.block), min(len(l.windows), i+l.block+1)
		rest := minus(total, l.counts[from:to])
		if d, err := shapeDistance(l.b.Grid, rest, l.counts[i]); err == nil {
			shapes = append(shapes, control.Window{Slot: w.Slot, Distance: d})
			if plainP(l.b.Grid, rest, l.counts[i], d) < 0.05 {
				plain++
			}
		}
		if d, ok := missingGap(l.b.Reference, l.windows[from:to], w.Summary); ok {
			gaps = append(gaps, control.Window{Slot: w.Slot, Distance: d})
		}
	}
	half := 0.5 * float64(len(l.windows)) / max(l.rows, 1)
	l.b.Shape, l.b.Missing = control.LearnFloor(shapes, half), control.LearnFloor(gaps, half)
	first := make([]uint64, len(total))
	for _, c := range l.counts[:len(l.counts)/2] {
		add(first, c, 1)
	}
	if d, err := shapeDistance(l.b.Grid, first, minus(total, [][]uint64{first})); err == nil {
		l.b.Self = &SelfDrift{Halves: d, Plain: plain / float64(max(len(shapes), 1))}
	}
	if len(l.slots) > 1 {
		l.learnSeason(half)
	}
}

// learnSeason compares windows within their slots.
func (l *learner) learnSeason(resolution float64) {
	l.b.Slots = map[int]*dist.Summary{}
	var windows []control.Window
	for slot, members := range l.slots {
		if len(members) < minSlotWindows {
			continue
		}
		whole, sum := &dist.Summary{GridID: l.b.Grid.ID()}, make([]uint64, l.b.Grid.Cells())
		for _, i := range members {
			_ = whole.Merge(l.windows[i].Summary) // merged on this grid before
			add(sum, l.counts[i], 1)
		}
		l.b.Slots[slot] = whole
		for _, i := range members {
			if d, err := shapeDistance(l.b.Grid, minus(sum, l.counts[i:i+1]), l.counts[i]); err == nil {
				windows = append(windows, control.Window{Slot: slot, Distance: d})
			}
		}
	}
	l.b.Season = control.LearnFloor(windows, resolution)
}

func add(total, counts []uint64, sign uint64) {
	for i, n := range counts {
		total[i] += sign * n
	}
}

func minus(total []uint64, parts [][]uint64) []uint64 {
	out := make([]uint64, len(total))
	copy(out, total)
	for _, p := range parts {
		add(out, p, ^uint64(0))
	}
	return out
}

// shapeDistance is what windows are ranked by: the Kolmogorov–Smirnov distance
// of numbers, the Jensen–Shannon distance of categories.
func shapeDistance(g *dist.Grid, ref, cur []uint64) (float64, error) {
	if g.Categorical() {
		s, err := stat.SharesOf(ref, cur)
		return s.Distance(stat.JS), err
	}
	return stat.KSDistance(stat.LadderOfCounts(nil, ref, cur))
}

// plainP is the p-value of a shape's distance between counts of independent
// rows: Kolmogorov's limiting law for numbers; for categories that of χ², which
// 8 nm/(n+m) times the Jensen–Shannon divergence, in nats, tends to.
func plainP(g *dist.Grid, ref, cur []uint64, distance float64) float64 {
	n, m := float64(stat.Total(ref)), float64(stat.Total(cur))
	size := n * m / (n + m)
	if !g.Categorical() {
		return special.KolmogorovLimit(math.Sqrt(size) * distance)
	}
	return distuv.ChiSquared{K: freedom(ref)}.Survival(8 * size * math.Ln2 * distance * distance)
}

// plainDistance is the distance that has a p-value among so many rows; see
// [plainP].
func plainDistance(g *dist.Grid, ref []uint64, rows, p float64) float64 {
	n := float64(stat.Total(ref))
	size := n * rows / (n + rows)
	if !g.Categorical() {
		return math.Sqrt(-math.Log(p/2) / (2 * size)) // the first term of Kolmogorov's series, which alone counts here
	}
	return math.Sqrt(distuv.ChiSquared{K: freedom(ref)}.Quantile(1-p) / (8 * size * math.Ln2))
}

// freedom is one less than the cells that a reference fills, at least 1.
func freedom(counts []uint64) float64 {
	n := -1.0
	for _, c := range counts {
		if c > 0 {
			n++
		}
	}
	return max(n, 1)
}

// missingGap is the distance of a window's missing rate from that of the
// reference without some windows.
func missingGap(ref *dist.Summary, without []SlotWindow, cur *dist.Summary) (float64, bool) {
	rows, present := ref.Rows(), ref.Count
	for _, w := range without {
		rows, present = rows-w.Summary.Rows(), present-w.Summary.Count
	}
	rate, ok := cur.MissingRate()
	if !ok || rows == 0 {
		return 0, false
	}
	rest := float64(rows-present) / float64(rows)
	return max(rate-rest, rest-rate), true
}

// BaselineOf learns what a column is held against from rows of a file, in the
// order of the file, cut into windows of equal size.
func BaselineOf(g *dist.Grid, windows []*dist.Summary) (*Baseline, error) {
	parts := make([]SlotWindow, len(windows))
	for i, w := range windows {
		parts[i] = SlotWindow{0, w}
	}
	return LearnBaseline(g, parts, 0)
}
