package features

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
)

// TestWindowsFromTheLog defines windows over rows that are in the log already,
// sends more, some of them twice, and reads them with a transform over HTTP.
func TestWindowsFromTheLog(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	h := openHouse(t, now)
	h.view("rides", "0s", fieldsOf("driver Int64"), fieldsOf("fare Float64"))
	ride := func(ago time.Duration, fare, id string) string {
		return fmt.Sprintf(`{"view":"rides","key":{"driver":1},"event_time":%q,"values":{"fare":%s}%s}`, now.Add(-ago).Format(time.RFC3339Nano), fare, id)
	}
	h.write(ride(10*time.Second, "2.5", ""), ride(59*time.Minute, "4", `,"id":"a"`), ride(3*time.Hour, "100", ""))
	h.define(WindowViewKind, "activity", map[string]any{"source": "rides", "features": []map[string]any{
		{"name": "rides_1h", "function": "count", "window": "1h"},
		{"name": "fare_1h", "function": "sum", "column": "fare", "window": "1h"},
		{"name": "fare_1d", "function": "max", "column": "fare", "window": "1d"}}})
	h.define(OnDemandViewKind, "per", OnDemandSpec{Features: []OnDemandFeature{{Name: "ride", Type: event.ColumnType{Elem: event.Float64}, Expr: "activity.fare_1h / activity.rides_1h"}}})
	body := []byte(`{"features":["activity:rides_1h","activity:fare_1h","activity:fare_1d","per:ride"],"entities":{"driver":[1,2]}}`)
	expect := func(want string) {
		t.Helper()
		testenv.Eventually(t, 20*time.Second, func() error {
			_, _, got := h.ask("POST", "/get-online-features", body)
			var v vectors
			if err := json.Unmarshal([]byte(got), &v); err != nil {
				return err
			}
			if len(v.Results) < 5 {
				return fmt.Errorf("%s", got)
			}
			if have := fmt.Sprintf("%s %s %s %s", v.Results[1].Values, v.Results[2].Values, v.Results[3].Values, v.Results[4].Values); have != want {
				return fmt.Errorf("got %s, want %s", have, want)
			}
			return nil
		})
	}
	expect("[2 0] [6.5 null] [100.0 null] [3.25 null]")
	h.write(ride(30*time.Minute, "1", ""), ride(59*time.Minute, "4", `,"id":"a"`))
	expect("[3 0] [7.5 null] [100.0 null] [2.5 null]")
	h.write(fmt.Sprintf(`{"view":"rides","key":{"driver":1},"event_time":%q,"delete":true}`, now.Format(time.RFC3339)), ride(time.Minute, "9", ""))
	expect("[0 0] [null null] [null null] [null null]")
	status, _, got := h.ask("POST", "/push", []byte(`{"push_source_name":"activity","df":{"driver":[1]}}`))
	if status != 422 || !strings.Contains(got, "Unable to find push source") {
		t.Fatalf("a push to a window view: %d %s", status, got)
	}
}

