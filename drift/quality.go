package drift

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/store"
)

// Names that judgements about a whole subject, and about slow changes, carry.
const (
	allRows       = "(rows)"
	freshness     = "freshness"
	cadence       = "cadence"
	constraint    = "constraint"
	domain        = "domain"
	unseen        = "unseen"
	missingSlowly = "missing_slowly"
	meanSlowly    = "mean_slowly"
)

// keeps judges a window by the column's constraints, and a category by how
// many of its values the reference never had. beside is what rows held beside
// declared domains.
func keeps(c Column, rules []Constraint, beside map[string]store.Foreign) []Judgement {
	var out []Judgement
	if c.Window.Rows() == 0 {
		return nil
	}
	if c.Baseline.Grid.Categorical() && c.Window.Count > 0 && !c.Baseline.Grid.RestOpen {
		out = append(out, judgeUnseen(c))
	}
	for _, r := range rules {
		if r.Column != c.Name {
			continue
		}
		if r.limits() {
			out = append(out, judgeRule(c, r))
		}
		if len(r.Values) > 0 {
			out = append(out, judgeDomain(c, r, beside[r.Column]))
		}
	}
	return out
}

// newShare is the share of unseen values that is worth a word where the
// reference has many rows.
const newShare = 0.01

// unseenShare is the share of a window's values that the reference never had.
func unseenShare(c Column) float64 {
	if c.Window.Count == 0 {
		return 0
	}
	n := uint64(0)
	for _, cell := range c.Window.Cells {
		if int(cell.Index) == c.Baseline.Grid.Unseen() {
			n += cell.Count
		}
	}
	return float64(n) / float64(c.Window.Count)
}

// expectedUnseen is the share of values that a window of the same world has and
// the reference, counted by cell, has not: of values that came once in it (Good
// and Turing). Rare values are counted together, so of them it takes the most
// that can have come once, given that none is more frequent than the rarest that
// has a cell. Where the reference is longer than what its grid was cut from, its
// own share of unseen values is a second estimate; the larger one counts.
func expectedUnseen(g *dist.Grid, counts []uint64) float64 {
	var n, once uint64
	least := uint64(math.MaxUint64)
	for i, c := range counts {
		n += c
		if i < g.Other() && c > 0 {
			least = min(least, c)
			if c == 1 {
				once++
			}
		}
	}
	if n == 0 {
		return 0
	}
	other := counts[g.Other()]
	rare := min(uint64(len(g.Rest)), other)
	if more := other - rare; more > 0 && least > 1 {
		rare -= min(rare, (more+least-2)/(least-1))
	}
	return float64(max(once+rare, counts[g.Unseen()])) / float64(n)
}

// judgeUnseen allows as many new values as are expected, and three standard
// errors more: those of a window's share, and those of what is expected, which
// the reference's values that came once are a sample of. Their variance is theirs
// and twice that of those that came twice (Good 1953), about as many values again.
func judgeUnseen(c Column) Judgement {
	j := Judgement{Column: c.Name, Detector: unseen, Effect: unseenShare(c), P: 1, Adjusted: 1}
	n := float64(max(c.Baseline.Reference.Count, 1))
	counts, err := c.Baseline.Reference.Dense(c.Baseline.Grid)
	if err != nil {
		return refused(j, err)
	}
	expected := expectedUnseen(c.Baseline.Grid, counts)
	j.Floor = max(newShare, expected+3*math.Sqrt(max(expected, 1/n)*(1/float64(c.Window.Count)+2/n)))
	j.Low, j.High = j.Effect, j.Effect
	j.Drifted, j.Calm = j.Effect > j.Floor, j.Effect <= j.Floor
	if j.Drifted {
		j.Severity, j.P, j.Adjusted = control.Grade(control.Times(j.Effect, j.Floor), c.Importance), 0, 0
	}
	return j
}

