package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

func prepare(t testing.TB, s *store.Store, schemas ...*event.Schema) {
	t.Helper()
	if err := s.Prepare(t.Context(), schemas); err != nil {
		t.Fatal(err)
	}
}

func field(name string, typ event.ColumnType) event.Field {
	return event.Field{Name: name, Type: typ}
}

// TestPrepareAddsAndWidens widens a table whose rows the engine cannot rewrite
// just now, as on a full disk: nobody waits for that, everything reads and
// writes meanwhile, and nothing is another value when it has come to it.
func TestPrepareAddsAndWidens(t *testing.T) {
	s := open(t)
	v1 := features(1, field("n", scalar(event.Int64)), field("ns", list(event.Int64)))
	insert(t, s, "1", batch(v1, 0, 100))
	text(t, s, "SYSTEM STOP MERGES features_1")
	v2 := features(1, field("n", scalar(event.Float64)), field("ns", list(event.Float64)), field("late", scalar(event.String)))
	before := text(t, s, "SELECT sum(v_n), sum(arraySum(x -> ifNull(x, 0), v_ns)), countIf(isNull(v_n)) FROM features_1")
	prepare(t, s, v2)
	if after := text(t, s, "SELECT sum(v_n), sum(arraySum(x -> ifNull(x, 0), v_ns)), countIf(isNull(v_n)) FROM features_1"); after != before {
		t.Errorf("widening changed values: %s, before %s", after, before)
	}
	insert(t, s, "2", batch(v2, 100, 200))
	insert(t, s, "3", batch(v1, 200, 300)) // a unit that was decoded before the change
	if got := text(t, s, "SELECT count(), countIf(isNotNull(v_late)), any(toTypeName(v_n)), any(toTypeName(v_ns)) FROM features_1"); got != "300\t75\tNullable(Float64)\tArray(Nullable(Float64))" {
		t.Errorf("got %s", got)
	}
	prepare(t, s, v1) // the older schema takes nothing away
	if got := text(t, s, "SELECT any(toTypeName(v_n)) FROM features_1"); got != "Nullable(Float64)" {
		t.Errorf("the older schema made it %s", got)
	}
	const all = "SELECT count(), sum(v_n), sum(arraySum(x -> ifNull(x, 0), v_ns)), countIf(isNotNull(v_late)), sum(cityHash64(*)) FROM features_1"
	const undone = "SELECT count() FROM system.mutations WHERE table = 'features_1' AND NOT is_done"
	standing, open := text(t, s, all), text(t, s, undone)
	if open == "0" {
		t.Error("the rows were rewritten: nothing was waited for")
	}
	text(t, s, "SYSTEM START MERGES features_1")
	testenv.Eventually(t, time.Minute, func() error {
		if n := text(t, s, undone); n != "0" {
			return fmt.Errorf("%s rewritings are not done", n)
		}
		return nil
	})
	if got := text(t, s, all); got != standing {
		t.Errorf("rewriting changed values: %s, before %s", got, standing)
	}
}

func TestPrepareRefuses(t *testing.T) {
	s := open(t)
	v1 := features(1, field("n", scalar(event.Int64)), field("s", scalar(event.String)))
	b := batch(v1, 0, 8)
	n := &b.Columns[v1.ValueStart()]
	n.Int64s[7], n.Nulls[7] = 1<<53+1, 0
	insert(t, s, "1", b)
	for _, v2 := range []*event.Schema{
		features(1, field("n", scalar(event.Float64)), field("s", scalar(event.String))),
		features(1, field("n", scalar(event.Int64)), field("s", scalar(event.Float64))),
		features(1, field("n", list(event.Int64)), field("s", scalar(event.String))),
	} {
		if err := s.Prepare(t.Context(), []*event.Schema{v2}); !errors.Is(err, store.ErrIncompatible) {
			t.Errorf("%v: %v", v2.Values(), err)
		}
	}
	if got := text(t, s, "SELECT max(v_n) FROM features_1"); got != fmt.Sprint(1<<53+1) {
		t.Errorf("the refused widening left %s", got)
	}
}

// Unknown is a column that was only ever null: it has no storage yet.
func TestPrepareLeavesUnknownOut(t *testing.T) {
	s := open(t)
	v := features(1, field("x", scalar(event.Float64)), field("later", scalar(event.Unknown)))
	prepare(t, s, v)
	if got := text(t, s, "SELECT count() FROM system.columns WHERE table = 'features_1' AND name = 'v_later'"); got != "0" {
		t.Error("it has a column")
	}
}

