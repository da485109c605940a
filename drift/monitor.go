package drift

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
	Columns         []WatchedColumn
	From, To        time.Time     // the reference's range of event_time; zero: the first First rows
	First           int           // rows of the reference
	File            string        // name of a stored reference instead
	Follow          bool          // a version that is promoted brings a reference of its own
	Training        bool          // and so does the first one
	Window          time.Duration // of one judgement, whole minutes; 0: chosen by the rate of the reference's rows
	Season          time.Duration // the reference repeats after this long; 0: it does not
	Grow            bool          // the reference grows to days, then weeks, and learns their season
	Lateness        time.Duration // how long a window waits for late rows; 0: one window, at most five minutes
	Between         time.Duration // expected time between false alarms of slow changes
	Sample          int           // rows that a grid is cut from
	Segments        []string      // dimensions; none: for models those that predictions carry
	Budget          int           // columns × segments
	Rules           []Constraint
	Cadence         *Cadence
	Options         Options
	Policy          control.Policy
	Digest          string // of the definition: another one learns anew
}

// WatchedColumn is a column under watch.
type WatchedColumn struct {
	Name        string
	Categorical bool
	Optional    bool    // without values in the reference it is left out without a word
	OfText      string  // a descriptor: watched where this column turns out to be a text; "" is any column
	Importance  float64 // 0 to 1
}

// Numeric are numeric columns of unknown importance.
func Numeric(names ...string) []WatchedColumn {
	out := make([]WatchedColumn, len(names))
	for i, n := range names {
		out[i] = WatchedColumn{Name: n, Importance: 0.5}
	}
	return out
}

// DefaultMonitorConfig judges hours against the same hour of the week.
func DefaultMonitorConfig() MonitorConfig {
	return MonitorConfig{Window: time.Hour, Season: 7 * 24 * time.Hour, Lateness: 5 * time.Minute, Sample: 20_000, Budget: defaultBudget, Between: 90 * 24 * time.Hour,
		Options: DefaultOptions(), Policy: control.DefaultPolicy()}
}

// base is the shortest window that is derived and kept.
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
	fault(c.First == 0 && c.File == "" && !c.From.Before(c.To), "monitor %s: the reference's range is empty", c.Name)
	fault(c.Window < 0 || c.Window%base != 0, "monitor %s: window %v, want whole minutes", c.Name, c.Window)
	fault(c.Season != 0 && c.Window > 0 && (c.Season < c.Window || c.Season%c.Window != 0), "monitor %s: season %v, want a multiple of the window", c.Name, c.Season)
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

// grain is the length of the windows that are derived and kept: merging many
// short ones costs more than counting a few rows again.
func (c MonitorConfig) grain() time.Duration {
	switch {
	case c.Window >= 24*time.Hour && c.Window%time.Hour == 0:
		return time.Hour
	case c.Window >= 3*time.Hour && c.Window%(15*time.Minute) == 0:
		return 15 * time.Minute
	}
	return base
}

// Monitor derives windows, judges them and stores verdicts. What it knows is
// stored too: a new Monitor of the same name goes on where the last one
// stopped. It is safe for concurrent use.
type Monitor struct {
	cfg   MonitorConfig // with what was chosen and learnt
	asked MonitorConfig // as given
	store *store.Store

	mu        sync.Mutex
	grids     []store.SummaryColumn
	baselines map[string]*Baseline
	refused   map[string]string // columns that cannot be watched, and why
	names     map[string]bool   // columns whose values say who somebody is
	watch     *Watch
	evidence  map[string]*control.Detector
	segments  *segmentWatch // nil: not learnt
	remembered
	silence func(i store.Incident, at time.Time) string // why an incident is not told; nil: never
	loaded  bool
	begun   time.Time        // when this process first asked whether rows come
	fault   string           // why the newest tick gave up
	saved   time.Time        // Next as it was saved
	changed []store.Incident // to be saved
	unsaved []store.Verdict  // to be saved
	told    []AlertChange    // to be told
	renew   []renewal
	stored  uint64          // revision of what was saved last
	orphans map[string]bool // parts that are stored, and are no acceptance's any more
	crowned *Champion       // of the model, as it was last told; nil: not known
	outlook string          // what the model's performance is expected to be, for sentences
	skipped map[string]int
}

