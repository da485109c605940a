package features

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
)

// MonitorConfig says what of the served log is checked, and when.
type MonitorConfig struct {
	Namespaces []string      // whose served vectors are checked
	Delay      time.Duration // how long after a read it is checked; default 1 m
	Tolerance  time.Duration // how far the tables may be behind the log; default 2 s
	Every      time.Duration // between checks; default 10 s
	Held       int           // vectors that wait to be checked; the log waits beyond. Default 10,000
	Now        func() int64  // µs; nil: the machine's clock
	Scope      telemetry.Scope
}

// Monitor proves that the online tables and the stored history agree: it reads
// the served log and recomputes, from stored rows, what was served at the time
// it was served.
type Monitor struct {
	cfg    MonitorConfig
	online *Online
	store  *store.Store

	mu      sync.Mutex
	samples []sample
	room    chan struct{}                    // closed and replaced when samples leave
	minutes map[int64]map[featureName]*tally // of the last hour, by when it was served
}

type featureName struct{ namespace, view, feature string }

// tally counts values; the weights are those of the vectors they were in.
type tally struct {
	checked, different int64
	weight, skewed     float64
}

// NewMonitor makes a monitor over the views of o.
func NewMonitor(cfg MonitorConfig, o *Online, st *store.Store) *Monitor {
	if cfg.Delay == 0 {
		cfg.Delay = time.Minute
	}
	if cfg.Tolerance == 0 {
		cfg.Tolerance = 2 * time.Second
	}
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.Held == 0 {
		cfg.Held = 10_000
	}
	if cfg.Now == nil {
		cfg.Now = func() int64 { return time.Now().UnixMicro() }
	}
	return &Monitor{cfg: cfg, online: o, store: st, room: make(chan struct{}), minutes: map[int64]map[featureName]*tally{}}
}

