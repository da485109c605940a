package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/alerts/expr"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// provisioned are the committed rules as Grafana reads them from their file.
func provisioned(t *testing.T) map[string]alerts.FileRule {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.Root(t), "alerts", "kedge-rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f alerts.File
	if err := event.DecodeYAML(b, &f); err != nil {
		t.Fatal(err)
	}
	out := map[string]alerts.FileRule{}
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			out[r.UID] = r
		}
	}
	return out
}

// evaluate asks a rule's question through the plugin and runs its steps.
func (p *pluginProcess) evaluate(r alerts.FileRule, now time.Time) expr.Outcome {
	p.t.Helper()
	q := r.Data[0]
	body, err := json.Marshal(q.Model)
	if err != nil {
		p.t.Fatal(err)
	}
	res := p.ask(backend.DataQuery{RefID: q.RefID, JSON: body, MaxDataPoints: 1000, Interval: time.Minute,
		TimeRange: backend.TimeRange{From: now.Add(-time.Duration(q.RelativeTimeRange.From) * time.Second), To: now.Add(-time.Duration(q.RelativeTimeRange.To) * time.Second)}})[q.RefID]
	return expr.Evaluate(r, res.Frames, res.Error)
}

// ruleCase watches one rule of a running kedge.
type ruleCase struct {
	t testing.TB
	p *pluginProcess
	r alerts.FileRule
	w *expr.Watch
}

