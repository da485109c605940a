package features

import (
	"fmt"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
)

// monitor makes a monitor over the library and a log that takes everything.
func (l *library) monitor(now int64) (*Monitor, *ServedLog) {
	clock := func() int64 { return now }
	m := NewMonitor(MonitorConfig{Now: clock, Scope: telemetry.Discard()}, l.online, l.store)
	return m, NewServedLog(ServedConfig{Share: 1, Scope: telemetry.Discard()}, nil)
}

// serve answers a request and lets the monitor hear what the log holds of it.
func serve(t *testing.T, o *Online, log *ServedLog, m *Monitor, at int64, request string) {
	t.Helper()
	a := &answer{served: log}
	if !a.req.parse([]byte(request)) {
		t.Fatal("request")
	}
	must(t, a.make(t.Context(), o.book(testNamespace), Limits{}.orDefault(), at))
	for len(log.queue) > 0 {
		v := <-log.queue
		msg, err := log.message(&v)
		must(t, err)
		must(t, m.hear(t.Context(), ServedTopic(testNamespace), msg.Value))
	}
}

// TestMonitorFindsPlantedSkew reads what agrees, what only the table has wrong,
// and what only the store has wrong.
func TestMonitorFindsPlantedSkew(t *testing.T) {
	l := openLibrary(t, 1<<28)
	const now = int64(1772366400_000000)
	l.view.Spec.TTL, l.view.Spec.Online = event.Duration(time.Hour), true
	l.view.table = NewTable(l.view.Schema, time.Hour)
	row := func(key, age, offset int64, x any) factRow {
		at := now - age
		return factRow{keys: []any{key}, v: Version{EventTime: at, Created: at, Offset: offset}, knownAt: at, values: map[string]any{"x": x, "s": fmt.Sprint(key)}}
	}
	second := time.Second.Microseconds()
	both := []factRow{row(1, 10*second, 1, 1.5), row(2, 10*second, 2, nil), row(3, 7200*second, 3, 3.5)}
	l.fill("driver", append(both, row(4, 10*second, 4, 4.0), row(6, 10*second, 6, 6.0)))
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: 9}))
	b := event.NewBatch(l.view.Schema, "")
	for _, r := range append(both, row(4, 10*second, 4, 4.5), row(7, 10*second, 100, 7.0), row(8, 10*second, 8, 8.0)) { // 4: another value; 6: missing; 7: not stored yet; 8: deleted and erased after the read
		addRow(b, r)
	}
	must(t, l.view.table.apply(t.Context(), b, now))
	m, log := l.monitor(now)
	serve(t, l.online, log, m, now, `{"features":["driver:x","driver:s"],"entities":{"driver_id":[1,2,3,4,5,6,7,8]}}`)
	gone := row(8, 0, 9, nil)
	gone.deleted, gone.values = true, nil
	b = event.NewBatch(l.view.Schema, "")
	addRow(b, gone)
	must(t, l.view.table.apply(t.Context(), b, now))
	must(t, m.Tick(t.Context(), now))
	if got := m.lastHour(); len(got) != 0 {
		t.Fatalf("checked before the delay: %v", got)
	}
	must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
	got := m.lastHour()
	if x := got[featureName{testNamespace, "driver", "x"}]; x != (tally{6, 2, 6, 2}) {
		t.Errorf("x: %+v, want 6 checked, 2 different", x)
	}
	if s := got[featureName{testNamespace, "driver", "s"}]; s != (tally{6, 1, 6, 1}) {
		t.Errorf("s: %+v, want 6 checked, 1 different", s)
	}
	if len(m.samples) != 1 {
		t.Errorf("%d reads wait, want the one whose row is not stored", len(m.samples))
	}
	frames, err := m.Consistency(t.Context(), query.Request{View: "driver"})
	must(t, err)
	if f := frames[0]; f.Rows() != 2 || fmt.Sprint(f.Columns[4].Values) != fmt.Sprint([]float64{1.0 / 6, 2.0 / 6}) {
		t.Errorf("frame %+v", f)
	}
}

// TestMonitorForgivesTheTailItsDelay: a row that was in the log when a request
// was answered, and not yet in the table, is no skew within the tolerance.
func TestMonitorForgivesTheTailItsDelay(t *testing.T) {
	l := openLibrary(t, 1<<28)
	const now = int64(1772366400_000000)
	l.view.Spec.TTL, l.view.Spec.Online, l.view.table = 0, true, NewTable(l.view.Schema, 0)
	old := factRow{keys: []any{int64(1)}, v: Version{EventTime: now - 1_500_000, Offset: 1}, knownAt: now - 1_500_000 - 1_000_000, values: map[string]any{"x": 1.0}}
	old.v.EventTime -= 1_000_000
	fresh := factRow{keys: []any{int64(1)}, v: Version{EventTime: now - 100_000, Offset: 2}, knownAt: now - 100_000, values: map[string]any{"x": 2.0}}
	l.fill("driver", []factRow{old, fresh})
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: 9}))
	b := event.NewBatch(l.view.Schema, "")
	addRow(b, old)
	must(t, l.view.table.apply(t.Context(), b, now))
	m, log := l.monitor(now)
	for _, at := range []int64{now, now + 3_000_000} { // within the tolerance, and beyond it
		serve(t, l.online, log, m, at, `{"features":["driver:x"],"entities":{"driver_id":[1]}}`)
	}
	must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
	if x := m.lastHour()[featureName{testNamespace, "driver", "x"}]; x != (tally{2, 1, 2, 1}) {
		t.Fatalf("%+v, want 2 checked and only the later one different", x)
	}
}

