package features

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// MonitorConfig says how much of what is served is checked.
type MonitorConfig struct {
	Share     float64       // of the entity keys, 0..1; all reads of a chosen key are checked. Default 0.01
	Delay     time.Duration // how long after a read it is checked; default 1 m
	Tolerance time.Duration // how far the tables may be behind the log; default 2 s
	Every     time.Duration // between checks; default 10 s
	Held      int           // reads that wait to be checked; more are not taken. Default 10,000
	Now       func() int64  // µs; nil: the machine's clock
	Scope     telemetry.Scope
}

// Monitor proves that the online tables and the stored history agree: it
// recomputes, from stored rows, what was served at the time it was served.
type Monitor struct {
	cfg    MonitorConfig
	store  *store.Store
	topics func(ctx context.Context, topic string) (partitions int, err error)
	seed   maphash.Seed

	mu      sync.Mutex
	samples []sample
	minutes []minute // the last hour, oldest first
}

// sample is one row as a request got it.
type sample struct {
	view    *View
	at      int64
	key     []byte
	row     Row // a copy of its own; the zero Row: not found
	columns []string
}

// minute is what one minute's checks found.
type minute struct {
	start  int64
	counts map[featureName]*tally
}

type featureName struct{ namespace, view, feature string }

type tally struct{ checked, different int64 }

// NewMonitor makes a monitor. partitions says how many partitions a topic has.
func NewMonitor(cfg MonitorConfig, st *store.Store, partitions func(context.Context, string) (int, error)) *Monitor {
	if cfg.Share == 0 {
		cfg.Share = 0.01
	}
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
	return &Monitor{cfg: cfg, store: st, topics: partitions, seed: maphash.MakeSeed()}
}

// Run checks until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	if err := m.watch(m.cfg.Scope.Meter); err != nil {
		return fmt.Errorf("consistency monitor: register metrics: %w", err)
	}
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
}

// record takes the rows of an answer whose keys are chosen.
func (m *Monitor) record(p *plan, a *answer, now int64) {
	for i := range p.views {
		v := &p.views[i]
		for row := range a.n {
			if a.encodeKey(v, row) != nil || !m.chosen(a.key) {
				continue
			}
			m.take(sample{view: v.view, at: now, key: slices.Clone(a.key), row: a.rows[i].Row(row).clone(), columns: p.columnsOf(i)})
		}
	}
}

func (m *Monitor) chosen(key []byte) bool {
	return float64(maphash.Bytes(m.seed, key)>>11) < m.cfg.Share*(1<<53)
}

func (m *Monitor) take(s sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) < m.cfg.Held {
		m.samples = append(m.samples, s)
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
	m.mu.Unlock()
	for v, samples := range byView {
		ready, err := m.stored(ctx, v, samples)
		if err == nil && len(ready) > 0 {
			err = m.check(ctx, v, ready, now)
		}
		if err != nil {
			return fmt.Errorf("check view %s: %w", v.Name, err)
		}
	}
	return nil
}

// stored splits off the reads whose rows the ledger covers; the others wait.
func (m *Monitor) stored(ctx context.Context, v *View, samples []sample) (ready []sample, err error) {
	topic := FeatureTopic(v.Schema.Namespace)
	n, err := m.topics(ctx, topic)
	if err != nil {
		return nil, err
	}
	next, err := m.store.LatestOffsets(ctx, topic, n)
	if err != nil {
		return nil, err
	}
	for _, s := range samples {
		if s.row.Found() && s.row.Version().Offset >= next[s.row.Version().Partition] {
			m.take(s)
			continue
		}
		ready = append(ready, s)
	}
	return ready, nil
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
	j, err := m.recompute(ctx, v, keys, at, columns, samples)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.minuteOf(now).counts
	for i := range samples {
		m.compare(counts, &samples[i], j, i, columns)
	}
	return nil
}

