package drift

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/store"
)

// MonitorConfig says what is watched, against what, and how often.
type MonitorConfig struct {
	Namespace, Name string
	Subject         string // view or model, for readers
	Table           store.Subject
	Columns         []string      // numeric columns
	From, To        time.Time     // the reference's range of event_time
	Window          time.Duration // of one judgement; whole minutes
	Season          time.Duration // the reference repeats after this long; 0: it does not
	Lateness        time.Duration // how long a window waits for late rows
	Sample          int           // rows that a grid is cut from
	Options         Options
	Policy          control.Policy
}

// DefaultMonitorConfig judges hours against the same hour of the week.
func DefaultMonitorConfig() MonitorConfig {
	return MonitorConfig{Window: time.Hour, Season: 7 * 24 * time.Hour, Lateness: 5 * time.Minute, Sample: 20_000,
		Options: DefaultOptions(), Policy: control.DefaultPolicy()}
}

// base is the length of the windows that are derived and kept.
const base = time.Minute

// Validate joins all faults.
func (c MonitorConfig) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Name == "", "a monitor needs a name")
	fault(len(c.Columns) == 0, "monitor %s: no columns", c.Name)
	fault(!c.From.Before(c.To), "monitor %s: the reference's range is empty", c.Name)
	fault(c.Window < base || c.Window%base != 0, "monitor %s: window %v, want whole minutes", c.Name, c.Window)
	fault(c.Season != 0 && (c.Season < c.Window || c.Season%c.Window != 0), "monitor %s: season %v, want a multiple of the window", c.Name, c.Season)
	fault(c.Sample < 1 || c.Lateness < 0, "monitor %s: sample %d, lateness %v", c.Name, c.Sample, c.Lateness)
	return errors.Join(errs...)
}

// slot is a window's place in the season.
func (c MonitorConfig) slot(start time.Time) int {
	if c.Season == 0 {
		return 0
	}
	return int(start.UnixMicro() % c.Season.Microseconds() / c.Window.Microseconds())
}

// Monitor derives windows, judges them and stores verdicts. It is not safe for
// concurrent use.
type Monitor struct {
	cfg       MonitorConfig
	store     *store.Store
	grids     []store.SummaryColumn
	baselines map[string]*Baseline
	watch     *Watch
	dirty     time.Time // ledger rows up to here are derived
	first     time.Time // start of the first window after the reference
	next      time.Time // start of the next window to judge
}

// NewMonitor returns a monitor that has judged nothing; its first window is the
// first after the reference.
func NewMonitor(cfg MonitorConfig, st *store.Store) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	next := cfg.To.UTC().Truncate(cfg.Window)
	if next.Before(cfg.To) {
		next = next.Add(cfg.Window)
	}
	return &Monitor{cfg: cfg, store: st, watch: NewWatch(cfg.Options, cfg.Policy), dirty: time.Unix(0, 0), first: next, next: next}, nil
}

// Tick brings derived windows up to date and judges every window that closed
// before now, and once more those that late rows reached. It answers the
// verdicts it stored.
func (m *Monitor) Tick(ctx context.Context, now time.Time) ([]store.Verdict, error) {
	revision := uint64(now.UnixMicro())
	if err := m.prepare(ctx, revision); err != nil {
		return nil, fmt.Errorf("monitor %s: %w", m.cfg.Name, err)
	}
	late, err := m.derive(ctx, revision)
	if err != nil {
		return nil, fmt.Errorf("monitor %s: %w", m.cfg.Name, err)
	}
	var out []store.Verdict
	for _, start := range late {
		vs, err := m.judge(ctx, start, start.Add(m.cfg.Window), revision, false)
		if err != nil {
			return out, fmt.Errorf("monitor %s: window %s again: %w", m.cfg.Name, start.Format(time.RFC3339), err)
		}
		out = append(out, vs...)
	}
	for end := m.next.Add(m.cfg.Window); !end.Add(m.cfg.Lateness).After(now); end = m.next.Add(m.cfg.Window) {
		vs, err := m.judge(ctx, m.next, end, revision, true)
		if err != nil {
			return out, fmt.Errorf("monitor %s: window %s: %w", m.cfg.Name, m.next.Format(time.RFC3339), err)
		}
		out = append(out, vs...)
		m.next = end
	}
	return out, nil
}

// prepare finds the columns' grids, or cuts and stores them, and learns the
// baselines, once.
func (m *Monitor) prepare(ctx context.Context, revision uint64) error {
	if m.baselines != nil {
		return nil
	}
	stored, err := m.store.Grids(ctx, m.cfg.Table)
	if err != nil {
		return err
	}
	var fresh []store.SummaryColumn
	m.grids = nil
	for _, name := range m.cfg.Columns {
		i := slices.IndexFunc(stored, func(c store.SummaryColumn) bool { return c.Name == name })
		if i >= 0 {
			m.grids = append(m.grids, stored[i])
			continue
		}
		c, err := m.cutGrid(ctx, name)
		if err != nil {
			return err
		}
		fresh = append(fresh, c)
	}
	if err := m.store.SaveGrids(ctx, m.cfg.Table, fresh, revision); err != nil {
		return err
	}
	m.grids = append(m.grids, fresh...)
	return m.learn(ctx)
}

