package features

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
)

// TestMonitorFindsPlantedSkew reads what agrees, what only the table has wrong,
// and what only the store has wrong.
func TestMonitorFindsPlantedSkew(t *testing.T) {
	l := openLibrary(t, 1<<28)
	const now = int64(1772366400_000000)
	l.view.Spec.TTL = event.Duration(time.Hour)
	l.view.Table = NewTable(l.view.Schema, time.Hour)
	row := func(key, age, offset int64, x any) factRow {
		at := now - age
		return factRow{keys: []any{key}, v: Version{EventTime: at, Created: at, Offset: offset}, knownAt: at, values: map[string]any{"x": x, "s": fmt.Sprint(key)}}
	}
	second := time.Second.Microseconds()
	both := []factRow{row(1, 10*second, 1, 1.5), row(2, 10*second, 2, nil), row(3, 7200*second, 3, 3.5)}
	l.fill("driver", append(both, row(4, 10*second, 4, 4.0), row(6, 10*second, 6, 6.0)))
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: 9}))
	b := event.NewBatch(l.view.Schema, "")
	for _, r := range append(both, row(4, 10*second, 4, 4.5), row(7, 10*second, 100, 7.0)) { // 4: another value; 6: missing; 7: not stored yet
		addRow(b, r)
	}
	l.view.Table.Apply(b, now)
	m := NewMonitor(MonitorConfig{Share: 1, Now: func() int64 { return now }, Scope: telemetry.Discard()}, l.store, func(context.Context, string) (int, error) { return 1, nil })
	a := &answer{monitor: m}
	if !a.req.parse([]byte(`{"features":["driver:x","driver:s"],"entities":{"driver_id":[1,2,3,4,5,6,7]}}`)) {
		t.Fatal("request")
	}
	must(t, a.make(l.online.book(testNamespace), Limits{}.orDefault(), now))
	must(t, m.Tick(t.Context(), now))
	if got := m.lastHour(); len(got) != 0 {
		t.Fatalf("checked before the delay: %v", got)
	}
	must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
	got := m.lastHour()
	if x := got[featureName{testNamespace, "driver", "x"}]; x != (tally{6, 2}) {
		t.Errorf("x: %+v, want 6 checked, 2 different", x)
	}
	if s := got[featureName{testNamespace, "driver", "s"}]; s != (tally{6, 1}) {
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
	l.view.Spec.TTL, l.view.Table = 0, NewTable(l.view.Schema, 0)
	old := factRow{keys: []any{int64(1)}, v: Version{EventTime: now - 1_500_000, Offset: 1}, knownAt: now - 1_500_000 - 1_000_000, values: map[string]any{"x": 1.0}}
	old.v.EventTime -= 1_000_000
	fresh := factRow{keys: []any{int64(1)}, v: Version{EventTime: now - 100_000, Offset: 2}, knownAt: now - 100_000, values: map[string]any{"x": 2.0}}
	l.fill("driver", []factRow{old, fresh})
	must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), From: 0, To: 9}))
	b := event.NewBatch(l.view.Schema, "")
	addRow(b, old)
	l.view.Table.Apply(b, now)
	m := NewMonitor(MonitorConfig{Share: 1, Scope: telemetry.Discard()}, l.store, func(context.Context, string) (int, error) { return 1, nil })
	a := &answer{monitor: m}
	for _, at := range []int64{now, now + 3_000_000} { // within the tolerance, and beyond it
		if !a.req.parse([]byte(`{"features":["driver:x"],"entities":{"driver_id":[1]}}`)) {
			t.Fatal("request")
		}
		must(t, a.make(l.online.book(testNamespace), Limits{}.orDefault(), at))
	}
	must(t, m.Tick(t.Context(), now+time.Hour.Microseconds()))
	if x := m.lastHour()[featureName{testNamespace, "driver", "x"}]; x != (tally{2, 1}) {
		t.Fatalf("%+v, want 2 checked and only the later one different", x)
	}
}
