package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

func TestWrongCommandLines(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("http:\n  lisen: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("roles: [store, query]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line   string
		status int
		says   string
	}{
		{"check " + good, 0, "ok"},
		{"check " + bad, 1, "[2:3]"},
		{"check", 2, "accepts 1 arg"},
		{"check " + dir + "/none.yaml", 1, "no such file"},
		{"nonsense", 2, "unknown command"},
		{"run --nonsense", 2, "unknown flag"},
		{"run --config " + bad, 1, "lisen"},
		{"run --http nonsense", 1, "http.listen"},
		{"--server http://127.0.0.1:1 status", 1, "no kedge answers"},
		{"query", 2, "accepts 1 arg"},
		{"query rows --from yesterday", 2, "--from"},
		{"query rows --params {", 2, "--params"},
		{"replay x.csv", 2, "map"},
		{"replay x.csv --map none.yaml --speed fast", 2, "--speed"},
		{"apply", 2, "file"},
		{"version", 0, "kedge dev"},
	} {
		out, errs, status := runKedge(t, strings.Fields(c.line)...)
		if status != c.status || !strings.Contains(out+errs, c.says) {
			t.Errorf("kedge %s: status %d, want %d and %q:\n%s%s", c.line, status, c.status, c.says, out, errs)
		}
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, flags := range [][]string{
		{"--http", ln.Addr().String(), "--kafka", "127.0.0.1:0"},
		{"--http", "127.0.0.1:0", "--kafka", ln.Addr().String()},
	} {
		_, errs, status := runKedge(t, append([]string{"run", "--data-dir", t.TempDir()}, flags...)...)
		if status != 1 || !strings.Contains(errs, ln.Addr().String()) || !strings.Contains(errs, "taken") && !strings.Contains(errs, "in use") {
			t.Errorf("%v: status %d: %s", flags, status, errs)
		}
	}
}

// The first minute of a newcomer: the demo stream, the page, the questions.
func TestFirstMinute(t *testing.T) {
	dir := t.TempDir()
	p := startKedge(t, dir, "--demo")
	testenv.Eventually(t, 30*time.Second, func() error {
		_, _, status := p.kedge("query", "rows", "--model", "ride_cancel", "--limit", "1")
		if status != 0 {
			return os.ErrNotExist
		}
		return nil
	})
	testenv.Eventually(t, 30*time.Second, func() error {
		if code, body := get(t, p.http+"/"); code != 200 || !strings.Contains(body, "driver_stats") || !strings.Contains(body, "score distribution") {
			return os.ErrNotExist
		}
		return nil
	})
	for path, want := range map[string]string{
		"/livez": "ok", "/readyz": `"ready": true`, "/metrics": "kedge_ingest_rows_total", "/openapi.json": `"/v1/query"`,
		"/v1/config": "data_dir:", "/v1/status": `"partitions"`, "/v1/topics": "kedge.registry", "/assets/page.css": "--paper",
	} {
		if code, body := get(t, p.http+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %q in %.300s", path, code, want, body)
		}
	}
	if code, body := get(t, p.http+"/nowhere"); code != 404 || !strings.Contains(body, `"not_found"`) {
		t.Errorf("/nowhere: %d %s", code, body)
	}
	for _, line := range []string{
		"status", "config", "topics", "topics --print", "get", "get FeatureView driver_stats -o json", "dead-letters list",
		"query catalog", "query catalog --model ride_cancel", "query throughput --from 10m --step 1m", "query ingest_lag", "query ledger", "query disk", "query freshness",
		"query rows --view driver_stats --limit 3 -o csv", "query summary --model ride_cancel --columns wait_minutes --group-by district --from 30m --step 5m",
		"query score_distribution --model ride_cancel --step 5m -o arrow", "query label_coverage --model ride_cancel -o json",
	} {
		if out := p.must(strings.Fields(line)...); out == "" {
			t.Errorf("kedge %s prints nothing", line)
		}
	}
	for line, says := range map[string]string{
		"query nonsense": "unknown_kind", "query rows": "needs a view or a model", "query rows --view nobody": "not_found",
		"query throughput --view driver_stats": "does not read", "query rows --view driver_stats --columns nothing": "nothing",
		"get FeatureView nobody": "no FeatureView named",
	} {
		if _, errs, status := p.kedge(strings.Fields(line)...); status != 1 || !strings.Contains(errs, says) {
			t.Errorf("kedge %s: status %d, want %q in %s", line, status, says, errs)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatalf("SIGTERM under load: %v\n%s", err, p.log.String())
	}
	again := startKedge(t, dir) // without the demo: what was acknowledged must be there, once
	again.caughtUp(1)
	records := columnSum(t, again.ask(query.Request{Kind: "ledger"})[0], "records")
	again.checkLedger(records, 0)
}

// Real data in: what the files hold must be what the store holds, after a
// restart too.
func TestRealFilesArriveWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startKedge(t, dir)
	examples := filepath.Join(testenv.Root(t), "examples")
	for _, f := range []struct{ data, mapping string }{
		{"elec.csv", "elec.yaml"}, {"employment_MA_reference.pq", "employment.yaml"},
		{"employment_MA_analysis.pq", "employment.yaml"}, {"employment_MA_analysis_target.pq", "employment_labels.yaml"},
	} {
		began := time.Now()
		p.must("replay", testenv.Shared(t, "data/"+f.data), "--map", filepath.Join(examples, f.mapping), "--known-at", "event_time", "--quiet")
		t.Logf("%s sent in %v", f.data, time.Since(began).Round(time.Millisecond))
	}
	want := expectedTotals(t)
	p.caughtUp(want.events)
	check := func(p *kedgeProcess) {
		p.checkLedger(want.events, 0)
		want.check(t, p)
	}
	check(p)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = startKedge(t, dir)
	p.caughtUp(want.events)
	check(p)
	p.trainEmployment(t)
}

func TestEventsGoInAndDeadLettersComeOut(t *testing.T) {
	p := startKedge(t, t.TempDir())
	lines := `{"view":"v","key":{"id":1},"event_time":"2026-11-01T00:00:00Z","values":{"x":1.5}}
{"view":"v","key":{"id":2},"event_time":"2026-11-01T00:00:01Z","values":{"x":2.5}}
{"view":"v","key":{"id":3},"event_time":"yesterday","values":{"x":3.5}}
`
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("send", file)
	p.caughtUp(3)
	p.checkLedger(3, 1)
	if out := p.must("dead-letters", "list", "--reason", "time", "-o", "csv"); !strings.Contains(out, "yesterday") {
		t.Errorf("dead letters: %s", out)
	}
	if out := p.must("dead-letters", "replay", "--reason", "time"); !strings.Contains(out, "1 replayed") {
		t.Errorf("replay: %s", out)
	}
	p.caughtUp(4)
	p.checkLedger(4, 2)
	frames := p.ask(query.Request{Kind: "summary", View: "v", From: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC), Step: query.Duration(24 * time.Hour)})
	b, err := json.Marshal(frames[0])
	if err != nil || !strings.Contains(string(b), `"name":"mean","type":"float","nullable":true,"labels":{"column":"x"},"values":[2]`) {
		t.Errorf("summary: %s, %v", b, err)
	}
}
