package drift

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// performance measures a model window by window: what it is worth as labels
// come, and what it is expected to be worth before they do. It rides on the
// model's monitor: same reference, same incidents.
type performance struct {
	store  *store.Store
	table  store.Subject
	model  *event.ModelSpec
	fitted *fit
	reason string // why there is no fit
	tried  time.Time
	came   time.Time // when labels were last found to have come
	groups []string
	fair   []string // those of groups whose values are compared; nil: all but the version
	worth  Worth
	said   uint64 // revision of the last measurement

	subject string
	inputs  lossInputs
	learner perf.Learner // nil: nobody learns losses here
	log     *slog.Logger
}

// fit is what the reference says of the model.
type fit struct {
	task      string
	metric    string // what is judged
	rising    bool   // a larger value of it is worse
	values    map[string]perf.Value
	floor     float64 // three deviations of the reference's own windows
	lower     float64 // expected values below it are news
	cbpe      *perf.CBPE
	multi     *perf.MultiCBPE
	classes   []string // of multi
	dle       *perf.DLE
	inputs    lossInputs // of dle
	coverage  float64
	rows      int // labelled ones of the reference
	wait      time.Duration
	window    time.Duration
	reference string    // what it was fitted on, for verdicts
	from      time.Time // see answering
}

// sampleRows bounds the rows that one window's metrics are made of.
const sampleRows = 100_000

func (s *Scheduler) newPerformance(w *watcher) *performance {
	return &performance{store: s.store, table: store.Subject{Kind: w.schema.Kind, TableID: w.schema.TableID}, model: w.model, worth: w.spec.Value, fair: w.spec.Groups,
		subject: w.schema.Subject, inputs: inputsOf(w.schema), learner: s.cfg.Losses, log: s.cfg.Scope.Log}
}

func (p *performance) join() store.LabelJoin {
	if p.model == nil {
		return store.LabelJoin{}
	}
	return store.JoinOf(p.model.Labels)
}

// performanceWindow is longer than that of distributions: labels are one bit.
func performanceWindow(w time.Duration) time.Duration {
	for _, l := range windowLengths() {
		if l > w && l%w == 0 {
			return l
		}
	}
	return w
}

// tick measures what can be measured.
func (p *performance) tick(ctx context.Context, m *Monitor, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.baselines == nil || m.cfg.File != "" && m.Seen.IsZero() {
		return nil
	}
	if p.fitted != nil && !p.fitted.from.Equal(m.Answers.From) {
		p.fitted = nil // a promoted version learns its own first rows
	}
	if p.fitted == nil {
		if now.Sub(p.tried) < 30*time.Second {
			return nil
		}
		p.tried = now
		if err := p.learn(ctx, m, now); err != nil {
			var none *stat.NotComputable
			p.reason = err.Error()
			if errors.As(err, &none) {
				return nil // labels may come yet
			}
			return err
		}
	}
	f := p.fitted
	if m.Measured.Before(m.First) {
		m.Measured = m.First.Truncate(f.window)
		if m.Measured.Before(m.First) {
			m.Measured = m.Measured.Add(f.window)
		}
	}
	for n := 0; n < 50 && !m.Measured.Add(f.window).After(m.Next); n++ {
		if err := p.measure(ctx, m, m.Measured, now); err != nil {
			return err
		}
		m.Measured = m.Measured.Add(f.window)
	}
	if err := p.corrected(ctx, m, now); err != nil {
		return err
	}
	return p.again(ctx, m, now)
}

// again measures windows anew that were not mature, once they are and now and
// then before, and those whose labels were corrected since.
func (p *performance) again(ctx context.Context, m *Monitor, now time.Time) error {
	var due []int64
	for start, at := range m.Rough {
		if p.mature(m, time.UnixMicro(start).UTC(), now) || now.Sub(at) >= max(time.Minute, p.fitted.wait/10) {
			due = append(due, start)
		}
	}
	slices.Sort(due)
	for _, start := range due[:min(len(due), 20)] {
		if err := p.measure(ctx, m, time.UnixMicro(start).UTC(), now); err != nil {
			return err
		}
	}
	return nil
}

// ready is when the labels of a window that starts at a time are due.
func (p *performance) ready(start time.Time) time.Time {
	return start.Add(p.fitted.window + p.fitted.wait)
}

// mature says that labels have had the time they need, by the clock and, where
// a history is being read in, by the events.
func (p *performance) mature(m *Monitor, start, now time.Time) bool {
	ready := p.ready(start)
	return !now.Before(ready) && (!m.Seen.Before(ready) || now.Sub(m.Arrived) >= time.Minute)
}

