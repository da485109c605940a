package drift_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// A stated range is learnt when all of it is there: not in the middle of an
// import, whatever came of it first, and not before its time is over.
func TestARangeIsLearntWhenItIsThere(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	s.topic = event.ImportTopicPrefix("test") + "00"
	rng := rand.New(rand.NewPCG(6, 7))
	now := time.Now().UTC().Truncate(10 * time.Minute)
	begin, length := now.Add(-48*time.Hour), 10*time.Minute
	to := begin.Add(30 * length)
	define(t, reg, drift.MonitorKind, "history", fmt.Sprintf(`{"view":"user","window":"10m","reference":{"from":%q,"to":%q}}`, begin.Format(time.RFC3339), to.Format(time.RFC3339)), "")
	d := newScheduler(t, s, reg)
	look := func(at time.Time, want string) {
		t.Helper()
		d.Look(t.Context(), at)
		if got := cells(t, ask(t, d.Monitors, query.Request{Namespace: "test"}), "state")[0]; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	write := func(from, windows int) {
		s.together(func() {
			for i := range windows {
				s.write(begin.Add(length*time.Duration(from+i)), length, normals(rng, 100, 0), normals(rng, 100, 5))
			}
		})
	}
	look(to.Add(-time.Hour), "0 rows of the reference are there, it is over at")
	write(20, 14) // the newer half first, and rows behind the range
	look(time.Now(), "learning: 1,000 rows of the reference are there, and it waits until none has come for 15s")
	write(0, 20)
	look(time.Now(), "learning: 3,000 rows")
	f := ask(t, s.store.Verdicts, query.Request{Namespace: "test", View: "user", From: now.Add(-time.Hour * 24), To: now.Add(24 * time.Hour)})
	if got := cells(t, f, "sentence")[0]; !strings.Contains(got, "user: learning: 3,000 rows") {
		t.Errorf("the verdict is %q", got)
	}
	look(time.Now().Add(20*time.Second), "watching")
	p := ask(t, d.Preview, query.Request{View: "user"})
	if rows := values[uint64](t, p, "reference_rows"); rows[0] != 3000 {
		t.Errorf("learnt from %d rows, want 3,000", rows[0])
	}
	for i, floor := range values[float64](t, p, "floor") {
		typical, smallest := values[float64](t, p, "typical_distance")[i], values[float64](t, p, "smallest_detectable")[i]
		alarms := values[float64](t, p, "drifted_windows_a_day_at_most")[i]
		if typical <= 0 || typical >= floor || smallest < floor || smallest > 0.5 || alarms != 0.01*144/2 { // ten minutes, two columns
			t.Errorf("of equal windows: typically %v away, the floor %v, at least %v can be told, %v a day", typical, floor, smallest, alarms)
		}
	}
}

// A column that comes when the others are learnt is learnt from its own first
// windows, also when it came while nobody looked, and is then held like they are.
func TestANewColumnIsLearntInItsTurn(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(6, 8))
	begin, length := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), 10*time.Minute
	at := begin
	extra := func(windows int, mean float64) {
		for range windows * 100 {
			xs := []float64{rng.NormFloat64(), rng.NormFloat64(), mean + rng.NormFloat64()}
			s.row(at, func(c *event.Column, column int) {
				c.Nulls, c.Float64s = append(c.Nulls, 0), append(c.Float64s, xs[column])
			})
			at = at.Add(length / 100)
		}
		s.flush()
	}
	extra(26, 0)
	define(t, reg, drift.MonitorKind, "grown", fmt.Sprintf(`{"view":"user","window":"10m","reference":{"from":%q,"to":%q}}`, begin.Format(time.RFC3339), at.Format(time.RFC3339)), "")
	d := newScheduler(t, s, reg)
	extra(1, 0)
	d.Look(t.Context(), at.Add(10*time.Minute))
	columns := append(slices.Clone(s.schema.Values()), event.Field{Name: "extra", Type: event.ColumnType{Elem: event.Float64}})
	grown := event.NewSchema(event.Features, "test", "user", 7, s.schema.Keys(), columns)
	if err := s.store.Prepare(t.Context(), []*event.Schema{grown}); err != nil {
		t.Fatal(err)
	}
	s.schema = grown
	d = newScheduler(t, s, reg) // it came while nobody looked
	extra(2, 5)
	d.Look(t.Context(), at.Add(10*time.Minute))
	if p := ask(t, d.Preview, query.Request{View: "user"}); !strings.Contains(fmt.Sprint(p.Notices), "extra is not watched: it is new") {
		t.Fatalf("preview %+v", p)
	}
	extra(27, 5)
	d.Look(t.Context(), at.Add(10*time.Minute))
	before := at
	extra(3, 7)
	for i := range 2 { // the last window closes when nothing more has come
		d.Look(t.Context(), at.Add(time.Duration(1+i)*20*time.Minute))
	}
	f := ask(t, s.store.Verdicts, query.Request{Namespace: "test", View: "user", From: begin, To: at, Limit: 10_000})
	quiet, told := 0, 0
	for i, column := range cells(t, f, "column") {
		if column != "extra" || cells(t, f, "detector")[i] != "ks" {
			continue
		}
		switch drifted := values[bool](t, f, "drifted")[i]; {
		case !values[time.Time](t, f, "time")[i].Before(before):
			if drifted {
				told++
			}
		case drifted:
			t.Errorf("as it always was: %s", cells(t, f, "sentence")[i])
		default:
			quiet++
		}
	}
	if told != 3 {
		t.Errorf("%d of 3 shifted windows of the new column are told (%d quiet ones)", told, quiet)
	}
}
