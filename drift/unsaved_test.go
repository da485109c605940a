package drift_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Verdicts that could not be stored are stored by the next tick, and by the
// monitor of another process where this one ends before it: what is kept, and
// the one incident, are those of a monitor to which nothing happened.
func TestVerdictsThatCouldNotBeStored(t *testing.T) {
	s, rng := newStream(t), rand.New(rand.NewPCG(4, 4))
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const windows, rows = 30, 60
	length := 10 * time.Minute
	end := start.Add(windows * length)
	s.together(func() {
		for i := range windows + 4 {
			mean := 0.0
			if i >= windows+1 {
				mean = 2
			}
			s.write(start.Add(length*time.Duration(i)), length, normals(rng, rows, mean), normals(rng, rows, 5))
		}
	})
	begin := func(name string) *drift.Monitor {
		cfg := drift.DefaultMonitorConfig()
		cfg.Namespace, cfg.Name, cfg.Subject = "test", name, "user"
		cfg.Table, cfg.Columns = store.Subject{Kind: event.Features, TableID: 7}, drift.Numeric("amount", "calm")
		cfg.From, cfg.To, cfg.Window, cfg.Season = start, end, length, 0
		m, err := drift.NewMonitor(cfg, s.store)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	now := end.Add(4*length + 5*time.Minute)
	tick := func(m *drift.Monitor) {
		t.Helper()
		if _, err := m.Tick(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		t.Helper()
		if err := s.store.Embedded().Exec(t.Context(), chdb.Statement{SQL: "RENAME TABLE " + from + " TO " + to}); err != nil {
			t.Fatal(err)
		}
	}
	whole, mended, gone := begin("whole"), begin("mended"), begin("gone")
	tick(whole)
	rename("verdicts", "away")
	for _, m := range []*drift.Monitor{mended, gone} {
		if _, err := m.Tick(t.Context(), now); err == nil {
			t.Fatal("verdicts were stored in a table that is not there")
		}
	}
	rename("away", "verdicts")
	now = now.Add(10 * time.Second)
	tick(mended)
	tick(begin("gone"))
	want := saidBy(t, s.store, "whole", start, now)
	if len(want) < 20 {
		t.Fatalf("%d verdicts: %v", len(want), want)
	}
	for _, name := range []string{"mended", "gone"} {
		if got := saidBy(t, s.store, name, start, now); !slices.Equal(got, want) {
			t.Errorf("%s keeps\n%v\nwant\n%v", name, got, want)
		}
	}
	state := ask(t, s.store.DriftState, query.Request{Namespace: "test", From: start, To: now})
	open := map[string]int{}
	for i, name := range cells(t, state, "monitor") {
		if state.Columns[4].Values.([]float64)[i] > 0 {
			open[name]++
		}
	}
	if !maps.Equal(open, map[string]int{"gone": 1, "mended": 1, "whole": 1}) {
		t.Errorf("panels see incidents of %v, want one of each: %+v", open, state)
	}
	incidents := cells(t, ask(t, s.store.Incidents, week(start)), "monitor")
	if slices.Sort(incidents); !slices.Equal(incidents, []string{"gone", "mended", "whole"}) {
		t.Errorf("incidents of %v, want one of each", incidents)
	}
}

// saidBy is what is stored of a monitor's windows.
func saidBy(t *testing.T, st *store.Store, monitor string, from, to time.Time) (out []string) {
	t.Helper()
	f := ask(t, st.Verdicts, query.Request{Namespace: "test", View: "user", From: from, To: to, Limit: 10_000})
	at := func(name string) any {
		return f.Columns[slices.IndexFunc(f.Columns, func(c query.Column) bool { return c.Name == name })].Values
	}
	for i, name := range at("monitor").([]string) {
		if name == monitor {
			out = append(out, fmt.Sprint(at("time").([]time.Time)[i].Unix(), at("column").([]string)[i], at("detector").([]string)[i], at("effect").([]float64)[i], at("drifted").([]bool)[i]))
		}
	}
	slices.Sort(out)
	return out
}
