package drift_test

import (
	"math"
	"math/rand/v2"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Four weeks of hours, a million rows each: the mean follows the hour and the
// day of the week, wanders a little from hour to hour, and one day in 28 is a
// holiday. A million rows are drawn as counts of cells.
const (
	hours      = 4 * 7 * 24
	rowsAnHour = 1_000_000
)

func seasonGrid() *dist.Grid {
	edges := make([]float64, 63)
	for i := range edges {
		edges[i] = -3.1 + 0.1*float64(i)
	}
	g, err := dist.EdgeGrid(edges)
	if err != nil {
		panic(err)
	}
	return g
}

// seasonMeans are the means of consecutive hours; the last week is the one under
// watch.
func seasonMeans(rng *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	wander := 0.0
	offDay := rng.IntN(28)
	for h := range out {
		day := h / 24
		wander = 0.6*wander + 0.05*rng.NormFloat64()
		out[h] = 0.5*math.Sin(2*math.Pi*float64(h%24)/24) + wander
		if day%7 >= 5 {
			out[h] -= 0.3
		}
		if day%28 == offDay {
			out[h] -= 0.5
		}
	}
	return out
}

// hourSummary counts a million normal rows around a mean.
func hourSummary(rng *rand.Rand, g *dist.Grid, mean float64) *dist.Summary {
	shares := make([]float64, g.Cells())
	below := 0.0
	for i := range shares {
		_, high := g.Bounds(i)
		upTo := 1.0
		if !math.IsInf(high, 1) {
			upTo = math.Erfc(-(high-mean)/math.Sqrt2) / 2
		}
		shares[i], below = upTo-below, upTo
	}
	s := &dist.Summary{GridID: g.ID(), Min: -6, Max: 6}
	for i, n := range control.Multinomial(rng, shares, rowsAnHour) {
		if n > 0 {
			s.Cells = append(s.Cells, dist.Cell{Index: uint32(i), Count: n})
			s.Count += n
		}
	}
	return s
}

func seasonTrial(rng *rand.Rand, drifted bool) verdicts {
	g := seasonGrid()
	means := seasonMeans(rng, hours+7*24)
	var windows []drift.SlotWindow
	for h := range hours {
		windows = append(windows, drift.SlotWindow{Slot: h % (7 * 24), Summary: hourSummary(rng, g, means[h])})
	}
	at := hours + rng.IntN(7*24)
	mean := means[at]
	if drifted {
		mean += 0.6
	}
	window := hourSummary(rng, g, mean)
	v := judge(g, windows, 24, window, at%(7*24))
	v.evidently, v.nannyml = seasonPeers(g, windows, window)
	return v
}

// seasonPeers are both tools' rules on the counted rows: the normed Wasserstein
// distance, and the Jensen–Shannon distance against three deviations of the
// reference's hours.
func seasonPeers(g *dist.Grid, windows []drift.SlotWindow, window *dist.Summary) (evidently, nannyml bool) {
	centers := make([]float64, g.Cells())
	for i := range centers {
		centers[i] = -3.15 + 0.1*float64(i)
	}
	whole := make([]uint64, g.Cells())
	var each [][]uint64
	for _, w := range windows {
		counts, _ := w.Summary.Dense(g)
		each = append(each, counts)
		for i, n := range counts {
			whole[i] += n
		}
	}
	cur, _ := window.Dense(g)
	w, err := stat.WassersteinNormed(stat.LadderOfCounts(centers, whole, cur))
	evidently = err == nil && w >= 0.1
	var values []float64
	js := func(counts []uint64) float64 {
		s, _ := stat.SharesOf(whole, counts)
		return s.Distance(stat.JS)
	}
	for _, counts := range each {
		values = append(values, js(counts))
	}
	return evidently, peer.ThreeSigma(values).UpperOnly().Crossed(js(cur))
}
