package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
)

// SchedulerConfig says what a scheduler watches and how often it looks.
type SchedulerConfig struct {
	Namespace string
	Every     time.Duration                       // between looks; 10 s when zero
	Topic     string                              // where alerts go
	Champion  func(model string) (Champion, bool) // who answers for a model; nil: nobody knows
	Losses    perf.Learner                        // fits a regression's loss by its inputs; nil: its error is not estimated without labels
	Scope     telemetry.Scope
}

// Scheduler runs a monitor for every view and model: the defined ones, and the
// default for whatever has none. Only one process of an installation may run
// [Scheduler.Run] at a time.
type Scheduler struct {
	cfg      SchedulerConfig
	store    *store.Store
	registry *registry.Registry
	producer *stream.Producer
	metrics  schedulerMetrics

	mu       sync.Mutex
	monitors map[string]*watcher
	actions  []namedAction
	ticked   time.Time
	tidied   tidiness

	looking chan struct{} // has its one place taken during a look, and while what monitors remember is changed
}

// watcher is a monitor with where it comes from.
type watcher struct {
	spec    *MonitorSpec
	schema  *event.Schema
	model   *event.ModelSpec // nil for a view
	monitor *Monitor
	perf    *performance // nil for a view
}

type namedAction struct {
	name, who, why string
	action         *Action
}

type schedulerMetrics struct {
	took    metric.Float64Histogram
	skipped metric.Int64Counter
	open    metric.Int64Gauge
	drifted metric.Int64Gauge
}

// NewScheduler returns a scheduler that watches nothing yet. Without a producer
// nobody is told.
func NewScheduler(cfg SchedulerConfig, st *store.Store, reg *registry.Registry, p *stream.Producer) (*Scheduler, error) {
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	s := &Scheduler{cfg: cfg, store: st, registry: reg, producer: p, monitors: map[string]*watcher{}, looking: make(chan struct{}, 1)}
	var errs [4]error
	m := cfg.Scope.Meter
	s.metrics.took, errs[0] = m.Float64Histogram(telemetry.MetricDriftTime, metric.WithUnit("s"), metric.WithDescription("Time to bring one monitor up to date"))
	s.metrics.skipped, errs[1] = m.Int64Counter(telemetry.MetricDriftSkipped, metric.WithDescription("Evaluations that did not happen, by reason: learning, no_rows, error, panic"))
	s.metrics.open, errs[2] = m.Int64Gauge(telemetry.MetricDriftIncidents, metric.WithDescription("Open incidents, by severity"))
	s.metrics.drifted, errs[3] = m.Int64Gauge(telemetry.MetricDriftSubjects, metric.WithDescription("Views and models with an open incident"))
	return s, errors.Join(errs[:]...)
}

