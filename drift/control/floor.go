package control

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
	"gonum.org/v1/gonum/mathext"
)

// Window is one of the reference's own windows: its slot (hour of week, or any
// other season) and its distance from the rest of the reference.
type Window struct {
	Slot     int
	Distance float64
}

// minWindows is how many reference windows the floor needs before it speaks.
const minWindows = 20

// Floor knows how far a reference's own windows lie from the reference, slot by
// slot: a window farther than they ever are is news, whatever a test of
// independent rows says. It is learnt by A/A comparison inside the reference.
type Floor struct {
	Resolution float64         `json:"resolution"` // half of the smallest step a distance can make
	Centers    map[int]float64 `json:"centers"`    // typical distance of a slot
	Center     float64         `json:"center"`     // typical distance of any window
	Ratios     []float64       `json:"ratios"`     // distance over its slot's typical one, ascending
	LogMean    float64         `json:"log_mean"`
	LogStd     float64         `json:"log_std"`
}

// LearnFloor learns from the reference's windows. Resolution keeps a distance
// of exactly 0 comparable; half a row's share does.
func LearnFloor(windows []Window, resolution float64) *Floor {
	f := &Floor{Resolution: max(resolution, 1e-12), Centers: map[int]float64{}}
	slots := map[int][]float64{}
	var all []float64
	for _, w := range windows {
		d := w.Distance + f.Resolution
		slots[w.Slot] = append(slots[w.Slot], d)
		all = append(all, d)
	}
	if len(all) == 0 {
		return f
	}
	f.Center = median(all)
	for slot, ds := range slots {
		f.Centers[slot] = f.shrunk(ds)
	}
	for _, ds := range slots {
		for i, d := range ds {
			others := slices.Delete(slices.Clone(ds), i, i+1)
			f.Ratios = append(f.Ratios, d/f.shrunk(others))
		}
	}
	slices.Sort(f.Ratios)
	f.fit()
	return f
}

// slotWeight is how many windows the typical distance of all windows counts as
// within a slot's own.
const slotWeight = 2

// shrunk pulls a slot's typical distance towards that of all windows, the more
// the fewer windows the slot has.
func (f *Floor) shrunk(ds []float64) float64 {
	sum := slotWeight * math.Log(f.Center)
	for _, d := range ds {
		sum += math.Log(d)
	}
	return math.Exp(sum / (slotWeight + float64(len(ds))))
}

func (f *Floor) fit() {
	logs := make([]float64, len(f.Ratios))
	for i, r := range f.Ratios {
		logs[i] = math.Log(r)
	}
	m := stat.MomentsOf(logs)
	f.LogMean, f.LogStd = m.Mean, max(math.Sqrt(m.Variance), minSpread)
}

// minSpread keeps a reference whose windows never differ from making every
// difference infinitely surprising.
const minSpread = 0.1

// Known reports whether the reference had enough windows.
func (f *Floor) Known() bool { return f != nil && len(f.Ratios) >= minWindows }

// Ratio is a distance relative to what is typical of its slot.
func (f *Floor) Ratio(slot int, distance float64) float64 {
	center, ok := f.Centers[slot]
	if !ok {
		center = f.Center
	}
	return (distance + f.Resolution) / center
}

// P is how often one of the reference's own windows would be so far out: the
// rank among them, and beyond the farthest the tail of Student's prediction for
// the logarithm, as far as that is smaller.
func (f *Floor) P(slot int, distance float64) float64 {
	r := f.Ratio(slot, distance)
	n := len(f.Ratios)
	i, _ := slices.BinarySearch(f.Ratios, r)
	rank := float64(n-i+1) / float64(n+1)
	if i < n {
		return rank
	}
	return min(rank, f.tail(r))
}

func (f *Floor) tail(ratio float64) float64 {
	n := float64(len(f.Ratios))
	t := (math.Log(ratio) - f.LogMean) / (f.LogStd * math.Sqrt(1+1/n))
	df := n - 1
	p := mathext.RegIncBeta(df/2, 0.5, df/(df+t*t)) / 2
	if t < 0 {
		return 1 - p
	}
	return p
}

// At is the distance that a slot's window must exceed to be rarer than a share
// of the reference's own.
func (f *Floor) At(slot int, share float64) float64 {
	center, ok := f.Centers[slot]
	if !ok {
		center = f.Center
	}
	rare := func(ratio float64) bool { return f.P(slot, ratio*center-f.Resolution) <= share }
	low, high := 0.0, math.Max(1, f.Ratios[len(f.Ratios)-1])
	for !rare(high) && high < 1e9 {
		high *= 2
	}
	for range 60 {
		if mid := (low + high) / 2; rare(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return max(0, high*center-f.Resolution)
}

func median(xs []float64) float64 {
	sorted := slices.Clone(xs)
	slices.Sort(sorted)
	return stat.Quantile(sorted, 0.5)
}
