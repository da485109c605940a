package store_test

import (
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// What is saved comes back, and a higher revision replaces it.
func TestSummariesAndGridsKeepTheNewestRevision(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	old, _ := dist.EdgeGrid([]float64{1, 2})
	g, _ := dist.NumericGrid([]float64{1, 2, 3, 0.1}, dist.GridConfig{})
	start := time.UnixMicro(minute).UTC()
	for revision, x := range []float64{1, 2, 2.5} {
		w := store.WindowSummary{Column: "x", Start: start, Summary: dist.Summarize(g, []float64{x, 9})}
		if err := s.SaveSummaries(t.Context(), sub, []store.WindowSummary{w}, time.Minute, uint64(revision+1)); err != nil {
			t.Fatal(err)
		}
	}
	for revision, grid := range []*dist.Grid{old, g} {
		if err := s.SaveGrids(t.Context(), sub, []store.SummaryColumn{{Name: "x", Grid: grid}}, uint64(revision+1)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.SavedSummaries(t.Context(), sub, start, start.Add(time.Hour), time.Minute)
	if err != nil || len(got) != 1 || got[0].Summary.Sum != 11.5 || got[0].Summary.GridID != g.ID() {
		t.Fatalf("saved summaries %+v (%v)", got, err)
	}
	if grids, err := s.Grids(t.Context(), sub); err != nil || len(grids) != 1 || grids[0].Grid.ID() != g.ID() {
		t.Fatalf("grids %+v (%v)", grids, err)
	}
	if other, err := s.SavedSummaries(t.Context(), sub, start, start.Add(time.Hour), time.Hour); err != nil || len(other) != 0 {
		t.Fatalf("windows of another length %+v (%v)", other, err)
	}
}

func TestDirtyMinutesAreAskedForOnce(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	row := event.LedgerRow{Topic: topic, To: 9, Records: 10, Windows: []event.DirtyWindow{
		{Kind: event.Features, TableID: 7, Minute: 29_000_000}, {Kind: event.Features, TableID: 7, Minute: 29_000_003},
		{Kind: event.Labels, TableID: 7, Minute: 29_000_005}, {Kind: event.Features, TableID: 8, Minute: 29_000_006}}}
	if err := s.InsertLedger(t.Context(), "dirty", row); err != nil {
		t.Fatal(err)
	}
	minutes, imported, until, err := s.DirtyMinutes(t.Context(), sub, time.Unix(0, 0))
	if err != nil || len(minutes) != 2 || minutes[1].Unix() != 29_000_003*60 || len(imported) != 0 {
		t.Fatalf("dirty minutes %v, imported %v (%v)", minutes, imported, err)
	}
	if again, _, _, err := s.DirtyMinutes(t.Context(), sub, until); err != nil || len(again) != 0 {
		t.Fatalf("asked again: %v (%v)", again, err)
	}
	row.Topic, row.Windows = event.ImportTopicPrefix("test")+"0123", row.Windows[:1]
	if err := s.InsertLedger(t.Context(), "imported", row); err != nil {
		t.Fatal(err)
	}
	if _, imported, _, err := s.DirtyMinutes(t.Context(), sub, time.Unix(0, 0)); err != nil || len(imported) != 1 || imported[0].Unix() != 29_000_000*60 {
		t.Fatalf("imported minutes %v (%v)", imported, err)
	}
}

func TestVerdictsShowEachWindowOnceAtItsNewestRevision(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	start := time.UnixMicro(minute).UTC()
	v := store.Verdict{Namespace: "test", Monitor: "m", Subject: "view7", Column: "x", Detector: "ks", Start: start, End: start.Add(time.Hour),
		Effect: 0.1, Floor: 0.2, P: 0.5, Adjusted: 0.5, Severity: "quiet", Change: "same", Sentence: "x is as it was", Rows: 5}
	first := v
	v.Effect, v.Drifted, v.Severity = 0.6, true, "warning"
	for revision, x := range []store.Verdict{first, v} {
		if err := s.SaveVerdicts(t.Context(), sub, []store.Verdict{x}, uint64(revision+1)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(ns, view string) query.Frame {
		frames, err := s.Verdicts(t.Context(), query.Request{Namespace: ns, View: view, From: start, To: start.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return frames[0]
	}
	f := ask("test", "view7")
	if f.Rows() != 1 || column(t, f, "effect").Values.([]float64)[0] != 0.6 || !column(t, f, "drifted").Values.([]bool)[0] {
		t.Fatalf("verdicts %+v", f)
	}
	for _, c := range []struct {
		namespace, view string
		rows            int
	}{{"other", "view7", 0}, {"test", "view8", 0}, {"test", "", 1}} {
		if f := ask(c.namespace, c.view); f.Rows() != c.rows {
			t.Errorf("%+v: %d verdicts", c, f.Rows())
		}
	}
}

// One tick judges a window's distributions, and then its rows' arrival: two
// saves about one window at one revision, which both count. A repeat of either
// counts once.
func TestTwoSavesOfOneTickAreBothKept(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	start := time.UnixMicro(minute).UTC()
	save := func(column, detector string) {
		v := store.Verdict{Namespace: "test", Monitor: "m", Subject: "view7", Column: column, Detector: detector, Start: start, End: start.Add(time.Hour), P: 1, Adjusted: 1}
		if err := s.SaveVerdicts(t.Context(), sub, []store.Verdict{v}, 1); err != nil {
			t.Fatal(err)
		}
	}
	save("x", "ks")
	save("(rows)", "freshness")
	save("x", "ks")
	frames, err := s.Verdicts(t.Context(), query.Request{Namespace: "test", View: "view7", From: start, To: start.Add(time.Hour)})
	if err != nil || frames[0].Rows() != 2 {
		t.Fatalf("%d verdicts, want 2 (%v)", frames[0].Rows(), err)
	}
}
