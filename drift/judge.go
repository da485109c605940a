package drift

import (
	"errors"
	"math"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Options are the knobs of a judgement.
type Options struct {
	Alpha    float64 // false discovery rate among the columns of one tick
	Fallback float64 // distance that counts as relevant before the floor is learnt
	Sparse   float64 // expected rows of a category below which χ² is corrected for sparsity
}

// DefaultOptions allow one false column among a hundred found, and call nothing
// relevant that moves less than a twentieth of the rows.
func DefaultOptions() Options { return Options{Alpha: 0.01, Fallback: 0.05, Sparse: 5} }

// Column is one column of a tick: its baseline and its window.
type Column struct {
	Name       string
	Segment    string // "district=harbour"; empty: all rows
	Baseline   *Baseline
	Window     *dist.Summary
	Importance float64 // to the model, 0 to 1; 0.5 if unknown
	Names      bool    // its values say who somebody is: no sentence has one
}

// Judgement is what a tick says about one column and one question.
type Judgement struct {
	Column   string
	Detector string  // "ks", "chi2" or "missing_rate"
	Effect   float64 // distance from the reference
	Low      float64 // the interval that holds the rows' own distance
	High     float64
	Floor    float64 // distance that the reference's own windows hardly exceed at this slot
	Learnt   bool    // the floor comes from the reference, not from Options.Fallback
	Seasonal bool    // held against the same slot of the season, not the whole reference
	P        float64 // of no drift, before correction for many columns
	Adjusted float64 // after Benjamini–Hochberg within the tick
	Drifted  bool
	Calm     bool // well inside the floor
	Severity control.Severity
	Reason   stat.Reason // why there is no answer; empty when there is one
	Detail   string
}

// questions are how many judgements Judge makes of a column.
const questions = 2

// Judge holds the windows of one tick against their baselines. A column drifted
// when chance does not explain its distance (a test of the rows, corrected for
// the number of columns), and the reference's own windows at this slot do not
// explain it either.
func Judge(columns []Column, slot int, o Options) []Judgement {
	var out []Judgement
	for _, c := range columns {
		out = append(out, judgeShape(c, slot, o), judgeMissing(c, slot, o))
	}
	var index []int
	var p []float64
	for i, j := range out {
		if j.Reason == "" {
			index, p = append(index, i), append(p, j.P)
		}
	}
	for k, adjusted := range control.BenjaminiHochberg(p) {
		j := &out[index[k]]
		j.Adjusted = adjusted
		j.decide(o, columns[index[k]/questions].Importance)
	}
	return out
}

// calmShare is how far inside its floor a distance must be to count as calm.
const calmShare = 0.8

func (j *Judgement) decide(o Options, importance float64) {
	times := control.Times(j.Effect, j.Floor)
	j.Drifted = j.Adjusted <= o.Alpha && times >= 1
	j.Calm = !j.Drifted && (times < calmShare || j.P > 0.2)
	if j.Drifted {
		j.Severity = control.Grade(times, importance)
	}
}

func refused(j Judgement, err error) Judgement {
	var none *stat.NotComputable
	j.Reason, j.Detail, j.Calm = "failed", err.Error(), false
	if errors.As(err, &none) {
		j.Reason, j.Detail = none.Reason, none.Detail
	}
	return j
}

// judgeShape holds a window against the whole reference and, where there is a
// season, against its own slot; the more surprising of the two speaks, at twice
// its p-value because there were two.
func judgeShape(c Column, slot int, o Options) Judgement {
	j := compareShape(c, c.Baseline.Reference, c.Baseline.Shape, slot, o)
	own := c.Baseline.Slots[slot]
	if own == nil || !c.Baseline.Season.Known() {
		return j
	}
	seasonal := compareShape(c, own, c.Baseline.Season, slot, o)
	seasonal.Seasonal = true
	if j.Reason != "" || seasonal.Reason == "" && seasonal.P < j.P {
		j = seasonal
	}
	j.P = min(1, 2*j.P)
	return j
}

func compareShape(c Column, ref *dist.Summary, f *control.Floor, slot int, o Options) Judgement {
	j := Judgement{Column: c.Name, Detector: "ks"}
	if c.Baseline.Grid.Categorical() {
		j.Detector = "chi2"
	}
	cmp, err := Compare(c.Baseline.Grid, ref, c.Window)
	if err != nil {
		return refused(j, err)
	}
	r, err := cmp.Shape(o.Sparse)
	if err != nil {
		return refused(j, err)
	}
	j.Effect, j.Low, j.High, j.P = r.Statistic, r.Low, r.High, r.P
	j.against(f, slot, o)
	return j
}

func judgeMissing(c Column, slot int, o Options) Judgement {
	j := Judgement{Column: c.Name, Detector: "missing_rate"}
	cmp, err := Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
	if err != nil {
		return refused(j, err)
	}
	r, err := cmp.MissingRate()
	if err != nil {
		return refused(j, err)
	}
	j.Effect, j.P = math.Abs(r.Statistic), r.P
	j.Low, j.High = j.Effect, j.Effect
	j.against(c.Baseline.Missing, slot, o)
	return j
}

// against asks the floor: both chance and the reference's own unrest must fail
// to explain the distance, so the larger p-value counts.
func (j *Judgement) against(f *control.Floor, slot int, o Options) {
	j.Floor = o.Fallback
	if f.Known() {
		j.Learnt = true
		j.Floor = f.At(slot, o.Alpha)
		j.P = max(j.P, f.P(slot, j.Effect))
	}
}

// Shape is the default comparison: the Kolmogorov–Smirnov test of numbers, and
// for categories the χ² test of homogeneity, corrected for rare categories, with
// the Jensen–Shannon distance as its effect. sparse is the expected number of
// rows below which a category counts as rare.
func (c *Comparison) Shape(sparse float64) (Result, error) {
	if !c.Grid.Categorical() {
		r, err := c.KS()
		r.Detector = "ks"
		return r, err
	}
	counts := c.pooled()
	test := counts.ChiSquared
	if rare(counts, sparse) {
		test = func() (stat.Test, error) { return control.SparseChiSquared(counts) }
	}
	t, err := test()
	if err != nil {
		return Result{Detector: "chi2"}, err
	}
	d, err := shapeDistance(c.Grid, c.a, c.b)
	r := exactly("chi2", d)
	r.P, r.HasP = t.P, true
	return r, err
}

// rare reports whether some category expects fewer rows than that on the
// smaller side.
func rare(c stat.Counts, rows float64) bool {
	n, m := float64(stat.Total(c.Ref)), float64(stat.Total(c.Cur))
	for i := range c.Ref {
		if both := float64(c.Ref[i] + c.Cur[i]); both > 0 && both*min(n, m)/(n+m) < rows {
			return true
		}
	}
	return false
}

// pooledBelow is the reference count below which categories are tested together.
const pooledBelow = 10

// pooled are the counts of frequent categories and, in the last place, of all
// others together: rare ones, OTHER and UNSEEN. A category is in the grid
// because the reference happened to have it, so rare ones are over-represented
// there and UNSEEN is empty by construction; the expected shift between two
// samples of one world is the number of rows of categories that stand just on
// the boundary (Good and Turing), which is added to the reference's side.
func (c *Comparison) pooled() stat.Counts {
	boundary := uint64(pooledBelow)
	if len(c.Grid.Rest) > 0 || c.Grid.RestOpen {
		boundary = max(boundary, c.smallest()+1)
	}
	var out stat.Counts
	var rest [2]uint64
	onBoundary := uint64(0)
	for i := range c.a {
		if i < c.Grid.Other() && c.a[i] >= boundary {
			out.Ref, out.Cur = append(out.Ref, c.a[i]), append(out.Cur, c.b[i])
			if c.a[i] == boundary {
				onBoundary++
			}
			continue
		}
		rest[0], rest[1] = rest[0]+c.a[i], rest[1]+c.b[i]
	}
	if rest[0] > 0 {
		rest[0] += boundary * onBoundary
	}
	out.Ref, out.Cur = append(out.Ref, rest[0]), append(out.Cur, rest[1])
	return out
}

// smallest is the smallest positive reference count of a named category.
func (c *Comparison) smallest() uint64 {
	least := uint64(math.MaxUint64 - 1)
	for i := range c.Grid.Other() {
		if c.a[i] > 0 {
			least = min(least, c.a[i])
		}
	}
	return least
}

// stability is the population stability index on the reference's deciles or
// categories, as many teams know it, without what chance puts in. It is shown
// beside the judgement and decides nothing.
func stability(c Column) Judgement {
	j := Judgement{Column: c.Name, Detector: "psi"}
	cmp, err := Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
	if err != nil {
		return refused(j, err)
	}
	r, err := cmp.distance(stat.PSI)
	if err != nil {
		return refused(j, err)
	}
	ref, _, _ := cmp.bins()
	j.Effect, j.P = control.CorrectedPSI(r.Statistic, len(ref), cmp.n, cmp.m)
	j.Low, j.High, j.Adjusted = j.Effect, r.Statistic, j.P
	return j
}
