package drift_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/online"
)

const (
	powerTrials  = 400
	powerWindows = 20 // of a reference
)

func powerSizes() []int { return []int{200, 1000, 5000} }

// A shift is something that happens to the rows of a window. Rows are numbers,
// or categories by their number; NaN is a row without a value.
type shift struct {
	name string
	draw func(rng *rand.Rand) float64
}

// powerWorld is a kind of column: what its rows are like, and what may happen to
// them. The first shift is none.
type powerWorld struct {
	name       string
	categories int // 0: numbers
	detectors  []string
	shifts     []shift
}

func powerWorlds() []powerWorld {
	normal := func(mean, deviation float64) func(rng *rand.Rand) float64 {
		return func(rng *rand.Rand) float64 { return mean + deviation*rng.NormFloat64() }
	}
	tenth := func(rng *rand.Rand) float64 { return rng.NormFloat64() + 2*float64(b2i(rng.Float64() < 0.1)) }
	zipf := func(moved float64) func(rng *rand.Rand) float64 {
		return func(rng *rand.Rand) float64 {
			if rng.Float64() < moved {
				return 12
			}
			return math.Floor(math.Exp(rng.Float64()*math.Log(21))) - 1
		}
	}
	missing := func(share float64) func(rng *rand.Rand) float64 {
		return func(rng *rand.Rand) float64 {
			if rng.Float64() < share {
				return math.NaN()
			}
			return rng.NormFloat64()
		}
	}
	return []powerWorld{
		{"normal numbers", 0, []string{"ks", "cramer_von_mises", "anderson", "mann_whitney", "welch", "chi2", "g", "wasserstein", "psi", "js", "hellinger", "tvd", "l_infinity", "kl"},
			[]shift{{"none", normal(0, 1)}, {"mean + 0.1 σ", normal(0.1, 1)}, {"mean + 0.25 σ", normal(0.25, 1)}, {"mean + 0.5 σ", normal(0.5, 1)}, {"σ × 1.25", normal(0, 1.25)}, {"a tenth of rows + 2 σ", tenth}}},
		{"20 categories", 20, []string{"chi2", "g", "cramers_v", "psi", "js", "hellinger", "tvd", "l_infinity", "kl"},
			[]shift{{"none", zipf(0)}, {"1 % of rows to a rare one", zipf(0.01)}, {"3 %", zipf(0.03)}, {"10 %", zipf(0.1)}}},
		{"1 % of values missing", 0, []string{"missing_rate"},
			[]shift{{"none", missing(0.01)}, {"2 %", missing(0.02)}, {"3 %", missing(0.03)}, {"10 %", missing(0.1)}}},
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// reference draws windows of a size and learns what they are like.
func (w powerWorld) reference(rng *rand.Rand, size int) *drift.Baseline {
	rows := drawRows(rng, w.shifts[0], size*powerWindows)
	g := w.grid(rows)
	var windows []drift.SlotWindow
	for from := 0; from < len(rows); from += size {
		windows = append(windows, drift.SlotWindow{Summary: w.summary(g, rows[from:from+size])})
	}
	b, err := drift.LearnBaseline(g, windows, 1)
	if err != nil {
		panic(err)
	}
	return b
}

func drawRows(rng *rand.Rand, s shift, n int) []float64 {
	rows := make([]float64, n)
	for i := range rows {
		rows[i] = s.draw(rng)
	}
	return rows
}

func (w powerWorld) grid(rows []float64) *dist.Grid {
	if w.categories == 0 {
		g, err := dist.NumericGrid(slices.DeleteFunc(slices.Clone(rows), math.IsNaN), dist.GridConfig{})
		if err != nil {
			panic(err)
		}
		return g
	}
	counts := map[string]uint64{}
	for _, x := range rows {
		counts[fmt.Sprint("c", x)]++
	}
	g, err := dist.CategoryGrid(counts, dist.GridConfig{})
	if err != nil {
		panic(err)
	}
	return g
}

func (w powerWorld) summary(g *dist.Grid, rows []float64) *dist.Summary {
	if w.categories == 0 {
		return dist.Summarize(g, rows)
	}
	names := make([]string, len(rows))
	for i, x := range rows {
		names[i] = fmt.Sprint("c", x)
	}
	return dist.SummarizeCategories(g, names)
}

// outcome is what a detector says of every trial: how surprising its statistic
// is, larger being more so, and whether the detector itself calls it drift.
type outcome struct {
	extreme [powerTrials]float64
	found   [powerTrials]bool
	test    bool // it has a p-value
}

const judgement = "kedge"

// run holds windows of a size with every shift against references of their own:
// outcomes by detector, then by shift.
func (w powerWorld) run(size int) map[string][]*outcome {
	rng := rand.New(rand.NewPCG(uint64(size), uint64(len(w.name))))
	out := map[string][]*outcome{}
	for _, name := range append([]string{judgement}, w.detectors...) {
		for range w.shifts {
			out[name] = append(out[name], &outcome{})
		}
	}
	for trial := range powerTrials {
		b := w.reference(rng, size)
		for s, shift := range w.shifts {
			window := w.summary(b.Grid, drawRows(rng, shift, size))
			c, err := drift.Compare(b.Grid, b.Reference, window)
			if err != nil {
				panic(err)
			}
			for _, name := range w.detectors {
				out[name][s].take(trial, name, c)
			}
			column := drift.Column{Name: "x", Baseline: b, Window: window, Importance: 0.5}
			for _, j := range drift.Judge([]drift.Column{column}, 0, drift.DefaultOptions()) {
				out[judgement][s].found[trial] = out[judgement][s].found[trial] || j.Drifted
			}
		}
	}
	return out
}

func (o *outcome) take(trial int, name string, c *drift.Comparison) {
	d, err := drift.Detector(name)
	if err != nil {
		panic(err)
	}
	r, err := d.Compare(c)
	if err != nil {
		o.extreme[trial] = math.Inf(-1) // no answer is no alarm
		return
	}
	o.extreme[trial], o.test = r.Statistic, r.HasP
	o.found[trial] = r.HasP && r.P <= nominal
}

// rates are the shares of trials found per shift: by p-value, or beyond what 5 %
// of the quiet windows reach.
func rates(of []*outcome, decides bool) []float64 {
	quiet := of[0].extreme
	slices.Sort(quiet[:])
	limit := quiet[powerTrials-powerTrials/20-1]
	out := make([]float64, len(of))
	for s, o := range of {
		for trial := range powerTrials {
			if decides && o.found[trial] || !decides && o.extreme[trial] > limit {
				out[s] += 100. / powerTrials
			}
		}
	}
	return out
}

// BenchmarkPower prints how often each detector finds a planted shift, by window
// size; docs/drift.md has its tables.
func BenchmarkPower(b *testing.B) {
	for _, w := range powerWorlds() {
		b.Run(w.name, func(b *testing.B) {
			for b.Loop() {
				fmt.Println(w.table())
			}
		})
	}
	b.Run("streams", func(b *testing.B) {
		for b.Loop() {
			fmt.Println(streamTable())
		}
	})
}

func (w powerWorld) table() string {
	cells := map[string][][]float64{}
	for _, size := range powerSizes() {
		for name, of := range w.run(size) {
			cells[name] = append(cells[name], rates(of, name == judgement || of[0].test))
		}
	}
	var t strings.Builder
	t.WriteString("| " + w.name)
	for _, s := range w.shifts {
		t.WriteString(" | " + s.name)
	}
	t.WriteString(" |\n|" + strings.Repeat("---|", len(w.shifts)+1) + "\n")
	for _, name := range append(slices.Clone(w.detectors), judgement) {
		t.WriteString("| " + name)
		for s := range w.shifts {
			var parts []string
			for _, bySize := range cells[name] {
				parts = append(parts, fmt.Sprintf("%.0f", bySize[s]))
			}
			t.WriteString(" | " + strings.Join(parts, " / "))
		}
		t.WriteString(" |\n")
	}
	return t.String()
}

// streamTable is how often detectors of streams speak before an error rate of
// 5 % rises at row 3,000, how often within the 3,000 rows after that, and the
// median of the rows that they took.
func streamTable() string {
	detectors := []struct {
		name string
		make func() online.Detector
	}{
		{"ADWIN", func() online.Detector { return online.NewADWIN(online.DefaultADWIN()) }},
		{"Page–Hinkley", func() online.Detector { return online.NewPageHinkley(online.DefaultPageHinkley()) }},
		{"DDM", func() online.Detector { return online.NewDDM(online.DefaultDDM()) }},
		{"HDDM-A", func() online.Detector { return online.NewHDDMA(online.DefaultHDDMA()) }},
	}
	var t strings.Builder
	t.WriteString("| error rate 5 % to | false | 7 % | 10 % | 20 % |\n|---|---|---|---|---|\n")
	for _, d := range detectors {
		falsely := 0
		var cells []string
		for _, to := range []float64{0.07, 0.1, 0.2} {
			rng := rand.New(rand.NewPCG(5, uint64(100*to)))
			var delays []int
			quiet := 0
			for range powerTrials {
				before, delay := watchRise(d.make(), rng, to)
				if before {
					falsely++
					continue
				}
				quiet++
				if delay >= 0 {
					delays = append(delays, delay)
				}
			}
			slices.Sort(delays)
			cell := fmt.Sprintf("%.0f", 100*float64(len(delays))/float64(max(quiet, 1)))
			if len(delays) > 0 {
				cell += fmt.Sprintf(" after %d", delays[len(delays)/2])
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(&t, "| %s | %.1f | %s |\n", d.name, 100*float64(falsely)/(3*powerTrials), strings.Join(cells, " | "))
	}
	return t.String()
}

// watchRise says whether a detector spoke before the rise, or how many rows after
// it; -1: not at all.
func watchRise(d online.Detector, rng *rand.Rand, to float64) (before bool, delay int) {
	const rows = 3000
	for i := range 2 * rows {
		rate := 0.05
		if i >= rows {
			rate = to
		}
		if d.Update(float64(b2i(rng.Float64() < rate))) == online.Drift {
			return i < rows, i - rows
		}
	}
	return false, -1
}
