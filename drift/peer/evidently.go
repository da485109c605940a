package peer

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Decision is what a tool says about one column. Score is a distance or a
// p-value, as Method has it.
type Decision struct {
	Method    string
	Score     float64
	Threshold float64
	Drift     bool
}

// evidentlyTest is one stattest: its default threshold and whether a low score
// (a p-value) means drift.
type evidentlyTest struct {
	threshold float64
	pvalue    bool
	inclusive bool // p equal to the threshold counts as drift
	score     func(pair) (float64, error)
}

func evidentlyTests() map[string]evidentlyTest {
	distance := func(f func(pair) (float64, error)) evidentlyTest {
		return evidentlyTest{threshold: 0.1, score: f}
	}
	p := func(threshold float64, f func(pair) (stat.Test, error)) evidentlyTest {
		return evidentlyTest{threshold: threshold, pvalue: true, score: func(q pair) (float64, error) {
			t, err := f(q)
			return t.P, err
		}}
	}
	inclusive := func(t evidentlyTest) evidentlyTest {
		t.inclusive = true
		return t
	}
	return map[string]evidentlyTest{
		"psi":              distance(evidentlyPSI),
		"jensenshannon":    distance(evidentlyJS),
		"kl_div":           distance(evidentlyKL),
		"hellinger":        distance(evidentlyHellinger),
		"wasserstein":      distance(numeric(func(q pair) (float64, error) { return stat.WassersteinNormed(q.ladder) })),
		"ks":               inclusive(p(0.05, numeric(func(q pair) (stat.Test, error) { return stat.KS(q.ladder) }))),
		"anderson":         p(0.1, numeric(func(q pair) (stat.Test, error) { return stat.Anderson(q.ladder) })),
		"cramer_von_mises": inclusive(p(0.1, numeric(evidentlyCvM))),
		"es":               p(0.05, numeric(func(q pair) (stat.Test, error) { return stat.EppsSingleton(q.ref, q.cur) })),
		"mannw":            p(0.05, numeric(evidentlyMannWhitney)),
		"t_test":           p(0.05, numeric(evidentlyT)),
		"chisquare":        p(0.05, func(q pair) (stat.Test, error) { return q.counts.GoodnessOfFit() }),
		"z":                p(0.05, func(q pair) (stat.Test, error) { return q.counts.TwoProportionZ() }),
		"g_test":           p(0.1, evidentlyG),
		"fisher_exact":     p(0.1, evidentlyFisher),
	}
}

// numeric guards a test that needs numbers.
func numeric[T any](f func(pair) (T, error)) func(pair) (T, error) {
	return func(p pair) (T, error) {
		if p.category {
			var none T
			return none, &stat.NotComputable{Reason: stat.WrongData, Detail: "the test needs numbers"}
		}
		return f(p)
	}
}

// Evidently runs one of Evidently's stattests with its default threshold.
func Evidently(method string, ref, cur Column) (Decision, error) {
	test, ok := evidentlyTests()[method]
	if !ok {
		return Decision{}, &stat.NotComputable{Reason: stat.WrongData, Detail: "no stattest is called " + method}
	}
	p, err := newPair(ref, cur)
	if err != nil {
		return Decision{Method: method}, err
	}
	score, err := test.score(p)
	d := Decision{Method: method, Score: score, Threshold: test.threshold}
	if err != nil {
		return d, err
	}
	switch {
	case !test.pvalue:
		d.Drift = score >= test.threshold
	case test.inclusive:
		d.Drift = score <= test.threshold
	default:
		d.Drift = score < test.threshold
	}
	return d, nil
}

// EvidentlyAuto picks Evidently's default test, by the reference's size (1,000)
// and the number of distinct values on both sides, and runs it.
func EvidentlyAuto(ref, cur Column) (Decision, error) {
	p, err := newPair(ref, cur)
	if err != nil {
		return Decision{}, err
	}
	return Evidently(autoMethod(p), ref, cur)
}

func autoMethod(p pair) string {
	few := p.distinct() <= 5
	switch {
	case p.n > 1000 && !p.category && !few:
		return "wasserstein"
	case p.n > 1000:
		return "jensenshannon"
	case !p.category && !few:
		return "ks"
	case p.distinct() > 2:
		return "chisquare"
	}
	return "z"
}

// EvidentlyDataset is the dataset rule: drift when at least half of the columns
// drifted.
func EvidentlyDataset(columns []Decision) (drifted int, share float64, drift bool) {
	for _, c := range columns {
		if c.Drift {
			drifted++
		}
	}
	if len(columns) == 0 {
		return 0, 0, false
	}
	share = float64(drifted) / float64(len(columns))
	return drifted, share, share >= 0.5
}

