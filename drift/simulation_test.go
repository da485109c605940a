package drift_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// A world draws a reference and windows of it, drifted or not. Verdicts are
// those of Kedge's test alone, of Kedge's judgement, and of the two tools on the
// same rows.
type world struct {
	name        string
	independent bool // rows are: the test alone must hold its level too
	slow        bool // drawn by make torture alone
	trial       func(rng *rand.Rand, drifted bool) verdicts
}

type verdicts struct{ test, judged, evidently, nannyml bool }

const nominal = 0.05

// rowWorld is a world of rows: a reference of blocks chunks of size rows, and a
// window of as many.
type rowWorld struct {
	size, blocks int
	draw         func(rng *rand.Rand, n int, drifted bool) []float64
	serial       bool // one draw runs through reference and window
}

func (w rowWorld) rows(rng *rand.Rand, drifted bool) (ref, cur []float64) {
	n := w.size * w.blocks
	if !w.serial {
		return w.draw(rng, n, false), w.draw(rng, w.size, drifted)
	}
	all := w.draw(rng, n+5*w.size, false) // the window lies a few windows after the reference
	cur = all[n+4*w.size:]
	if drifted {
		for i := range cur {
			cur[i] += 1.5
		}
	}
	return all[:n], cur
}

func (w rowWorld) trial(rng *rand.Rand, drifted bool) verdicts {
	ref, cur := w.rows(rng, drifted)
	g, err := dist.NumericGrid(ref, dist.GridConfig{})
	if err != nil {
		panic(err)
	}
	var windows []drift.SlotWindow
	var chunks []peer.Column
	for from := 0; from < len(ref); from += w.size {
		windows = append(windows, drift.SlotWindow{Summary: dist.Summarize(g, ref[from:from+w.size])})
		chunks = append(chunks, peer.Numbers(ref[from:from+w.size]))
	}
	v := judge(g, windows, 1, dist.Summarize(g, cur), 0)
	v.evidently, v.nannyml = peers(peer.Numbers(ref), chunks, peer.Numbers(cur))
	return v
}

// judge learns the baseline and holds one window against it: its shape, its
// missing values, and those that are new.
func judge(g *dist.Grid, windows []drift.SlotWindow, block int, window *dist.Summary, slot int) verdicts {
	b, err := drift.LearnBaseline(g, windows, block)
	if err != nil {
		panic(err)
	}
	o := drift.DefaultOptions()
	o.Alpha = nominal
	c, err := drift.Compare(g, b.Reference, window)
	if err != nil {
		panic(err)
	}
	r, err := c.Shape(o.Sparse)
	column := drift.Column{Name: "x", Baseline: b, Window: window, Importance: 0.5}
	js := drift.Judge([]drift.Column{column}, slot, o)
	if g.Categorical() && !g.RestOpen {
		js = append(js, drift.JudgeUnseen(column))
	}
	told := slices.ContainsFunc(js, func(j drift.Judgement) bool { return j.Drifted })
	return verdicts{test: err == nil && r.P <= nominal, judged: told}
}

// peers asks Evidently's automatic test, and NannyML's default distance against
// three deviations of its reference chunks.
func peers(ref peer.Column, chunks []peer.Column, cur peer.Column) (evidently, nannyml bool) {
	d, err := peer.EvidentlyAuto(ref, cur)
	evidently = err == nil && d.Drift
	f, err := peer.FitNannyML("jensen_shannon", ref)
	if err != nil {
		return evidently, false
	}
	var values []float64
	for _, c := range chunks {
		v, _, _ := f.Value(c)
		values = append(values, v)
	}
	v, _, err := f.Value(cur)
	return evidently, err == nil && peer.ThreeSigma(values).UpperOnly().Crossed(v)
}

func independent(name string, draw func(rng *rand.Rand, drifted bool) float64) world {
	w := rowWorld{size: 1000, blocks: 10, draw: func(rng *rand.Rand, n int, drifted bool) []float64 {
		xs := make([]float64, n)
		for i := range xs {
			xs[i] = draw(rng, drifted)
		}
		return xs
	}}
	return world{name: name, independent: true, trial: w.trial}
}

func autocorrelated(rng *rand.Rand, n int, _ bool) []float64 {
	const phi = 0.9
	xs, x := make([]float64, n), rng.NormFloat64()
	for i := range xs {
		x = phi*x + math.Sqrt(1-phi*phi)*rng.NormFloat64()
		xs[i] = x
	}
	return xs
}

func poisson(rng *rand.Rand, mean float64) float64 {
	limit, p, k := math.Exp(-mean), rng.Float64(), 0.0
	for p > limit {
		p *= rng.Float64()
		k++
	}
	return k
}

// choose returns 1 without and factor with drift.
func choose(drifted bool, without, with float64) float64 {
	if drifted {
		return with
	}
	return without
}