// learn fits on the reference's rows whose labels have come.
func (p *performance) learn(ctx context.Context, m *Monitor, now time.Time) error {
	groups, err := m.dimensions(ctx)
	if err != nil {
		return err
	}
	p.groups = append([]string{"version"}, slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return g == "version" })...)
	for _, g := range p.fair {
		if !slices.Contains(p.groups, g) {
			p.groups = append(p.groups, g)
		}
	}
	from, to := m.cfg.From, m.cfg.To
	if m.cfg.File != "" { // labels of the file are not kept: the first day or so of rows stands for it
		from, to = m.First, m.First.Add(learnWindows*m.cfg.Window)
	}
	o, err := p.store.Outcomes(ctx, p.table, p.join(), nil, from, to, sampleRows)
	if err != nil {
		return err
	}
	f := &fit{window: performanceWindow(m.cfg.Window), reference: "labelled rows of " + stretchText(from, to), from: m.Answers.From}
	f.wait = p.wait(o, f.window)
	if to.Add(f.wait).After(now) {
		return &stat.NotComputable{Reason: stat.TooFew, Detail: "the reference's labels are not due yet"}
	}
	p.silence(o)
	r := rowsOf(o, p.task(o))
	f.rows = r.labelled
	f.task, f.coverage = r.task, float64(r.labelled)/float64(max(len(o.Time), 1))
	if r.labelled < 100 {
		return &stat.NotComputable{Reason: stat.TooFew, Detail: fmt.Sprintf("the reference has %d labels, a hundred are needed", r.labelled)}
	}
	f.values = r.metrics(p.worth)
	f.metric, f.rising = judgedMetric(f.task)
	f.spread(o)
	if err := f.fitExpected(r, p.worth); err != nil {
		return err
	}
	if err := p.learnLosses(ctx, f, from, to); err != nil {
		return err
	}
	p.fitted, p.reason = f, ""
	return nil
}

// wait is how long labels are waited for: what the model's definition says, or
// half as long again as nearly all labels of the reference took.
func (p *performance) wait(o *store.Outcomes, window time.Duration) time.Duration {
	if p.model != nil && p.model.Labels.Delay > 0 {
		return time.Duration(p.model.Labels.Delay)
	}
	var delays []float64
	for _, d := range o.Delay {
		if !math.IsNaN(d) {
			delays = append(delays, d)
		}
	}
	if len(delays) == 0 {
		return window
	}
	slices.Sort(delays)
	return max(window, time.Duration(1.5*stat.Quantile(delays, 0.99)*float64(time.Second)))
}

// silence gives predictions without a label the one that their silence means.
// The caller knows that they are old enough.
func (p *performance) silence(o *store.Outcomes) {
	if p.model == nil || p.model.Labels.Silence == "" {
		return
	}
	v, err := strconv.ParseFloat(p.model.Labels.Silence, 64)
	for i, there := range o.There {
		if there {
			continue
		}
		o.There[i], o.LabelClass[i] = true, p.model.Labels.Silence
		if err == nil {
			o.Label[i] = v
		}
	}
}

// task is what the definition says, or what the outputs look like.
func (p *performance) task(o *store.Outcomes) string {
	if p.model != nil && p.model.Task != "" {
		return p.model.Task
	}
	scores, values, classes, zeroOne := 0, 0, 0, true
	for i := range o.Time {
		if o.There[i] {
			zeroOne = zeroOne && zeroOrOne(numberSaid(o, i))
		}
		switch {
		case !math.IsNaN(o.Score[i]):
			scores++
		case !math.IsNaN(o.Value[i]):
			values++
		case o.Class[i] != "":
			classes++
		}
	}
	switch {
	case scores > 0 && zeroOne:
		return "binary"
	case classes > values:
		return "multiclass"
	}
	return "regression"
}

func judgedMetric(task string) (metric string, rising bool) {
	switch task {
	case "binary":
		return string(perf.ROCAUC), false
	case "multiclass":
		return "accuracy", false
	}
	return string(perf.MAE), true
}

// spread learns how far the metric wanders from window to window of the
// reference.
func (f *fit) spread(o *store.Outcomes) {
	byWindow := map[int64][]int{}
	for i, t := range o.Time {
		k := t.Truncate(f.window).UnixMicro()
		byWindow[k] = append(byWindow[k], i)
	}
	var values []float64
	for _, rows := range byWindow {
		r := rowsOf(pick(o, rows), f.task)
		if v, ok := r.metrics(nil)[f.metric]; ok && r.labelled >= 30 {
			values = append(values, v.Value)
		}
	}
	f.floor, f.lower = math.NaN(), math.NaN()
	if len(values) >= 5 {
		s := stat.MomentsOf(values)
		f.floor = 3 * math.Sqrt(s.Variance)
		f.lower = s.Mean - f.floor
	}
}