// Run follows the served log and checks it until ctx ends.
func (m *Monitor) Run(ctx context.Context, c *stream.Client) error {
	if err := m.watch(m.cfg.Scope.Meter); err != nil {
		return fmt.Errorf("consistency monitor: register metrics: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Follow(ctx, c) })
	g.Go(func() error {
		tick := time.NewTicker(m.cfg.Every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := m.Tick(ctx, m.cfg.Now()); err != nil && ctx.Err() == nil {
				m.cfg.Scope.Log.Warn("consistency could not be checked", telemetry.LogError, err)
			}
		}
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("consistency monitor: %w", err)
	}
	return nil
}

// hear takes a vector of the served log. A vector that cannot be read is told
// of and left.
func (m *Monitor) hear(ctx context.Context, topic string, text []byte) error {
	namespace := strings.TrimSuffix(strings.TrimPrefix(topic, "kedge."), ".served")
	s, err := readServed(m.online.book(namespace), text)
	if err != nil {
		m.cfg.Scope.Log.Warn("consistency", telemetry.LogTopic, topic, telemetry.LogError, err)
		return nil
	}
	if s == nil || s.at < m.cfg.Now()-time.Hour.Microseconds() {
		return nil
	}
	for {
		m.mu.Lock()
		if len(m.samples) < m.cfg.Held {
			m.samples = append(m.samples, *s)
			m.mu.Unlock()
			return nil
		}
		room := m.room
		m.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *plan) columnsOf(view int) (names []string) {
	for _, f := range p.features {
		if f.view == view {
			names = append(names, f.name)
		}
	}
	return names
}

func (r Row) clone() Row {
	return Row{r.layout, slices.Clone(r.slot), slices.Clone(r.block)}
}

// Tick checks what was served at least the delay before now. Reads whose rows
// are not stored yet wait for the next one.
func (m *Monitor) Tick(ctx context.Context, now int64) error {
	byView := map[*View][]sample{}
	m.mu.Lock()
	due := now - m.cfg.Delay.Microseconds()
	m.samples = slices.DeleteFunc(m.samples, func(s sample) bool {
		if s.at <= due {
			byView[s.view] = append(byView[s.view], s)
		}
		return s.at <= due
	})
	if len(byView) > 0 {
		close(m.room)
		m.room = make(chan struct{})
	}
	m.mu.Unlock()
	var errs []error
	for v, samples := range byView {
		ready, err := m.stored(ctx, v, samples, now)
		if err == nil && len(ready) > 0 {
			err = m.check(ctx, v, ready, now)
		}
		if err != nil {
			m.later(samples)
			errs = append(errs, fmt.Errorf("check view %s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

// later puts vectors back; they are due at the next tick.
func (m *Monitor) later(samples []sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, samples...)
}

// check recomputes reads of one view, each for its time and for the tolerance
// before it.
func (m *Monitor) check(ctx context.Context, v *View, samples []sample, now int64) error {
	keys := make([]event.Column, len(v.Schema.Keys()))
	for i, f := range v.Schema.Keys() {
		keys[i] = newColumn(f.Type, false)
	}
	var at []int64
	var columns []string
	for _, s := range samples {
		for _, back := range []int64{0, m.cfg.Tolerance.Microseconds()} {
			at = append(at, s.at-back)
			if err := decodeKey(keys, s.key); err != nil {
				return err
			}
		}
		for _, c := range s.columns {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
			}
		}
	}
	j, w, err := m.recompute(ctx, v, keys, at, columns, samples)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(now)
	for i := range samples {
		m.compare(&samples[i], j, w, i, columns)
	}
	return nil
}

func (m *Monitor) recompute(ctx context.Context, v *View, keys []event.Column, at []int64, columns []string, samples []sample) (*joined, *witness, error) {
	if v.windows != nil {
		j, err := m.recomputeWindows(ctx, v.windows.plan, keys, at, columns, samples)
		return j, nil, err
	}
	if err := m.store.Prepare(ctx, []*event.Schema{v.Schema}); err != nil {
		return nil, nil, err
	}
	var pointers []*event.Column
	for i := range keys {
		pointers = append(pointers, &keys[i])
	}
	var types []event.ColumnType
	for _, c := range columns {
		i := slices.IndexFunc(v.Schema.Values(), func(f event.Field) bool { return f.Name == c })
		types = append(types, v.Schema.Values()[i].Type)
	}
	ttl := int64(v.Spec.TTL) / 1000
	r := HistoryRange{Schema: v.Schema, Columns: columns, From: event.MinTime, To: slices.Max(at)}
	rows := m.store.History(ctx, store.HistoryQuery{Schema: v.Schema, Columns: columns, From: r.From, To: r.To, FirstKeys: firstKeys(pointers[0])})
	w := newWitness(samples, columns, types, m.cfg.Tolerance.Microseconds())
	j, err := join(newQuestions(pointers, at), r, types, ttl, false, w.watch(rows))
	return j, w, err
}

// recomputeWindows aggregates the rows that the table had folded in when each
// read was served, for a hot key's windows hold something else a moment later;
// and those that it must have had by then.
func (m *Monitor) recomputeWindows(ctx context.Context, w *windowPlan, keys []event.Column, at []int64, columns []string, samples []sample) (*joined, error) {
	if err := m.store.Prepare(ctx, []*event.Schema{w.source}); err != nil {
		return nil, err
	}
	var pointers []*event.Column
	for i := range keys {
		pointers = append(pointers, &keys[i])
	}
	had := func(question int32, topic string, v Version, available int64) bool {
		s := &samples[question/2]
		return available <= s.at-m.cfg.Tolerance.Microseconds() || s.had(topic, v)
	}
	rows := m.store.History(ctx, store.HistoryQuery{Schema: w.source, Columns: w.columnNames(), From: slices.Min(at) - w.reach(), To: slices.Max(at), FirstKeys: firstKeys(pointers[0]), Topics: true})
	return joinWindows(newQuestions(pointers, at), w, w.outputsOf(columns), false, had, rows)
}

// compare counts the features of one read. m.mu is held.
func (m *Monitor) compare(s *sample, j *joined, w *witness, i int, columns []string) {
	start := s.at - s.at%time.Minute.Microseconds()
	counts := m.minutes[start]
	if counts == nil {
		counts = map[featureName]*tally{}
		m.minutes[start] = counts
	}
	for at, name := range s.columns {
		c := slices.Index(columns, name)
		same := false
		for _, q := range []int{2 * i, 2*i + 1} {
			place := int(j.place[q])
			same = same || s.status == j.statuses[place] && m.agree(s.view, &s.values[at], &j.columns[c], place)
		}
		if place := w.right(i); place >= 0 {
			same = same || m.agree(s.view, &s.values[at], &w.columns[c], place)
		}
		f := featureName{s.view.Schema.Namespace, s.view.Name, name}
		t := counts[f]
		if t == nil {
			t = &tally{}
			counts[f] = t
		}
		t.checked++
		t.weight += s.weight
		if !same {
			t.different++
			t.skewed += s.weight
		}
	}
}

// windowAgreement is how far a window's sums may differ, relative to their
// size: the two sides add in different orders.
const windowAgreement = 1e-9

func (m *Monitor) agree(v *View, served, stored *event.Column, place int) bool {
	if sameCell(served, 0, stored, place) {
		return true
	}
	if v.windows == nil || served.Type != (event.ColumnType{Elem: event.Float64}) || served.Null(0) || stored.Null(place) {
		return false
	}
	a, b := served.Float64s[0], stored.Float64s[place]
	return math.Abs(a-b) <= windowAgreement*max(math.Abs(a), math.Abs(b))
}

// forget leaves out what was served more than an hour before now. m.mu is held.
func (m *Monitor) forget(now int64) {
	for start := range m.minutes {
		if start <= now-time.Hour.Microseconds() {
			delete(m.minutes, start)
		}
	}
}

// lastHour sums the minutes.
func (m *Monitor) lastHour() map[featureName]tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[featureName]tally{}
	m.forget(m.cfg.Now())
	for _, counts := range m.minutes {
		for f, t := range counts {
			sum := out[f]
			out[f] = tally{sum.checked + t.checked, sum.different + t.different, sum.weight + t.weight, sum.skewed + t.skewed}
		}
	}
	return out
}

func (m *Monitor) watch(meter metric.Meter) error {
	rate, err := meter.Float64ObservableGauge(telemetry.MetricMismatch, metric.WithUnit("1"))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for f, t := range m.lastHour() {
			o.ObserveFloat64(rate, t.skewed/t.weight, metric.WithAttributes(
				telemetry.AttrNamespace.String(f.namespace), telemetry.AttrView.String(f.view), telemetry.AttrColumn.String(f.feature)))
		}
		return nil
	}, rate)
	return err
}

// Consistency answers the kind "consistency": per feature, how many served
// values of the last hour were recomputed from stored rows and how many came
// out different. Namespace and View bound it.
func (m *Monitor) Consistency(_ context.Context, r query.Request) ([]query.Frame, error) {
	sums := m.lastHour()
	names := make([]featureName, 0, len(sums))
	for f := range sums {
		if (r.Namespace == "" || r.Namespace == f.namespace) && (r.View == "" || r.View == f.view) {
			names = append(names, f)
		}
	}
	slices.SortFunc(names, func(a, b featureName) int {
		return slices.Compare([]string{a.namespace, a.view, a.feature}, []string{b.namespace, b.view, b.feature})
	})
	views, features := make([]string, len(names)), make([]string, len(names))
	checked, different, rate := make([]int64, len(names)), make([]int64, len(names)), make([]float64, len(names))
	for i, f := range names {
		t := sums[f]
		views[i], features[i], checked[i], different[i] = f.view, f.feature, t.checked, t.different
		rate[i] = t.skewed / t.weight
	}
	return []query.Frame{{Name: "consistency", Type: query.Table, Columns: []query.Column{
		{Name: "view", Type: query.Text, Values: views},
		{Name: "feature", Type: query.Text, Values: features},
		{Name: "checked", Type: query.Int, Unit: "short", Values: checked},
		{Name: "different", Type: query.Int, Unit: "short", Values: different},
		{Name: "rate", Type: query.Float, Unit: "percentunit", Values: rate, Thresholds: []query.Threshold{{Value: 0, State: "ok"}, {Value: 0.001, State: "critical"}}},
	}}}, nil
}