func (p *pluginProcess) watch(r alerts.FileRule) *ruleCase {
	p.t.Helper()
	w, err := expr.NewWatch(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return &ruleCase{p.t, p, r, w}
}

// fires waits until the rule alerts with these labels, among others. Between
// two evaluations the watch believes that the rule's patience has passed.
func (c *ruleCase) fires(labels map[string]string) {
	c.t.Helper()
	now := time.Now()
	testenv.Eventually(c.t, 30*time.Second, func() error {
		now = now.Add(10 * time.Minute)
		o := c.p.evaluate(c.r, time.Now())
		for _, l := range c.w.Step(o, now) {
			if l.Contains(labels) {
				return nil
			}
		}
		return fmt.Errorf("%s does not fire with %v: %+v", c.r.UID, labels, o)
	})
}

// clears waits until the rule does not alert with these labels any more, asked
// as of a time.
func (c *ruleCase) clears(labels map[string]string, at time.Duration) {
	c.t.Helper()
	now := time.Now().Add(1000 * time.Hour)
	testenv.Eventually(c.t, 30*time.Second, func() error {
		now = now.Add(10 * time.Minute)
		o := c.p.evaluate(c.r, time.Now().Add(at))
		for _, l := range c.w.Step(o, now) {
			if l.Contains(labels) {
				return fmt.Errorf("%s still fires: %v", c.r.UID, l)
			}
		}
		return o.Err
	})
}

// TestAlertRules drives the committed rules end to end: events through Kafka,
// Kedge's answers, the plugin's frames, the rules' own steps, labels and states.
func TestAlertRules(t *testing.T) {
	k := startKedge(t, t.TempDir())
	p := startPlugin(t, k.http, `{}`, nil)
	rules := provisioned(t)
	for uid, r := range rules {
		o := p.evaluate(r, time.Now())
		if o.Err != nil {
			t.Errorf("%s on an empty kedge: %v", uid, o.Err)
		}
		if got := p.watch(r).w.Step(o, time.Now()); len(got) != 0 {
			t.Errorf("%s alerts on an empty kedge: %v", uid, got)
		}
	}
	send := func(view string, age time.Duration) {
		k.send(fmt.Sprintf(`{"view":%q,"key":{"id":1},"event_time":%q,"values":{"x":1}}`, view, time.Now().Add(-age).UTC().Format(time.RFC3339Nano)))
	}

	send("quiet", 2*time.Hour)
	send("lively", 0)
	silent, quiet := p.watch(rules["kedge-silent"]), map[string]string{"alertname": "A view or model is silent", "subject": "quiet", "kind": "features", "severity": "warning", "service": "kedge"}
	silent.fires(quiet)
	silent.clears(map[string]string{"subject": "lively"}, 0)
	send("quiet", 0)
	silent.clears(quiet, 0)

	checkSilentColumns(t, k, p, rules["kedge-silent-column"])

	k.rollBack(t)
	back := p.watch(rules["kedge-rollback"])
	back.fires(map[string]string{"model": "fraud", "severity": "warning"})
	back.clears(map[string]string{"model": "fraud"}, 2*time.Hour)

	lag := rules["kedge-lag"]
	p.watch(lag).clears(map[string]string{}, 0)
	above(lag, 2, -1) // a minute is long for a test
	p.watch(lag).fires(map[string]string{"series": "kedge.default.features", "severity": "warning"})

	for _, uid := range []string{"kedge-ledger-gap", "kedge-ledger-duplicates"} {
		o := p.evaluate(rules[uid], time.Now())
		if o.Err != nil || len(o.Instances) == 0 || o.Instances[0].Labels["topic"] == "" || o.Instances[0].Firing {
			t.Errorf("%s: %+v", uid, o)
		}
	}
	checkAgree(t, k, p, rules)
	checkTrouble(t, k, p, rules)
}

// above moves the threshold of a rule's step.
func above(r alerts.FileRule, step int, limit any) {
	condition := r.Data[step].Model["conditions"].([]any)[0].(map[string]any)
	condition["evaluator"].(map[string]any)["params"] = []any{limit}
}

// checkSilentColumns holds that a column without values alerts while rows of its
// view come, one that was declared and never seen too, and others do not.
func checkSilentColumns(t *testing.T, k *kedgeProcess, p *pluginProcess, r alerts.FileRule) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "view.yaml")
	spec := "kind: FeatureView\nname: probe\nspec:\n  origin: declared\n  keys: [{name: id, type: Int64}]\n  columns: [{name: always, type: Float64}, {name: stops, type: Float64}, {name: never, type: Float64}]\n"
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("apply", "-f", file)
	send := func(in time.Duration, values string) {
		k.send(fmt.Sprintf(`{"view":"probe","key":{"id":1},"event_time":%q,"values":{%s}}`, time.Now().Add(in).UTC().Format(time.RFC3339Nano), values))
	}
	of := func(column string) map[string]string {
		return map[string]string{"alertname": "A column is silent", "subject": "probe", "kind": "features", "column": column, "severity": "warning"}
	}
	silent := p.watch(r)
	send(-2*time.Hour, `"always":1,"stops":1`)
	send(0, `"always":2`)
	silent.fires(of("stops"))
	silent.clears(of("always"), 0)
	silent.clears(of("never"), 0) // registered a moment ago
	send(0, `"always":3,"stops":2`)
	silent.clears(of("stops"), 0)
	send(9*time.Minute, `"always":4,"stops":3`)
	above(r, 1, 300) // an hour is long for a test
	now := time.Now()
	testenv.Eventually(t, 30*time.Second, func() error {
		now = now.Add(10 * time.Minute)
		for _, l := range silent.w.Step(p.evaluate(r, time.Now().Add(10*time.Minute)), now) {
			if l.Contains(of("stops")) || l.Contains(of("always")) {
				t.Fatalf("alerts: %v", l)
			}
			if l.Contains(of("never")) {
				return nil
			}
		}
		return errors.New("a column that was declared and never seen does not alert")
	})
}

