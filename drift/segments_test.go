package drift_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// newChurn opens a store with the table of the declared model.
func newChurn(t *testing.T, spec string) (*churn, *stream) {
	t.Helper()
	s, reg := newStream(t), openRegistry(t)
	define(t, reg, event.ModelKind, "churn", spec, "")
	d, _ := reg.State().Get(event.ModelKind, "test", "churn")
	catalog, err := event.NewCatalog([]event.CatalogEntry{{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Prepare(t.Context(), catalog.Schemas()); err != nil {
		t.Fatal(err)
	}
	return &churn{t: t, store: s.store, catalog: catalog, registry: reg}, s
}

// minutes writes predictions of successive minutes, 250 each, that are cut into
// ten parts, a to j.
func (c *churn) minutes(rng *rand.Rand, from time.Time, n int, x func(part byte) float64) {
	c.t.Helper()
	const aMinute = 250
	var texts []string
	for i := range n * aMinute {
		at, part := from.Add(time.Duration(i)*time.Minute/aMinute), 'a'+byte(i%10)
		texts = append(texts, fmt.Sprintf(`{"model":"churn","version":"v1","id":"p%d-%d","event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f},"segments":{"part":"%c"}}`,
			c.offset, i, at.Format(time.RFC3339Nano), rng.NormFloat64()+x(part), rng.Float64(), part))
	}
	c.write(event.Predictions, texts)
}

// One part in ten moves while all rows together do not: its own incident names
// it, no other part is told of, a restart forgets nothing, late rows judge it
// again, and what is accepted is news no longer: until a time, and then for good.
func TestSegmentDriftsAlone(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(11, 12))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	calm := func(byte) float64 { return 0 }
	moved := func(part byte) float64 { return map[bool]float64{true: 1}[part == 'c'] }
	at := func(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }
	c.minutes(rng, begin, 60, calm)
	sch := newScheduler(t, s, c.registry)
	sch.Look(t.Context(), at(61))
	r := query.Request{Namespace: "test", Model: "churn", From: begin, To: at(300)}
	if quiet := ask(t, s.store.SegmentDrift, r); quiet.Rows() != 10*2*2 || slices.Contains(flags(t, quiet, "drifted"), true) { // parts × columns × questions of one window
		t.Errorf("before anything moved: %d rows %+v", quiet.Rows(), quiet)
	}
	sch = newScheduler(t, s, c.registry) // a restart
	c.minutes(rng, at(60), 45, moved)
	sch.Look(t.Context(), at(106))
	sch.Look(t.Context(), at(112))
	found := ask(t, s.store.SegmentDrift, r)
	segments, columns, drifted, others := cells(t, found, "segment"), cells(t, found, "column"), 0, 0
	for i, is := range flags(t, found, "drifted") {
		switch {
		case is && segments[i] == "part=c" && columns[i] == "x":
			drifted++
		case is:
			others++
		}
	}
	if drifted < 2 || others > 1 || !strings.Contains(cells(t, found, "sentence")[0], "x of part=c moved") {
		t.Errorf("%d windows of the part drifted, %d of others: %q", drifted, others, cells(t, found, "sentence")[0])
	}
	if names := told(t, s.store, r); len(names) != 1 || names["x [part=c]"] != "open" {
		t.Fatalf("incidents %v", names)
	}

	before := ask(t, s.store.SegmentDrift, query.Request{Namespace: "test", Model: "churn", From: at(60), To: at(61), Segment: map[string]string{"part": "c"}, Columns: []string{"x"}, Detector: "ks"})
	c.minutes(rng, at(62), 1, moved) // late
	sch.Look(t.Context(), at(113))
	again := ask(t, s.store.SegmentDrift, query.Request{Namespace: "test", Model: "churn", From: at(60), To: at(61), Segment: map[string]string{"part": "c"}, Columns: []string{"x"}, Detector: "ks"})
	if was, is := counts(t, before, "rows"), counts(t, again, "rows"); len(was) != 1 || len(is) != 1 || is[0] != was[0]+25 {
		t.Errorf("late rows: %v became %v", was, is)
	}
	before60 := counts(t, again, "rows")[0]

	accept := func(name, until string) {
		define(t, c.registry, "IncidentAction", name, `{"do":"accept","monitor":"model/churn","column":"x [part=c]"`+until+`}`, "the part is so now")
	}
	later := func(minute int) query.Frame {
		return ask(t, s.store.SegmentDrift, query.Request{Namespace: "test", Model: "churn", From: at(minute), To: at(minute + 14), Segment: map[string]string{"part": "c"}, Columns: []string{"x"}, Detector: "ks"})
	}
	accept("accept-1", `,"until":"2026-03-01T02:30:00Z"`) // minute 150
	c.minutes(rng, at(105), 30, moved)
	sch = newScheduler(t, s, c.registry) // a restart
	for _, m := range []int{136, 142} {
		sch.Look(t.Context(), at(m))
	}
	if f := later(120); f.Rows() != 1 || flags(t, f, "drifted")[0] || !strings.Contains(cells(t, f, "reference")[0], "accepted by ann until 2026-03-01T02:30:00Z: the part is so now") {
		t.Errorf("while it is accepted: %+v", f)
	}
	if names := told(t, s.store, r); len(names) != 1 || names["x [part=c]"] != "accepted" {
		t.Errorf("while it is accepted: incidents %v", names)
	}
	c.minutes(rng, at(135), 45, moved)
	for _, m := range []int{181, 187} {
		sch.Look(t.Context(), at(m))
	}
	if f := later(150); f.Rows() != 1 || !flags(t, f, "drifted")[0] || !strings.Contains(cells(t, f, "reference")[0], "its own past") {
		t.Errorf("once that is over: %+v", f)
	}
	ofPart := func() (out []string) {
		f := ask(t, s.store.Incidents, r)
		for i, column := range cells(t, f, "column") {
			if column == "x [part=c]" {
				out = append(out, cells(t, f, "state")[i]+": "+cells(t, f, "sentence")[i])
			}
		}
		slices.Sort(out)
		return out
	}
	if is := ofPart(); len(is) != 2 || !strings.HasPrefix(is[0], "lapsed: ") || !strings.HasPrefix(is[1], "open: ") || !strings.HasSuffix(is[1], "; what was accepted by ann until 2026-03-01T02:30:00Z: the part is so now, is normal no longer") {
		t.Errorf("once that is over: %q", is)
	}

	accept("accept-2", "")
	c.minutes(rng, at(180), 30, moved)
	for _, m := range []int{211, 217} {
		sch.Look(t.Context(), at(m))
	}
	if f := later(195); f.Rows() != 1 || flags(t, f, "drifted")[0] {
		t.Errorf("accepted for good: %+v", f)
	}
	if is := ofPart(); len(is) != 2 || !strings.HasPrefix(is[0], "accepted: ") || !strings.HasPrefix(is[1], "lapsed: ") {
		t.Errorf("accepted for good: %q", is)
	}
	c.minutes(rng, at(63), 1, moved) // late, of a time before: what was said of it stays
	sch.Look(t.Context(), at(218))
	if is := counts(t, later(60), "rows"); len(is) != 1 || is[0] != before60 {
		t.Errorf("late rows of a time before it was accepted for good: %v, want %v", is, before60)
	}
}

// told are the states of incidents about distributions, by column.
func told(t *testing.T, st *store.Store, r query.Request) map[string]string {
	t.Helper()
	f, out := ask(t, st.Incidents, r), map[string]string{}
	for i, detector := range cells(t, f, "detector") {
		if detector == "ks" || detector == "missing_rate" {
			out[cells(t, f, "column")[i]] = cells(t, f, "state")[i]
		}
	}
	return out
}

func flags(t *testing.T, f query.Frame, column string) []bool {
	t.Helper()
	return values[bool](t, f, column)
}

func counts(t *testing.T, f query.Frame, column string) []uint64 {
	t.Helper()
	return values[uint64](t, f, column)
}

func values[T any](t *testing.T, f query.Frame, column string) []T {
	t.Helper()
	for _, c := range f.Columns {
		if v, ok := c.Values.([]T); ok && c.Name == column {
			return v
		}
	}
	t.Fatalf("no column %s in %v", column, f)
	return nil
}

// A budget leaves dimensions out visibly, and a dimension that a view does not
// have is said so.
func TestSegmentBudget(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(13, 14))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	define(t, c.registry, "Monitor", "few", `{"model":"churn","segments":["part","version"],"budget":8}`, "")
	c.minutes(rng, begin, 60, func(byte) float64 { return 0 })
	sch := newScheduler(t, s, c.registry)
	sch.Look(t.Context(), begin.Add(61*time.Minute))
	f := ask(t, s.store.SegmentDrift, query.Request{Namespace: "test", Model: "churn", From: begin, To: begin.Add(2 * time.Hour)})
	segments := cells(t, f, "segment")
	slices.Sort(segments)
	if got := slices.Compact(segments); !slices.Equal(got, []string{"part=OTHER", "part=a", "part=b", "part=c"}) { // two columns × four
		t.Errorf("segments %q", got)
	}
	preview := ask(t, sch.Preview, query.Request{Namespace: "test", Model: "churn"})
	told := ""
	for _, n := range preview.Notices {
		told += n.Text + "\n"
	}
	if !strings.Contains(told, "part") || !strings.Contains(told, "the dimension version is left out: the budget of 8") {
		t.Errorf("the preview says %q", told)
	}
}
