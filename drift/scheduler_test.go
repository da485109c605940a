package drift_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
)

// define writes a definition to the registry.
func define(t *testing.T, reg *registry.Registry, kind, name, spec, why string) {
	t.Helper()
	d, _ := reg.State().Get(kind, "test", name)
	if _, err := reg.Apply(t.Context(), registry.Entry{Kind: kind, Namespace: "test", Name: name, Op: registry.Put, Expect: d.Version, Spec: []byte(spec), Who: "ann", Why: why}); err != nil {
		t.Fatal(err)
	}
}

func openRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), memlog.New(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	go reg.Run(t.Context()) //nolint:errcheck // ends with the test
	return reg
}

func newScheduler(t *testing.T, s *stream, reg *registry.Registry) *drift.Scheduler {
	t.Helper()
	d, err := drift.NewScheduler(drift.SchedulerConfig{Namespace: "test", Scope: telemetry.Discard()}, s.store, reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// cells are a frame's texts, column by column name.
func cells(t *testing.T, f query.Frame, column string) []string {
	t.Helper()
	for _, c := range f.Columns {
		if v, ok := c.Values.([]string); ok && c.Name == column {
			return v
		}
	}
	t.Fatalf("no column %s in %v", column, f)
	return nil
}

// One view without any definition: it is learnt, watched by a chosen window,
// an incident opens, outlives a restart, is snoozed, and ends when its column
// is accepted as it is.
func TestSchedulerWatchesWithoutADefinition(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(3, 4))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at := begin
	minutes := func(n int, mean float64) {
		s.together(func() {
			for range n {
				s.write(at, time.Minute, normals(rng, 250, mean), normals(rng, 250, 5))
				at = at.Add(time.Minute)
			}
		})
	}
	minutes(3, 0)
	d := newScheduler(t, s, reg)
	d.Look(t.Context(), at)
	state := ask(t, d.Monitors, query.Request{Namespace: "test"})
	if got := cells(t, state, "state"); len(got) != 1 || got[0] != "learning 750 of 5,000" {
		t.Fatalf("after 750 rows: %v", got)
	}
	minutes(30, 0)
	d.Look(t.Context(), at.Add(10*time.Second))
	d.Look(t.Context(), at.Add(3*time.Minute))
	if got := cells(t, ask(t, d.Monitors, query.Request{Namespace: "test"}), "state"); got[0] != "watching" {
		t.Fatalf("after %v: %v", at.Sub(begin), got)
	}
	if f := ask(t, s.store.Incidents, week(begin)); f.Rows() != 0 {
		t.Fatalf("incidents without drift: %+v", f)
	}
	minutes(4, 1.5)
	d.Look(t.Context(), at.Add(4*time.Minute))
	open := ask(t, s.store.Incidents, week(begin))
	i := slices.Index(cells(t, open, "detector"), "ks")
	if i < 0 || cells(t, open, "column")[i] != "amount" || cells(t, open, "state")[i] != "open" || !strings.Contains(cells(t, open, "sentence")[i], "amount moved") {
		t.Fatalf("incidents %+v", open)
	}
	id := cells(t, open, "id")[i]

	define(t, reg, drift.ActionKind, "snooze-1", `{"do":"snooze","monitor":"view/user","column":"amount","until":"2026-03-02T00:00:00Z"}`, "a sale")
	d = newScheduler(t, s, reg) // a restart
	minutes(2, 3)
	d.Look(t.Context(), at.Add(4*time.Minute))
	again := ask(t, s.store.Incidents, week(begin))
	i = slices.Index(cells(t, again, "id"), id)
	if i < 0 || cells(t, again, "state")[i] != "snoozed" || cells(t, again, "who")[i] != "ann" || cells(t, again, "why")[i] != "a sale" {
		t.Fatalf("the incident %s after a snooze and a restart: %+v", id, again)
	}

	minutes(28, 3)
	d.Look(t.Context(), at.Add(4*time.Minute))
	define(t, reg, drift.ActionKind, "accept-1", `{"do":"accept","monitor":"view/user","column":"amount"}`, "the sale stays")
	d.Look(t.Context(), at.Add(5*time.Minute))
	minutes(6, 3)
	d.Look(t.Context(), at.Add(10*time.Minute))
	end := ask(t, s.store.Incidents, week(begin))
	if i = slices.Index(cells(t, end, "id"), id); i < 0 || cells(t, end, "state")[i] != "accepted" {
		t.Fatalf("after acceptance: %+v", end)
	}
	if i = slices.Index(cells(t, end, "state"), "open"); i >= 0 && cells(t, end, "column")[i] == "amount" {
		t.Errorf("what was accepted as normal is an incident again: %+v", end)
	}
	replay := ask(t, d.Backtest, query.Request{View: "user", Params: []byte(`{"need":3,"of":3}`)})
	if _, err := d.Backtest(t.Context(), query.Request{View: "user", Params: []byte(`{"nede":3}`)}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a policy with a word that there is not: %v", err)
	}
	if replay.Rows() == 0 || !strings.Contains(replay.Notices[0].Text, "windows") {
		t.Errorf("backtest %+v", replay)
	}

	s.write(begin.Add(35*time.Minute), time.Minute, normals(rng, 50, 0), normals(rng, 50, 5)) // late rows: their minute is counted again
	d.Look(t.Context(), at.Add(11*time.Minute))
	all, kept := stored(t, s.store, "summaries"), ask(t, s.store.Verdicts, week(begin))
	for range 2 { // an hour after it took over, and no more that day
		d.Look(t.Context(), at.Add(90*time.Minute))
	}
	if n := stored(t, s.store, "summaries"); n != all-2 {
		t.Errorf("of %d counts %d are left; one minute of two columns was counted twice", all, n)
	}
	if after := ask(t, s.store.Verdicts, week(begin)); after.Rows() < kept.Rows() {
		t.Errorf("%d of %d verdicts are left", after.Rows(), kept.Rows())
	}
}

// A replay fires as often as its policy counted by hand, of a limit and the volume
// too, and never where the monitor itself would keep its voice down.
func TestBacktestCountsAsItsPolicy(t *testing.T) {
	m := newMinutes(t)
	define(t, m.reg, drift.MonitorKind, "replayed", `{"view":"user","window":"1m","importance":{"amount":1},"constraints":[{"column":"calm","max":50}]}`, "")
	m.add(33, 0)
	for _, run := range [][2]int{{2, 4}, {3, 4}, {1, 4}, {2, 4}} { // drifted and quiet minutes in turns: 33, 34; 39 to 41; 46; 51, 52
		m.add(run[0], 3)
		m.add(run[1], 0)
	}
	m.together(func() { // 57 and 58: four times the rows, one beyond the limit
		for range 2 {
			m.write(m.at(m.n), time.Minute, normals(m.rng, 1000, 0), append(normals(m.rng, 999, 5), 51))
			m.n++
		}
	})
	m.add(3, 0)
	for _, c := range []struct {
		params                  string
		amount, limited, volume int64
	}{
		{`{"need":1,"of":1,"clear":3,"cooldown":"1m"}`, 4, 1, 1},
		{`{"need":2,"of":3,"clear":3,"cooldown":"1m"}`, 3, 1, 1},
		{`{"need":3,"of":3,"clear":3,"cooldown":"1m"}`, 1, 0, 0},
		{`{"need":2,"of":3,"clear":3,"cooldown":"5m"}`, 2, 1, 1}, // the second run comes back three minutes after the first one's end, the last eight after the second's
		{`{"need":2,"of":3,"clear":8,"cooldown":"1m"}`, 1, 1, 1}, // never calm for long
	} {
		f := ask(t, m.sch.Backtest, query.Request{View: "user", From: m.at(26), Params: []byte(c.params)})
		got := map[string]int64{}
		for i, column := range cells(t, f, "column") {
			got[column+" "+cells(t, f, "detector")[i]] = values[int64](t, f, "incidents")[i]
		}
		if got["amount ks"] != c.amount || got["calm constraint"] != c.limited || got["(rows) volume"] != c.volume {
			t.Errorf("%s: %v, want %d of amount, %d of the limit, %d of the volume", c.params, got, c.amount, c.limited, c.volume)
		}
	}
}

// stored is how many rows a table has.
func stored(t *testing.T, st *store.Store, table string) int64 {
	t.Helper()
	f := ask(t, st.Disk, query.Request{})
	i := slices.Index(cells(t, f, "table"), table)
	if i < 0 {
		t.Fatalf("no table %s in %+v", table, f)
	}
	return f.Columns[2].Values.([]int64)[i]
}

func week(from time.Time) query.Request {
	return query.Request{Namespace: "test", From: from, To: from.Add(7 * 24 * time.Hour)}
}

func TestSpecsNameEveryFault(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "want a view or a model", `{"view":"a","window":"90s"}`: "whole minutes", `{"view":"a","colums":["x"]}`: "colums",
		`{"view":"a","reference":{"first":5,"from":"2026-01-01T00:00:00Z"}}`:     "one of first",
		`{"view":"a","cadence":{"by":"6","zone":"Europe/Rome","rows":[1,2]}}`:    "time of day",
		"view: a\nconstraints: [{column: x, values: [1, b, true]}, {column: y}]": "y: want max_missing",
		`{"view":"a","constraints":[{"column":"x","values":[["nested"]]}]}`:      "no text, number or flag",
		"view: a\npolicy: {need: 4, of: 2}":                                      "need of at most of",
	} {
		if _, err := drift.ParseMonitor([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := drift.ParseAction([]byte(`{"do":"snooze","monitor":"a"}`)); err == nil || !strings.Contains(err.Error(), "until") {
		t.Errorf("a snooze without an end: %v", err)
	}
}

// ask asks for one frame.
func ask(t *testing.T, f func(context.Context, query.Request) ([]query.Frame, error), r query.Request) query.Frame {
	t.Helper()
	frames, err := f(t.Context(), r)
	if err != nil || len(frames) == 0 {
		t.Fatalf("%+v: %d frames, %v", r, len(frames), err)
	}
	return frames[0]
}

// A reference set from rows that the stream never had: windows are held against
// it from the first one on.
func TestMonitorStandsOnAReferenceFromElsewhere(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(5, 6))
	sample := normals(rng, 10_000, 0)
	g, err := dist.NumericGrid(sample, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var windows []*dist.Summary
	for part := range slices.Chunk(sample, 250) {
		windows = append(windows, dist.Summarize(g, part))
	}
	b, err := drift.BaselineOf(g, windows)
	if err != nil {
		t.Fatal(err)
	}
	if err := drift.SaveReference(t.Context(), s.store, "test", "train", &drift.FileReference{Columns: map[string]*drift.Baseline{"amount": b}}, 1); err != nil {
		t.Fatal(err)
	}
	broken := &drift.FileReference{Columns: map[string]*drift.Baseline{"amount": {Grid: g}}}
	if err := drift.SaveReference(t.Context(), s.store, "test", "train", broken, 2); err == nil {
		t.Error("a reference without its counts was taken")
	}
	define(t, reg, drift.MonitorKind, "by file", `{"view":"user","window":"1m","reference":{"file":"train"}}`, "")
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s.together(func() {
		for i, mean := range []float64{0, 0, 0, 2, 2, 2} {
			s.write(begin.Add(time.Duration(i)*time.Minute), time.Minute, normals(rng, 250, mean), normals(rng, 250, 5))
		}
	})
	d := newScheduler(t, s, reg)
	for _, after := range []time.Duration{7 * time.Minute, 10 * time.Minute} {
		d.Look(t.Context(), begin.Add(after))
	}
	verdicts := ask(t, s.store.Verdicts, week(begin))
	var drifted []bool
	for _, c := range verdicts.Columns {
		if c.Name == "drifted" {
			drifted = c.Values.([]bool)
		}
	}
	judged, moved := 0, 0
	for i, detector := range cells(t, verdicts, "detector") {
		if detector == "ks" && cells(t, verdicts, "column")[i] == "amount" {
			judged++
			if drifted[i] {
				moved++
			}
		}
	}
	if judged != 6 || moved != 3 {
		t.Errorf("%d windows judged, %d moved; want 6 and 3: %+v", judged, moved, ask(t, d.Monitors, query.Request{Namespace: "test"}))
	}
}