// evidentlyBins are equal-width Sturges bins over both samples together when
// the reference has more than 20 distinct numbers, else one bin per value.
func evidentlyBins(p pair) (stat.Shares, error) {
	if p.category || p.distinctRef() <= 20 {
		return stat.SharesOf(p.counts.Ref, p.counts.Cur)
	}
	both := slices.Concat(p.ref, p.cur)
	slices.Sort(both)
	edges := stat.Sturges(both, p.integers)
	return stat.SharesOf(stat.ClosedBins(p.ref, edges), stat.ClosedBins(p.cur, edges))
}

// fillZeros gives empty shares 1e-4, or a millionth of the smallest share where
// that is not above 1e-4, without renormalising.
func fillZeros(shares []float64) []float64 {
	smallest := math.Inf(1)
	for _, s := range shares {
		if s > 0 {
			smallest = min(smallest, s)
		}
	}
	fill := stat.ShareFloor
	if smallest <= stat.ShareFloor {
		fill = smallest / 1e6
	}
	out := slices.Clone(shares)
	for i, s := range out {
		if s == 0 {
			out[i] = fill
		}
	}
	return out
}

func evidentlyPSI(p pair) (float64, error) {
	s, err := evidentlyBins(p)
	if err != nil {
		return 0, err
	}
	ref, cur := fillZeros(s.P), fillZeros(s.Q)
	sum := 0.0
	for i := range ref {
		sum += (ref[i] - cur[i]) * math.Log(ref[i]/cur[i])
	}
	return sum, nil
}

func evidentlyJS(p pair) (float64, error) {
	s, err := evidentlyBins(p)
	return s.Distance(stat.JSNat), err
}

// evidentlyKL renormalises the filled shares, as scipy.stats.entropy does.
func evidentlyKL(p pair) (float64, error) {
	s, err := evidentlyBins(p)
	if err != nil {
		return 0, err
	}
	ref, cur := normalise(fillZeros(s.P)), normalise(fillZeros(s.Q))
	sum := 0.0
	for i := range ref {
		sum += ref[i] * math.Log(ref[i]/cur[i])
	}
	return sum, nil
}

func normalise(shares []float64) []float64 {
	total := 0.0
	for _, s := range shares {
		total += s
	}
	for i := range shares {
		shares[i] /= total
	}
	return shares
}

// evidentlyHellinger bins numbers by Sturges' rule over the distinct values.
func evidentlyHellinger(p pair) (float64, error) {
	if p.category {
		s, err := stat.SharesOf(p.counts.Ref, p.counts.Cur)
		return s.Distance(stat.Hellinger), err
	}
	edges := stat.Sturges(p.ladder.X, p.integers)
	s, err := stat.SharesOf(stat.ClosedBins(p.ref, edges), stat.ClosedBins(p.cur, edges))
	return s.Distance(stat.Hellinger), err
}

// evidentlyCvM takes the exact p-value up to 20 values a side.
func evidentlyCvM(p pair) (stat.Test, error) {
	if max(p.n, p.m) <= 20 {
		return stat.CramerVonMisesExact(p.ladder)
	}
	return stat.CramerVonMises(p.ladder)
}

// evidentlyMannWhitney looks upwards only, exactly when a side has at most 8
// values and nothing ties.
func evidentlyMannWhitney(p pair) (stat.Test, error) {
	if min(p.n, p.m) <= 8 && p.distinct() == p.n+p.m {
		return stat.MannWhitneyExact(p.ladder, stat.Less)
	}
	return stat.MannWhitney(p.ladder, stat.Less)
}

func evidentlyT(p pair) (stat.Test, error) {
	return stat.Student(stat.MomentsOf(p.ref), stat.MomentsOf(p.cur))
}

// evidentlyG tests against the reference's raw counts, which needs equal sizes.
func evidentlyG(p pair) (stat.Test, error) {
	if p.n != p.m {
		return stat.Test{}, &stat.NotComputable{Reason: stat.SizesDiffer, Detail: "Evidently's G-test compares raw counts"}
	}
	return p.counts.GoodnessOfFitG()
}

func evidentlyFisher(p pair) (stat.Test, error) {
	if p.n != p.m {
		return stat.Test{}, &stat.NotComputable{Reason: stat.SizesDiffer, Detail: "Evidently's Fisher test compares raw counts"}
	}
	return p.counts.Fisher()
}