// TestMonitorOfAHotKey serves a key that changes every ten milliseconds, at every
// tenth of them: each time the table is behind by some rows, and right. What it
// is given late, and what is stored otherwise, is found all the same.
func TestMonitorOfAHotKey(t *testing.T) {
	l := openLibrary(t, 1<<28)
	const now, rows, behind = int64(1772366400_000000), 600, 7
	l.view.Spec.TTL, l.view.Spec.Online, l.view.table = 0, true, NewTable(l.view.Schema, 0)
	var all, stored []factRow
	for i := range int64(rows) {
		at := now + i*10_000
		all = append(all, factRow{keys: []any{int64(1)}, v: Version{EventTime: at, Created: at, Offset: i}, knownAt: at + 3_000, values: map[string]any{"x": float64(i)}})
		stored = append(stored, all[i])
		if i == 395 {
			stored[i].values = map[string]any{"x": -1.0}
		}
	}
	l.fill("driver", stored)
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: rows}))
	m, log := l.monitor(now)
	served := func(i int64, applied int64) tally {
		t.Helper()
		b := event.NewBatch(l.view.Schema, "")
		for _, row := range all[:applied] {
			addRow(b, row)
		}
		must(t, l.view.table.apply(t.Context(), b, now+rows*10_000))
		m.minutes = map[int64]map[featureName]*tally{}
		serve(t, l.online, log, m, now+i*10_000, `{"features":["driver:x"],"entities":{"driver_id":[1]}}`)
		must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
		return m.lastHour()[featureName{testNamespace, "driver", "x"}]
	}
	for i := int64(10); i < 400; i += 10 {
		if got := served(i, i-behind); got != (tally{1, 0, 1, 0}) {
			t.Errorf("at row %d: %+v", i, got)
		}
	}
	if got := served(403, 396); got != (tally{1, 1, 1, 1}) {
		t.Errorf("a row that is stored otherwise: %+v", got)
	}
	if got := served(610, 420); got != (tally{1, 0, 1, 0}) {
		t.Errorf("a table that is behind within the tolerance: %+v", got)
	}
	if got := served(640, 420); got != (tally{1, 1, 1, 1}) {
		t.Errorf("a table that stopped following: %+v", got)
	}
}

// TestMonitorFindsSkewInWindows plants, beside windows that agree, an event
// that only the table has, one that only the store has, one that differs, and a
// table that stopped following.
func TestMonitorFindsSkewInWindows(t *testing.T) {
	l := openLibrary(t, 1<<28)
	const now = int64(1772366400_000000)
	b := l.online.book(testNamespace)
	p, err := compileWindow(&WindowSpec{Source: "driver", Features: []WindowFeature{
		{Name: "n", Function: "count", Window: event.Duration(time.Hour)}, {Name: "total", Function: "sum", Column: "x", Window: event.Duration(time.Hour)}}}, b.views["driver"].Schema, "activity", 77)
	must(t, err)
	table := newWindowTable(p, 0)
	table.live.Store(true)
	b.views["activity"] = &View{Name: "activity", UID: 77, Spec: &event.ViewSpec{Online: true}, Schema: p.schema, windows: table}
	offset := int64(0)
	row := func(key int64, ago time.Duration, x float64) factRow {
		offset++
		at := now - ago.Microseconds()
		return factRow{keys: []any{key}, v: Version{EventTime: at, Created: at, Offset: offset}, knownAt: at, values: map[string]any{"x": x}}
	}
	var stored, followed []factRow
	both := func(rows ...factRow) { stored, followed = append(stored, rows...), append(followed, rows...) }
	for key := int64(1); key <= 6; key++ {
		both(row(key, 50*time.Minute, 0.1), row(key, 40*time.Minute, 0.2), row(key, 30*time.Minute, 0.3))
	}
	followed = append(followed, row(2, 20*time.Minute, 5)) // the store lacks it
	stored = append(stored, row(3, 20*time.Minute, 5))     // the table lacks it
	both(row(3, 10*time.Minute, 6))
	wrong := row(4, 20*time.Minute, 5)
	stored = append(stored, wrong)
	wrong.values = map[string]any{"x": 5.0001}
	followed = append(followed, wrong)
	stored = append(stored, row(5, 10*time.Minute, 7)) // the table's newest is older
	stored = append(stored, row(6, time.Second, 7))    // in the log, not yet in the table: within the tolerance
	l.fill("driver", stored)
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: 100}))
	batch := event.NewBatch(p.source, FeatureTopic(testNamespace))
	for _, r := range followed {
		addRow(batch, r)
	}
	table.apply(batch, now)
	m, log := l.monitor(now)
	for key := 1; key <= 7; key++ { // 7: nothing ever happened to it
		serve(t, l.online, log, m, now, fmt.Sprintf(`{"features":["activity:n","activity:total"],"entities":{"driver_id":[%d]}}`, key))
		must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
		got := m.lastHour()[featureName{testNamespace, "activity", "total"}]
		n := m.lastHour()[featureName{testNamespace, "activity", "n"}]
		want := map[int]int64{1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 4}[key]
		wantN := map[int]int64{1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}[key] // 4 has as many events on both sides
		if got.checked != int64(key) || got.different != want || n.different != wantN {
			t.Fatalf("after key %d: sums %+v, counts %+v, want %d and %d different", key, got, n, want, wantN)
		}
	}
}
