package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// TestQueueOrder holds which run starts beside which.
func TestQueueOrder(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	run := func(namespace string, cpus, priority, minute int) Run {
		return Run{Namespace: namespace, Created: at.Add(time.Duration(minute) * time.Minute), Spec: &JobSpec{Priority: priority, Resources: Resources{CPUs: cpus}}}
	}
	limit := func(ns string) Resources {
		if ns == "small" {
			return Resources{CPUs: 1}
		}
		return Resources{CPUs: 4}
	}
	for name, c := range map[string]struct {
		queue, running, elsewhere []Run
		want                      int
	}{
		"oldest first":            {[]Run{run("a", 1, 0, 2), run("a", 1, 0, 1)}, nil, nil, 1},
		"priority before age":     {[]Run{run("a", 1, 0, 1), run("a", 1, 5, 2)}, nil, nil, 1},
		"none fits":               {[]Run{run("a", 2, 0, 1)}, []Run{run("a", 3, 0, 0)}, nil, -1},
		"large is not overtaken":  {[]Run{run("a", 4, 0, 1), run("a", 1, 0, 2)}, []Run{run("a", 1, 0, 0)}, nil, -1},
		"a full quota is passed":  {[]Run{run("small", 1, 9, 1), run("a", 1, 0, 2)}, []Run{run("small", 1, 0, 0)}, nil, 1},
		"full by another machine": {[]Run{run("small", 1, 9, 1), run("a", 4, 0, 2)}, nil, []Run{run("small", 1, 0, 0), run("a", 4, 0, 0)}, 1},
		"empty":                   {nil, nil, nil, -1},
	} {
		if got := pick1(c.queue, c.running, c.elsewhere, Resources{CPUs: 4}, limit); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestRunsAreGivenGPUs: runs beside each other never see the same GPU, a run
// that wants none sees none, and one that ended leaves its own to the next.
func TestRunsAreGivenGPUs(t *testing.T) {
	s := NewScheduler(SchedulerConfig{Capacity: Resources{CPUs: 8, GPUs: 3}, GPUs: []string{"GPU-a", "GPU-b", "GPU-c"}}, &Stored{})
	queue := func(id string, gpus int) {
		s.enqueue(Run{ID: id, Created: time.Now(), Spec: &JobSpec{Resources: Resources{CPUs: 1, GPUs: gpus}}})
	}
	begin := func(id string, want ...string) {
		t.Helper()
		r, gpus, _, ok := s.next(t.Context())
		if !ok || r.ID != id || gpus == nil || !slices.Equal(gpus, want) {
			t.Fatalf("%v: run %q is given %q, want %q and %q", ok, r.ID, gpus, id, want)
		}
	}
	queue("one", 1)
	queue("none", 0)
	queue("two", 2)
	queue("late", 1)
	begin("one", "GPU-a")
	begin("none")
	begin("two", "GPU-b", "GPU-c")
	if _, _, _, ok := s.next(t.Context()); ok {
		t.Fatal("a fourth GPU")
	}
	delete(s.active, "two")
	begin("late", "GPU-b")
	if none := NewScheduler(SchedulerConfig{}, &Stored{}).free(1); none != nil {
		t.Errorf("a machine without GPUs gives %q: want nil, so that its driver says why", none)
	}
	for name, c := range map[string]struct {
		job         JobSpec
		limit, want int
	}{
		"auto":                    {JobSpec{Backend: "auto"}, 2, 1},
		"trees":                   {JobSpec{Backend: "xgboost", Params: Params{Device: CUDA}}, 2, 1},
		"trees, quota of none":    {JobSpec{Backend: "xgboost"}, 0, 0},
		"trees on the CPU":        {JobSpec{Backend: "xgboost", Params: Params{Device: CPU}}, 2, 0},
		"linear":                  {JobSpec{Backend: "linear"}, 2, 0},
		"a program":               {JobSpec{Backend: "command"}, 2, 0},
		"a program that wants it": {JobSpec{Backend: "command", Params: Params{Device: CUDA}}, 2, 1},
		"a program that says two": {JobSpec{Backend: "command", Resources: Resources{GPUs: 2}}, 4, 2},
	} {
		if got := c.job.wantsGPUs(c.limit); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// What was sent and failed is sent again as it was: it may have been stored.
func TestOutboxRepeatsWhatItSent(t *testing.T) {
	var o outbox[int]
	var sent []string
	fail := true
	send := func(seq int64, rows []int) error {
		sent = append(sent, fmt.Sprint(seq, rows))
		if fail {
			return errors.New("no answer")
		}
		return nil
	}
	o.waiting = []int{1, 2}
	if o.flush(send) == nil {
		t.Fatal("the failure is not told")
	}
	o.waiting = append(o.waiting, 3)
	fail = false
	if err := errors.Join(o.flush(send), o.flush(send)); err != nil || !slices.Equal(sent, []string{"0 [1 2]", "0 [1 2]", "1 [3]"}) {
		t.Errorf("%v %q", err, sent)
	}
}

// TestStoppedRunsDoNotEnd: what a run says while its process stops, or leads no
// more, is not how the run ended; nothing of it is stored.
func TestStoppedRunsDoNotEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	rec := newRecorder(SchedulerConfig{}, nil).record(ctx, Run{}) // without a store, storing is a panic
	stop()
	for _, s := range []State{Failed, Cancelled, Pruned} {
		if err := rec.Run(Run{State: s}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// TestTriggersAreDue goes through what starts a job and what holds it back.
func TestTriggersAreDue(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	drift := []store.Incident{{State: "open", Severity: "warning", Column: "x", Opened: ago(time.Minute)}}
	perf := []store.Incident{{State: "open", Severity: "critical", Column: performanceColumn}}
	snoozed := []store.Incident{{State: "snoozed", Severity: "critical", Column: "x"}}
	done := func(trigger string, d time.Duration) past { return past{ago(d), trigger, true} }
	for name, c := range map[string]struct {
		t         Trigger
		runs      []past
		incidents []store.Incident
		want      bool
	}{
		"schedule due":            {Trigger{Every: event.Duration(time.Hour)}, []past{done(bySchedule, 2*time.Hour)}, nil, true},
		"schedule not yet":        {Trigger{Every: event.Duration(3 * time.Hour)}, []past{done(bySchedule, 2*time.Hour)}, nil, false},
		"one is unfinished":       {Trigger{Every: event.Duration(time.Hour)}, []past{{ago(2 * time.Hour), "api", false}}, nil, false},
		"drift":                   {Trigger{Alert: "drift"}, nil, drift, true},
		"drift asks drift":        {Trigger{Alert: "performance"}, nil, drift, false},
		"performance":             {Trigger{Alert: "performance"}, nil, perf, true},
		"performance is no drift": {Trigger{Alert: "drift"}, nil, perf, false},
		"any":                     {Trigger{Alert: "any"}, nil, perf, true},
		"too mild":                {Trigger{Alert: "drift", Severity: "critical"}, nil, drift, false},
		"snoozed":                 {Trigger{Alert: "any"}, nil, snoozed, false},
		"cool-down":               {Trigger{Alert: "drift"}, []past{done("api", 30*time.Minute)}, drift, false},
		"after the cool-down":     {Trigger{Alert: "drift"}, []past{done("api", 90*time.Minute)}, drift, true},
		"budget":                  {Trigger{Alert: "drift", Budget: 1}, []past{done(byAlert, 2*time.Hour)}, drift, false},
		"budget of another day":   {Trigger{Alert: "drift", Budget: 1}, []past{done(byAlert, 25*time.Hour)}, drift, true},
		"by hand costs no budget": {Trigger{Alert: "drift", Budget: 1}, []past{done("api", 2*time.Hour)}, drift, true},
	} {
		if why, got := c.t.due(ago(30*24*time.Hour), c.runs, c.incidents, now); got != c.want {
			t.Errorf("%s: %v (%s), want %v", name, got, why, c.want)
		}
	}
}

// TestParamsAsPeopleWriteThem reads numbers and words alike, strictly.
func TestParamsAsPeopleWriteThem(t *testing.T) {
	var p Params
	if err := json.Unmarshal([]byte(`{"rounds":5,"extra":{"eta":0.1,"max_depth":6,"grow_policy":"lossguide","flag":true}}`), &p); err != nil {
		t.Fatal(err)
	}
	if p.Rounds != 5 || p.Extra["eta"] != "0.1" || p.Extra["max_depth"] != "6" || p.Extra["grow_policy"] != "lossguide" || p.Extra["flag"] != "true" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{`{"round":5}`, `{"extra":{"a":[1]}}`} {
		if err := json.Unmarshal([]byte(bad), new(Params)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}
