package features

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// outsideViews is a registry of views over an outside table: spend, and blind,
// which does not say when rows became known.
func outsideViews(t testing.TB) *registry.State {
	r, err := registry.Open(t.Context(), memlog.New(time.Now))
	must(t, err)
	go func() { _ = r.Run(t.Context()) }()
	for name, from := range map[string]event.FromSpec{
		"spend": {Table: "warehouse spend", EventTime: "at", Created: "loaded", KnownAt: "seen", Columns: event.Names{"driver_id": "id", "x": "amount"}},
		"blind": {Table: "warehouse spend", EventTime: "at", Created: "loaded", Columns: event.Names{"driver_id": "id", "x": "amount"}},
	} {
		spec := event.ViewSpec{Origin: event.Declared, TTL: event.Duration(30 * time.Microsecond), From: &from,
			Keys:    []event.FieldSpec{{Name: "driver_id", Type: event.ColumnType{Elem: event.Int64}}},
			Columns: []event.FieldSpec{{Name: "x", Type: event.ColumnType{Elem: event.Float64}}}}
		must(t, spec.Validate())
		raw, err := json.Marshal(spec)
		must(t, err)
		_, err = r.Apply(t.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: testNamespace, Name: name, Op: registry.Put, Spec: raw, Who: "test"})
		must(t, err)
	}
	return r.State()
}

// TestHistoryOfAnOutsideTable joins an entity frame with a table that Kedge did
// not make, and asks the brute-force rule over the same rows as well.
func TestHistoryOfAnOutsideTable(t *testing.T) {
	cfg := store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()}
	cfg.Outside = []store.OutsideTable{{Name: "warehouse spend", Namespaces: []string{testNamespace}, Database: "warehouse", Table: "spend"}}
	st, err := store.OpenEmbedded(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	exec := func(sql string) { must(t, st.Embedded().Exec(t.Context(), chdb.Statement{SQL: sql})) }
	exec("CREATE DATABASE warehouse")
	exec("CREATE TABLE warehouse.spend (id UInt32, at DateTime64(6, 'UTC'), loaded Nullable(DateTime64(6, 'UTC')), seen DateTime64(6, 'UTC'), amount Nullable(Decimal(9, 1))) ENGINE = MergeTree ORDER BY id")
	r := rand.New(rand.NewPCG(4, 20))
	var facts []factRow
	var values []string
	for i := range 600 {
		at, id := r.Int64N(40), r.Int64N(6)
		f := factRow{keys: []any{id}, v: Version{EventTime: at, Created: at}, knownAt: at + r.Int64N(12), values: map[string]any{}}
		loaded, amount := "NULL", "NULL"
		if i%3 > 0 { // distinct: which of two equals counts is the table's affair
			f.v.Created = 100 + int64(i)
			loaded = fmt.Sprintf("fromUnixTimestamp64Micro(%d)", f.v.Created)
		} else if at = int64(1000 + i); true {
			f.v.EventTime, f.v.Created = at, at // alone at its time
			f.knownAt = at
		}
		if r.IntN(4) > 0 {
			f.values["x"] = float64(i) + 0.5
			amount = fmt.Sprint(f.values["x"])
		}
		facts = append(facts, f)
		values = append(values, fmt.Sprintf("(%d, fromUnixTimestamp64Micro(%d), %s, fromUnixTimestamp64Micro(%d), %s)", id, f.v.EventTime, loaded, f.knownAt, amount))
	}
	exec("INSERT INTO warehouse.spend VALUES " + strings.Join(values[:300], ", "))
	exec("INSERT INTO warehouse.spend VALUES " + strings.Join(values[300:], ", "))

	online := NewOnline()
	must(t, online.Define(outsideViews(t)))
	h := NewHistory(HistoryConfig{}, online, st)
	ask := func(view string) (got []any, frame *entityFrame) {
		frame = newEntityFrame(rand.New(rand.NewPCG(9, 10)), memory.DefaultAllocator, 3000)
		var out memoryFrame
		_, err := h.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{view + ":x"}, TimeColumn: "at"}, frame, &out)
		must(t, err)
		for i := range 3000 {
			got = append(got, out.value("x", i))
		}
		return got, frame
	}
	got, frame := ask("spend")
	present, leaked := 0, 0
	blind, _ := ask("blind")
	for i := range got {
		best, _, _ := bruteAsOf(ofKey(facts, frame.driver[i]), frame.at[i], 30, false)
		var want any
		if best != nil && best.values["x"] != nil {
			want, present = best.values["x"], present+1
		}
		if fmt.Sprint(got[i]) != fmt.Sprint(want) {
			t.Fatalf("row %d (driver %d at %d): %v, want %v", i, frame.driver[i], frame.at[i], got[i], want)
		}
		if fmt.Sprint(blind[i]) != fmt.Sprint(want) {
			leaked++
		}
	}
	if present < 500 || leaked < 100 {
		t.Errorf("%d values, %d that a view without known_at answers otherwise: the test compares nothing", present, leaked)
	}
	checkTrainingRows(t, h, facts)
	exec("DROP TABLE warehouse.spend")
	_, err = h.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{"spend:x"}, TimeColumn: "at"}, newEntityFrame(r, memory.DefaultAllocator, 10), &memoryFrame{})
	if !errors.Is(err, store.ErrOutside) || !strings.Contains(err.Error(), "it is not there") {
		t.Errorf("after the table went: %v", err)
	}
}

