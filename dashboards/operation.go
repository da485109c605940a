package dashboards

import (
	"fmt"

	"github.com/kedge-ml/kedge/query"
)

func serving() Dashboard {
	return Dashboard{
		UID: ServingUID, Title: "Kedge / Serving", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID, ModelUID, KedgeUID}, Marks: "*",
		Description: "What answers, how fast and how often, per model, and what was deployed when.",
		Variables:   []Variable{{Name: "model", Label: "Models", List: "models", Multi: true}},
		Rows: []Row{
			{Title: "Deployments", Panels: []Panel{
				{Title: "Rollout history", Type: table, Width: 16, Query: query.Request{Kind: "deployments"}, Empty: "nothing is deployed",
					Description: "Deployments, rollbacks, new artefacts and withdrawals, newest first, with who and why."},
				{Title: "Rollbacks", Type: stat, Width: 8, Query: query.Request{Kind: "rollbacks"}, Unit: "none", Empty: "nothing is deployed",
					Description: "How often each deployed model went back to an earlier version in the range."},
				{ID: 101, Title: "Trials and guard-rails", Type: table, Width: 24, Height: 6, Query: query.Request{Kind: "rollouts"}, Empty: "nothing is deployed",
					Description: "What was live, on trial and in shadow after each change, newest first. Where a guard-rail ended a trial, why says by which evidence."},
			}},
			{Title: "$model", Repeat: "model", Panels: []Panel{
				{Title: "Predictions a second", Type: timeseries, Width: 8, Query: query.Request{Kind: "serving_throughput", Model: "$model"},
					Description: "Predictions a second per version and, where routing names one, variant."},
				{Title: "Latency", Type: timeseries, Width: 8, Query: query.Request{Kind: "serving_latency", Model: "$model"},
					Description: "Median, 95th and 99th percentile of a prediction's time and its stages. A dot is the slowest of its step: its trace is one click away."},
				{Title: "Latency heat map", Type: heatmap, Width: 8, Query: query.Request{Kind: "latency_heatmap", Model: "$model"},
					Description: "How many predictions took how long, in milliseconds."},
				{ID: 102, Title: "Errors", Type: timeseries, Width: 24, Height: 6, SoftMax: 1, Query: query.Request{Kind: "serving_errors", Model: "$model"}, Values: []string{"refused", "rejected"}, Empty: "the model's requests are answered elsewhere",
					Description: "Requests a second that Kedge refused (bad requests, missing features, faults of the model) and rejected (too many at once), as the asked process counted them."},
			}},
		},
	}
}

// trace is where the links of trace ids lead while the data source names no
// trace store.
func trace() Dashboard {
	return Dashboard{
		UID: TraceUID, Title: "Kedge / Trace", From: "now-6h", Links: []string{OverviewUID, ModelUID, ServingUID},
		Description: "One trace as far as the asked Kedge keeps it, and the rows that it left.",
		Variables:   []Variable{{Name: "model", Label: "Model", List: "models"}, {Name: "trace", Label: "Trace", Text: true}},
		Rows: []Row{
			{Title: "Trace", Panels: []Panel{
				{Title: "Spans", Type: traces, Width: 24, Height: 14, Query: query.Request{Kind: "trace", Filter: map[string]string{"trace_id": "$trace"}}, Empty: untraced, Refused: untraced,
					Description: "The spans of the trace, from the request to the insert of its record. Spans of callers are where they send them."},
				{Title: "Rows of the trace", Type: table, Width: 24, Query: query.Request{Kind: "rows", Model: "$model", Limit: 50, Filter: map[string]string{"trace_id": "$trace"}}, Empty: untraced,
					First: []string{"event_time", "id", "version", "score", "class", "value"}, Hide: append(bookkeeping(), "quantiles", "vector"),
					Description: "The predictions of the range that carry the trace's id, with their exact inputs."},
			}},
		},
	}
}

// untraced is why a trace may be missing.
const untraced = "the trace was not sampled, or is too old for this process to keep"

func pipeline() Dashboard {
	return Dashboard{
		UID: PipelineUID, Title: "Kedge / Pipeline", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID, KedgeUID},
		Description: "From the broker to the tables: throughput, lag, the ledger, dead letters and storage.",
		Rows: []Row{
			{Title: "Flow", Panels: []Panel{
				{Title: "Rows a second by topic", Type: timeseries, Query: query.Request{Kind: "throughput", GroupBy: []string{"topic"}},
					Description: "Rows that landed, per topic."},
				{Title: "Ingest lag", Type: timeseries, Query: query.Request{Kind: "ingest_lag"},
					Description: "From the broker's append time to the row being queryable."},
			}},
			{Title: "Exactly once", Panels: []Panel{
				{Title: "Ledger", Type: table, Width: 24, Query: query.Request{Kind: "ledger"}, First: []string{"topic", "partition", "records", "rows", "gap_rows", "duplicate_rows"},
					Description: "Consumed = rows + dead letters + duplicates + tombstoned + dropped, per partition; gap and duplicate rows are zero."},
			}},
			{Title: "Refused and stored", Panels: []Panel{
				{Title: "Dead letters", Type: logs, Width: 14, Query: query.Request{Kind: "dead_letter_log", Limit: 100}, Empty: "no record is bad",
					Description: "Records that could not become rows, newest first, with the reason, and the raw bytes for whoever may read them. Replay them with kedge dead-letters replay."},
				{Title: "Storage", Type: table, Width: 10, Query: query.Request{Kind: "disk"},
					Description: "Bytes and rows per table, growth a day, and days until the disk is full."},
			}},
		},
	}
}