// Run looks again and again until ctx ends. What another process did before is
// read anew.
func (s *Scheduler) Run(ctx context.Context) {
	s.mu.Lock()
	s.monitors, s.tidied = map[string]*watcher{}, tidiness{}
	s.mu.Unlock()
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		s.Look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look brings every monitor up to date. A monitor that fails is skipped, said
// so, and tried again at the next look.
func (s *Scheduler) Look(ctx context.Context, now time.Time) {
	if s.begin(ctx) != nil {
		return
	}
	defer s.end()
	s.sync()
	for _, w := range s.sorted() {
		if ctx.Err() != nil {
			return
		}
		s.tick(ctx, w, now)
	}
	s.mu.Lock()
	s.ticked = now
	s.mu.Unlock()
	s.count(ctx)
	s.tidy(ctx, now)
}

// begin waits for its turn among looks, as long as ctx lasts; end gives it back.
func (s *Scheduler) begin(ctx context.Context) error {
	if ctx.Err() == nil {
		select {
		case s.looking <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (s *Scheduler) end() { <-s.looking }

// Anew lets change alter what monitors have stored, between two looks: the next
// makes every monitor from what is stored then. A look may take minutes; when ctx
// ends before it, nothing is changed.
func (s *Scheduler) Anew(ctx context.Context, change func() error) error {
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("change what monitors remember: a look at new windows was under way all the time, ask again: %w", err)
	}
	defer s.end()
	err := change()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.monitors)
	return err
}

func (s *Scheduler) tick(ctx context.Context, w *watcher, now time.Time) {
	start := time.Now()
	err := s.evaluate(ctx, w, now)
	s.metrics.took.Record(ctx, time.Since(start).Seconds())
	switch {
	case errors.Is(err, errPanicked): // what it knows may be half of it: the next look makes it anew from what is stored
		s.drop(w)
		w.monitor.skip("panic")
		w.monitor.tellStored()
		s.cfg.Scope.Log.Error("a monitor has a fault and starts anew; please report this", "monitor", w.monitor.cfg.Name, telemetry.LogError, err)
	case err != nil && ctx.Err() == nil:
		w.monitor.skip("error")
		s.cfg.Scope.Log.Error("a monitor was not evaluated; the next look tries again", "monitor", w.monitor.cfg.Name, telemetry.LogError, err)
	}
	for reason, n := range w.monitor.takeSkipped() {
		s.metrics.skipped.Add(ctx, int64(n), metric.WithAttributes(attribute.String("reason", reason)))
	}
	if a, ok := w.monitor.Alert(now); ok {
		s.tell(ctx, a)
	}
}

var errPanicked = errors.New("the monitor panicked")

// evaluate brings one monitor up to date. A fault in it must not end ingest and
// serving, which may share the process.
func (s *Scheduler) evaluate(ctx context.Context, w *watcher, now time.Time) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanicked, r, debug.Stack())
		}
	}()
	if err := w.monitor.remember(ctx); err == nil { // else the tick says so
		w.monitor.carryOut(s.actions)
	}
	if w.perf != nil && s.cfg.Champion != nil {
		if c, ok := s.cfg.Champion(w.schema.Subject); ok {
			w.monitor.crown(c)
		}
	}
	if _, err := w.monitor.Tick(ctx, now); err != nil || w.perf == nil {
		return err
	}
	return w.perf.tick(ctx, w.monitor, now)
}

// drop forgets a monitor.
func (s *Scheduler) drop(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, other := range s.monitors {
		if other == w {
			delete(s.monitors, name)
		}
	}
}

func (s *Scheduler) tell(ctx context.Context, a Alert) {
	s.cfg.Scope.Log.Warn("drift", "subject", a.Subject, "severity", a.Severity, "sentence", a.Sentence, "alert", a.ID)
	if s.producer == nil {
		return
	}
	b, err := json.Marshal(a)
	if err == nil {
		err = s.producer.Produce(ctx, s.cfg.Topic, stream.Message{Key: []byte(a.Subject), Value: b})
	}
	if err != nil && ctx.Err() == nil {
		s.cfg.Scope.Log.Error("an alert was not published; the incident is stored", "alert", a.ID, telemetry.LogError, err)
	}
}

func (m *Monitor) skip(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skipped[reason]++
}

// tellStored leaves of what is to be told what is stored: the rest is judged,
// and told, again.
func (m *Monitor) tellStored() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = slices.DeleteFunc(m.told, func(c AlertChange) bool {
		return slices.ContainsFunc(m.changed, func(i store.Incident) bool { return i.ID == c.Incident })
	})
}

func (m *Monitor) takeSkipped() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.skipped
	m.skipped = map[string]int{}
	return out
}

// count publishes how many incidents are open; the series are as many as there
// are severities.
func (s *Scheduler) count(ctx context.Context) {
	bySeverity := map[string]int64{"notice": 0, "warning": 0, "critical": 0}
	subjects := int64(0)
	for _, w := range s.sorted() {
		open := w.monitor.openIncidents()
		for _, rec := range open {
			bySeverity[rec.Severity]++
		}
		if len(open) > 0 {
			subjects++
		}
	}
	for severity, n := range bySeverity {
		s.metrics.open.Record(ctx, n, metric.WithAttributes(attribute.String("severity", severity)))
	}
	s.metrics.drifted.Record(ctx, subjects)
}

