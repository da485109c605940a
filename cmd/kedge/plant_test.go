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

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
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

// tableWith is the table of features that has a column.
func (p *kedgeProcess) tableWith(t *testing.T, column string) string {
	t.Helper()
	return p.sql(t, "SELECT table FROM system.columns WHERE database = 'kedge' AND startsWith(table, 'features_') AND name = 'v_"+column+"' LIMIT 1")
}

// plantInconsistency changes a stored row behind the online table's back: what is
// served from then on is not what is stored, and the rule says of which feature.
// When the row is as it was, reads that agree clear it.
func plantInconsistency(t *testing.T, k *kedgeProcess, p *pluginProcess, plant planter, r alerts.FileRule) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "view.yaml")
	spec := "kind: FeatureView\nname: rider\nspec:\n  origin: declared\n  online: true\n  keys: [{name: id, type: Int64}]\n  columns: [{name: trips, type: Float64}, {name: rides, type: Float64}]\n"
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("apply", "-f", file)
	k.send(fmt.Sprintf(`{"view":"rider","key":{"id":7},"event_time":%q,"values":{"trips":3,"rides":4}}`, time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)))
	read := func(times int) string {
		ids := strings.TrimSuffix(strings.Repeat("7,", times), ",")
		_, got := post(t, k.http+"/get-online-features", `{"features":["rider:trips","rider:rides"],"entities":{"id":[`+ids+`]}}`)
		return got
	}
	checked := func(least int64) {
		t.Helper()
		testenv.Eventually(t, 120*time.Second, func() error {
			if f := k.ask(query.Request{Kind: "consistency", View: "rider"})[0]; f.Rows() != 2 || f.Columns[2].Values.([]int64)[0] < least {
				return fmt.Errorf("checked: %+v", f)
			}
			return nil
		})
	}
	testenv.Eventually(t, 60*time.Second, func() error {
		if got := read(1); !strings.Contains(got, `"values":[3.0]`) {
			return fmt.Errorf("served: %s", got)
		}
		return nil
	})
	skewed, labels := p.watch(r), map[string]string{"alertname": r.Title, "view": "rider", "feature": "trips", "severity": "critical"}
	checked(1)
	skewed.clears(map[string]string{}, 0)
	table := k.tableWith(t, "trips")
	plant.do("ALTER TABLE " + table + " UPDATE v_trips = 30 WHERE 1 SETTINGS mutations_sync = 2")
	read(3)
	skewed.fires(labels)
	skewed.clears(map[string]string{"feature": "rides"}, 0)
	plant.do("ALTER TABLE " + table + " UPDATE v_trips = 3 WHERE 1 SETTINGS mutations_sync = 2")
	read(9000) // what differed becomes less than one in a thousand
	checked(9000)
	skewed.clears(labels, 0)
}

// TestRulesOnPlantedFaults plants what no stream of events brings about in a
// test's time: rows that are gone or doubled, verdicts of models whose labels
// take hours, runs on a GPU. Each rule fires with its labels and clears.
func TestRulesOnPlantedFaults(t *testing.T) {
	addr := testenv.Address(t)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE", addr)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE_PASSWORD", "for-the-test")
	t.Setenv("KEDGE_FEATURES_SERVED_SHARE", "1")
	t.Setenv("KEDGE_FEATURES_SERVED_DELAY", "1s")
	k := startKedge(t, t.TempDir())
	plant := planter{t, addr}
	p := startPlugin(t, k.http, `{}`, nil)
	rules := provisioned(t)
	plantInconsistency(t, k, p, plant, rules["kedge-consistency"])
	k.send(rows("meter", time.Now().Add(-time.Hour), time.Now(), 1))
	testenv.Eventually(t, 30*time.Second, func() error {
		if n := landed(k, "features", "meter"); n < 1800 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	table := k.tableWith(t, "y")
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
	idle.clears(nightly, 0) // a job without runs has held no GPU: no number, no alert
	plant.run("a", 1, 1000, 800)
	idle.fires(nightly)
	budget.clears(nightly, 0) // one of two
	plant.run("a", 2, 1000, 100)
	idle.clears(nightly, 0)
	plant.run("b", 1, 0, 0)
	budget.fires(nightly)
	budget.clears(nightly, 25*time.Hour)
}
