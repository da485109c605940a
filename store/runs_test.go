package store_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// TestRunsAreReplacedByRevision stores runs, metrics and lines and reads them
// back through the kinds, each run at its newest revision and in its namespace.
func TestRunsAreReplacedByRevision(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	run := store.TrainingRun{Namespace: "test", ID: "a", Job: "elec", Revision: 1, State: "running", Metric: "logloss", Created: at, Started: at,
		Valid: math.NaN(), Test: math.NaN(), Baseline: math.NaN(), Live: math.NaN(), Rounds: 50, Record: "first"}
	done := run
	done.Revision, done.State, done.Finished, done.Test, done.Round, done.Passed, done.Record = 2, "succeeded", at.Add(time.Minute), 0.25, 50, true, "second"
	other := run
	other.ID, other.State, other.Created, other.Record = "b", "queued", at.Add(time.Hour), "other"
	foreign := run
	foreign.Namespace = "elsewhere"
	for _, r := range []store.TrainingRun{done, run, other, foreign, done} { // out of order, and once more
		if err := s.SaveRun(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	ask := query.Request{Namespace: "test", From: at.Add(-time.Hour), To: at.Add(2 * time.Hour)}
	frames, err := s.Runs(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	column := func(name string) any {
		i := slices.IndexFunc(frames[0].Columns, func(c query.Column) bool { return c.Name == name })
		return frames[0].Columns[i].Values
	}
	if got := column("run").([]string); !slices.Equal(got, []string{"b", "a"}) {
		t.Fatalf("runs %v", got)
	}
	if v := column("test").([]*float64); v[0] != nil || *v[1] != 0.25 {
		t.Errorf("test scores %v", v)
	}
	if v := column("finished").([]*time.Time); v[0] != nil || !v[1].Equal(done.Finished) {
		t.Errorf("finished %v", v)
	}
	if got, err := s.RunRecords(ctx, "test", ""); err != nil || !slices.Equal(got, []string{"other", "second"}) {
		t.Errorf("records %v, %v", got, err)
	}
	for namespace, want := range map[string]int{store.AllNamespaces: 2, "": 0, "another": 0} {
		if got, err := s.RunRecords(ctx, namespace, ""); err != nil || len(got) != want {
			t.Errorf("namespace %q: %q %v, want %d", namespace, got, err, want)
		}
	}
	if got, err := s.RunRecords(ctx, "test", "", "running", "queued"); err != nil || !slices.Equal(got, []string{"other"}) {
		t.Errorf("unfinished records %v, %v", got, err)
	}
	ask.Filter = map[string]string{"state": "succeeded"}
	if frames, err = s.Runs(ctx, ask); err != nil || frames[0].Rows() != 1 {
		t.Errorf("by state: %v, %v", frames, err)
	}
	ask.Filter = map[string]string{"color": "red"}
	if _, err := s.Runs(ctx, ask); err == nil {
		t.Error("a filter that does not exist was accepted")
	}
}

func TestRunMetricsAndLog(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var ms []store.RunMetric
	for i := range int64(10) {
		for _, set := range []string{"train", "valid"} {
			ms = append(ms, store.RunMetric{Run: "a", Job: "elec", Set: set, Metric: "logloss", Step: i, Value: 1 / float64(i+1), Time: at.Add(time.Duration(i) * time.Second)})
		}
	}
	for range 2 { // the same token counts once
		if err := s.SaveRunMetrics(ctx, "test", "a/0", ms); err != nil {
			t.Fatal(err)
		}
	}
	ask := query.Request{Kind: "run_metrics", Namespace: "test", Model: "elec", From: at.Add(-time.Hour), To: at.Add(time.Hour), Columns: []string{"logloss"}, Filter: map[string]string{"run": "a", "set": "valid"}}
	frames, err := s.RunMetrics(ctx, ask)
	if err != nil || frames[0].Rows() != 10 {
		t.Fatalf("%v, %v", frames, err)
	}
	if v := frames[0].Columns[2].Values.([]float64); v[0] != 1 || v[9] != 0.1 {
		t.Errorf("values %v", v)
	}
	if err := s.SaveRunLog(ctx, "test", "a/0", []store.RunLine{{Run: "a", N: 0, Time: at, Text: "hello"}, {Run: "a", N: 1, Time: at, Text: "world"}}); err != nil {
		t.Fatal(err)
	}
	frames, err = s.RunLog(ctx, query.Request{Kind: "run_log", Namespace: "test", From: at.Add(-time.Hour), To: at.Add(time.Hour), Filter: map[string]string{"run": "a"}})
	if err != nil || frames[0].Rows() != 2 || frames[0].Columns[1].Values.([]string)[0] != "world" {
		t.Errorf("%v, %v", frames, err)
	}
}

// TestIdleShareOfNoGPUIsNothing: a job that held no GPU, or hardly, has no share
// of idle time. It had been 0, as of one that was always busy.
func TestIdleShareOfNoGPUIsNothing(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for id, gpu := range map[string]float64{"none": 0, "short": 299, "long": 300} {
		r := store.TrainingRun{Namespace: "cost", ID: id, Job: id, Revision: 1, State: "succeeded", Created: at, GPU: gpu, Energy: gpu / 100, Record: `{"cost":{"gpu_idle_seconds":75}}`,
			Valid: math.NaN(), Test: math.NaN(), Baseline: math.NaN(), Live: math.NaN()}
		if err := s.SaveRun(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.TrainingCost(t.Context(), query.Request{Namespace: "cost", From: at.Add(-time.Hour), To: at.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	idle, energy := column(t, f, "idle_share").Values.([]*float64), column(t, f, "energy").Values.([]*float64)
	if jobs := column(t, f, "job").Values.([]string); !slices.Equal(jobs, []string{"long", "none", "short"}) {
		t.Fatal(jobs)
	}
	if idle[0] == nil || *idle[0] != 0.25 || idle[1] != nil || idle[2] != nil {
		t.Errorf("idle shares %v", idle)
	}
	if energy[0] == nil || *energy[0] != 3 || energy[1] != nil || energy[2] == nil {
		t.Errorf("energies %v", energy)
	}
}