// The hot path must not ask the engine anything for a schema it knows.
func TestPrepareIsFree(t *testing.T) {
	s := open(t)
	v := features(1)
	prepare(t, s, v)
	list := []*event.Schema{v}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Prepare(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPredictionsAndLabels(t *testing.T) {
	s := open(t)
	inputs := []event.Field{field("amount", scalar(event.Float64)), field("score", scalar(event.Float64))}
	pred := event.NewSchema(event.Predictions, "test", "churn", 3001, nil, inputs)
	other := event.NewSchema(event.Predictions, "test", "churn", 3002, nil, inputs[:1])
	label := event.NewSchema(event.Labels, "test", "churn", 3, nil, nil)
	for i, sc := range []*event.Schema{pred, other, label} {
		b := event.NewBatch(sc, topic)
		for j := range int64(40) {
			addRow(b, j)
		}
		if sc.Kind == event.Predictions {
			setTexts(&b.Columns[event.PredVersion], fmt.Sprint("v", i+1), b.Rows)
			trace := slices.IndexFunc(sc.Fields, func(f event.Field) bool { return f.Role == event.System && f.Name == "trace_id" })
			setTexts(&b.Columns[trace], "", b.Rows/2)
			for range b.Rows - b.Rows/2 {
				addText(&b.Columns[trace], "t1")
			}
		}
		insert(t, s, fmt.Sprint(i), b)
	}
	r := query.Request{Model: "churn", From: at(0), To: at(40)}
	frames := must[[]query.Frame](t)(s.Rows(t.Context(), r))
	if len(frames) != 2 || frames[0].Rows() != 40 {
		t.Fatalf("%d frames", len(frames))
	}
	column(t, frames[0], "envelope.score") // the output, beside the input of the same name
	column(t, frames[1], "score")
	r.Version = "v2"
	if frames := must[[]query.Frame](t)(s.Rows(t.Context(), r)); len(frames) != 1 || frames[0].Rows() != 40 {
		t.Errorf("version v2: %d frames", len(frames))
	}
	r.Version, r.Filter = "", map[string]string{"trace_id": "t1"} // the rows of both versions carry it
	if frames := must[[]query.Frame](t)(s.Rows(t.Context(), r)); len(frames) != 2 || len(frames[0].Notices) != 0 {
		t.Errorf("trace t1: %d frames", len(frames))
	}
	r.Filter = map[string]string{"trace_id": ""} // no trace is not the rows without one, of which there are
	if frames := must[[]query.Frame](t)(s.Rows(t.Context(), r)); len(frames) != 1 || frames[0].Rows() != 0 || len(frames[0].Notices) != 1 {
		t.Errorf("an empty trace: %d frames, %d rows", len(frames), frames[0].Rows())
	}
	for name, v := range map[string]string{"amount": "", "score": "x", "event_time": "", "weight": "1,5"} { // an empty text is no number, and no time
		r.Filter = map[string]string{name: v}
		for _, ask := range []func(context.Context, query.Request) ([]query.Frame, error){s.Rows, s.Summaries} {
			if _, err := ask(t.Context(), r); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "filter "+name) {
				t.Errorf("filter %s %q: %v", name, v, err)
			}
		}
	}
	r.Filter, r.GroupBy, r.Columns = nil, []string{"version"}, []string{"amount"}
	sums := must[[]query.Frame](t)(s.Summaries(t.Context(), r))
	if len(sums) != 2 || sums[0].Columns[1].Labels["version"] != "v1" || column(t, sums[1], "count").Values.([]int64)[0] == 0 {
		t.Errorf("summaries by version: %d frames", len(sums))
	}
	r.GroupBy = []string{"m0"} // a declared segment
	if sums := must[[]query.Frame](t)(s.Summaries(t.Context(), r)); len(sums) < 2 {
		t.Errorf("by segment: %d frames", len(sums))
	}
	r.GroupBy, r.Columns, r.Params = nil, nil, []byte(`{"labels": true}`)
	if frames := must[[]query.Frame](t)(s.Rows(t.Context(), r)); len(frames) != 1 || frames[0].Rows() != 40 {
		t.Errorf("labels: %d frames", len(frames))
	}
}

func setTexts(c *event.Column, v string, rows int) {
	c.Data, c.StrEnds = nil, nil
	for range rows {
		addText(c, v)
	}
}

// A batch whose columns disagree about the number of rows would be read as
// other values; it must not reach the engine.
func TestInsertRefusesTornBatch(t *testing.T) {
	s := open(t)
	view := allKinds()
	for j, f := range view.Fields {
		b := batch(view, 0, 10)
		c := &b.Columns[j]
		switch {
		case f.Type.List:
			c.Ends = append(c.Ends, lastEnd(c.Ends)+1)
		case len(c.Int64s) > 0:
			c.Int64s = c.Int64s[:9]
		case len(c.StrEnds) > 0:
			c.StrEnds = c.StrEnds[:9]
		case c.Nulls != nil:
			c.Nulls = c.Nulls[:9]
		default:
			continue
		}
		if err := s.Insert(t.Context(), fmt.Sprint("torn", j), b); err == nil {
			t.Errorf("column %s (%s) was torn and stored", f.Name, f.Type)
		}
	}
	if got := text(t, s, "SELECT count() FROM features_9"); got != "0" {
		t.Errorf("%s rows", got)
	}
}

func TestRetention(t *testing.T) {
	cfg := config(t)
	cfg.Retention = 90 * 24 * time.Hour
	s := openAt(t, cfg)
	view := features(1)
	prepare(t, s, view)
	get := func() time.Duration { return must[map[string]time.Duration](t)(s.Retention(t.Context()))["features_1"] }
	if get() != cfg.Retention {
		t.Errorf("new table: %v", get())
	}
	for _, d := range []time.Duration{time.Hour, 0, 24 * time.Hour} {
		if err := s.SetRetentions(t.Context(), func(*event.Schema) store.Kept { return store.Kept{For: d} }); err != nil || get() != d {
			t.Errorf("set %v, got %v: %v", d, get(), err)
		}
	}
	b := batch(view, 0, 100)
	now := time.Now().UnixMicro()
	for i := range b.Rows {
		b.Columns[event.ColAppended].Int64s[i] = now - int64(i)*3600_000_000
	}
	insert(t, s, "r", b)
	testenvEventually(t, func() error {
		run(t, s, "OPTIMIZE TABLE features_1 FINAL")
		if got := text(t, s, "SELECT count() FROM features_1"); got != "24" {
			return fmt.Errorf("%s rows, want the 24 that are younger than a day", got)
		}
		return nil
	})
	row := ledgerRow(0, 100, "features_1")
	row.MinAppended, row.MaxAppended = now-99*3600_000_000, now
	if err := s.InsertLedger(t.Context(), "r", row); err != nil {
		t.Fatal(err)
	}
	parts, found, err := s.AuditLedger(t.Context(), "", time.Time{})
	if err != nil || len(found) != 0 || parts[0].GapRows != 0 {
		t.Errorf("expired rows are an alarm: %v %v %v", parts, found, err)
	}
	if err := s.SetDeadLetterRetention(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
}

func TestDurability(t *testing.T) {
	for _, d := range []store.Durability{store.ProcessCrash, store.PowerLoss} {
		cfg := config(t)
		cfg.Durability = d
		s := openAt(t, cfg)
		prepare(t, s, features(1))
		for _, table := range []string{"features_1", "ledger", "dead_letters"} {
			got := strings.Contains(text(t, s, "SHOW CREATE TABLE "+table), "fsync_after_insert = 1")
			if got != (d == store.PowerLoss) {
				t.Errorf("%s: %s has fsync: %v", d, table, got)
			}
		}
		insert(t, s, "a", batch(features(1), 0, 10))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopen(t *testing.T) {
	cfg := config(t)
	s := openAt(t, cfg)
	view := features(1)
	b := batch(view, 0, 100)
	insert(t, s, "a", b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, cfg)
	insert(t, s, "a", b) // the token outlives the process
	if got := text(t, s, "SELECT count() FROM features_1"); got != "100" {
		t.Errorf("%s rows", got)
	}
	run(t, s, fmt.Sprintf("INSERT INTO schema_versions (version) SELECT %d", store.Version+1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := store.OpenEmbedded(t.Context(), cfg); !errors.Is(err, store.ErrNewer) {
		t.Errorf("a newer store: %v", err)
		if err == nil {
			s.Close()
		}
	}
}

func TestDefinitionsAreCopiedOnce(t *testing.T) {
	s := open(t)
	ds := []store.Definition{{Kind: "FeatureView", Namespace: "test", Name: "user", UID: 1, Version: 1, Offset: 4, Time: minute, Who: "a", Spec: "{}"},
		{Kind: "Model", Namespace: "test", Name: "churn", UID: 2, Version: 1, Offset: 5, Time: minute, Deleted: true, Spec: `{"x":"é"}`}}
	for _, part := range [][]store.Definition{ds[:1], ds, ds} {
		if err := s.CopyDefinitions(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	if got := text(t, s, "SELECT groupArray(name), groupArray(deleted), any(spec) FROM (SELECT * FROM definitions ORDER BY offset DESC)"); got != `['churn','user']	[true,false]	{"x":"é"}` {
		t.Errorf("got %s", got)
	}
}
