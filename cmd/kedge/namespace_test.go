package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestNamespaceDefinition: a namespace is defined by whoever runs the
// installation, wherever its own definitions are, and comes with its topics.
func TestNamespaceDefinition(t *testing.T) {
	p := startKedge(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "ns.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const doc = "kind: Namespace\nname: growth\nspec: {owner: ann, weight: 2, quotas: {events_per_second: 5000}}\n"
	write(doc)
	p.must("apply", "-f", file)
	if _, body := get(t, p.http+"/v1/definitions?kind=Namespace"); !strings.Contains(body, `"namespace":"growth"`) {
		t.Errorf("the namespace is not listed: %s", body)
	}
	status, body := post(t, p.http+"/v1/definitions/plan", `{"definitions":[{"kind":"Namespace","name":"Growth","spec":{}}]}`)
	if status != 200 || !strings.Contains(body, "want a lower-case letter") {
		t.Errorf("a name that topics cannot have: %d %s", status, body)
	}
	for _, topic := range []string{"kedge.growth.features", "kedge.growth.predictions", "kedge.growth.labels"} {
		if _, body := post(t, p.http+"/v1/sources/draft", `{"topic":"`+topic+`"}`); !strings.Contains(body, "is empty") { // so it exists
			t.Errorf("%s: %s", topic, body)
		}
	}
	write(strings.Replace(doc, "5000", "-1", 1))
	if _, errs, status := p.kedge("apply", "-f", file); status != 1 || !strings.Contains(errs, "events_per_second") {
		t.Errorf("a negative quota: %d %s", status, errs)
	}
	write("kind: FeatureView\nname: v\nspec: {origin: declared, keys: [{name: k, type: Int64}], columns: []}\n")
	p.must("apply", "-f", file, "--prune") // a folder of one team never deletes a namespace
	if out := p.must("get", "Namespace", "growth"); !strings.Contains(out, "weight: 2") {
		t.Errorf("after a prune: %s", out)
	}
	trainsInItsNamespace(t, p)
	p.must("delete", "Namespace", "growth")
	if out := p.must("history", "Namespace", "growth"); !strings.Contains(out, "deleted") {
		t.Errorf("history: %s", out)
	}
}

// trainsInItsNamespace: what a run of the namespace growth reports is growth's,
// though the process is default's.
func trainsInItsNamespace(t *testing.T, p *kedgeProcess) {
	t.Helper()
	t.Setenv("KEDGE_IN", "growth")
	defer os.Unsetenv("KEDGE_IN")
	elecHead(t, p, 300)
	out, errs, status := p.kedge("train", "-f", elecJob(t, "  backend: linear\n  register: {off: true}\n"))
	if status != 0 && status != 3 { // 3: what the gate thinks of 300 rows does not matter here
		t.Fatalf("train: %d %s%s", status, out, errs)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if of := strings.TrimSpace(p.clickhouseText("SELECT groupUniqArray(namespace) FROM run_metrics")); of != "['growth']" {
			return fmt.Errorf("metrics of runs of the namespaces %s, want growth alone", of)
		}
		return nil
	})
}

