package mlflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/trainer"
)

// client is a bare client of a server over a folder.
type client struct {
	t    *testing.T
	base string
}

func serve(t *testing.T, dir string) (*client, *Store) {
	t.Helper()
	return serveWith(t, dir, config(t))
}

// config has a registry of models of its own.
func config(t testing.TB) Config {
	t.Helper()
	reg, err := registry.Open(t.Context(), memlog.New(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = reg.Run(t.Context()) }()
	return Config{Namespace: "test", Models: trainer.NewModels(reg), Log: slog.New(slog.DiscardHandler)}
}

func serveWith(t *testing.T, dir string, cfg Config) (*client, *Store) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg, root)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(auth.Middleware("test", s.Handler(1<<20)))
	t.Cleanup(func() { server.Close(); s.Close(); root.Close() })
	return &client{t, server.URL}, s
}

// call returns status and decoded answer.
func (c *client) call(method, path string, body any) (int, map[string]any) {
	c.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	at := c.base + "/api/2.0/mlflow/" + path
	if q, ok := body.(url.Values); ok {
		at, text = at+"?"+q.Encode(), nil
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, at, bytes.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, out
}

// ok is call where success is expected.
func (c *client) ok(method, path string, body any) map[string]any {
	c.t.Helper()
	status, out := c.call(method, path, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out
}

func get(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

func newRun(c *client) string {
	c.t.Helper()
	return get(c.ok("POST", "runs/create", map[string]any{"experiment_id": "0", "start_time": 5}), "run", "info", "run_id").(string)
}

// What was answered survives a restart; a torn last line, never answered, does
// not stand in the way.
func TestJournalSurvives(t *testing.T) {
	dir, cfg := t.TempDir(), config(t)
	c, s := serveWith(t, dir, cfg)
	run := newRun(c)
	c.ok("POST", "runs/log-batch", map[string]any{"run_id": run, "metrics": []any{
		map[string]any{"key": "loss", "value": 0.5, "timestamp": 1, "step": 1},
		map[string]any{"key": "loss", "value": "NaN", "timestamp": 2, "step": 2},
		map[string]any{"key": "loss", "value": 0.25, "timestamp": "3", "step": "0"},
	}, "params": []any{map[string]any{"key": "eta", "value": "0.1"}}})
	model := get(c.ok("POST", "logged-models", map[string]any{"experiment_id": "0", "name": "m"}), "model", "info", "model_id").(string)
	c.ok("PATCH", "logged-models/"+model, map[string]any{"status": "LOGGED_MODEL_READY"})
	c.ok("POST", "registered-models/create", map[string]any{"name": "fraud"})
	c.ok("POST", "model-versions/create", map[string]any{"name": "fraud", "source": "models:/" + model, "run_id": run})
	c.ok("POST", "registered-models/alias", map[string]any{"name": "fraud", "alias": "champion", "version": "1"})
	before := c.ok("GET", "runs/get", url.Values{"run_id": {run}})
	s.Close()
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, `{"op":"POST runs/create","bo`)
	f.Close()

	c, _ = serveWith(t, dir, cfg)
	after := c.ok("GET", "runs/get", url.Values{"run_id": {run}})
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("before %v\nafter %v", before, after)
	}
	if v := get(after, "run", "data", "metrics", 0, "value"); v != "NaN" {
		t.Errorf("the latest value is that of the largest step: got %v", v)
	}
	uri := get(c.ok("GET", "model-versions/get-download-uri", url.Values{"name": {"fraud"}, "version": {"1"}}), "artifact_uri")
	if uri != "mlflow-artifacts:/0/models/"+model+"/artifacts" {
		t.Errorf("artefacts at %v", uri)
	}
	if v := get(c.ok("GET", "registered-models/alias", url.Values{"name": {"fraud"}, "alias": {"champion"}}), "model_version", "version"); v != "1" {
		t.Errorf("champion is %v", v)
	}
	newRun(c) // the journal goes on after the cut
}

func TestErrorsAreMLflows(t *testing.T) {
	c, _ := serve(t, t.TempDir())
	run := newRun(c)
	c.ok("POST", "runs/log-parameter", map[string]any{"run_id": run, "key": "a", "value": "1"})
	c.ok("POST", "runs/log-parameter", map[string]any{"run_uuid": run, "key": "a", "value": "1"})
	c.ok("POST", "registered-models/create", map[string]any{"name": "m"})
	for name, e := range map[string]struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		"experiment":  {"GET", "experiments/get-by-name", url.Values{"experiment_name": {"x"}}, 404, "RESOURCE_DOES_NOT_EXIST"},
		"again":       {"POST", "experiments/create", map[string]any{"name": "Default"}, 400, "RESOURCE_ALREADY_EXISTS"},
		"run":         {"GET", "runs/get", url.Values{"run_id": {"no"}}, 404, "RESOURCE_DOES_NOT_EXIST"},
		"parameter":   {"POST", "runs/log-parameter", map[string]any{"run_id": run, "key": "a", "value": "2"}, 400, "INVALID_PARAMETER_VALUE"},
		"model":       {"POST", "registered-models/create", map[string]any{"name": "m"}, 400, "RESOURCE_ALREADY_EXISTS"},
		"version":     {"GET", "model-versions/get", url.Values{"name": {"m"}, "version": {"7"}}, 404, "RESOURCE_DOES_NOT_EXIST"},
		"filter":      {"POST", "runs/search", map[string]any{"experiment_ids": []string{"0"}, "filter": "metrics.a >"}, 400, "INVALID_PARAMETER_VALUE"},
		"page":        {"POST", "runs/search", map[string]any{"experiment_ids": []string{"0"}, "page_token": "!"}, 400, "INVALID_PARAMETER_VALUE"},
		"not an int":  {"POST", "runs/search", map[string]any{"max_results": "many"}, 400, "INVALID_PARAMETER_VALUE"},
		"no endpoint": {"GET", "gateway/routes", url.Values{}, 404, "ENDPOINT_NOT_FOUND"},
	} {
		status, out := c.call(e.method, e.path, e.body)
		if status != e.status || out["error_code"] != e.code || out["message"] == "" {
			t.Errorf("%s: %d %v", name, status, out)
		}
	}
}

