package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dashboards"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/trainer"
)

// buildPrometheus builds Prometheus and promtool at the versions that their
// go.mod pins, without the clouds that they would look for targets in.
func buildPrometheus(t *testing.T) (dir string) {
	t.Helper()
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "building Prometheus takes minutes: make torture")
	}
	if dir = os.Getenv("KEDGE_PROMETHEUS"); dir != "" { // built before
		return dir
	}
	dir = t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "remove_all_sd", "-o", dir+"/", "github.com/prometheus/prometheus/cmd/promtool", "github.com/prometheus/prometheus/cmd/prometheus")
	build.Dir, build.Env = filepath.Join(testenv.Root(t), "internal/tools/prometheus"), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// TestTorturePrometheus runs a real Prometheus, with the stack's own configuration,
// beside a kedge with the demo stream: promtool takes the rules and their tests,
// Prometheus loads them and finds nothing but the watchdog, and every expression of
// the dashboard about Kedge itself has series. Where there is a browser, it draws
// every dashboard; KEDGE_SCREENSHOTS keeps the pictures.
func TestTorturePrometheus(t *testing.T) {
	bin := buildPrometheus(t)
	rules := filepath.Join(testenv.Root(t), "alerts")
	for _, args := range [][]string{{"check", "rules", "prometheus-rules.yaml"}, {"test", "rules", "prometheus-rules_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "promtool"), args...)
		cmd.Dir = rules
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	k := startKedge(t, stormyDemo(t), "--demo")
	waitForDemo(t, k)
	prom := startPrometheus(t, bin, rules, strings.TrimPrefix(k.http, "http://"))
	for _, d := range dashboards.All() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, m := range p.Prometheus {
					prom.holds(t, d.UID+": "+p.Title, strings.ReplaceAll(m.Expr, "$__rate_interval", "1m"))
				}
			}
		}
	}
	var active struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	err := prom.get("/api/v1/alerts", &active)
	var firing []string // others wait whether it lasts: no monitor has run in the first minutes
	for _, a := range active.Data.Alerts {
		if a.State == "firing" {
			firing = append(firing, a.Labels["alertname"])
		}
	}
	if err != nil || !slices.Equal(firing, []string{"KedgeWatchdog"}) {
		t.Errorf("alerts of a healthy kedge: %v of %+v, %v", firing, active, err)
	}
	trainOnDemo(t, k)
	drawDashboards(t, k, prom.url)
}

// trainOnDemo trains two models on the demo's labelled predictions and deploys them,
// so that Training and Serving have something to show.
func trainOnDemo(t *testing.T, k *kedgeProcess) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "job.yaml")
	spec := "kind: TrainingJob\nname: rides\nspec:\n  data: {from: %s, predictions: ride_cancel}\n  backend: linear\n  gate: {metric: auc, allow_leaks: true}\n  register: {alias: champion, deploy: shadow}\n"
	if err := os.WriteFile(file, fmt.Appendf(nil, spec, time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, _, status := k.kedge("train", "-f", file)
		if r := k.runOf(out); r.State != trainer.Succeeded || status != 0 && status != 3 { // what the gate refuses is shown, too
			t.Fatalf("training on the demo: %s %s\n%s", r.State, r.Error, out)
		}
	}
}

// drawDashboards takes a picture of each dashboard and wants every panel drawn, or
// its declared reason.
func drawDashboards(t *testing.T, k *kedgeProcess, prometheus *url.URL) {
	t.Helper()
	h := newHost(t)
	testenv.Eventually(t, 5*time.Minute, func() error { // monitors learn an hour first
		if f := k.ask(query.Request{Kind: "drift_heatmap", Model: "ride_cancel"}); len(f) == 0 || f[0].Rows() < 2 {
			return fmt.Errorf("no drift is judged yet")
		}
		return nil
	})
	mux := h.serve(t, startPlugin(t, k.http, `{}`, nil))
	mux.Handle("/prometheus/", http.StripPrefix("/prometheus", httputil.NewSingleHostReverseProxy(prometheus)))
	mux.Handle("/dashboards/", http.StripPrefix("/dashboards", http.FileServer(http.Dir(filepath.Join(testenv.Root(t), "dashboards")))))
	var uids []string
	excused := map[string]bool{}
	for _, d := range dashboards.All() {
		uids = append(uids, d.UID)
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				excused[d.UID+p.Title] = p.Empty != "" || p.Refused != ""
			}
		}
	}
	met := h.walk(t, mux, uids...)
	if len(met.Errors) > 0 || len(met.Abroad) > 0 || len(met.Drawn) != len(uids) {
		t.Errorf("%d of %d dashboards; errors on the page: %q; asked elsewhere: %q", len(met.Drawn), len(uids), met.Errors, met.Abroad)
	}
	for uid, panels := range met.Drawn {
		for _, p := range panels {
			if (p.State != "done" || p.Rows == 0) && !excused[uid+p.Title] {
				t.Errorf("%s: %s is %s with %d rows: %s", uid, p.Title, p.State, p.Rows, p.Text)
			}
		}
	}
}

// prometheus is a running Prometheus.
type prometheus struct{ url *url.URL }

// startPrometheus starts one with the stack's configuration, at a scrape a second.
func startPrometheus(t *testing.T, bin, rules, target string) prometheus {
	t.Helper()
	dir, addr := t.TempDir(), testenv.Address(t)
	text := strings.NewReplacer(`["kedge-core:7070", "kedge-serving:7070"]`, fmt.Sprintf("[%q]", target), "/etc/prometheus/rules/*.yaml", filepath.Join(rules, "prometheus-rules.yaml"), "15s", "1s").Replace(readYAML(t, nil, "compose", "prometheus", "prometheus.yml"))
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "prometheus"), "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", addr)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return prometheus{&url.URL{Scheme: "http", Host: addr}}
}

// holds waits until an expression has a series.
func (p prometheus) holds(t *testing.T, at, expr string) {
	t.Helper()
	testenv.Eventually(t, 3*time.Minute, func() error {
		var out struct {
			Error string
			Data  struct{ Result []any }
		}
		if err := p.get("/api/v1/query?"+url.Values{"query": {expr}}.Encode(), &out); err != nil || out.Error != "" || len(out.Data.Result) == 0 {
			return fmt.Errorf("%s: %s has no series: %s %w", at, expr, out.Error, err)
		}
		return nil
	})
}

func (p prometheus) get(path string, into any) error {
	res, err := http.Get(p.url.String() + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(into)
}