func judgeRule(c Column, r Constraint) Judgement {
	j := Judgement{Column: c.Name, Detector: constraint, P: 1, Adjusted: 1, Calm: true}
	var broken []string
	check := func(value float64, limit *float64, above bool, what string) {
		if limit == nil || above && value <= *limit || !above && value >= *limit {
			return
		}
		broken = append(broken, fmt.Sprintf("%s is %.4g, the limit is %.4g", what, value, *limit))
		j.Effect, j.Floor = value, *limit
	}
	rate, _ := c.Window.MissingRate()
	check(rate, r.Missing, true, "the share without a value")
	check(unseenShare(c), r.Unseen, true, "the share of new values")
	if c.Window.Count > 0 && !c.Baseline.Grid.Categorical() {
		check(c.Window.Min, r.Min, false, "the smallest value")
		check(c.Window.Max, r.Max, true, "the largest value")
	}
	if len(broken) > 0 {
		j.Drifted, j.Calm, j.P, j.Adjusted = true, false, 0, 0
		j.Severity, j.Detail = control.Warning, strings.Join(broken, "; ")
	}
	return j
}

// volume is how many rows the reference's windows had.
type volume struct {
	Medians map[int]float64 `json:"medians"` // by slot
	Median  float64         `json:"median"`
	Floor   *control.Floor  `json:"floor"`
}

// learnVolume learns the spread of rows per window, as a logarithm of the ratio
// to the slot's median.
func learnVolume(slots []int, rows []float64) *volume {
	v := &volume{Medians: map[int]float64{}, Median: middle(rows)}
	bySlot := map[int][]float64{}
	for i, s := range slots {
		bySlot[s] = append(bySlot[s], rows[i])
	}
	for s, r := range bySlot {
		if len(r) >= minSlotWindows {
			v.Medians[s] = middle(r)
		}
	}
	var windows []control.Window
	for i, s := range slots {
		windows = append(windows, control.Window{Slot: s, Distance: v.distance(s, rows[i])})
	}
	v.Floor = control.LearnFloor(windows, 0.01)
	return v
}

func (v *volume) expected(slot int) float64 {
	if m, ok := v.Medians[slot]; ok {
		return m
	}
	return v.Median
}

func (v *volume) distance(slot int, rows float64) float64 {
	return math.Abs(math.Log((rows + 1) / (v.expected(slot) + 1)))
}

// leastVolume is the logarithm of the smallest ratio of rows that is worth a
// word: a half or the double.
const leastVolume = 0.69

func (v *volume) judge(slot int, rows float64, alpha float64) Judgement {
	j := Judgement{Column: allRows, Detector: "volume", Effect: v.distance(slot, rows), P: 1, Floor: leastVolume}
	if v.Floor.Known() {
		j.Learnt, j.P = true, v.Floor.P(slot, j.Effect)
		j.Floor = max(leastVolume, v.Floor.At(slot, alpha))
	} else if j.Effect > j.Floor {
		j.P = 0
	}
	j.Low, j.High, j.Adjusted = j.Effect, j.Effect, j.P
	j.Drifted = j.P <= alpha && j.Effect >= j.Floor
	j.Calm = j.Effect < calmShare*j.Floor
	if j.Drifted {
		j.Severity = control.Grade(j.Effect/j.Floor, 0.5)
	}
	j.Detail = fmt.Sprintf("%.0f rows, %.0f expected", rows, v.expected(slot))
	return j
}

// evidenceOf watches for slow changes: of missing rates, and of the means of
// columns that lie in [0, 1]. The range they may wander in is that of the
// reference's windows; nil: they are too few.
func evidenceOf(c store.SummaryColumn, parts []SlotWindow) map[string]*control.Detector {
	if len(parts) < learnWindows-4 {
		return nil
	}
	var rates, means []float64
	bounded := true
	for _, p := range parts {
		s := p.Summary
		if rate, ok := s.MissingRate(); ok {
			rates = append(rates, rate)
		}
		mean, ok := s.Mean()
		bounded = bounded && (!ok || s.Min >= 0 && s.Max <= 1 && s.Min < s.Max)
		if ok {
			means = append(means, mean)
		}
	}
	out := map[string]*control.Detector{missingSlowly: detectorFor(rates)}
	if bounded && len(means) > 0 && !c.Grid.Categorical() {
		out[meanSlowly] = detectorFor(means)
	}
	return out
}

// setEvidence puts detectors in the place of a column's; nil: it has none.
func (m *Monitor) setEvidence(column string, of map[string]*control.Detector) {
	for _, name := range []string{missingSlowly, meanSlowly} {
		delete(m.evidence, incidentKey(column, name))
		if d := of[name]; d != nil {
			m.evidence[incidentKey(column, name)] = d
		}
	}
}