// Objective is the share of requests that may fail: 99.9 % are to be answered.
const Objective = 0.001

// failing is the share of requests that failed in a window; where none did, the
// sum of failures has no series and counts as zero.
func failing(window string) string {
	const m = "http_server_request_duration_seconds_count"
	return fmt.Sprintf(`(sum(rate(%s{http_response_status_code=~"5.."}[%s])) or vector(0)) / sum(rate(%s[%s]))`, m, window, m, window)
}

// itself is about the process, by its own metrics: what a Kedge that is unwell
// could not answer.
func itself() Dashboard {
	rate := func(m string) string { return "sum(rate(" + m + "[$__rate_interval]))" }
	by := func(label, m string) string { return "sum by (" + label + ") (rate(" + m + "[$__rate_interval]))" }
	slow := func(q, m, label string) string {
		return "histogram_quantile(" + q + ", sum by (le, " + label + ") (rate(" + m + "[$__rate_interval])))"
	}
	burn := func(window string) string { return fmt.Sprintf("%s / %g", failing(window), Objective) }
	return Dashboard{
		UID: KedgeUID, Title: "Kedge / Kedge itself", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID, PipelineUID}, Metrics: true,
		Description: "Kedge's own requests, work and resources, from the metrics that Prometheus scrapes at /metrics.",
		Rows: []Row{
			{Title: "Requests", Panels: []Panel{
				{Title: "Requests a second", Type: timeseries, Width: 6, Unit: "reqps", Prometheus: []Metric{{by("http_route", "http_server_request_duration_seconds_count"), "{{http_route}}"}},
					Description: "What is asked of the API, per route."},
				{Title: "Share of failures", Type: timeseries, Width: 6, Unit: "percentunit", SoftMax: 0.01, Prometheus: []Metric{{failing("$__rate_interval"), "5xx"}},
					Description: "Requests that Kedge failed to answer, of all. The objective is that 99.9 % are answered."},
				{Title: "Time to answer", Type: timeseries, Width: 6, Unit: "s", Prometheus: []Metric{{slow("0.95", "http_server_request_duration_seconds_bucket", "http_route"), "{{http_route}}"}},
					Description: "The 95th percentile of the time to answer, per route."},
				{ID: 101, Title: "Error budget burn", Type: timeseries, Width: 6, Unit: "suffix:×", SoftMax: 1, Prometheus: []Metric{{burn("1h"), "of an hour"}, {burn("6h"), "of six hours"}},
					Description: "How many times faster than it lasts the error budget of thirty days is spent. An hour at 14.4 and six hours at 6 alert."},
			}},
			{Title: "Work", Panels: []Panel{
				{Title: "Rows written a second", Type: timeseries, Width: 8, Unit: "rowsps", Prometheus: []Metric{{rate("kedge_ingest_rows_total"), "rows"}},
					Description: "Rows that ingest wrote, of all streams together."},
				{Title: "Records waiting", Type: timeseries, Width: 8, Unit: "short", SoftMax: 10, Prometheus: []Metric{{"sum by (messaging_destination_name) (kedge_ingest_lag_records)", "{{messaging_destination_name}}"}},
					Description: "Records that the broker has and the store has not, per topic."},
				{Title: "Time of a unit", Type: timeseries, Width: 8, Unit: "s", Prometheus: []Metric{{slow("0.95", "kedge_ingest_unit_duration_seconds_bucket", "messaging_destination_name"), "{{messaging_destination_name}}"}},
					Description: "The 95th percentile of the time that one unit of work takes, per topic: intent, rows, ledger."},
			}},
			{Title: "Resources", Panels: []Panel{
				{Title: "Processor", Type: timeseries, Width: 8, Unit: "short", Prometheus: []Metric{{rate("process_cpu_seconds_total"), "cores"}, {"sum(go_sched_gomaxprocs_threads)", "there are"}},
					Description: "Processor cores in use, beside those that there are."},
				{Title: "Memory", Type: timeseries, Width: 8, Unit: "bytes", Prometheus: []Metric{{"sum by (instance) (process_resident_memory_bytes)", "{{instance}}"}},
					Description: "Resident memory, the embedded engine's included."},
				{Title: "Disk", Type: timeseries, Width: 8, Unit: "bytes", Prometheus: []Metric{{"sum(kedge_store_size_bytes)", "used"}, {"sum(kedge_store_free_bytes)", "free"}},
					Description: "Bytes that the tables take, and bytes that are left on the disk."},
			}},
		},
	}
}
