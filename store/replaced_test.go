package store_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// derivedAgain are windows that are counted, judged and measured again and
// again, with a count of what is stored.
type derivedAgain struct {
	t      *testing.T
	s      *store.Store
	sub    store.Subject
	begin  time.Time
	grids  []*dist.Grid
	rng    *rand.Rand
	stored map[string][]int // by what a row is about: the revisions, ascending
	marks  map[string]bool  // about and revision of verdicts with which an incident began
}

func newDerivedAgain(t *testing.T) *derivedAgain {
	d := &derivedAgain{t: t, s: open(t), sub: store.Subject{Kind: event.Features, TableID: 7}, begin: time.UnixMicro(minute).UTC(),
		rng: rand.New(rand.NewPCG(7, 7)), stored: map[string][]int{}, marks: map[string]bool{}}
	for i := range 2 {
		g, err := dist.NumericGrid([]float64{1, 2, 3, float64(10 + i)}, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		d.grids = append(d.grids, g)
	}
	return d
}

func (d *derivedAgain) at(revision int) time.Time {
	return d.begin.Add(time.Duration(revision) * time.Hour)
}

func (d *derivedAgain) window(i int) time.Time {
	return d.begin.Add(time.Duration(i) * 45 * time.Minute) // 40 of them lie over two days
}

func (d *derivedAgain) note(revision int, about ...any) string {
	key := fmt.Sprint(about...)
	d.stored[key] = append(d.stored[key], revision)
	return key
}

func (d *derivedAgain) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// save counts some windows in two lengths and on two grids, judges some, and
// measures one.
func (d *derivedAgain) save(revision int) {
	u := uint64(d.at(revision).UnixMicro())
	for _, length := range []time.Duration{time.Minute, 15 * time.Minute} {
		var ws []store.WindowSummary
		for i := range 40 {
			for k, g := range d.grids {
				if d.rng.IntN(3) == 0 {
					ws = append(ws, store.WindowSummary{Column: "x", Start: d.window(i), Summary: dist.Summarize(g, []float64{float64(revision), 2})})
					d.note(revision, "summary", length, i, k)
				}
			}
		}
		d.must(d.s.SaveSummaries(d.t.Context(), d.sub, ws, length, u))
	}
	var vs []store.Verdict
	var segments []store.SegmentVerdict
	for i := range 40 {
		if d.rng.IntN(2) == 0 {
			continue
		}
		v := store.Verdict{Namespace: "default", Monitor: "m", Subject: "v", Column: "x", Detector: fmt.Sprint("ks", i%10), Start: d.window(i), End: d.window(i + 1),
			Effect: float64(revision) + float64(i)/100, Floor: 1, Change: "same", Severity: "warning"}
		segments = append(segments, store.SegmentVerdict{Verdict: v, Segment: "c=a"})
		d.note(revision, "segment", i)
		if key := d.note(revision, "verdict", i); i%10 == 3 && len(d.stored[key]) == 1 { // a window is judged for its incident once
			v.Change = "opened"
			d.marks[fmt.Sprint(key, revision)] = true
		}
		vs = append(vs, v)
	}
	d.must(d.s.SaveVerdicts(d.t.Context(), d.sub, vs, u))
	d.must(d.s.SaveSegmentVerdicts(d.t.Context(), segments, u))
	d.must(d.s.SavePerformance(d.t.Context(), "monitor", []store.Performance{{Namespace: "default", Model: "v", Metric: "accuracy", Start: d.begin, End: d.at(1), Value: float64(revision)}}, u))
	d.note(revision, "performance")
}

// counted is how many rows were stored, and how many of them may go: those that
// are replaced, older than a revision, and began no incident.
func (d *derivedAgain) counted(young int) (all, gone int) {
	for key, revisions := range d.stored {
		for _, r := range revisions {
			all++
			if r < revisions[len(revisions)-1] && r < young && !d.marks[fmt.Sprint(key, r)] {
				gone++
			}
		}
	}
	return all, gone
}

func (d *derivedAgain) held() (rows int) {
	d.t.Helper()
	for _, table := range []string{"summaries", "verdicts", "segment_verdicts", "performance"} {
		n, err := strconv.Atoi(text(d.t, d.s, "SELECT count() FROM "+table))
		d.must(err)
		rows += n
	}
	return rows
}

// answers are all that is read of these tables.
func (d *derivedAgain) answers() (out []any) {
	d.t.Helper()
	for _, length := range []time.Duration{time.Minute, 15 * time.Minute} {
		ws, err := d.s.SavedSummaries(d.t.Context(), d.sub, d.begin, d.begin.Add(72*time.Hour), length)
		d.must(err)
		out = append(out, ws)
	}
	r := query.Request{Namespace: "default", Model: "v", From: d.begin, To: d.begin.Add(72 * time.Hour), Limit: 1000}
	for i, ask := range []func(query.Request) ([]query.Frame, error){
		func(r query.Request) ([]query.Frame, error) { return d.s.Verdicts(d.t.Context(), r) },
		func(r query.Request) ([]query.Frame, error) { return d.s.SegmentDrift(d.t.Context(), r) },
		func(r query.Request) ([]query.Frame, error) { return d.s.Performance(d.t.Context(), r) },
		func(r query.Request) ([]query.Frame, error) { return d.s.DriftState(d.t.Context(), r) },
	} {
		frames, err := ask(r)
		if d.must(err); frames[0].Rows() == 0 {
			d.t.Fatalf("question %d has no answer: %v", i, frames)
		}
		out = append(out, frames)
	}
	return out
}

// What is answered is the same before and after the replaced revisions went, and
// of them those stay that are young, and those that say when an incident began.
func TestReplacedRevisionsGo(t *testing.T) {
	const revisions, young = 6, 4
	d := newDerivedAgain(t)
	for r := range revisions {
		d.save(r)
	}
	before, all, gone := d.answers(), 0, 0
	if all, gone = d.counted(young); d.held() != all || gone < 50 || len(d.marks) < 3 {
		t.Fatalf("%d rows, stored %d, of which %d are to go; %d incidents", d.held(), all, gone, len(d.marks))
	}
	if n, err := d.s.DropReplaced(t.Context(), d.at(revisions), d.at(young)); err != nil || n != 0 {
		t.Errorf("nothing was stored since, yet %d rows went (%v)", n, err)
	}
	for i, want := range []int{gone, 0} { // a second time there is nothing to do
		n, err := d.s.DropReplaced(t.Context(), time.Time{}, d.at(young))
		if err != nil || int(n) != want || d.held() != all-gone {
			t.Fatalf("time %d: %d rows went, want %d; %d are left of %d (%v)", i+1, n, want, d.held(), all, err)
		}
	}
	if after := d.answers(); !reflect.DeepEqual(after, before) {
		t.Errorf("answers changed:\n%v\n%v", after, before)
	}
}

// TestTwoMonitorsMeasureOneModel: the same window at the same moment, each with a
// metric of its own, and neither hides what the other one says.
func TestTwoMonitorsMeasureOneModel(t *testing.T) {
	d := newDerivedAgain(t)
	measured := func(metrics ...string) (ps []store.Performance) {
		for _, m := range metrics {
			ps = append(ps, store.Performance{Namespace: "default", Model: "v", Metric: m, Start: d.begin, End: d.at(1), Value: 0.5})
		}
		return ps
	}
	d.must(d.s.SavePerformance(t.Context(), "money", measured("accuracy", "business_value"), 10))
	d.must(d.s.SavePerformance(t.Context(), "plain", measured("accuracy", "f1"), 10))
	d.must(d.s.SavePerformance(t.Context(), "money", measured("accuracy", "business_value"), 20))
	frames, err := d.s.Performance(t.Context(), query.Request{Namespace: "default", Model: "v", From: d.begin, To: d.at(10)})
	d.must(err)
	var told []string
	for _, f := range frames {
		told = append(told, f.Name)
	}
	if slices.Sort(told); !slices.Equal(told, []string{"accuracy", "business_value", "f1"}) {
		t.Errorf("told are %v", told)
	}
}
