package drift

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// about finds the monitors of a request's view or model; all without one.
func (s *Scheduler) about(r query.Request) []*watcher {
	var out []*watcher
	for _, w := range s.sorted() {
		if r.View+r.Model == "" || r.View != "" && w.perf == nil && w.schema.Subject == r.View || r.Model != "" && w.perf != nil && w.schema.Subject == r.Model {
			out = append(out, w)
		}
	}
	return out
}

func (s *Scheduler) mustAbout(r query.Request) ([]*watcher, error) {
	out := s.about(r)
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no monitor watches %q here", store.ErrUnknown, r.View+r.Model)
	}
	return out, nil
}

// Distribution answers the kind "distribution": see [Monitor.Distribution]. By
// default it is about the newest window that was judged.
func (s *Scheduler) Distribution(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, w := range ws {
		frames, err := w.monitor.Distribution(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, frames...)
	}
	return out, nil
}

// Contributions answers the kind "contributions": which bins and categories,
// of all columns, moved the most rows, the largest share first.
func (s *Scheduler) Contributions(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	type part struct {
		column string
		Contribution
	}
	var parts []part
	for _, w := range ws {
		columns, err := w.monitor.window(ctx, &r)
		if err != nil {
			return nil, err
		}
		for _, c := range columns {
			if len(r.Columns) > 0 && !slices.Contains(r.Columns, c.Name) {
				continue
			}
			both, err := Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
			if err != nil {
				return nil, err
			}
			found, err := both.Contributions(stat.TVD)
			if err != nil {
				continue // a column without values has no bin to blame
			}
			for _, f := range found {
				parts = append(parts, part{c.Name, f})
			}
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(math.Abs(b.Cur-b.Ref), math.Abs(a.Cur-a.Ref)) })
	limit := r.Limit
	if limit <= 0 {
		limit = 20
	}
	parts = parts[:min(limit, len(parts))]
	var names, bins []string
	var ref, cur, moved []float64
	for _, p := range parts {
		names, bins = append(names, p.column), append(bins, p.Label)
		ref, cur, moved = append(ref, p.Ref), append(cur, p.Cur), append(moved, p.Cur-p.Ref)
	}
	share := func(name string, v []float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Unit: "percentunit", Values: some(v)}
	}
	return []query.Frame{{Name: "contributions", Type: query.Table, Columns: []query.Column{
		{Name: "column", Type: query.Text, Values: some(names)}, {Name: "bin", Type: query.Text, Values: some(bins)},
		share("reference", ref), share("window", cur), share("change", moved)}}}, nil
}