func TestFilters(t *testing.T) {
	c, _ := serve(t, t.TempDir())
	for i := range 10 {
		run := newRun(c)
		c.ok("POST", "runs/log-batch", map[string]any{"run_id": run,
			"metrics": []any{map[string]any{"key": "val/auc", "value": float64(i) / 10, "timestamp": 1, "step": 0}},
			"params":  []any{map[string]any{"key": "depth", "value": fmt.Sprint(i % 3)}},
			"tags":    []any{map[string]any{"key": "mlflow.runName", "value": fmt.Sprintf("Try %d", i)}},
		})
		if i == 4 {
			c.ok("POST", "runs/update", map[string]any{"run_id": run, "status": "FINISHED"})
			c.ok("POST", "runs/set-tag", map[string]any{"run_id": run, "key": "team", "value": "it's"})
		}
		if i == 9 {
			c.ok("POST", "runs/delete", map[string]any{"run_id": run})
		}
	}
	for filter, want := range map[string]int{
		"":                          9,
		"metrics.`val/auc` >= 0.5":  4,
		"metrics.\"val/auc\" < 0.3": 3,
		"metrics.`val/auc` > -1e3 AND params.depth = '1'": 3,
		"params.depth != '0'":                             6,
		"params.depth IN ('0', '2')":                      6,
		"params.depth NOT IN ('0')":                       6,
		"attributes.status = 'FINISHED'":                  1,
		"status = 'RUNNING'":                              8,
		"tags.`mlflow.runName` LIKE 'Try %'":              9,
		"tags.mlflow.runName ILIKE 'try _'":               9,
		"run_name LIKE 'try%'":                            0,
		"tags.team = 'it\\'s'":                            1,
		"tags.team IS NULL":                               8,
		"tags.team IS NOT NULL":                           1,
		"metrics.none > 0":                                0,
	} {
		out := c.ok("POST", "runs/search", map[string]any{"experiment_ids": []string{"0"}, "filter": filter})
		runs, _ := out["runs"].([]any)
		if len(runs) != want {
			t.Errorf("%q finds %d runs, want %d", filter, len(runs), want)
		}
	}
	for _, bad := range []string{"metrics.a", "metrics.a = 'x'", "params.a = 3", "x.y = '1'", "status = 'a' OR status = 'b'", "a IN ('b'", "status ~ 'x'", "'"} {
		if status, _ := c.call("POST", "runs/search", map[string]any{"experiment_ids": []string{"0"}, "filter": bad}); status != 400 {
			t.Errorf("%q: status %d", bad, status)
		}
	}
	var seen []string
	token := ""
	for {
		out := c.ok("POST", "runs/search", map[string]any{"experiment_ids": []string{"0"}, "max_results": 4, "page_token": token, "order_by": []string{"metrics.`val/auc` DESC"}})
		for _, r := range out["runs"].([]any) {
			seen = append(seen, get(r, "info", "run_name").(string))
		}
		if token, _ = out["next_page_token"].(string); token == "" {
			break
		}
	}
	if len(seen) != 9 || seen[0] != "Try 8" || seen[8] != "Try 0" {
		t.Errorf("pages bring %v", seen)
	}
}