// renewEvidence starts anew with a longer reference, if it has windows enough.
func (m *Monitor) renewEvidence(c store.SummaryColumn, parts []SlotWindow) {
	if of := evidenceOf(c, parts); of != nil {
		m.referenceEvidence(c.Name, of)
	}
}

// referenceEvidence takes detectors of a new reference, at once or, while the
// column is accepted as something else, after that.
func (m *Monitor) referenceEvidence(column string, of map[string]*control.Detector) {
	accepted := m.inForce(column)
	if len(accepted) == 0 {
		m.setEvidence(column, of)
		return
	}
	accepted[0].Slow = map[string][2]float64{}
	for name, d := range of {
		accepted[0].Slow[name] = [2]float64{d.Low, d.High}
	}
}

// detectorFor leaves a tenth of the range to either side.
func detectorFor(windows []float64) *control.Detector {
	low, high := math.Inf(1), math.Inf(-1)
	for _, w := range windows {
		low, high = min(low, w), max(high, w)
	}
	margin := max(0.1*(high-low), 0.002)
	return control.NewDetector(low-margin, high+margin)
}

// slow gives every detector of slow changes its window, once. While something is
// accepted they watch that, and windows that are like the reference are not theirs.
func (m *Monitor) slow(columns []Column) []Judgement {
	threshold := control.LogThreshold(m.cfg.Between.Seconds()/m.cfg.Window.Seconds(), len(m.evidence))
	var out []Judgement
	for _, c := range columns {
		if a := m.inForce(c.Name); len(a) > 0 && a[len(a)-1].baseline != c.Baseline {
			continue
		}
		rate, ok := c.Window.MissingRate()
		if d := m.evidence[incidentKey(c.Name, missingSlowly)]; d != nil && ok {
			out = append(out, slowly(c, missingSlowly, d, rate, threshold))
		}
		mean, ok := c.Window.Mean()
		if d := m.evidence[incidentKey(c.Name, meanSlowly)]; d != nil && ok {
			out = append(out, slowly(c, meanSlowly, d, mean, threshold))
		}
	}
	return out
}

func slowly(c Column, name string, d *control.Detector, value, threshold float64) Judgement {
	e := d.Add(value)
	away := max(0, value-d.High, d.Low-value)
	j := Judgement{Column: c.Name, Detector: name, Effect: away, Low: away, High: away, Floor: max(0.1*(d.High-d.Low), 0.002), Learnt: true,
		P: math.Exp(-max(e, 0)), Drifted: e >= threshold, Calm: e < threshold/2}
	j.Detail = fmt.Sprintf("%.4g, the reference's windows lie between %.4g and %.4g", value, d.Low, d.High)
	j.Adjusted = j.P
	if j.Drifted {
		j.Severity = control.Grade(1, c.Importance)
		if !d.Rising() && value >= d.Low || d.Rising() && value <= d.High {
			d.Reset() // it went back: what was is told, what comes starts anew
		}
	}
	return j
}

// judgeArrival judges what no window can: that rows have stopped, and that a
// batch came late or in another size.
func (m *Monitor) judgeArrival(ctx context.Context, now time.Time, revision uint64) ([]store.Verdict, error) {
	var out []store.Verdict
	for _, j := range m.silent(now) {
		out = append(out, m.whole(j, m.Seen, now))
	}
	batches, err := m.batches(ctx, now)
	for _, b := range batches { // also those before an error
		out = append(out, m.whole(b.Judgement, b.from, b.by))
	}
	m.unsaved = append(m.unsaved, out...)
	return out, errors.Join(err, m.saveVerdicts(ctx, revision))
}

// whole is a verdict about all rows; it opens and closes its incident at once.
func (m *Monitor) whole(j Judgement, start, end time.Time) store.Verdict {
	f := Finding{Judgement: j, At: end}
	once := control.Policy{Need: 1, Of: 1, Clear: 1}
	key := incidentKey(j.Column, j.Detector)
	m.watch.Incidents[key], f.Change = once.Step(m.watch.Incidents[key], control.Observation{At: end, Drifted: j.Drifted, Calm: j.Calm, Severity: j.Severity})
	v := m.verdict(Column{Name: j.Column}, f, start, end)
	m.hush(&v, f)
	return v
}

