package drift

import (
	"fmt"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Comparison is a reference and a window counted on one grid.
type Comparison struct {
	Grid     *dist.Grid
	Ref, Cur *dist.Summary

	a, b []uint64 // counts of every cell
	n, m uint64   // totals
}

// Compare lines two summaries up. They must be on the grid.
func Compare(g *dist.Grid, ref, cur *dist.Summary) (*Comparison, error) {
	a, err := ref.Dense(g)
	if err != nil {
		return nil, fmt.Errorf("compare: reference: %w", err)
	}
	b, err := cur.Dense(g)
	if err != nil {
		return nil, fmt.Errorf("compare: window: %w", err)
	}
	return &Comparison{Grid: g, Ref: ref, Cur: cur, a: a, b: b, n: stat.Total(a), m: stat.Total(b)}, nil
}

// Result is a detector's answer. Low and High hold the statistic that the rows
// themselves would give; they are equal to Statistic where cells lose nothing.
// P is set when the detector is a test.
type Result struct {
	Detector  string
	Statistic float64
	Low, High float64
	P         float64
	HasP      bool
}

func exactly(name string, v float64) Result {
	return Result{Detector: name, Statistic: v, Low: v, High: v}
}

func tested(name string, t stat.Test) Result {
	return Result{Detector: name, Statistic: t.Statistic, Low: t.Statistic, High: t.Statistic, P: t.P, HasP: true}
}

// SummaryDetector compares a reference summary with a window's.
type SummaryDetector interface {
	Name() string
	Compare(c *Comparison) (Result, error)
}

type summaryDetector struct {
	name string
	f    func(c *Comparison) (Result, error)
}

func (d summaryDetector) Name() string { return d.name }

func (d summaryDetector) Compare(c *Comparison) (Result, error) {
	r, err := d.f(c)
	r.Detector = d.name
	if err != nil {
		return Result{Detector: d.name}, fmt.Errorf("%s: %w", d.name, err)
	}
	return r, nil
}

// SummaryDetectors lists every detector that works on two summaries.
func SummaryDetectors() []SummaryDetector {
	share := func(name string, d stat.Divergence) SummaryDetector {
		return summaryDetector{name, func(c *Comparison) (Result, error) { return c.distance(d) }}
	}
	test := func(name string, f func(c *Comparison) (Result, error)) SummaryDetector {
		return summaryDetector{name, f}
	}
	count := func(name string, f func(stat.Counts) (stat.Test, error)) SummaryDetector {
		return summaryDetector{name, func(c *Comparison) (Result, error) {
			t, err := f(c.counts())
			return tested(name, t), err
		}}
	}
	return []SummaryDetector{
		share("psi", stat.PSI), share("js", stat.JS), share("hellinger", stat.Hellinger), share("tvd", stat.TVD),
		share("l_infinity", stat.LInfinity), share("kl", stat.KL),
		test("ks", (*Comparison).KS), test("cramer_von_mises", (*Comparison).CramerVonMises), test("anderson", (*Comparison).Anderson),
		test("mann_whitney", (*Comparison).MannWhitney), test("wasserstein", (*Comparison).Wasserstein),
		test("wasserstein_normed", (*Comparison).WassersteinNormed), test("welch", (*Comparison).Welch),
		count("chi2", stat.Counts.ChiSquared), count("g", stat.Counts.G), count("fisher", stat.Counts.Fisher),
		count("two_proportion_z", stat.Counts.TwoProportionZ),
		test("cramers_v", func(c *Comparison) (Result, error) {
			v, err := c.counts().CramersV()
			return exactly("", v), err
		}),
		test("missing_rate", (*Comparison).MissingRate),
	}
}

// Detector finds a summary detector by name.
func Detector(name string) (SummaryDetector, error) {
	for _, d := range SummaryDetectors() {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no detector is called %q", name)
}

// bins are the cells that share distances are taken on: categories as they are,
// numbers by the deciles of the reference sample.
func (c *Comparison) bins() (ref, cur []uint64, labels []string) {
	if c.Grid.Categorical() {
		for i := range c.a {
			labels = append(labels, c.Grid.Label(i))
		}
		return c.a, c.b, labels
	}
	deciles := c.Grid.Deciles
	if len(deciles) == 0 {
		deciles = c.Grid.Edges
	}
	ref, cur = make([]uint64, len(deciles)+1), make([]uint64, len(deciles)+1)
	k := 0
	for i := range c.a {
		if low, _ := c.Grid.Bounds(i); k < len(deciles) && low >= deciles[k] {
			k++
		}
		ref[k] += c.a[i]
		cur[k] += c.b[i]
	}
	return ref, cur, decileLabels(deciles)
}

func decileLabels(edges []float64) []string {
	out := []string{fmt.Sprintf("< %.6g", edges[0])}
	for i := 1; i < len(edges); i++ {
		out = append(out, fmt.Sprintf("%.6g to %.6g", edges[i-1], edges[i]))
	}
	return append(out, fmt.Sprintf("≥ %.6g", edges[len(edges)-1]))
}

func (c *Comparison) counts() stat.Counts {
	ref, cur, _ := c.bins()
	return stat.Counts{Ref: ref, Cur: cur}
}

func (c *Comparison) shares() (stat.Shares, error) {
	ref, cur, _ := c.bins()
	return stat.SharesOf(ref, cur)
}

func (c *Comparison) distance(d stat.Divergence) (Result, error) {
	s, err := c.shares()
	if err != nil {
		return Result{}, err
	}
	return exactly("", s.Distance(d)), nil
}

// Contribution is one bin's or category's part of a distance.
type Contribution struct {
	Label    string
	Ref, Cur float64 // shares of the two windows
	Part     float64 // share of the distance
}

// Contributions takes a share distance apart, in the order of the bins.
func (c *Comparison) Contributions(d stat.Divergence) ([]Contribution, error) {
	s, err := c.shares()
	if err != nil {
		return nil, err
	}
	_, _, labels := c.bins()
	parts := s.Contributions(d)
	out := make([]Contribution, len(parts))
	for i, p := range parts {
		out[i] = Contribution{labels[i], s.P[i], s.Q[i], p}
	}
	return out, nil
}

// MissingRate compares the shares of rows without a usable value; the statistic
// is their difference, positive when the window misses more.
func (c *Comparison) MissingRate() (Result, error) {
	ref, okRef := c.Ref.MissingRate()
	cur, okCur := c.Cur.MissingRate()
	if !okRef || !okCur {
		return Result{}, &stat.NotComputable{Reason: stat.TooFew, Detail: "a window without rows"}
	}
	t, err := stat.Counts{
		Ref: []uint64{c.Ref.Count, c.Ref.Rows() - c.Ref.Count},
		Cur: []uint64{c.Cur.Count, c.Cur.Rows() - c.Cur.Count},
	}.TwoProportionZ()
	r := tested("", t)
	r.Statistic, r.Low, r.High = cur-ref, cur-ref, cur-ref
	return r, err
}