func (m *Monitor) recompute(ctx context.Context, v *View, keys []event.Column, at []int64, columns []string, samples []sample) (*joined, error) {
	if v.windows != nil {
		return m.recomputeWindows(ctx, v.windows.plan, keys, at, columns, samples)
	}
	if err := m.store.Prepare(ctx, []*event.Schema{v.Schema}); err != nil {
		return nil, err
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
	return join(newQuestions(pointers, at), r, types, ttl, false, rows)
}

// recomputeWindows aggregates the rows that the table had folded in when each
// read was served: a hot key's windows hold something else a moment later.
func (m *Monitor) recomputeWindows(ctx context.Context, w *windowPlan, keys []event.Column, at []int64, columns []string, samples []sample) (*joined, error) {
	if err := m.store.Prepare(ctx, []*event.Schema{w.source}); err != nil {
		return nil, err
	}
	var pointers []*event.Column
	for i := range keys {
		pointers = append(pointers, &keys[i])
	}
	had := func(question int32, v Version) bool {
		last := samples[question/2].row.Version()
		return v.Partition == last.Partition && (v.Epoch < last.Epoch || v.Epoch == last.Epoch && v.Offset <= last.Offset)
	}
	rows := m.store.History(ctx, store.HistoryQuery{Schema: w.source, Columns: w.columnNames(), From: slices.Min(at) - w.reach(), To: slices.Max(at), FirstKeys: firstKeys(pointers[0])})
	return joinWindows(newQuestions(pointers, at), w, w.outputsOf(columns), false, had, rows)
}

// compare counts the features of one read. m.mu is held.
func (m *Monitor) compare(counts map[featureName]*tally, s *sample, j *joined, i int, columns []string) {
	for _, name := range s.columns {
		c := slices.Index(columns, name)
		served := newColumn(j.columns[c].Type, true)
		state := s.row.AppendTo(&served, s.row.Column(name))
		if s.row.Found() && s.view.expired(s.row.Version().EventTime, s.at) {
			served = newColumn(served.Type, true)
			served.AppendNull()
			state = OutsideMaxAge
		}
		same := false
		for _, q := range []int{2 * i, 2*i + 1} {
			place := int(j.place[q])
			same = same || sameState(state, j.statuses[place]) && sameCell(&served, 0, &j.columns[c], place)
		}
		f := featureName{s.view.Schema.Namespace, s.view.Name, name}
		t := counts[f]
		if t == nil {
			t = &tally{}
			counts[f] = t
		}
		t.checked++
		if !same {
			t.different++
		}
	}
}

// sameState compares a value's status with its row's: a null value is a part
// of a row that is there.
func sameState(value, row Status) bool {
	return value == row || value == NullValue && row == Present
}

// minuteOf returns the minute of now and forgets what is older than an hour.
// m.mu is held.
func (m *Monitor) minuteOf(now int64) *minute {
	start := now - now%60_000_000
	m.minutes = slices.DeleteFunc(m.minutes, func(x minute) bool { return x.start <= start-3600_000_000 })
	if n := len(m.minutes); n == 0 || m.minutes[n-1].start != start {
		m.minutes = append(m.minutes, minute{start: start, counts: map[featureName]*tally{}})
	}
	return &m.minutes[len(m.minutes)-1]
}

// lastHour sums the minutes.
func (m *Monitor) lastHour() map[featureName]tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[featureName]tally{}
	for _, x := range m.minutes {
		for f, t := range x.counts {
			sum := out[f]
			out[f] = tally{sum.checked + t.checked, sum.different + t.different}
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
			o.ObserveFloat64(rate, float64(t.different)/float64(t.checked), metric.WithAttributes(
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
		rate[i] = float64(t.different) / float64(t.checked)
	}
	return []query.Frame{{Name: "consistency", Type: query.Table, Columns: []query.Column{
		{Name: "view", Type: query.Text, Values: views},
		{Name: "feature", Type: query.Text, Values: features},
		{Name: "checked", Type: query.Int, Unit: "short", Values: checked},
		{Name: "different", Type: query.Int, Unit: "short", Values: different},
		{Name: "rate", Type: query.Float, Unit: "percentunit", Values: rate, Thresholds: []query.Threshold{{Value: 0, State: "ok"}, {Value: 0.001, State: "critical"}}},
	}}}, nil
}