// patience is how many windows may stay empty before a subject counts as
// silent.
const patience = 3

// silent speaks when a live subject falls silent, and when it comes back.
func (m *Monitor) silent(now time.Time) []Judgement {
	if !m.Live {
		return nil
	}
	allowed := max(patience*m.cfg.Window, 2*m.lateness(), 5*time.Minute)
	if m.begun.IsZero() {
		m.begun = now
	}
	age := now.Sub(m.Seen)
	stale := age > allowed
	if stale && now.Sub(m.begun) < allowed { // it may be us who were away
		return nil
	}
	if stale == !m.Stale.IsZero() {
		return nil
	}
	j := Judgement{Column: allRows, Detector: freshness, Effect: age.Seconds(), Low: age.Seconds(), High: age.Seconds(), Floor: allowed.Seconds(), P: 1, Adjusted: 1, Calm: true}
	j.Detail = fmt.Sprintf("the newest row is %v old, %v is the limit", age.Round(time.Second), allowed)
	m.Stale = time.Time{}
	if stale {
		m.Stale = m.Seen
		j.P, j.Adjusted, j.Drifted, j.Calm, j.Severity = 0, 0, true, false, control.Critical
	}
	return []Judgement{j}
}

// batch is what is to be said of the rows between two deadlines.
type batch struct {
	Judgement
	from, by time.Time
}

// mostBatches bounds the days that are judged after a pause, the newest of them.
const mostBatches = 31

// batches judges each day whose deadline has passed since the last one that was
// judged, and that one again when it was not as it should be and rows have come.
// With an error it answers the days before it.
func (m *Monitor) batches(ctx context.Context, now time.Time) ([]batch, error) {
	c := m.cfg.Cadence
	if c == nil {
		return nil, nil
	}
	var days [][2]time.Time
	for at := now; len(days) < mostBatches; {
		from, by, err := c.due(at)
		if err != nil {
			return nil, err
		}
		if !by.After(m.Batch) {
			break
		}
		days, at = append(days, [2]time.Time{from, by}), from
		if m.Batch.IsZero() { // what was due before anybody watched is nobody's business
			break
		}
	}
	slices.Reverse(days)
	var out []batch
	for _, d := range days {
		if !d[1].After(m.First) { // a day that began before there was anything to watch
			m.Batch = d[1]
			continue
		}
		b, err := m.batch(ctx, d[0], d[1])
		if err != nil {
			return out, err
		}
		m.Batch = d[1]
		out = append(out, b)
	}
	if len(out) > 0 || !m.Arrived.Equal(now) || !m.watch.Incidents[incidentKey(allRows, cadence)].Open {
		return out, nil
	}
	from, by, err := c.due(m.Batch)
	if err != nil {
		return nil, err
	}
	late, err := m.batch(ctx, from, by)
	if err != nil || late.Drifted {
		return nil, err
	}
	late.Detail += "; not all of them came in time"
	return []batch{late}, nil
}

// batch counts the rows between two deadlines.
func (m *Monitor) batch(ctx context.Context, from, by time.Time) (batch, error) {
	c := m.cfg.Cadence
	n, err := m.store.CountRows(ctx, m.cfg.Table, from, by)
	if err != nil {
		return batch{}, err
	}
	bad := n < uint64(c.Rows[0]) || n > uint64(c.Rows[1])
	j := Judgement{Column: allRows, Detector: cadence, Effect: float64(n), Low: float64(n), High: float64(n), Floor: float64(c.Rows[0]), P: 1, Adjusted: 1, Drifted: bad, Calm: !bad}
	j.Detail = fmt.Sprintf("%s rows by %s %s, %s to %s were due", thousands(n), c.By, c.Zone, thousands(uint64(c.Rows[0])), thousands(uint64(c.Rows[1])))
	if bad {
		j.P, j.Adjusted, j.Severity = 0, 0, control.Critical
	}
	return batch{j, from, by}, nil
}

// middle is the median.
func middle(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	sorted := slices.Clone(xs)
	slices.Sort(sorted)
	return stat.Quantile(sorted, 0.5)
}
