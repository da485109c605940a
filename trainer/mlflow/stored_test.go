package mlflow

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// follow runs the store's background part; the function that it returns ends
// it and waits.
func follow(t *testing.T, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			s.mu.RLock()
			defer s.mu.RUnlock()
			if len(s.old) > 0 {
				return fmt.Errorf("%d changes wait", len(s.old))
			}
			return nil
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func withStore(t testing.TB, cfg Config) Config {
	t.Helper()
	st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	cfg.Store = st
	return cfg
}

func history(c *client, run, key string) (out []string) {
	c.t.Helper()
	points, _ := c.ok("GET", "metrics/get-history", url.Values{"run_id": {run}, "metric_key": {key}})["metrics"].([]any)
	for _, p := range points {
		out = append(out, fmt.Sprint(get(p, "timestamp"), "/", get(p, "step"), "=", get(p, "value")))
	}
	return out
}

// Metrics land in ClickHouse and are read back at once and always: while they
// wait, when they are stored, and after a stop between the insert and its note,
// when they are sent twice and still counted once.
func TestMetricsLandInStore(t *testing.T) {
	dir, cfg := t.TempDir(), withStore(t, config(t))
	c, s := serveWith(t, dir, cfg)
	run := newRun(c)
	log := func(step int, value any) {
		c.ok("POST", "runs/log-metric", map[string]any{"run_id": run, "key": "val/auc", "value": value, "timestamp": 1000 + step, "step": step})
	}
	log(1, 0.5)
	log(2, "NaN")
	want := "1001/1=0.5 1002/2=NaN"
	check := func(when string) {
		t.Helper()
		if got := strings.Join(history(c, run, "val/auc"), " "); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check("before a flush")
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.runs[run].history); n != 0 {
		t.Errorf("%d metrics stay in memory once they are stored", n)
	}
	log(3, 0.75)
	want += " 1003/3=0.75"
	check("partly stored")
	// All that a flush does but its last note, then a kill.
	if _, err := s.do(change{Op: storing}, ""); err != nil {
		t.Fatal(err)
	}
	points, runs, err := s.parcels()
	if err != nil || len(points) != 1 || len(runs) != 1 {
		t.Fatalf("%d points, %d runs, %v", len(points), len(runs), err)
	}
	if err := cfg.Store.SaveRunMetrics(t.Context(), cfg.Namespace, "x", points); err != nil {
		t.Fatal(err)
	}
	log(4, 1)
	want += " 1004/4=1"
	s.Close()
	c, s = serveWith(t, dir, cfg)
	check("after a restart in the middle")
	c.ok("POST", "runs/update", map[string]any{"run_id": run, "status": "FINISHED", "end_time": 5000})
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("sent again")
	s.Close()
	c, s = serveWith(t, dir, cfg)
	check("after another restart")
	if len(s.runs[run].history) != 0 {
		t.Error("the journal brings back what is stored")
	}
	askKinds(t, cfg, run)
}

// askKinds looks at the run as Kedge's own kinds show it.
func askKinds(t *testing.T, cfg Config, run string) {
	t.Helper()
	ask := query.Request{Namespace: "test", From: time.UnixMilli(0), To: time.Now(), Filter: map[string]string{"run": run}}
	frames, err := cfg.Store.RunMetrics(t.Context(), ask)
	if err != nil || frames[0].Rows() != 4 {
		t.Errorf("run_metrics: %v, %v", frames, err)
	}
	if frames, err = cfg.Store.Runs(t.Context(), ask); err != nil || frames[0].Rows() != 1 || frames[0].Columns[2].Values.([]string)[0] != "succeeded" {
		t.Errorf("runs: %v, %v", frames, err)
	}
	if left, err := cfg.Store.RunRecords(t.Context(), "test", run, "running"); err != nil || len(left) != 0 {
		t.Errorf("unfinished: %v, %v", left, err)
	}
}

// Times of metrics may lie in any month; an insert may not span too many.
func TestMetricsOfManyMonths(t *testing.T) {
	cfg := withStore(t, config(t))
	c, s := serveWith(t, t.TempDir(), cfg)
	run := newRun(c)
	var batch []any
	for i := range 260 {
		batch = append(batch, map[string]any{"key": "m", "value": i, "timestamp": int64(i) * 40 * 24 * 3600 * 1000, "step": i})
	}
	c.ok("POST", "runs/log-batch", map[string]any{"run_id": run, "metrics": batch})
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(history(c, run, "m")); n != len(batch) || len(s.runs[run].history) != 0 {
		t.Errorf("%d values, %d still wait", n, len(s.runs[run].history))
	}
	for _, at := range []int64{-1, lastTime, 1 << 62} {
		if status, _ := c.call("POST", "runs/log-metric", map[string]any{"run_id": run, "key": "m", "value": 1, "timestamp": at, "step": 1}); status != 400 {
			t.Errorf("timestamp %d: status %d", at, status)
		}
	}
}

// BenchmarkSearchRuns filters, sorts and pages 100,000 runs (goal: below 1 s).
func BenchmarkSearchRuns(b *testing.B) {
	s := openBench(b)
	e := s.experiments["0"]
	for i := range 100_000 {
		id := fmt.Sprintf("%032x", i)
		x := &run{params: map[string]string{"depth": fmt.Sprint(i % 9)}, tags: map[string]string{}, latest: map[string]metric{"auc": {Key: "auc", Value: number(i*7919%100_000) / 100_000}}, history: map[string][]metric{}}
		x.info = runInfo{ID: id, UUID: id, Experiment: "0", Stage: active, Status: "FINISHED", Start: integer(i)}
		s.runs[id] = x
		e.runs = append(e.runs, x)
	}
	body := json.RawMessage(`{"experiment_ids":["0"],"filter":"metrics.auc > 0.5 AND params.depth = '3'","order_by":["metrics.auc DESC"],"max_results":1000}`)
	for b.Loop() {
		out, err := s.look(s.ops["POST runs/search"], &change{Body: body})
		if err != nil || !strings.Contains(string(out), `"next_page_token":"`) {
			b.Fatalf("%v: %.100s", err, out)
		}
	}
}

// BenchmarkLogBatch logs 1,000 metrics in one request (goal: below 50 ms).
func BenchmarkLogBatch(b *testing.B) {
	s := openBench(b)
	created, err := s.do(change{Op: "POST runs/create", At: 1, Body: json.RawMessage(`{"experiment_id":"0"}`)}, "r")
	if err != nil {
		b.Fatalf("%s, %v", created, err)
	}
	for n := 0; b.Loop(); n++ {
		var batch strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&batch, `%s{"key":"m%d","value":%d,"timestamp":%d,"step":%d}`, strings.Repeat(",", min(i, 1)), i%10, i, n, i)
		}
		if _, err := s.do(change{Op: "POST runs/log-batch", Body: json.RawMessage(`{"run_id":"r","metrics":[` + batch.String() + `]}`)}, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func openBench(b *testing.B) *Store {
	b.Helper()
	root, err := os.OpenRoot(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(withStore(b, config(b)), root)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close(); root.Close() })
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return s
}
