package drift_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// A day of a batch runs from one deadline to the next by the clock on the wall:
// 25 hours of it in the night in which the clocks go back. A day without rows is
// told at its deadline and is well once they have come; days that nobody looked at
// are judged each, and both limits are inside.
func TestBatchesAreDueByTheWallClock(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(61, 62))
	define(t, reg, drift.MonitorKind, "nightly", `{"view":"user","window":"1m","columns":["amount"],"reference":{"first":100},"cadence":{"by":"06:00","zone":"Europe/Rome","rows":[90,110]}}`, "")
	october := func(day, hour, minute int) time.Time { return time.Date(2026, 10, day, hour, minute, 0, 0, time.UTC) }
	rows := func(at time.Time, n int) { s.write(at, time.Minute, normals(rng, n, 0), normals(rng, n, 5)) }
	sch := newScheduler(t, s, reg)
	look := func(at time.Time) string {
		sch.Look(t.Context(), at)
		f := ask(t, s.store.Incidents, query.Request{Namespace: "test", View: "user", From: october(24, 0, 0), To: october(31, 23, 0)})
		newest, text := time.Time{}, ""
		for i, detector := range cells(t, f, "detector") {
			if opened := values[time.Time](t, f, "opened")[i]; detector == "cadence" && opened.After(newest) {
				newest, text = opened, cells(t, f, "state")[i]+": "+cells(t, f, "sentence")[i]
			}
		}
		return text
	}
	said := func(from time.Time) string {
		f := ask(t, s.store.Verdicts, query.Request{Namespace: "test", View: "user", From: from, To: from.Add(time.Second), Detector: "cadence"})
		return strings.Join(cells(t, f, "sentence"), "|")
	}
	due := func(rows int) string { return fmt.Sprintf("%d rows by 06:00 Europe/Rome, 90 to 110 were due", rows) }
	want := func(from time.Time, text string) {
		t.Helper()
		if got := said(from); got != text {
			t.Errorf("the day from %v: %q, want %q", from, got, text)
		}
	}

	s.together(func() {
		for m := range 27 {
			rows(october(24, 2, m), 4)
		}
	})
	look(october(24, 2, 28))
	look(october(24, 2, 33))
	if got := look(october(24, 4, 0)); got != "" {
		t.Errorf("108 rows by six of summer time: %q", got)
	}
	want(october(23, 4, 0), due(108))
	rows(october(24, 4, 30), 50) // of 25 hours, the first
	rows(october(25, 4, 30), 50) // and the last
	look(october(25, 4, 59))
	want(october(24, 4, 0), "")
	if got := look(october(25, 5, 0)); got != "" {
		t.Errorf("100 rows by six of winter time: %q", got)
	}
	want(october(24, 4, 0), due(100))

	if got := look(october(26, 5, 0)); !strings.HasPrefix(got, "open: "+due(0)) {
		t.Errorf("nothing has come: %q", got)
	}
	rows(october(26, 4, 50), 80)
	if got := look(october(26, 6, 0)); !strings.HasPrefix(got, "open: ") {
		t.Errorf("some of it has come: %q", got)
	}
	rows(october(26, 4, 52), 20)
	if got := look(october(26, 6, 10)); !strings.HasPrefix(got, "resolved: ") {
		t.Errorf("all of it has come: %q", got)
	}
	want(october(25, 5, 0), due(100)+"; not all of them came in time")

	rows(october(27, 4, 0), 100)
	rows(october(28, 4, 0), 111)
	rows(october(29, 4, 0), 89)
	sch = newScheduler(t, s, reg) // nobody was there for three days
	if got := look(october(29, 5, 0)); !strings.HasPrefix(got, "open: "+due(111)) {
		t.Errorf("after three days: %q", got)
	}
	want(october(26, 5, 0), due(100))
	want(october(27, 5, 0), due(111))
	want(october(28, 5, 0), due(89))
	rows(october(30, 4, 0), 90)
	if got := look(october(30, 5, 0)); !strings.HasPrefix(got, "resolved: ") {
		t.Errorf("90 rows: %q", got)
	}
	rows(october(31, 4, 0), 110)
	if got := look(october(31, 5, 0)); !strings.HasPrefix(got, "resolved: ") {
		t.Errorf("110 rows: %q", got)
	}
}

// endsAfter is a context that ends when it was asked so many times.
type endsAfter struct {
	context.Context
	mu   sync.Mutex
	left int
	done chan struct{}
}

func newEndsAfter(t *testing.T, asked int) *endsAfter {
	return &endsAfter{Context: t.Context(), left: asked, done: make(chan struct{})}
}

func (c *endsAfter) ask() (over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.done)
	}
	return c.left <= 0
}

func (c *endsAfter) Done() <-chan struct{} { c.ask(); return c.done }

func (c *endsAfter) Err() error {
	if c.ask() {
		return context.Canceled
	}
	return nil
}

// Wherever a look at the days that are due ends, none of them is lost, nor what
// is said of it: the next look goes on behind it.
func TestNoDayIsLostWhereALookEnds(t *testing.T) {
	s := newStream(t)
	day := func(n int) time.Time { return time.Date(2026, 7, n, 6, 0, 0, 0, time.UTC) }
	for n := range 6 {
		s.write(day(n+1).Add(time.Hour), time.Minute, make([]float64, 2), make([]float64, 2))
	}
	spec, err := drift.ParseMonitor([]byte(`{"view":"user","cadence":{"by":"06:00","zone":"UTC","rows":[1,1]}}`))
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for asked := 1; asked < 200; asked++ {
		cfg := drift.DefaultMonitorConfig()
		cfg.Namespace, cfg.Name, cfg.Subject, cfg.First = "test", fmt.Sprint("ends", asked), "user", 1
		cfg.Table, cfg.Columns, cfg.Cadence = store.Subject{Kind: event.Features, TableID: 7}, drift.Numeric("amount"), spec.Cadence
		m, err := drift.NewMonitor(cfg, s.store)
		if err != nil {
			t.Fatal(err)
		}
		if err = drift.JudgeArrival(newEndsAfter(t, asked), m, day(1), day(5)); err == nil {
			break
		}
		failed++
		if err := drift.JudgeArrival(t.Context(), m, day(1), day(5)); err != nil {
			t.Fatal(err)
		}
		f := ask(t, s.store.Verdicts, query.Request{Namespace: "test", View: "user", From: day(1), To: day(6), Detector: "cadence", Limit: 1000})
		var days []int
		for i, name := range cells(t, f, "monitor") {
			if name == cfg.Name {
				days = append(days, values[time.Time](t, f, "time")[i].Day())
			}
		}
		if slices.Sort(days); !slices.Equal(days, []int{1, 2, 3, 4}) {
			t.Errorf("a look that ended when it had been asked %d times: days %v are kept: %v", asked, days, err)
		}
	}
	if failed < 5 {
		t.Errorf("%d looks ended early", failed)
	}
}