// checkTrainingRows asks for what a training run reads: the outside rows as
// labels, the outside column as a feature at each, all of them and a sample.
func checkTrainingRows(t *testing.T, h *History, facts []factRow) {
	t.Helper()
	newest := map[[2]int64]factRow{}
	for _, f := range facts {
		at := [2]int64{f.v.EventTime, f.keys[0].(int64)}
		if old, ok := newest[at]; !ok || newer(f.v, old.v) {
			newest[at] = f
		}
	}
	var want []string
	for _, at := range slices.SortedFunc(maps.Keys(newest), func(a, b [2]int64) int { return cmp.Or(cmp.Compare(a[1], b[1]), cmp.Compare(a[0], b[0])) }) {
		if label := newest[at].values["x"]; label != nil {
			var x any
			if best, _, _ := bruteAsOf(ofKey(facts, at[1]), at[0], 30, false); best != nil {
				x = best.values["x"]
			}
			want = append(want, fmt.Sprint(at[1], label, x))
		}
	}
	read := func(sample store.Sample) (got []string) {
		var out memoryFrame
		defer out.release()
		_, err := h.JoinStored(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{"spend:x"}, Labels: &LabelRequest{View: "spend", Column: "x"}, Sample: sample}, &out)
		must(t, err)
		for i := 0; out.value("label", i) != "no such row"; i++ {
			got = append(got, fmt.Sprint(out.value("driver_id", i), out.value("label", i), out.value("x", i)))
		}
		return got
	}
	if got := read(store.Sample{}); !slices.Equal(got, want) {
		t.Errorf("%d training rows, want %d:\n%.300s\n%.300s", len(got), len(want), fmt.Sprint(got), fmt.Sprint(want))
	}
	half := read(store.Sample{Share: 0.5, Seed: 7})
	if again := read(store.Sample{Share: 0.5, Seed: 7}); len(half) < len(want)/4 || len(half) > len(want)*3/4 || !slices.Equal(half, again) {
		t.Errorf("half of %d rows is %d and then %d", len(want), len(half), len(again))
	}
	for _, row := range half {
		if !slices.Contains(want, row) {
			t.Errorf("the sample has a row that is not there: %s", row)
		}
	}
}

// TestOutsideViewsAreOffline: what only rows of Kedge's own can answer says so.
func TestOutsideViewsAreOffline(t *testing.T) {
	h := openHouse(t, time.UnixMicro(1000))
	h.define(event.FeatureViewKind, "spend", event.ViewSpec{Origin: event.Declared, From: &event.FromSpec{Table: "w", EventTime: "at"},
		Keys:    []event.FieldSpec{{Name: "driver_id", Type: event.ColumnType{Elem: event.Int64}}},
		Columns: []event.FieldSpec{{Name: "x", Type: event.ColumnType{Elem: event.Float64}}}})
	for path, body := range map[string]string{
		"/get-online-features":   `{"features":["spend:x"],"entities":{"driver_id":[1]}}`,
		"/push":                  `{"push_source_name":"spend","df":{"driver_id":[1],"x":[1.5],"event_timestamp":["2026-03-01T12:00:00Z"]}}`,
		"/write-to-online-store": `{"feature_view_name":"spend","df":{"driver_id":[1],"x":[1.5],"event_timestamp":["2026-03-01T12:00:00Z"]}}`,
		"/materialize":           `{"start_ts":"2026-03-01T12:00:00","end_ts":"2026-03-02T12:00:00","feature_views":["spend"]}`,
	} {
		status, _, text := h.ask(http.MethodPost, path, []byte(body))
		if status != http.StatusBadRequest || !strings.Contains(text, "outside table") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}