// remembered is what a monitor knows of time.
type remembered struct {
	Dirty     time.Time           `json:"dirty"`     // ledger rows up to here are derived
	First     time.Time           `json:"first"`     // start of the first window after the reference
	Next      time.Time           `json:"next"`      // start of the next window to judge
	Seen      time.Time           `json:"seen"`      // end of the newest minute with rows
	Arrived   time.Time           `json:"arrived"`   // clock time at which rows were last found to have come
	Live      bool                `json:"live"`      // rows once came as they happened
	Stale     time.Time           `json:"stale"`     // since when no rows came; zero: they come
	Batch     time.Time           `json:"batch"`     // newest deadline of the cadence that was judged
	Segmented time.Time           `json:"segmented"` // start of the next window whose segments are judged
	Measured  time.Time           `json:"measured"`  // start of the next window whose performance is measured
	Rough     map[int64]time.Time `json:"rough"`     // windows whose performance was measured before it was mature, and when; zero: since then labels were corrected
	Thin      []int64             `json:"thin"`      // windows that had too few labels when they were due
	Empty     []int64             `json:"empty"`     // windows that had no predictions when they were measured
	Labelled  time.Time           `json:"labelled"`  // ledger rows of labels up to here are accounted for
	Unrest    time.Time           `json:"unrest"`    // when the oldest incident of the current alert began

	Past    [][2]time.Time            `json:"past"`    // stretches of windows to which imports added rows
	Pending []time.Time               `json:"pending"` // minutes that are not over yet, or that were dirty too lately
	Open    map[string]store.Incident `json:"open"`    // incidents, as they are told
	Unquiet map[string][][2]time.Time `json:"unquiet"` // by column: when it was not itself
	Volume  *volume                   `json:"volume"`
	Acts    []string                  `json:"acts"` // actions that were carried out, newest last
	Answers answering                 `json:"answers"`

	Accepted map[string][]*acceptance `json:"acceptances,omitempty"` // by column, or segmentColumn; the newest last
	Marks    map[string]string        `json:"marks,omitempty"`       // by question: a change that its next verdict tells

	Fresh map[string]time.Time `json:"fresh,omitempty"` // columns that the reference does not know: learnt from then on

	Switched time.Time `json:"switched"` // start of the first window under the reference of Answers; zero: it came with the first one
}

// renewal is the column of an accepted incident, which gets a new reference
// from a time on.
type renewal struct {
	incident store.Incident
	from     time.Time
}

// NewMonitor returns a monitor; its first window is the first after the
// reference.
func NewMonitor(cfg MonitorConfig, st *store.Store) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Monitor{cfg: cfg, asked: cfg, store: st, watch: NewWatch(cfg.Options, cfg.Policy), evidence: map[string]*control.Detector{},
		refused: map[string]string{}, skipped: map[string]int{}, remembered: remembered{Dirty: time.Unix(0, 0)}}, nil
}

// Learning says that a monitor waits for rows to learn its reference from.
type Learning struct {
	Rows, Of uint64
	Windows  string // what else it waits for; empty: rows only
}

// Error says how far it is: "learning 3,412 of 10,000".
func (l *Learning) Error() string {
	if l.Rows < l.Of {
		return fmt.Sprintf("learning %s of %s", thousands(l.Rows), thousands(l.Of))
	}
	return "learning: " + l.Windows
}