func (m *Monitor) openIncidents() []store.Incident {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Incident
	for _, rec := range m.Open {
		out = append(out, rec)
	}
	return out
}

func (s *Scheduler) sorted() []*watcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*watcher
	for _, w := range s.monitors {
		out = append(out, w)
	}
	// views first: a stale one silences the models behind it in the same look
	slices.SortFunc(out, func(a, b *watcher) int {
		if (a.perf == nil) != (b.perf == nil) {
			return map[bool]int{true: -1, false: 1}[a.perf == nil]
		}
		return strings.Compare(a.monitor.cfg.Name, b.monitor.cfg.Name)
	})
	return out
}

// sync reads the definitions: monitors that are new or changed start, those
// that are gone stop.
func (s *Scheduler) sync() {
	state := s.registry.State()
	wanted, names := s.wanted(state), s.keyNames()
	var actions []namedAction
	for _, d := range state.List(ActionKind, s.cfg.Namespace) {
		if a, err := ParseAction(d.Spec); err == nil {
			actions = append(actions, namedAction{fmt.Sprintf("%s@%d", d.Name, d.Version), d.Who, d.Why, a})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.actions = actions
	for name := range s.monitors {
		if _, ok := wanted[name]; !ok {
			delete(s.monitors, name)
		}
	}
	for name, w := range wanted {
		old := s.monitors[name]
		if old != nil && old.monitor.asked.Digest == w.spec.digest() {
			old.monitor.setColumns(w.spec.columns(w.schema))
			old.monitor.setNames(names)
			old.schema, old.model = w.schema, w.model
			if old.perf != nil {
				old.perf.model = w.model
			}
			continue
		}
		m, err := NewMonitor(w.spec.config(s.cfg.Namespace, name, w.schema), s.store)
		if err != nil {
			s.cfg.Scope.Log.Error("a monitor cannot run as it is defined", "monitor", name, telemetry.LogError, err)
			continue
		}
		m.silence = s.silence(name, w.spec)
		m.setNames(names)
		w.monitor = m
		if w.schema.Kind == event.Predictions {
			w.perf = s.newPerformance(w)
		}
		s.monitors[name] = w
	}
}

// keyNames are what keys of this namespace are made of: values of columns that
// are called so say who somebody is.
func (s *Scheduler) keyNames() map[string]bool {
	out := map[string]bool{}
	for _, sc := range s.schemas() {
		for _, f := range sc.Fields[sc.KeyStart():sc.ValueStart()] {
			out[f.Name] = true
		}
	}
	return out
}

// wanted pairs every stored view and model with its definitions.
func (s *Scheduler) wanted(state *registry.State) map[string]*watcher {
	specs := map[string][]*MonitorSpec{}
	names := map[*MonitorSpec]string{}
	for _, d := range state.List(MonitorKind, s.cfg.Namespace) {
		spec, err := ParseMonitor(d.Spec)
		if err != nil {
			s.cfg.Scope.Log.Error("a monitor's definition cannot be read", "monitor", d.Name, telemetry.LogError, err)
			continue
		}
		key := subjectKey(spec.Model != "", spec.subject())
		specs[key], names[spec] = append(specs[key], spec), d.Name
	}
	out := map[string]*watcher{}
	for _, sc := range s.schemas() {
		model := sc.Kind == event.Predictions
		key := subjectKey(model, sc.Subject)
		of := specs[key]
		if len(of) == 0 {
			spec := &MonitorSpec{View: sc.Subject}
			if model {
				spec = &MonitorSpec{Model: sc.Subject}
			}
			of, names[spec] = []*MonitorSpec{spec}, key
		}
		for _, spec := range of {
			if spec.Off || len(spec.columns(sc)) == 0 {
				continue
			}
			name := names[spec]
			for n := 2; out[name] != nil; n++ {
				name = fmt.Sprintf("%s#%d", names[spec], n)
			}
			out[name] = &watcher{spec: spec, schema: sc, model: modelOf(state, s.cfg.Namespace, sc)}
		}
	}
	return out
}

// schemas are the namespace's tables of features and predictions, oldest first.
// Of rows of outside tables nothing says that they came, so no monitor follows
// them.
func (s *Scheduler) schemas() []*event.Schema {
	var out []*event.Schema
	for _, sc := range s.store.Schemas() {
		if sc.Namespace == s.cfg.Namespace && sc.Kind != event.Labels && sc.From == nil {
			out = append(out, sc)
		}
	}
	slices.SortFunc(out, func(a, b *event.Schema) int {
		if a.TableID != b.TableID {
			return map[bool]int{true: -1, false: 1}[a.TableID < b.TableID]
		}
		return int(a.Kind) - int(b.Kind)
	})
	return out
}

func modelOf(state *registry.State, namespace string, sc *event.Schema) *event.ModelSpec {
	d, ok := state.Get(event.ModelKind, namespace, sc.Subject)
	if !ok || sc.Kind != event.Predictions {
		return nil
	}
	spec, err := event.ParseModel(d.Spec)
	if err != nil {
		return nil
	}
	return spec
}

// subjectKey is also the name of the default monitor.
func subjectKey(model bool, subject string) string {
	if model {
		return "model/" + subject
	}
	return "view/" + subject
}

// silence says why an incident is not told: a person asked so, or what feeds
// the model has stopped.
func (s *Scheduler) silence(name string, spec *MonitorSpec) func(i store.Incident, at time.Time) string {
	return func(i store.Incident, at time.Time) string {
		for _, a := range s.actions {
			if a.action.silences(name, i, at) {
				return fmt.Sprintf("%s by %s: %s", a.action.Do, a.who, a.why)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, view := range spec.Upstream {
			for _, w := range s.monitors {
				if w.spec.View == view && w.monitor.stale() {
					return "its view " + view + " is stale"
				}
			}
		}
		return ""
	}
}

func (m *Monitor) stale() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.Stale.IsZero()
}

// defaultFirst is how many rows the default reference has.
const defaultFirst = 5_000

// config is the definition with its defaults.
func (s *MonitorSpec) config(namespace, name string, sc *event.Schema) MonitorConfig {
	c := DefaultMonitorConfig()
	c.Namespace, c.Name, c.Subject, c.Digest = namespace, name, sc.Subject, s.digest()
	c.Table = store.Subject{Kind: sc.Kind, TableID: sc.TableID}
	c.Columns = s.columns(sc)
	c.Window, c.Lateness = time.Duration(s.Window), time.Duration(s.Lateness)
	c.Season = time.Duration(s.Season)
	c.Grow = s.Season == 0 && s.Reference.From.IsZero() && s.Reference.File == ""
	if c.Season == 1 {
		c.Season = 0
	}
	c.Follow, c.Training = sc.Kind == event.Predictions && s.Reference.From.IsZero() && s.Reference.File == "", s.Reference.Training
	c.From, c.To, c.First, c.File = s.Reference.From, s.Reference.To, s.Reference.First, s.Reference.File
	if c.From.IsZero() && c.First == 0 && c.File == "" {
		c.First = defaultFirst
	}
	if s.Alpha > 0 {
		c.Options.Alpha = s.Alpha
	}
	if s.Between > 0 {
		c.Between = time.Duration(s.Between)
	}
	c.Segments = s.Segments
	if s.Budget > 0 {
		c.Budget = s.Budget
	}
	c.Policy, c.Rules, c.Cadence = s.Policy.policy(), s.Rules, s.Cadence
	return c
}
