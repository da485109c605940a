package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// seen is what browser/drive.mjs met on the page.
type seen struct {
	Errors []string `json:"errors"`
	Abroad []string `json:"abroad"`
	Config struct {
		JSONData map[string]any `json:"jsonData"`
		Secure   []string       `json:"secure"`
	} `json:"config"`
	Query   map[string]any `json:"query"`
	Refused string         `json:"refused"` // what code mode says of half a request
	Code    map[string]any `json:"code"`    // what it made of a whole one
	Drawn   map[string][]struct {
		Title string `json:"title"`
		State string `json:"state"`
		Rows  int    `json:"rows"`
		Text  string `json:"text"`
	} `json:"drawn"` // panels of dashboards, by uid
	Panels []struct {
		Kind     string `json:"kind"`
		State    string `json:"state"`
		Rows     int    `json:"rows"`
		Text     string `json:"text"`
		Canvases int    `json:"canvases"`
	} `json:"panels"`
}

// TestPluginInABrowser hosts the built module with the real @grafana packages
// in Chromium: both editors, and frames of a running kedge drawn by
// @grafana/ui. KEDGE_GRAFANA_HOST names a folder whose node_modules hold other
// versions of those packages; KEDGE_SCREENSHOTS keeps the pictures.
func TestPluginInABrowser(t *testing.T) {
	if testing.Short() {
		testenv.Skip(t, testenv.Short, "a browser is slow")
	}
	h := newHost(t)
	if info, err := os.Stat(filepath.Join(h.built, "plugin", "module.js")); err != nil || info.Size() > 150_000 {
		t.Errorf("module.js: %v bytes, %v; want less than 150 KB", info.Size(), err)
	}
	k := startKedge(t, t.TempDir(), "--demo")
	waitForDemo(t, k)
	checkSeen(t, h.walk(t, h.serve(t, startPlugin(t, k.http, `{}`, nil))))
}

// host is the page that hosts the built module, as files.
type host struct{ source, packages, built string }

// newHost builds the module and the page.
func newHost(t *testing.T) host {
	t.Helper()
	h := host{source: filepath.Join(testenv.Root(t), "grafana-plugin"), packages: os.Getenv("KEDGE_GRAFANA_HOST"), built: t.TempDir()}
	for _, file := range []string{"/usr/bin/chromium", filepath.Join(h.source, "node_modules", "playwright-core")} {
		if _, err := os.Stat(file); err != nil {
			testenv.Skip(t, testenv.NoTool, "%s is missing", file)
		}
	}
	if h.packages == "" {
		h.packages = h.source
	}
	node(t, h.source, "node_modules/webpack/bin/webpack.js", "--mode", "production", "--output-path", filepath.Join(h.built, "plugin"))
	node(t, h.source, "browser/build.mjs", filepath.Join(h.built, "host.js"), h.packages)
	return h
}

// serve answers the page and what it asks of a plugin.
func (h host) serve(t *testing.T, p *pluginProcess) *http.ServeMux {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(h.built)))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/host.css"><script>window.__grafana_public_path__ = "/public/"</script><div id="root"></div><script src="/host.js"></script>`)
	})
	icons := http.FileServer(http.Dir(filepath.Join(h.packages, "node_modules/@grafana/ui/dist/public")))
	mux.Handle("/public/", http.StripPrefix("/public/", icons))
	mux.Handle("/public/build/", http.StripPrefix("/public/build/", icons))
	mux.HandleFunc("POST /api/ds/query", p.serveQuery)
	mux.HandleFunc("/api/datasources/uid/kedge/resources/", p.serveResource)
	return mux
}

// walk goes through the page in a browser, or takes pictures of dashboards.
func (h host) walk(t *testing.T, mux *http.ServeMux, dashboards ...string) seen {
	t.Helper()
	s := httptest.NewServer(mux)
	defer s.Close()
	shots := os.Getenv("KEDGE_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	var met seen
	out := node(t, h.source, append([]string{"browser/drive.mjs", s.URL, shots}, dashboards...)...)
	if err := json.Unmarshal(out, &met); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return met
}

func checkSeen(t *testing.T, met seen) {
	t.Helper()
	if len(met.Errors) > 0 || len(met.Abroad) > 0 {
		t.Errorf("errors on the page: %q; asked elsewhere: %q", met.Errors, met.Abroad)
	}
	if text, _ := json.Marshal(met.Config.JSONData); strings.Contains(string(text), "opensesame") || met.Config.JSONData["namespace"] != "team" || strings.Join(met.Config.Secure, "") != "apiKey" {
		t.Errorf("config: %+v", met.Config)
	}
	if met.Query["kind"] != "summary" || met.Query["view"] != "driver_stats" || len(met.Query["columns"].([]any)) != 1 {
		t.Errorf("query: %v", met.Query)
	}
	if met.Code["kind"] != "freshness" || met.Code["view"] != nil || met.Code["columns"] != nil || met.Code["code"] != true || !strings.HasPrefix(met.Refused, "Not a request") {
		t.Errorf("code mode made %v and said %q", met.Code, met.Refused)
	}
	if len(met.Panels) < 9 {
		t.Fatalf("%d panels", len(met.Panels))
	}
	for _, p := range met.Panels {
		if p.State != "done" || p.Rows == 0 {
			t.Errorf("%s is %s with %d rows: %s", p.Kind, p.State, p.Rows, p.Text)
		}
		switch p.Kind {
		case "throughput", "ingest_lag", "summary", "serving_throughput", "serving_latency":
			if p.Canvases == 0 {
				t.Errorf("%s: nothing is drawn", p.Kind)
			}
		case "catalog":
			if !strings.Contains(p.Text, "driver_stats") {
				t.Errorf("%s shows %q", p.Kind, p.Text)
			}
		}
	}
}

// node runs a script of the plugin and returns what it prints.
func node(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: %v\n%s\n%s", args[0], err, errs.String(), out)
	}
	if errs.Len() > 0 {
		t.Logf("node %s says: %s", args[0], errs.String())
	}
	return out
}

// serveQuery is Grafana's door for queries, with this plugin behind it.
func (p *pluginProcess) serveQuery(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Queries []json.RawMessage `json:"queries"`
		From    string            `json:"from"`
		To      string            `json:"to"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var queries []backend.DataQuery
	for _, raw := range in.Queries {
		var q struct {
			RefID         string `json:"refId"`
			MaxDataPoints int64  `json:"maxDataPoints"`
			IntervalMS    int64  `json:"intervalMs"`
		}
		_ = json.Unmarshal(raw, &q) // what is not there is 0
		queries = append(queries, backend.DataQuery{RefID: q.RefID, JSON: raw, MaxDataPoints: q.MaxDataPoints,
			Interval: time.Duration(q.IntervalMS) * time.Millisecond, TimeRange: backend.TimeRange{From: millis(in.From), To: millis(in.To)}})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&backend.QueryDataResponse{Responses: p.ask(queries...)})
}

func millis(s string) time.Time {
	var ms int64
	_ = json.Unmarshal([]byte(s), &ms)
	return time.UnixMilli(ms)
}

func (p *pluginProcess) serveResource(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, path, _ := strings.Cut(r.URL.Path, "/resources/")
	status, answer := p.resource(path, string(body))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}