// TestWindowsFilledFromStoredRows wants a table that was filled from stored
// rows up to some offsets, and then given the log from there, to answer as one
// that was given the log from its beginning.
func TestWindowsFilledFromStoredRows(t *testing.T) {
	const topic = "kedge.demo.features"
	spec, p := windowTestSpec(), windowTestPlan(t)
	st := openStore(t)
	r := rand.New(rand.NewPCG(3, 4))
	rows := randomEvents(r, 400, 1_790_000_000_000_000)
	now := rows[len(rows)-1].knownAt
	for i := 0; i < len(rows); i += 100 {
		b := event.NewBatch(p.source, topic)
		for _, row := range rows[i : i+100] {
			addRow(b, row)
		}
		must(t, st.Insert(t.Context(), fmt.Sprint("w", i), b))
	}
	ends := store.TopicEnds{topic: {0: {Next: 250}, 1: {Next: 300}}} // of partition 2 nothing is stored for certain
	filled, whole := newWindowTable(p, 1000), newWindowTable(p, 1000)
	defer filled.close()
	defer whole.close()
	src := EventsFrom(st, func(context.Context, string) (int, error) { return 3, nil }, 0)
	must(t, filled.fill(t.Context(), src, ends, now))
	for part, e := range ends[topic] {
		filled.start(topic, part, e.Epoch, e.Next)
	}
	for _, row := range rows {
		b := event.NewBatch(p.source, topic)
		addRow(b, row)
		filled.apply(b, now)
		whole.apply(b, now)
	}
	compared := 0
	for k := range int64(3) {
		for c := range 2 {
			key := encodedKey(p.schema, []any{k, fmt.Sprint(c)})
			for _, at := range []int64{now, now + 30*second, now + 20*day} {
				var a, b Rows
				filled.get(key, at, &a)
				whole.get(key, at, &b)
				for f, feature := range spec.Features {
					x, y := newColumn(p.schema.Values()[f].Type, true), newColumn(p.schema.Values()[f].Type, true)
					a.Row(0).AppendTo(&x, f)
					b.Row(0).AppendTo(&y, f)
					if !sameCell(&x, 0, &y, 0) && feature.Function != "sum" && feature.Function != "mean" && feature.Function != "stddev" {
						t.Fatalf("key %d %d at %d: %s: %v from stored rows, %v from the log", k, c, at, feature.Name, valueAt(&x, 0), valueAt(&y, 0))
					}
					checkWindowMoment(t, feature, &x, &y)
					compared += int(b2u(!x.Null(0)))
				}
			}
		}
	}
	if compared < 100 {
		t.Fatalf("only %d values compared", compared)
	}
}

func checkWindowMoment(t *testing.T, f WindowFeature, x, y *event.Column) {
	t.Helper()
	if x.Null(0) != y.Null(0) {
		t.Fatalf("%s: null on one side only", f.Name)
	}
	if (f.Function == "sum" || f.Function == "mean" || f.Function == "stddev") && !x.Null(0) {
		checkWindowValue(t, "from stored rows", f, x.Float64s[0], y.Float64s[0])
	}
}

// TestWindowHistory joins a window view and a transform over it with stored
// rows through the public interface.
func TestWindowHistory(t *testing.T) {
	l := openLibrary(t, 1<<28)
	source := l.online.book(testNamespace).views["driver"]
	p, err := compileWindow(&WindowSpec{Source: "driver", Features: []WindowFeature{
		{Name: "n", Function: "count", Window: event.Duration(time.Hour)}, {Name: "total", Function: "sum", Column: "x", Window: event.Duration(time.Hour)}}}, source.Schema, "activity", 77)
	must(t, err)
	l.online.book(testNamespace).views["activity"] = &View{Name: "activity", Spec: &event.ViewSpec{}, Schema: p.schema, windows: newWindowTable(p, 0)}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro()
	l.fill("driver", []factRow{
		{keys: []any{int64(1)}, v: Version{EventTime: at - 10}, knownAt: at - 5, values: map[string]any{"x": 1.5}},
		{keys: []any{int64(1)}, v: Version{EventTime: at - 20, Offset: 1}, knownAt: at + 5, values: map[string]any{"x": 4.0}}, // not yet known
		{keys: []any{int64(1)}, v: Version{EventTime: at - 7200*second, Offset: 2}, knownAt: at - 4, values: map[string]any{"x": 8.0}}})
	frame, err := OpenFrame(t.Context(), CSV, strings.NewReader("driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n2,2026-03-01T12:00:00Z\n"), "")
	must(t, err)
	var out strings.Builder
	w, err := CreateFrame(CSV, &out)
	must(t, err)
	report, err := l.history.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{"activity:n", "activity:total"}}, frame, w)
	must(t, err)
	if got := plainTimes(out.String()); !strings.Contains(got, ",1,1.5\n") || !strings.Contains(got, ",0,\n") || report.Views["activity"].NotYetKnown != 1 {
		t.Fatalf("%s %+v", got, report)
	}
}
