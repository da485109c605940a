package alerts

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/dashboards"
)

// PrometheusRule is an alert about Kedge's own metrics: what a Kedge that is
// unwell could not answer.
type PrometheusRule struct {
	Name, Expr    string
	For           time.Duration
	Severity      string
	Summary, Text string
}

// burn is the share of failures over a window.
func burn(window string) string {
	const m = "http_server_request_duration_seconds_count"
	return fmt.Sprintf(`(sum(rate(%s{http_response_status_code=~"5.."}[%s])) / sum(rate(%s[%s])))`, m, window, m, window)
}

// burning holds while both a long and a short window spend the error budget so
// many times faster than it lasts: the long one says that it matters, the
// short one that it still goes on. The method is that of the Site Reliability
// Workbook, chapter 5.
func burning(long, short string, times float64) string {
	return fmt.Sprintf("%s > %g and %s > %g", burn(long), times*dashboards.Objective, burn(short), times*dashboards.Objective)
}

// Prometheus returns the rules about Kedge's own metrics.
func Prometheus() []PrometheusRule {
	return []PrometheusRule{
		{Name: "KedgeWatchdog", Expr: "vector(1)", Severity: "none", Summary: "Alerting works",
			Text: "This alert always fires. Whoever waits for it learns from its absence that alerts do not arrive."},
		{Name: "KedgeDown", Expr: `up{job="kedge"} == 0 or absent(up{job="kedge"})`, For: 2 * time.Minute, Severity: "critical", Summary: "No metrics from Kedge",
			Text: "Prometheus cannot scrape Kedge. Events wait in Kafka and are not lost, but nothing is judged or served."},
		{Name: "KedgeErrorBudgetFast", Expr: burning("1h", "5m", 14.4), For: 2 * time.Minute, Severity: "critical", Summary: "Kedge fails requests: a month's budget lasts two days",
			Text: "At this rate one hour spends two percent of the error budget of thirty days."},
		{Name: "KedgeErrorBudgetSlow", Expr: burning("6h", "30m", 6), For: 15 * time.Minute, Severity: "warning", Summary: "Kedge fails requests: a month's budget lasts five days",
			Text: "At this rate six hours spend five percent of the error budget of thirty days."},
		{Name: "KedgeLedgerGap", Expr: "max(kedge_ledger_gap_rows) > 0 or max(kedge_ledger_duplicate_rows) > 0", Severity: "critical", Summary: "Rows are missing or stand twice",
			Text: "The ledger and the tables do not agree."},
		{Name: "KedgeRecordsLost", Expr: "increase(kedge_ingest_missing_records_total[10m]) > 0", Severity: "critical", Summary: "Retention overtook the reader",
			Text: "The broker deleted records before Kedge read them."},
		{Name: "KedgeIngestBehind", Expr: "sum by (messaging_destination_name) (kedge_ingest_lag_records) > 10000 and sum by (messaging_destination_name) (deriv(kedge_ingest_lag_records[10m])) > 0",
			For: 10 * time.Minute, Severity: "warning", Summary: "{{ $labels.messaging_destination_name }}: ingest falls further behind",
			Text: "More than ten thousand records wait, and their number grows."},
		{Name: "KedgeDriftHasNotRun", Expr: "increase(kedge_drift_eval_duration_seconds_count[2h]) == 0 or absent(kedge_drift_eval_duration_seconds_count)", For: 30 * time.Minute,
			Severity: "warning", Summary: "The drift detector has not run for two hours", Text: "Quiet dashboards mean nothing while nothing is judged."},
		{Name: "KedgeDiskFillsUp", Expr: "predict_linear(kedge_store_free_bytes[6h], 4 * 24 * 3600) < 0", For: time.Hour, Severity: "warning", Summary: "The disk is full within four days",
			Text: "By the growth of the last six hours."},
	}
}

// RenderPrometheus writes rules as Prometheus reads them.
func RenderPrometheus(rules []PrometheusRule) ([]byte, error) {
	type entry struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         string            `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	var entries []entry
	for _, r := range rules {
		e := entry{Alert: r.Name, Expr: r.Expr, Labels: map[string]string{"severity": r.Severity, "service": "kedge"},
			Annotations: map[string]string{"summary": r.Summary, "description": r.Text, "runbook_url": runbooks + "prometheus.md#" + r.anchor()}}
		if r.For > 0 {
			e.For = r.For.String()
		}
		entries = append(entries, e)
	}
	b, err := yaml.MarshalWithOptions(map[string]any{"groups": []any{map[string]any{"name": "kedge-itself", "rules": entries}}}, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("render Prometheus rules: %w", err)
	}
	return append([]byte("# Written by go generate ./alerts from alerts/prometheus.go.\n"), b...), nil
}

// anchor is the heading of the rule in its runbook, as links write it.
func (r PrometheusRule) anchor() string {
	b := []byte(r.Name)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