func (m *Monitor) cutGrid(ctx context.Context, column string) (store.SummaryColumn, error) {
	sample, err := m.store.ColumnNumbers(ctx, m.cfg.Table, column, m.cfg.From, m.cfg.To, m.cfg.Sample)
	if err != nil {
		return store.SummaryColumn{}, err
	}
	g, err := dist.NumericGrid(sample, dist.GridConfig{})
	if err != nil {
		return store.SummaryColumn{}, fmt.Errorf("reference of %s: %w", column, err)
	}
	return store.SummaryColumn{Name: column, Grid: g}, nil
}

// learn derives the reference in windows of the monitor's length.
func (m *Monitor) learn(ctx context.Context) error {
	windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, m.grids, m.cfg.From, m.cfg.To, m.cfg.Window)
	if err != nil {
		return err
	}
	parts := map[string][]SlotWindow{}
	for _, w := range windows {
		parts[w.Column] = append(parts[w.Column], SlotWindow{m.cfg.slot(w.Start), w.Summary})
	}
	learnt := map[string]*Baseline{}
	for _, c := range m.grids {
		b, err := LearnBaseline(c.Grid, parts[c.Name], 1)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		learnt[c.Name] = b
	}
	m.baselines = learnt
	return nil
}

// derive counts anew every stretch of minutes that the ledger says is dirty, and
// answers the judged windows that changed.
func (m *Monitor) derive(ctx context.Context, revision uint64) (late []time.Time, err error) {
	minutes, until, err := m.store.DirtyMinutes(ctx, m.cfg.Table, m.dirty)
	if err != nil {
		return nil, err
	}
	for _, s := range stretches(minutes) {
		windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, m.grids, s[0], s[1], base)
		if err != nil {
			return nil, err
		}
		if err := m.store.SaveSummaries(ctx, m.cfg.Table, windows, base, revision); err != nil {
			return nil, err
		}
	}
	for _, t := range minutes {
		start := t.Truncate(m.cfg.Window)
		if !start.Before(m.first) && start.Before(m.next) && !slices.Contains(late, start) {
			late = append(late, start)
		}
	}
	m.dirty = until
	return late, nil
}

// stretchGap joins dirty minutes that lie this near: one scan is cheaper than
// two.
const stretchGap = 10 * time.Minute

// stretches are half-open ranges that cover ascending minutes.
func stretches(minutes []time.Time) [][2]time.Time {
	var out [][2]time.Time
	for _, t := range minutes {
		if n := len(out); n > 0 && t.Sub(out[n-1][1]) <= stretchGap {
			out[n-1][1] = t.Add(base)
			continue
		}
		out = append(out, [2]time.Time{t, t.Add(base)})
	}
	return out
}

// judge merges a window's minutes and stores what is to be said of it. A window
// judged before changes its verdict but not the incident, which saw it already.
func (m *Monitor) judge(ctx context.Context, start, end time.Time, revision uint64, step bool) ([]store.Verdict, error) {
	columns, err := m.columns(ctx, start, end)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	if step {
		findings = m.watch.Take(columns, m.cfg.slot(start), end)
	} else {
		for _, j := range Judge(columns, m.cfg.slot(start), m.cfg.Options) {
			findings = append(findings, Finding{Judgement: j, At: end})
		}
	}
	var out []store.Verdict
	for i, f := range findings {
		out = append(out, m.verdict(columns[i/2], f, start, end))
	}
	for _, c := range columns {
		out = append(out, m.verdict(c, Finding{Judgement: stability(c), At: end}, start, end))
	}
	return out, m.store.SaveVerdicts(ctx, m.cfg.Table, out, revision)
}

// columns merges the minutes of a window, column by column.
func (m *Monitor) columns(ctx context.Context, start, end time.Time) ([]Column, error) {
	saved, err := m.store.SavedSummaries(ctx, m.cfg.Table, start, end, base)
	if err != nil {
		return nil, err
	}
	var out []Column
	for _, c := range m.grids {
		window := &dist.Summary{GridID: c.Grid.ID()}
		for _, w := range saved {
			if w.Column != c.Name || w.Summary.GridID != c.Grid.ID() {
				continue
			}
			if err := window.Merge(w.Summary); err != nil {
				return nil, err
			}
		}
		out = append(out, Column{Name: c.Name, Baseline: m.baselines[c.Name], Window: window, Importance: 0.5})
	}
	return out, nil
}

func (m *Monitor) verdict(c Column, f Finding, start, end time.Time) store.Verdict {
	return store.Verdict{
		Namespace: m.cfg.Namespace, Monitor: m.cfg.Name, Subject: m.cfg.Subject,
		Column: f.Column, Detector: f.Detector, Start: start, End: end,
		Effect: f.Effect, Low: f.Low, High: f.High, Floor: f.Floor, Learnt: f.Learnt, Seasonal: f.Seasonal, Drifted: f.Drifted,
		P: f.P, Adjusted: f.Adjusted, Severity: f.Severity.String(), Change: f.Change.String(), Reason: string(f.Reason),
		Sentence: Sentence(c, f.Judgement), ReferenceRows: c.Baseline.Reference.Rows(), Rows: c.Window.Rows(),
	}
}
