package store_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// Windows are counted again and again, in two lengths and on two grids, and
// judged and measured as often: what is answered is the same before and after
// the replaced revisions went, and of them those stay that are young.
func TestReplacedRevisionsGo(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	begin, rng := time.UnixMicro(minute).UTC(), rand.New(rand.NewPCG(7, 7))
	var grids []*dist.Grid
	for i := range 2 {
		g, err := dist.NumericGrid([]float64{1, 2, 3, float64(10 + i)}, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		grids = append(grids, g)
	}
	const revisions, windows = 6, 40
	at := func(revision int) time.Time { return begin.Add(time.Duration(revision) * time.Hour) }
	stored, newest := map[string][]int{}, map[string]int{} // what the tables hold, counted here
	for revision := range revisions {
		u := uint64(at(revision).UnixMicro())
		for _, length := range []time.Duration{time.Minute, 15 * time.Minute} {
			var ws []store.WindowSummary
			for i := range windows {
				for k, g := range grids {
					if rng.IntN(3) > 0 { // some are counted in some revisions
						continue
					}
					start := begin.Add(time.Duration(i) * 45 * time.Minute) // over two days
					ws = append(ws, store.WindowSummary{Column: "x", Start: start, Summary: dist.Summarize(g, []float64{float64(revision), 2})})
					key := fmt.Sprint("summary", length, i, k)
					stored[key], newest[key] = append(stored[key], revision), revision
				}
			}
			if err := s.SaveSummaries(t.Context(), sub, ws, length, u); err != nil {
				t.Fatal(err)
			}
		}
		var vs []store.Verdict
		var segments []store.SegmentVerdict
		for i := range windows {
			if rng.IntN(2) > 0 {
				continue
			}
			start := begin.Add(time.Duration(i) * 45 * time.Minute)
			v := store.Verdict{Namespace: "default", Monitor: "m", Subject: "v", Column: "x", Detector: "ks", Start: start, End: start.Add(time.Hour), Effect: float64(revision) + float64(i)/100, Floor: 1}
			vs, segments = append(vs, v), append(segments, store.SegmentVerdict{Verdict: v, Segment: "c=a"})
			for _, table := range []string{"verdict", "segment"} {
				key := fmt.Sprint(table, i)
				stored[key], newest[key] = append(stored[key], revision), revision
			}
		}
		p := store.Performance{Namespace: "default", Model: "v", Metric: "accuracy", Start: begin, End: begin.Add(time.Hour), Value: float64(revision)}
		stored["performance"], newest["performance"] = append(stored["performance"], revision), revision
		if err := s.SaveVerdicts(t.Context(), sub, vs, u); err != nil {
			t.Fatal(err)
		}
		if err := s.SaveSegmentVerdicts(t.Context(), segments, u); err != nil {
			t.Fatal(err)
		}
		if err := s.SavePerformance(t.Context(), []store.Performance{p}, u); err != nil {
			t.Fatal(err)
		}
	}
	const young = 4 // revisions from this one on are too young to go
	old, gone := 0, 0
	for key, all := range stored {
		for _, r := range all {
			old++
			if r < newest[key] && r < young {
				gone++
			}
		}
	}
	held := func() (rows int) {
		for _, table := range []string{"summaries", "verdicts", "segment_verdicts", "performance"} {
			n, err := strconv.Atoi(text(t, s, "SELECT count() FROM "+table))
			if err != nil {
				t.Fatal(err)
			}
			rows += n
		}
		return rows
	}
	answers := func() (out []any) {
		for _, length := range []time.Duration{time.Minute, 15 * time.Minute} {
			ws, err := s.SavedSummaries(t.Context(), sub, begin, begin.Add(72*time.Hour), length)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, ws)
		}
		for _, ask := range []func() ([]query.Frame, error){
			func() ([]query.Frame, error) { return s.Verdicts(t.Context(), about(begin, "")) },
			func() ([]query.Frame, error) { return s.SegmentDrift(t.Context(), about(begin, "v")) },
			func() ([]query.Frame, error) { return s.Performance(t.Context(), about(begin, "v")) },
		} {
			frames, err := ask()
			if err != nil || frames[0].Rows() == 0 {
				t.Fatalf("%v (%v)", frames, err)
			}
			out = append(out, frames)
		}
		return out
	}
	before := answers()
	if n := held(); n != old || gone < 50 {
		t.Fatalf("%d rows, stored %d, of which %d are to go", n, old, gone)
	}
	if n, err := s.DropReplaced(t.Context(), at(revisions), at(young)); err != nil || n != 0 {
		t.Errorf("nothing was stored since, yet %d rows went (%v)", n, err)
	}
	for i, want := range []int{gone, 0} { // a second time there is nothing to do
		n, err := s.DropReplaced(t.Context(), time.Time{}, at(young))
		if err != nil || int(n) != want || held() != old-gone {
			t.Fatalf("time %d: %d rows went, want %d; %d are left of %d (%v)", i+1, n, want, held(), old, err)
		}
	}
	if after := answers(); !reflect.DeepEqual(after, before) {
		t.Errorf("answers changed:\n%v\n%v", after, before)
	}
}

func about(begin time.Time, model string) query.Request {
	return query.Request{Namespace: "default", Model: model, From: begin, To: begin.Add(72 * time.Hour), Limit: 1000}
}