// Artefacts come back as they were; no path leads out, and an upload that
// breaks off or is too large leaves nothing.
func TestArtifacts(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644)
	c, _ := serve(t, dir)
	do := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, c.base, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = "/api/2.0/mlflow-artifacts/artifacts" + path // as a hostile client writes it
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, text := do("PUT", "/0/run/artifacts/model/MLmodel", "hello"); status != 200 {
		t.Fatal(status, text)
	}
	if status, text := do("GET", "/0/run/artifacts/model/MLmodel", ""); status != 200 || text != "hello" {
		t.Errorf("%d %q", status, text)
	}
	if _, text := do("GET", "?path=0/run/artifacts", ""); text != `{"files":[{"path":"model","is_dir":true}]}` {
		t.Errorf("listing %s", text)
	}
	os.Symlink(dir, filepath.Join(dir, artifactDir, "link"))
	for _, path := range []string{"/../secret", "/%2e%2e/secret", "/..%2fsecret", "/0/%2e%2e/%2e%2e/secret", "/link/secret", "//etc/passwd", "/%2fetc/passwd", "/0/run", "/none", "/a%00b", "/..%5csecret"} {
		if status, text := do("GET", path, ""); status == 200 || strings.Contains(text, "secret\n") || text == "secret" {
			t.Errorf("GET %s: %d %q", path, status, text)
		}
		if status, _ := do("PUT", path+"x", "evil"); status == 200 && !strings.HasPrefix(path, "/0/run") && path != "/none" {
			t.Errorf("PUT %s was accepted", path)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "secret")); string(text) != "secret" {
		t.Error("a file outside was written")
	}
	if status, text := do("PUT", "/0/big", strings.Repeat("x", 1<<20+1)); status != 400 || !strings.Contains(text, "larger") {
		t.Errorf("%d %s", status, text)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, artifactDir, "0", ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Many clients at once lose nothing.
func TestConcurrentWriters(t *testing.T) {
	c, s := serve(t, t.TempDir())
	run := newRun(c)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				c.ok("POST", "runs/log-metric", map[string]any{"run_id": run, "key": fmt.Sprint("m", g), "value": i, "timestamp": i, "step": i})
				c.ok("GET", "runs/get", url.Values{"run_id": {run}})
				c.ok("POST", "experiments/set-experiment-tag", map[string]any{"experiment_id": "0", "key": "k", "value": fmt.Sprint(i)})
				c.ok("GET", "experiments/get", url.Values{"experiment_id": {"0"}})
			}
		})
	}
	wg.Wait()
	for g := range 8 {
		if n := len(s.runs[run].history[fmt.Sprint("m", g)]); n != 25 {
			t.Errorf("m%d has %d values", g, n)
		}
	}
}
