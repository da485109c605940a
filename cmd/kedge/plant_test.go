package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// planter writes into the engine of a running kedge behind its back, by the port
// that other kedge processes share.
type planter struct {
	t    *testing.T
	addr string
}

func (p planter) do(statement string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.addr+"/?"+url.Values{"database": {"kedge"}}.Encode(), strings.NewReader(statement))
	if err != nil {
		p.t.Fatal(err)
	}
	req.SetBasicAuth("kedge", "for-the-test")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	if said, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %d %s", statement, res.StatusCode, said)
	}
}

// verdict plants what a monitor would have said of a window that ended so long
// ago.
func (p planter) verdict(subject, column, detector, change string, ago time.Duration) {
	p.t.Helper()
	end := time.Now().Add(-ago).UTC()
	at := func(d time.Duration) string { return end.Add(d).Format("2006-01-02 15:04:05.000000") }
	p.do(fmt.Sprintf("INSERT INTO verdicts (namespace, monitor, subject, `column`, detector, start, end, revision, effect, floor, drifted, severity, change, sentence) "+
		"VALUES ('default', 'model/%s', '%s', '%s', '%s', '%s', '%s', %d, 1, 0.1, %v, 'warning', '%s', 'planted')",
		subject, subject, column, detector, at(-10*time.Minute), at(0), end.UnixMicro(), change == "opened", change))
}

// run plants a training run as the trainer records it.
func (p planter) run(id string, revision int, gpu, idle float64) {
	p.t.Helper()
	p.do(fmt.Sprintf("INSERT INTO runs (namespace, id, revision, job, state, trigger, created, wall, gpu, record) VALUES ('default', '%s', %d, 'nightly', 'succeeded', 'schedule', now64(6), 1000, %v, "+
		`'{"cost":{"gpu_seconds":%v,"gpu_idle_seconds":%v}}')`, id, revision, gpu, gpu, idle))
}

// metricIsPositive waits until a gauge is above zero: it publishes the newest
// audit, and an audit rests for fifty times as long as it took.
func (p *kedgeProcess) metricIsPositive(name string) {
	p.t.Helper()
	value := regexp.MustCompile(`(?m)^` + name + `(?:\{.*\})? (\S+)$`)
	testenv.Eventually(p.t, 5*time.Minute, func() error {
		_, body := get(p.t, p.http+"/metrics")
		m := value.FindStringSubmatch(body)
		if m == nil {
			return fmt.Errorf("no %s", name)
		}
		if v, err := strconv.ParseFloat(m[1], 64); err != nil || v <= 0 {
			return fmt.Errorf("%s is %s", name, m[1])
		}
		return nil
	})
}

// TestRulesOnPlantedFaults plants what no stream of events brings about in a
// test's time: rows that are gone or doubled, verdicts of models whose labels
// take hours, runs on a GPU. Each rule fires with its labels and clears.
func TestRulesOnPlantedFaults(t *testing.T) {
	addr := freeAddress(t)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE", addr)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE_PASSWORD", "for-the-test")
	k := startKedge(t, t.TempDir())
	plant := planter{t, addr}
	p := startPlugin(t, k.http, `{}`, nil)
	rules := provisioned(t)
	k.send(rows("meter", time.Now().Add(-time.Hour), time.Now(), 1))
	testenv.Eventually(t, 30*time.Second, func() error {
		if n := landed(k, "features", "meter"); n < 1800 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	table := strings.TrimSpace(k.sql(t, "SELECT name FROM system.tables WHERE database = 'kedge' AND startsWith(name, 'features_') LIMIT 1"))
	gap, twice, topic := p.watch(rules["kedge-ledger-gap"]), p.watch(rules["kedge-ledger-duplicates"]), map[string]string{"topic": "kedge.default.features", "severity": "critical"}
	plant.do("CREATE TABLE aside ENGINE = Memory AS SELECT * FROM " + table)
	back := "INSERT INTO " + table + " SELECT * FROM aside SETTINGS insert_deduplicate = 0"
	plant.do("TRUNCATE TABLE " + table)
	gap.fires(topic)
	k.metricIsPositive("kedge_ledger_gap_rows")
	plant.do(back)
	gap.clears(topic, 0)
	plant.do(back)
	twice.fires(topic)
	k.metricIsPositive("kedge_ledger_duplicate_rows")
	plant.do("TRUNCATE TABLE " + table)
	plant.do(back)
	twice.clears(topic, 0)

	for uid, of := range map[string][2]string{"kedge-performance": {"(performance)", "roc_auc"}, "kedge-late": {"(rows)", "freshness"}} {
		w, labels := p.watch(rules[uid]), map[string]string{"subject": "fraud", "detector": of[1], "column": of[0]}
		plant.verdict("fraud", of[0], of[1], "opened", time.Hour)
		w.fires(labels)
		plant.verdict("fraud", of[0], of[1], "resolved", time.Minute)
		w.clears(labels, 0)
	}

	job := filepath.Join(t.TempDir(), "job.yaml")
	spec := "kind: TrainingJob\nname: nightly\nspec:\n  data: {predictions: fraud}\n  triggers: [{every: 2000h, budget: 2}]\n"
	if err := os.WriteFile(job, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	idle, budget, nightly := p.watch(rules["kedge-gpu-idle"]), p.watch(rules["kedge-training-budget"]), map[string]string{"job": "nightly", "severity": "warning"}
	k.must("apply", "-f", job)
	plant.run("a", 1, 1000, 800)
	idle.fires(nightly)
	budget.clears(nightly, 0) // one of two
	plant.run("a", 2, 1000, 100)
	idle.clears(nightly, 0)
	plant.run("b", 1, 0, 0)
	budget.fires(nightly)
	budget.clears(nightly, 25*time.Hour)
}
