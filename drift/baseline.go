package drift

import (
	"fmt"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
)

// SlotWindow is one window of a reference: its summary, and its slot in the
// season (hour of week, day of week; 0 when there is no season).
type SlotWindow struct {
	Slot    int
	Summary *dist.Summary
}

// Baseline is what a column is held against: the reference as one summary, and
// how far the reference's own windows lie from the rest of it.
type Baseline struct {
	Grid      *dist.Grid
	Reference *dist.Summary
	Shape     *control.Floor // distances of distributions; nil when not learnt
	Missing   *control.Floor // differences of missing rates; nil when not learnt
}

// LearnBaseline merges a reference's windows, in time order, and compares each
// with the rest (A/A). Windows up to block positions away are left out of the
// rest, because a window to come is no neighbour of the reference's middle
// either.
func LearnBaseline(g *dist.Grid, windows []SlotWindow, block int) (*Baseline, error) {
	b := &Baseline{Grid: g, Reference: &dist.Summary{GridID: g.ID()}}
	counts := make([][]uint64, len(windows))
	for i, w := range windows {
		if err := b.Reference.Merge(w.Summary); err != nil {
			return nil, fmt.Errorf("learn baseline: %w", err)
		}
		var err error
		if counts[i], err = w.Summary.Dense(g); err != nil {
			return nil, fmt.Errorf("learn baseline: %w", err)
		}
	}
	if len(windows) > 2*block+1 {
		b.learn(windows, counts, block)
	}
	return b, nil
}

func (b *Baseline) learn(windows []SlotWindow, counts [][]uint64, block int) {
	total, err := b.Reference.Dense(b.Grid)
	if err != nil {
		return
	}
	var shapes, gaps []control.Window
	rows := 0.0
	for i, w := range windows {
		from, to := max(0, i-block), min(len(windows), i+block+1)
		rest := subtract(total, counts[from:to])
		if d, err := shapeDistance(b.Grid, rest, counts[i]); err == nil {
			shapes = append(shapes, control.Window{Slot: w.Slot, Distance: d})
		}
		if d, ok := missingGap(b.Reference, windows[from:to], w.Summary); ok {
			gaps = append(gaps, control.Window{Slot: w.Slot, Distance: d})
		}
		rows += float64(w.Summary.Rows()) / float64(len(windows))
	}
	half := 0.5 / max(rows, 1)
	b.Shape, b.Missing = control.LearnFloor(shapes, half), control.LearnFloor(gaps, half)
}

func subtract(total []uint64, parts [][]uint64) []uint64 {
	out := make([]uint64, len(total))
	copy(out, total)
	for _, p := range parts {
		for i, n := range p {
			out[i] -= n
		}
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