// checkTrouble takes the kedge away: every rule says so, whatever it asks.
func checkTrouble(t *testing.T, k *kedgeProcess, p *pluginProcess, rules map[string]alerts.FileRule) {
	t.Helper()
	if err := k.stop(); err != nil {
		t.Fatal(err)
	}
	for uid, r := range rules {
		w := p.watch(r).w
		o := p.evaluate(r, time.Now())
		w.Step(o, time.Now())
		got := w.Step(o, time.Now().Add(time.Hour))
		if o.Err == nil || len(got) != 1 || !got[0].Contains(data.Labels{"alertname": "DatasourceError", "rulename": r.Title}) {
			t.Errorf("%s without a kedge: %v, %v", uid, o.Err, got)
		}
	}
}

// rows are feature rows of a view, one every two seconds of event time, which
// turn around a mean. Where the mean is 12, z has no value in most of them.
func rows(view string, from, to time.Time, mean float64) string {
	var b strings.Builder
	for i, at := 0, from; at.Before(to); i, at = i+1, at.Add(2*time.Second) {
		spread, z := float64(i*7919%1000)/1000-0.5, "1.5"
		if mean == 12 && i%10 > 0 {
			z = "null"
		}
		fmt.Fprintf(&b, "{\"view\":%q,\"key\":{\"id\":%d},\"event_time\":%q,\"values\":{\"x\":%.4f,\"y\":%.4f,\"z\":%s}}\n", view, i%50, at.UTC().Format(time.RFC3339Nano), mean+spread, spread, z)
	}
	return b.String()
}

// TestDriftAlert sends six hours of rows in accelerated event time: quiet
// windows fire nothing, a column that moved fires with its labels, and the rule
// clears when it has moved back.
func TestDriftAlert(t *testing.T) {
	t.Parallel()
	k := startKedge(t, t.TempDir())
	p := startPlugin(t, k.http, `{}`, nil)
	rules := provisioned(t)
	now := time.Now().UTC().Truncate(time.Minute)
	at := func(hours float64) time.Time { return now.Add(-time.Duration(hours * float64(time.Hour))) }
	k.send(rows("meter", at(6), at(3), 10))
	file := filepath.Join(t.TempDir(), "monitor.yaml")
	spec := "kind: Monitor\nname: meter\nspec:\n  view: meter\n  window: 10m\n  season: 1ns\n  reference: {from: %s, to: %s}\n  policy: {need: 2, of: 3, clear: 3}\n"
	if err := os.WriteFile(file, fmt.Appendf(nil, spec, at(6).Format(time.RFC3339), at(4).Format(time.RFC3339)), 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("apply", "-f", file)
	drift := p.watch(rules["kedge-drift"])
	judged := func(windows int, column string) {
		t.Helper()
		testenv.Eventually(t, 120*time.Second, func() error {
			f := k.ask(query.Request{Kind: "drift", View: "meter", Columns: []string{column}, Detector: "ks"})
			if len(f) == 0 || f[0].Rows() < windows {
				return fmt.Errorf("%d frames, %+v", len(f), f)
			}
			return nil
		})
	}
	judged(4, "x")
	if o := p.evaluate(rules["kedge-drift"], time.Now()); o.Err != nil || len(drift.w.Step(o, time.Now())) != 0 || len(o.Instances) == 0 {
		t.Fatalf("quiet windows: %+v", o)
	}
	k.send(rows("meter", at(3), at(2), 12))
	judged(9, "x")
	moved := map[string]string{"alertname": "A column drifts", "subject": "meter", "column": "x", "service": "kedge"}
	drift.fires(moved)
	drift.clears(map[string]string{"column": "y"}, 0)
	quality, lost := p.watch(rules["kedge-data-quality"]), map[string]string{"subject": "meter", "column": "z", "detector": "missing_rate", "severity": "warning"}
	quality.fires(lost)
	share, many := p.watch(rules["kedge-drift-share"]), map[string]string{"subject": "meter", "severity": "critical"} // x and z of three
	share.fires(many)
	k.send(rows("meter", at(2), at(0.5), 10))
	drift.clears(moved, 0)
	quality.clears(lost, 0)
	share.clears(many, 0)
}