// measure computes a window's metrics, stores them and judges the one that
// counts: the realised value once it is mature, the expected one at once.
func (p *performance) measure(ctx context.Context, m *Monitor, start, now time.Time) error {
	f, end := p.fitted, start.Add(p.fitted.window)
	o, sample, err := p.store.OutcomesWith(ctx, p.table, p.join(), p.groups, f.inputs.numbers, f.inputs.texts, start, end, f.inputs.rows())
	if err != nil {
		return err
	}
	at, before := m.Rough[start.UnixMicro()]
	if len(o.Time) == 0 {
		delete(m.Rough, start.UnixMicro())
		if !before {
			m.Empty = append(m.Empty, start.UnixMicro())
			m.Empty = m.Empty[max(0, len(m.Empty)-thinKept):]
		}
		return nil
	}
	corrected := before && at.IsZero()
	due := p.mature(m, start, now) || corrected && !now.Before(p.ready(start))
	if due {
		p.silence(o)
	}
	whole := rowsOf(o, f.task)
	coverage := float64(whole.labelled) / float64(len(o.Time))
	mature := due && coverage >= f.coverage/2
	var out []store.Performance
	base := store.Performance{Namespace: m.cfg.Namespace, Model: m.cfg.Subject, Start: start, End: end, Predictions: o.Predictions, Mature: mature}
	base.Scale = float64(o.Predictions) / float64(len(o.Time))
	expected, none := f.expected(o, sample)
	all := base
	if none != nil {
		all.Reason = "no expected value: " + none.Error()
	}
	values := p.add(&out, all, "", whole, len(o.Time), expected, before)
	for _, g := range p.groups {
		p.addGroup(&out, base, g, o, before)
	}
	told := corrected // which changes the verdict, not the incident: it saw the window already
	if due && m.thin(start, mature) {
		told = false
	}
	w := measured{start: start, values: values, expected: expected, mature: mature, before: before, told: told, revision: p.revise(now)}
	if err := p.judge(ctx, m, w); err != nil {
		return err
	}
	m.saved = time.Time{} // what was judged is to be remembered
	delete(m.Rough, start.UnixMicro())
	if !due {
		m.roughly(start, now)
	}
	return p.store.SavePerformance(ctx, fmt.Sprintf("%s/%d", m.cfg.Name, p.table.TableID), out, w.revision)
}

// revise is the revision of a measurement: the time, and more than that of the
// one before. A tick may measure one window twice, as labels land, and the
// second must be what is told, not a repeat of the first.
func (p *performance) revise(now time.Time) uint64 {
	p.said = max(p.said+1, uint64(now.UnixMicro()))
	return p.said
}

// add appends a segment's metrics, realised and expected. Of a window that was
// measured before, those that it has no longer (labels were withdrawn) are stored
// as not known: the newest row of each metric is what is told.
func (p *performance) add(out *[]store.Performance, base store.Performance, segment string, r *rows, n0 int, expected map[perf.Metric]perf.Estimate, before bool) map[string]perf.Value {
	values := r.metrics(p.worth)
	base.Segment = segment
	base.Predictions, base.Labelled = uint64(math.Round(float64(n0)*base.Scale)), uint64(math.Round(float64(r.labelled)*base.Scale))
	names := map[string]bool{}
	for n := range values {
		names[n] = true
	}
	for n := range expected {
		names[string(n)] = true
	}
	if before {
		for n := range p.fitted.values {
			names[n] = true
		}
	}
	if segment == "" {
		names[p.fitted.metric] = true // where coverage, or why there is no value, is looked for
	}
	for n := range names {
		row := base
		row.Metric, row.Value, row.StdErr = n, math.NaN(), math.NaN()
		row.Estimate, row.Lower, row.Upper, row.Reference = math.NaN(), math.NaN(), math.NaN(), math.NaN()
		if v, ok := values[n]; ok {
			row.Value, row.StdErr = v.Value, v.StdErr
		}
		if e, ok := expected[perf.Metric(n)]; ok {
			row.Estimate, row.Lower, row.Upper = e.Value, e.Lower, e.Upper
		}
		if v, ok := p.fitted.values[n]; ok {
			row.Reference = v.Value
			if sums(n) {
				row.Reference *= float64(n0) / float64(max(p.fitted.rows, 1))
			}
		}
		*out = append(*out, row)
	}
	return values
}

// sums says that a metric grows with the rows.
func sums(metric string) bool {
	return strings.HasPrefix(metric, confusionPrefix) || slices.Contains([]string{"true_positive", "false_positive", "true_negative", "false_negative", "business_value"}, metric)
}

// segmentValues is how many values of a segment are measured one by one.
const segmentValues = 20

// addGroup measures the values of a segment, and how unequally the model
// treats them.
func (p *performance) addGroup(out *[]store.Performance, base store.Performance, group string, o *store.Outcomes, before bool) {
	byValue := map[string][]int{}
	for i, v := range o.Groups[group] {
		byValue[v] = append(byValue[v], i)
	}
	if len(byValue) < 2 {
		return
	}
	names := make([]string, 0, len(byValue))
	for v := range byValue {
		names = append(names, v)
	}
	slices.SortFunc(names, func(a, b string) int { return len(byValue[b]) - len(byValue[a]) })
	for _, v := range names[:min(len(names), segmentValues)] {
		part := rowsOf(pick(o, byValue[v]), p.fitted.task)
		p.add(out, base, group+"="+v, part, len(byValue[v]), nil, before)
	}
	if fair := p.fair == nil && group != "version" || slices.Contains(p.fair, group); fair && p.fitted.task == "binary" {
		p.addGaps(out, base, group, o, before)
	}
}