func some[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// Performance answers the kind "performance": see [store.Store.Performance]. Where
// nothing is known of a watched model it says why.
func (s *Scheduler) Performance(ctx context.Context, r query.Request) ([]query.Frame, error) {
	frames, err := s.store.Performance(ctx, r)
	if err != nil || len(frames) > 0 || r.Namespace != "" && r.Namespace != s.cfg.Namespace {
		return frames, err
	}
	if _, known := s.registry.State().Get(event.ModelKind, s.cfg.Namespace, r.Model); !known {
		return nil, fmt.Errorf("%w: there is no model %q here", store.ErrUnknown, r.Model)
	}
	for _, w := range s.about(query.Request{Model: r.Model}) {
		frames = append(frames, query.Frame{Name: "performance", Type: query.TimeSeriesMulti, Notices: []query.Notice{{Severity: "info", Text: w.nothingMeasured(r)}},
			Columns: []query.Column{{Name: "time", Type: query.Time, Values: []time.Time{}}, {Name: "value", Type: query.Float, Nullable: true, Values: []*float64{}}}})
	}
	return frames, nil
}

// nothingMeasured is why there is nothing of a model's performance.
func (w *watcher) nothingMeasured(r query.Request) string {
	w.monitor.mu.Lock()
	defer w.monitor.mu.Unlock()
	switch state := w.monitor.state(); {
	case w.perf.fitted == nil && w.perf.reason != "":
		return "nothing is measured yet: " + w.perf.reason
	case w.perf.fitted == nil:
		return "nothing is measured yet: the monitor is " + state
	case len(r.Columns)+len(r.GroupBy)+len(r.Segment) > 0:
		return "no such metric or segment is known of this time: kedge performance without --metrics, --segment and --group-by has what is"
	}
	return "no window of this time was measured"
}

// Monitors answers the kind "monitors": what is watched, against what, and how
// far each monitor is.
func (s *Scheduler) Monitors(_ context.Context, r query.Request) ([]query.Frame, error) {
	var name, subject, state, reference []string
	var window, season []float64
	var columns, open []int64
	var next []*time.Time
	for _, w := range s.about(r) {
		m := w.monitor
		m.mu.Lock()
		name, subject, state, reference = append(name, m.cfg.Name), append(subject, m.cfg.Subject), append(state, m.state()), append(reference, m.reference())
		window, season = append(window, m.cfg.Window.Seconds()), append(season, m.cfg.Season.Seconds())
		columns, open = append(columns, int64(len(m.grids))), append(open, int64(len(m.Open)))
		var at *time.Time
		if !m.Next.IsZero() {
			t := m.Next
			at = &t
		}
		next = append(next, at)
		m.mu.Unlock()
	}
	return []query.Frame{{Name: "monitors", Type: query.Table, Columns: []query.Column{
		{Name: "monitor", Type: query.Text, Values: some(name)}, {Name: "subject", Type: query.Text, Values: some(subject)},
		{Name: "state", Type: query.Text, Values: some(state)}, {Name: "reference", Type: query.Text, Values: some(reference)},
		{Name: "window", Type: query.Float, Unit: "s", Values: some(window)}, {Name: "season", Type: query.Float, Unit: "s", Values: some(season)},
		{Name: "columns", Type: query.Int, Values: some(columns)}, {Name: "open", Type: query.Int, Values: some(open)},
		{Name: "judged_to", Type: query.Time, Nullable: true, Values: some(next)}}}}, nil
}

func (m *Monitor) state() string {
	switch {
	case m.fault != "":
		return "failed: " + m.fault
	case m.baselines == nil && m.outlook != "":
		return m.outlook
	case m.baselines == nil:
		return "starting"
	case !m.Stale.IsZero():
		return "silent since " + m.Stale.Format(time.RFC3339)
	}
	return "watching"
}

func (m *Monitor) reference() string {
	if m.baselines == nil {
		return ""
	}
	what := stretchText(m.cfg.From, m.cfg.To)
	if m.cfg.File != "" {
		what = "file " + m.cfg.File
	}
	if len(m.Answers.Trained) > 0 {
		what = m.Answers.name() + ", floors of " + what
	}
	return what
}

// stretchText names a stretch of time.
func stretchText(from, to time.Time) string {
	return from.UTC().Format("2006-01-02 15:04") + " to " + to.UTC().Format("2006-01-02 15:04")
}

// window is the part of time that a request is about: by default the newest
// judged window. It needs a first Tick.
func (m *Monitor) window(ctx context.Context, r *query.Request) ([]Column, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.baselines == nil {
		return nil, fmt.Errorf("%w: %s: %s", store.ErrInvalid, m.cfg.Subject, m.state())
	}
	if r.From.IsZero() {
		r.From, r.To = m.Next.Add(-m.cfg.Window), m.Next
	}
	if r.To.IsZero() {
		r.To = m.Next
	}
	from, to := r.From.Truncate(m.cfg.grain()), r.To.Truncate(m.cfg.grain())
	if len(m.Answers.Trained) > 0 && !to.After(m.held()) {
		return nil, fmt.Errorf("%w: until %s other bins were counted, for another reference; the verdicts of that time say which", store.ErrInvalid, m.held().Format(time.RFC3339))
	}
	if !from.Before(to) {
		return nil, fmt.Errorf("%w: want a range of whole minutes", store.ErrInvalid)
	}
	return m.columns(ctx, from, to)
}

// backtestParams are the knobs that a replay may turn. What is 0 stays as the
// monitor has it.
type backtestParams struct {
	Alpha float64 `json:"alpha"`
	PolicySpec
}

// Backtest answers the kind "backtest": how often a policy would have fired over
// windows already derived, per column and question, slow changes and declared
// domains excepted, which are no question of a window's counts. Params may change
// alpha, need, of, clear and cooldown.
func (s *Scheduler) Backtest(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var p backtestParams
	if len(r.Params) > 0 {
		if err := event.DecodeStrict(r.Params, &p); err != nil {
			return nil, fmt.Errorf("%w: params: %w", store.ErrInvalid, err)
		}
	}
	var out []query.Frame
	for _, w := range ws {
		f, err := w.monitor.backtest(ctx, r, p)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (m *Monitor) backtest(ctx context.Context, r query.Request, p backtestParams) (query.Frame, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.baselines == nil {
		return query.Frame{}, fmt.Errorf("%w: %s: %s", store.ErrInvalid, m.cfg.Subject, m.state())
	}
	from, to := r.From, r.To
	if p.Alpha > 0 {
		defer func(was Options) { m.cfg.Options = was }(m.cfg.Options)
		m.cfg.Options.Alpha = p.Alpha
	}
	if to.IsZero() {
		to = m.Next
	}
	if from.IsZero() {
		from = to.Add(-4 * 7 * 24 * time.Hour)
	}
	if from.Before(m.held()) {
		from = m.held()
	}
	saved, err := m.store.SavedSummaries(ctx, m.cfg.Table, from.Truncate(m.cfg.Window), to, m.cfg.grain())
	if err != nil {
		return query.Frame{}, err
	}
	byStart := map[int64][]store.WindowSummary{}
	for _, w := range saved {
		k := w.Start.Truncate(m.cfg.Window).UnixMicro()
		byStart[k] = append(byStart[k], w)
	}
	policy := p.policy()
	watch := NewWatch(m.cfg.Options, policy)
	count := map[string]*[3]int64{}
	windows := 0
	for start := from.Truncate(m.cfg.Window); start.Before(to); start = start.Add(m.cfg.Window) {
		parts := byStart[start.UnixMicro()]
		if len(parts) == 0 {
			continue
		}
		columns, err := m.merge(parts, start)
		if err != nil {
			return query.Frame{}, err
		}
		windows++
		columns = slices.DeleteFunc(columns, func(c Column) bool { return m.renewed(c.Name, start) })
		rows := uint64(0)
		for _, c := range columns {
			rows = max(rows, c.Window.Rows())
		}
		if rows == 0 {
			continue
		}
		for _, j := range m.judgements(columns, nil, m.cfg.slot(start), rows, false) {
			if j.Detector == "psi" || j.Detector == domain || j.Reason == stat.Unwatched {
				continue
			}
			f := watch.Step(j, start.Add(m.cfg.Window))
			c := count[incidentKey(f.Column, f.Detector)]
			if c == nil {
				c = &[3]int64{}
				count[incidentKey(f.Column, f.Detector)] = c
			}
			c[0]++
			if f.Drifted {
				c[1]++
			}
			if f.Change == control.Opened {
				c[2]++
			}
		}
	}
	return backtestFrame(m.cfg.Name, windows, count), nil
}

func backtestFrame(name string, windows int, count map[string]*[3]int64) query.Frame {
	keys := make([]string, 0, len(count))
	for k := range count {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if c := cmp.Compare(count[b][2], count[a][2]); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	var column, detector []string
	var judged, drifted, opened []int64
	total := int64(0)
	for _, k := range keys {
		i := slices.Index([]byte(k), 0)
		column, detector = append(column, k[:i]), append(detector, k[i+1:])
		judged, drifted, opened = append(judged, count[k][0]), append(drifted, count[k][1]), append(opened, count[k][2])
		total += count[k][2]
	}
	return query.Frame{Name: name, Type: query.Table, Notices: []query.Notice{{Severity: "info", Text: fmt.Sprintf("%d windows, %d incidents would have been told", windows, total)}},
		Columns: []query.Column{{Name: "column", Type: query.Text, Values: some(column)}, {Name: "detector", Type: query.Text, Values: some(detector)},
			{Name: "windows", Type: query.Int, Values: some(judged)}, {Name: "drifted", Type: query.Int, Values: some(drifted)}, {Name: "incidents", Type: query.Int, Values: some(opened)}}}
}