// TestNamespaceBounds: beyond its quota of rows a namespace's topics wait, and
// say why; imports are refused; a raised quota lets them go on, with nothing lost;
// its tables have its retention. Requests beyond its quota are refused, and
// counted.
func TestNamespaceBounds(t *testing.T) {
	p := startKedge(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "ns.yaml")
	apply := func(rest string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("kind: Namespace\nname: default\nspec: {"+rest+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.must("apply", "-f", file)
	}
	send := func(from, n int) {
		t.Helper()
		var lines strings.Builder
		for i := range n {
			fmt.Fprintf(&lines, `{"view":"v","key":{"k":%d},"event_time":"2026-03-01T00:00:00Z","values":{"x":1}}`+"\n", from+i)
		}
		p.send(lines.String())
	}
	apply("quotas: {rows: 100}, retention: {rows: 91d}")
	send(0, 150)
	p.caughtUp(150)
	testenv.Eventually(t, time.Minute, func() error {
		send(1000, 1)
		if out := p.must("status"); !strings.Contains(out, "quota of 100 stored rows") {
			return fmt.Errorf("status does not say what is waited for: %s", out)
		}
		return nil
	})
	loans := filepath.Join(t.TempDir(), "x.csv")
	if err := os.WriteFile(loans, []byte("k,at\n1,2026-01-01T00:00:00Z\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mapping := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(mapping, []byte("events: [{kind: features, view: v, key: {k: k}, time: at, values: {add: {x: {const: 1}}}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := p.kedge("import", loans, "--map", mapping, "--known-at", "event_time"); status == 0 || !strings.Contains(errs, "quotas.rows") {
		t.Errorf("an import beyond the quota: %d %s", status, errs)
	}
	if _, body := get(t, p.http+"/metrics"); !strings.Contains(body, `kedge_namespace_rows{`) {
		t.Error("no metric says what the namespace holds")
	}
	testenv.Eventually(t, time.Minute, func() error {
		if ttl := p.clickhouseText("SELECT engine_full FROM system.tables WHERE name LIKE 'features_%'"); !strings.Contains(ttl, fmt.Sprint(91*24*3600)) {
			return fmt.Errorf("retention: %s", ttl)
		}
		return nil
	})
	plan := func(rest string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte("kind: Namespace\nname: default\nspec: {"+rest+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs, status := p.kedge("plan", "-f", file)
		if status != 3 { // there is a change
			t.Fatalf("plan: %d %s", status, errs)
		}
		return out
	}
	testenv.Eventually(t, time.Minute, func() error { // the rows become older than a second
		if out := plan("retention: {rows: 1s}"); !strings.Contains(out, "retention: 150 rows") {
			return fmt.Errorf("plan does not say what a shorter retention removes: %s", out)
		}
		return nil
	})
	if out := plan("retention: {rows: 30d}"); strings.Contains(out, "are removed") {
		t.Errorf("a retention that removes nothing: %s", out)
	}
	// A view may say otherwise for its own rows.
	view := filepath.Join(t.TempDir(), "view.yaml")
	const short = "kind: FeatureView\nname: short\nspec: {origin: declared, keys: [{name: k, type: Int64}], columns: [{name: x, type: Float64}], retention: {rows: %s}}\n"
	if err := os.WriteFile(view, fmt.Appendf(nil, short, "5d"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("apply", "-f", view)
	testenv.Eventually(t, time.Minute, func() error {
		out := p.clickhouseText("SELECT engine_full FROM system.tables WHERE name LIKE 'features_%'")
		for _, days := range []int{91, 5} {
			if strings.Count(out, fmt.Sprint(days*24*3600)) != 1 {
				return fmt.Errorf("not one table keeps rows for %d days: %s", days, out)
			}
		}
		return nil
	})
	apply("quotas: {rows: 100000}")
	testenv.Eventually(t, time.Minute, func() error {
		s := p.status()
		for _, part := range s.Partitions {
			if part.Lag != 0 {
				return fmt.Errorf("%s is %d behind", part.Topic, part.Lag)
			}
		}
		return nil
	})
	p.mustBalance()
	apply("quotas: {requests_per_second: 2}")
	testenv.Eventually(t, time.Minute, func() error {
		for range 20 {
			if status, body := get(t, p.http+"/v1/status"); status == http.StatusTooManyRequests && strings.Contains(body, "quota of requests") {
				return nil
			}
		}
		return errors.New("every request is answered")
	})
	testenv.Eventually(t, time.Minute, func() error { // a scrape counts as well
		if _, body := get(t, p.http+"/metrics"); !strings.Contains(body, `kedge_namespace_requests_refused_total{`) {
			return fmt.Errorf("no metric counts what was refused: %.200s", body)
		}
		return nil
	})
}

// clickhouseText asks the read-only port.
func (p *kedgeProcess) clickhouseText(sql string) string {
	p.t.Helper()
	status, body := post(p.t, "http://"+p.clickhouse+"/", sql)
	if status != 200 {
		p.t.Fatalf("%s: %d %s", sql, status, body)
	}
	return body
}