func thousands(n uint64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

// atOnce bounds the windows that one Tick judges; the next one goes on.
const atOnce = 300

// Tick brings derived windows up to date and judges every window that closed
// before now, and once more those that late rows reached. It answers the
// verdicts it stored. The clock is now: a window closes when its rows' own time
// has passed it, or when nothing has come for a while.
func (m *Monitor) Tick(ctx context.Context, now time.Time) ([]store.Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out, err := m.tick(ctx, now)
	m.fault = ""
	if err != nil {
		m.fault = err.Error()
		err = fmt.Errorf("monitor %s: %w", m.cfg.Name, err)
	}
	return out, err
}

func (m *Monitor) tick(ctx context.Context, now time.Time) ([]store.Verdict, error) {
	revision := uint64(now.UnixMicro())
	if err := m.load(ctx); err != nil {
		return nil, err
	}
	var learning *Learning
	if err := m.prepare(ctx, now, revision); errors.As(err, &learning) {
		return m.tellLearning(ctx, learning, now, revision)
	} else if err != nil {
		return nil, err
	}
	if err := m.renewColumns(ctx, revision); err != nil {
		return nil, err
	}
	late, err := m.derive(ctx, now, revision)
	if err != nil {
		return nil, err
	}
	vs, err := m.judgeAgain(ctx, late, revision)
	out := vs
	if err != nil {
		return out, err
	}
	vs, err = m.judgeClosed(ctx, now, revision)
	out = append(out, vs...)
	if err != nil || m.baselines == nil { // a promoted version is learnt from here on
		return out, err
	}
	if err := m.judgeSegments(ctx, late, revision); err != nil {
		return out, err
	}
	vs, err = m.judgeArrival(ctx, now, revision)
	out = append(out, vs...)
	if err != nil { // nor is it saved that it was judged
		return out, err
	}
	return out, errors.Join(m.learnFresh(ctx, revision), m.grow(ctx, revision), m.save(ctx, revision))
}

// lateness is how long a window waits.
func (m *Monitor) lateness() time.Duration {
	if m.cfg.Lateness > 0 {
		return m.cfg.Lateness
	}
	return min(m.cfg.Window, 5*time.Minute)
}

// closed says whether a window that ends at a time is complete: its time has
// passed by the clock, and by the rows' own time unless rows have stopped.
func (m *Monitor) closed(end, now time.Time) bool {
	if end.Add(m.lateness()).After(now) {
		return false
	}
	return !m.Seen.Before(end.Add(m.lateness())) || !end.After(m.Seen.Add(m.cfg.Window)) && now.Sub(m.Arrived) >= m.lateness()
}

// judgements are all that is to be said about a window.
func (m *Monitor) judgements(columns []Column, beside map[string]store.Foreign, slot int, rows uint64, step bool) []Judgement {
	out := Judge(columns, slot, m.cfg.Options)
	m.young(out)
	for _, c := range columns {
		out = append(out, stability(c))
		out = append(out, keeps(c, m.cfg.Rules, beside)...)
	}
	out = append(out, m.unheld(columns)...)
	if m.Volume != nil {
		out = append(out, m.Volume.judge(slot, float64(rows), m.cfg.Options.Alpha))
	}
	if step {
		out = append(out, m.slow(columns)...)
	}
	return out
}

// young lowers the voice of a reference that has not seen a whole day: what it
// takes for news may be the evening.
func (m *Monitor) young(js []Judgement) {
	if m.cfg.To.Sub(m.cfg.From) >= 24*time.Hour || m.cfg.File != "" || !m.cfg.Grow {
		return
	}
	for i := range js {
		js[i].Severity = min(js[i].Severity, control.Warning)
	}
}

// columns merges the parts of a window, column by column.
func (m *Monitor) columns(ctx context.Context, start, end time.Time) ([]Column, error) {
	saved, err := m.store.SavedSummaries(ctx, m.cfg.Table, start, end, m.cfg.grain())
	if err != nil {
		return nil, err
	}
	return m.merge(saved, end.Add(-m.cfg.Window))
}

// merge makes the columns of a window that starts at a time of its parts.
func (m *Monitor) merge(saved []store.WindowSummary, start time.Time) ([]Column, error) {
	byName := map[string][]*dist.Summary{}
	for _, w := range saved {
		byName[w.Column] = append(byName[w.Column], w.Summary)
	}
	var out []Column
	for _, c := range m.grids {
		window := &dist.Summary{GridID: c.Grid.ID()}
		for _, part := range byName[c.Name] {
			if part.GridID != c.Grid.ID() {
				continue
			}
			if err := window.Merge(part); err != nil {
				return nil, err
			}
		}
		out = append(out, Column{Name: c.Name, Baseline: m.heldAgainst(c.Name, start, m.cfg.slot(start), m.baselines[c.Name], window), Window: window, Importance: m.importance(c.Name), Names: m.names[c.Name]})
	}
	return out, nil
}

func (m *Monitor) importance(column string) float64 {
	if of, _, ok := ofSegment(column); ok {
		column = of
	}
	for _, c := range m.cfg.Columns {
		if c.Name == column {
			return c.Importance
		}
	}
	return 0.5
}

func (m *Monitor) verdict(c Column, f Finding, start, end time.Time) store.Verdict {
	v := store.Verdict{
		Namespace: m.cfg.Namespace, Monitor: m.cfg.Name, Subject: m.cfg.Subject,
		Column: f.Column, Detector: f.Detector, Start: start, End: end,
		Effect: f.Effect, Low: f.Low, High: f.High, Floor: f.Floor, Learnt: f.Learnt, Seasonal: f.Seasonal, Drifted: f.Drifted,
		P: f.P, Adjusted: f.Adjusted, Severity: f.Severity.String(), Change: f.Change.String(), Reason: string(f.Reason),
		Sentence: Sentence(c, f.Judgement), Reference: m.reference(),
	}
	name := f.Column
	if c.Segment != "" {
		name, v.Reference = segmentColumn(c.Name, c.Segment), "its own past of "+stretchText(m.cfg.From, m.cfg.To)
	}
	if a := m.acceptedBy(name, start, c.Baseline); a != nil {
		v.Reference = fmt.Sprintf("since %s, %s", a.From.UTC().Format("2006-01-02 15:04"), a.said())
	}
	if f.Drifted && f.Detector != constraint && f.Detector != domain {
		v.Sentence += m.about(name, start, c.Baseline)
	}
	if f.Drifted && m.outlook != "" && !strings.HasPrefix(f.Detector, "expected_") { // which says it already
		v.Sentence += "; " + m.outlook
	}
	if c.Baseline != nil {
		v.ReferenceRows, v.Rows = c.Baseline.Reference.Rows(), c.Window.Rows()
	}
	return v
}