func worlds() []world {
	return []world{
		independent("normal", func(rng *rand.Rand, d bool) float64 { return rng.NormFloat64() + choose(d, 0, 0.25) }),
		independent("lognormal, heavy tail", func(rng *rand.Rand, d bool) float64 {
			return choose(d, 1, 1.6) * math.Exp(2*rng.NormFloat64())
		}),
		independent("Poisson, ties", func(rng *rand.Rand, d bool) float64 { return poisson(rng, choose(d, 3, 3.5)) }),
		{name: "300 Zipf categories", independent: true, trial: zipfTrial(300)},
		{name: "1,000 Zipf categories", independent: true, trial: zipfTrial(1000)},
		{name: "100,000 Zipf categories", independent: true, slow: true, trial: zipfTrial(100_000)},
		{name: "autocorrelated", trial: rowWorld{size: 250, blocks: 40, draw: autocorrelated, serial: true}.trial},
		{name: "seasons, holiday, 1 M rows", trial: seasonTrial},
	}
}

// cumulative shares of a Zipf law; drift moves a tenth of the mass to one rare
// category.
func zipfDraw(k int) func(rng *rand.Rand, n int, drifted bool) []string {
	names, sums, sum := make([]string, k), make([]float64, k), 0.0
	for i := range names {
		sum += 1 / float64(i+1)
		names[i], sums[i] = fmt.Sprintf("c%04d", i), sum
	}
	return func(rng *rand.Rand, n int, drifted bool) []string {
		out := make([]string, n)
		for i := range out {
			if drifted && rng.Float64() < 0.1 {
				out[i] = names[20]
				continue
			}
			u, lo, hi := rng.Float64()*sum, 0, k-1
			for lo < hi {
				if mid := (lo + hi) / 2; sums[mid] < u {
					lo = mid + 1
				} else {
					hi = mid
				}
			}
			out[i] = names[lo]
		}
		return out
	}
}

func zipfTrial(k int) func(rng *rand.Rand, drifted bool) verdicts {
	draw := zipfDraw(k)
	return func(rng *rand.Rand, drifted bool) verdicts {
		const size, blocks = 3000, 3
		ref, cur := draw(rng, size*blocks, false), draw(rng, size, drifted)
		counts := map[string]uint64{}
		for _, name := range ref {
			counts[name]++
		}
		g, err := dist.CategoryGrid(counts, dist.GridConfig{})
		if err != nil {
			panic(err)
		}
		var windows []drift.SlotWindow
		var chunks []peer.Column
		for from := 0; from < len(ref); from += size {
			windows = append(windows, drift.SlotWindow{Summary: dist.SummarizeCategories(g, ref[from:from+size])})
			chunks = append(chunks, peer.Categories(ref[from:from+size]))
		}
		v := judge(g, windows, 0, dist.SummarizeCategories(g, cur), 0)
		v.evidently, v.nannyml = peers(peer.Categories(ref), chunks, peer.Categories(cur))
		return v
	}
}

// tally counts verdicts over runs.
func (w world) tally(runs int, drifted bool) (test, judged, evidently, nannyml float64) {
	seed := uint64(len(w.name)) + 1000*uint64(runs)
	rng := rand.New(rand.NewPCG(seed, uint64(w.name[0])))
	for range runs {
		v := w.trial(rng, drifted)
		for target, hit := range map[*float64]bool{&test: v.test, &judged: v.judged, &evidently: v.evidently, &nannyml: v.nannyml} {
			if hit {
				*target += 1 / float64(runs)
			}
		}
	}
	return test, judged, evidently, nannyml
}

// limit is the upper end of the 99 % interval of a nominal rate over so many
// runs.
func limit(runs int) float64 { return nominal + 2.58*math.Sqrt(nominal*(1-nominal)/float64(runs)) }

// leastPower is the share of planted shifts that must be found.
const leastPower = 0.8

// TestFalseAlarmsStayNominal draws windows without drift, each with a reference
// of its own, and windows with a planted shift.
func TestFalseAlarmsStayNominal(t *testing.T) { falseAlarms(t, 60, 12) }

// TestTortureFalseAlarms is the same with as many windows as a rate of a few
// per cent needs to be known to a tenth of it. docs/drift.md has its table.
func TestTortureFalseAlarms(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "minutes of simulation: make torture runs it")
	}
	falseAlarms(t, 10_000, 500)
}

func falseAlarms(t *testing.T, quiet, planted int) {
	t.Logf("%d windows without drift, %d with a planted shift, nominal %.0f %% (limit %.2f %%)", quiet, planted, 100*nominal, 100*limit(quiet))
	for _, w := range worlds() {
		if w.slow && quiet < 1000 {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			began := time.Now()
			a, b, c, d := w.tally(quiet, false)
			e, f, g, h := w.tally(planted, true)
			t.Logf("false alarms: test %.2f %%, kedge %.2f %%, evidently %.2f %%, nannyml %.2f %%; found: test %.1f %%, kedge %.1f %%, evidently %.1f %%, nannyml %.1f %%",
				100*a, 100*b, 100*c, 100*d, 100*e, 100*f, 100*g, 100*h)
			t.Logf("%.0f s", time.Since(began).Seconds())
			if w.independent && a > limit(quiet) {
				t.Errorf("the test alone alarms in %.2f %% of quiet windows", 100*a)
			}
			if b > limit(quiet) {
				t.Errorf("%.2f %% of quiet windows judged drifted", 100*b)
			}
			if f < leastPower {
				t.Errorf("%.1f %% of planted shifts found", 100*f)
			}
		})
	}
}
