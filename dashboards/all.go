package dashboards

import "github.com/kedge-ml/kedge/query"

//go:generate go run ./gen

// Uids of the dashboards; alert rules, links of the data source and links
// between dashboards name them.
const (
	OverviewUID = "kedge-overview"
	ModelUID    = "kedge-model"
	ViewUID     = "kedge-view"
	ServingUID  = "kedge-serving"
	PipelineUID = "kedge-pipeline"
	TrainingUID = "kedge-training"
	KedgeUID    = "kedge-itself"
	TraceUID    = "kedge-trace"
)

// titleOf is what links call a dashboard; empty for one that there is not.
func titleOf(uid string) string {
	return map[string]string{OverviewUID: "Overview", ModelUID: "Model", ViewUID: "Feature view", ServingUID: "Serving", TrainingUID: "Training", PipelineUID: "Pipeline", KedgeUID: "Kedge itself", TraceUID: "Trace"}[uid]
}

// All returns every dashboard.
func All() []Dashboard {
	return []Dashboard{overview(), model(), featureView(), serving(), training(), pipeline(), itself(), trace()}
}

// PanelID finds a panel's id by its title, for links and alert rules.
func PanelID(uid, title string) (int, bool) {
	for _, d := range All() {
		id := 0
		for _, r := range d.Rows {
			id++ // the row's own
			for _, p := range r.Panels {
				own := p.number(&id)
				if d.UID == uid && p.Title == title {
					return own, true
				}
			}
		}
	}
	return 0, false
}

// learning is why drift has nothing to say of a young stream.
const learning = "monitors are still learning their reference, or none is defined"

// rates are the metrics that one axis can show; counts of a confusion matrix would
// press them flat.
func rates() []string {
	return []string{"accuracy", "roc_auc", "average_precision", "f1", "precision", "recall", "brier", "mae", "rmse", "r2"}
}

// bookkeeping are columns of rows that say where a row came from, not what it is.
func bookkeeping() []string {
	return []string{"created", "known_at", "appended_at", "overflow", "partition", "offset", "epoch"}
}

func overview() Dashboard {
	return Dashboard{
		UID: OverviewUID, Title: "Kedge / Overview", From: "now-1h", Refresh: "30s", Links: []string{ModelUID, ViewUID, ServingUID, TrainingUID, PipelineUID, KedgeUID}, Marks: "*",
		Description: "Everything that Kedge watches at a glance: what drifts, what is silent, what arrives, what is wrong.",
		Rows: []Row{
			{Title: "Health", Panels: []Panel{
				{Title: "Open incidents", Type: table, Width: 10, Query: query.Request{Kind: "drift_state"}, Empty: learning, First: []string{"subject", "column", "detector", "state"}, Hide: []string{"monitor"},
					Description: "Every judged column, the worst first: 0 is quiet, 1 a notice, 2 a warning, 3 critical. Alert rules ask the same.",
					Links:       []Link{{Title: "Model", URL: "/d/" + ModelUID}}},
				{Title: "Share of columns that drift", Type: bargauge, Width: 6, Query: query.Request{Kind: "drift_share"}, Unit: "percentunit", Empty: learning,
					Description: "Per view and model: how many of its watched columns have an open incident. Many at once are seldom the world."},
				{Title: "Freshness", Type: table, Width: 8, Query: query.Request{Kind: "freshness"}, First: []string{"subject", "kind", "seconds"}, Hide: []string{"newest"},
					Description: "Seconds since the newest event of each model and view, the silent ones included."},
			}},
			{Title: "What happened", Panels: []Panel{
				{Title: "Incidents", Type: table, Width: 14, Query: query.Request{Kind: "incidents", Limit: 50}, Empty: learning, First: []string{"subject", "column", "severity", "state", "opened", "sentence"}, Hide: []string{"id", "monitor"},
					Description: "What is open or was opened in the range: since when, how severe, whether somebody was told, and who decided what about it."},
				{Title: "Monitors", Type: table, Width: 10, Query: query.Request{Kind: "monitors"}, Empty: "no monitor has looked yet",
					Description: "What is watched, against which reference, in which windows, and how far each monitor is."},
			}},
			{Title: "What arrives", Panels: []Panel{
				{Title: "Rows a second", Type: timeseries, Width: 14, Query: query.Request{Kind: "throughput"},
					Description: "Rows that landed in their tables, per stream. A stream that stops is a line that ends at zero."},
				{ID: 101, Title: "Freshness of columns", Type: table, Width: 10, Query: query.Request{Kind: "column_freshness"}, First: []string{"subject", "column", "behind", "seconds"}, Hide: []string{"kind", "newest"},
					Description: "Every registered column, the most silent on top: how far its newest value lies behind the newest row of its view or model, and how old it is. A column that was never seen counts from its registration."},
			}},
			{Title: "What is known", Panels: []Panel{
				{Title: "Models and views", Type: table, Width: 14, Height: 10, Query: query.Request{Kind: "catalog"},
					Description: "The catalogue: every model and view, who owns it, and what it is.",
					Links:       []Link{{Title: "Feature view", URL: "/d/" + ViewUID}}},
				{Title: "Lineage", Type: nodegraph, Width: 10, Height: 10, Query: query.Request{Kind: "lineage"},
					Description: "What feeds what: topics, feature views, models and the versions that answer."},
			}},
			{Title: "What is wrong", Panels: []Panel{
				{Title: "Dead letters", Type: table, Width: 12, Query: query.Request{Kind: "dead_letters", Limit: 20}, Empty: "no record is bad", First: []string{"known_at", "reason", "topic"}, Hide: []string{"index", "epoch"},
					Description: "The newest records that could not become rows, and why."},
				{Title: "Ledger", Type: table, Width: 12, Query: query.Request{Kind: "ledger"}, First: []string{"topic", "partition", "records", "rows", "gap_rows", "duplicate_rows"},
					Description: "Per partition: what was consumed and what became of it. Gaps and duplicates are zero, or something is wrong.",
					Links:       []Link{{Title: "Pipeline", URL: "/d/" + PipelineUID}}},
			}},
		},
	}
}

func model() Dashboard {
	of := query.Request{Model: "$model"}
	ask := func(kind string, change func(*query.Request)) query.Request {
		q := of
		q.Kind = kind
		if change != nil {
			change(&q)
		}
		return q
	}
	return Dashboard{
		UID: ModelUID, Title: "Kedge / Model", From: "now-6h", Refresh: "1m", Links: []string{OverviewUID, ServingUID, TrainingUID, ViewUID}, Marks: "$model",
		Description: "One model: what it answers, what turned out true, how far its inputs are from their reference, and the rows behind it.",
		Variables: []Variable{
			{Name: "model", Label: "Model", List: "models"},
			{Name: "column", Label: "Columns", List: "columns", Model: "$model", Multi: true},
		},
		Rows: []Row{
			{Title: "How good is it", Panels: []Panel{
				{Title: "Score against truth", Type: timeseries, Query: ask("label_coverage", nil), Values: []string{"mean_score", "mean_label"},
					Description: "The mean score of predictions beside the mean of the labels that have come. Lines that part mean that the model is wrong on average."},
				{Title: "Labels that have come", Type: timeseries, Query: ask("label_coverage", nil), Values: []string{"coverage"}, Unit: "percentunit", SoftMax: 1,
					Description: "The share of predictions whose label is known by now. Recent ones are still waiting."},
				{Title: "Distribution of scores", Type: heatmap, Width: 24, Query: ask("score_distribution", nil),
					Description: "How many scores fell into each twentieth of zero to one. A band that moves is a model that sees another world."},
			}},
			{Title: "What it is worth", Panels: []Panel{
				{Title: "Performance", Type: timeseries, Width: 24, Query: ask("performance", func(q *query.Request) { q.Columns = rates() }), Values: []string{"value", "expected"}, Empty: learning,
					Description: "Per metric and window: what labels give and what is expected without them. Where they part, either the labels or the estimate deserve a look."},
			}},
			{Title: "What drifts", Panels: []Panel{
				{Title: "Drift of all columns", Type: heatmap, Width: 24, ColorMax: 3, Height: 10, Query: ask("drift_heatmap", nil), Empty: learning,
					Description: "How many times its floor each column is away from its reference, window by window, the worst on top. Beyond one, neither chance nor the reference's own unrest explains it."},
				{Title: "Distance over time", Type: timeseries, Legend: "right", Query: ask("drift", nil), Values: []string{"effect", "floor"}, Empty: learning,
					Description: "The distance of every judged window from its reference, beside the floor that it is held against."},
				{Title: "Verdicts", Type: table, Query: ask("verdicts", func(q *query.Request) { q.Limit = 50 }), Empty: learning, First: []string{"time", "column", "detector", "severity", "sentence"}, Hide: []string{"end", "monitor", "subject"},
					Description: "What monitors judged, newest first, each with a plain sentence: what moved, by how much, and where."},
			}},
			{Title: "Where it drifts", Panels: []Panel{
				{Title: "What moved most", Type: table, Width: 24, Query: ask("contributions", func(q *query.Request) { q.Limit = 20 }), Empty: learning, Refused: learning,
					Description: "The bins and categories of all columns whose share of rows changed most in the newest judged window: the segment to look at."},
				{Title: "Drift per segment", Type: table, Query: ask("segment_drift", func(q *query.Request) { q.Limit = 50 }), Empty: learning, First: []string{"time", "segment", "column", "times", "drifted", "sentence"}, Hide: []string{"monitor", "severity", "reference_rows"},
					Description: "Per segment and column, the newest windows first and the worst on top: how many times its floor a segment is away from its own past. It names the district that moved while all of them together did not."},
				{Title: "Performance per segment", Type: timeseries, Query: ask("performance", func(q *query.Request) { q.Columns, q.GroupBy = []string{"accuracy", "mae"}, []string{"*"} }), Values: []string{"value"}, Empty: learning,
					Description: "What labels give for every version and every value of a segment: the share of right answers, or the mean error of a regression."},
				{Title: "Reference and now: $column", Type: barchart, Repeat: "column", Query: ask("distribution", func(q *query.Request) { q.Columns = []string{"$column"} }), Values: []string{"reference", "window"}, Empty: learning, Refused: learning,
					Description: "The shares of the reference and of the newest judged window in every bin of $column."},
			}},
			{Title: "Columns", Panels: []Panel{
				{Title: "Chosen columns", Type: timeseries, Query: ask("summary", func(q *query.Request) { q.Columns = []string{"$column"} }), Values: []string{"mean"},
					Description: "The mean of each chosen numeric column over time."},
				{Title: "Missing values", Type: timeseries, Query: ask("summary", func(q *query.Request) { q.Columns = []string{"$column"} }), Values: []string{"null_share"}, Unit: "percentunit", SoftMax: 0.05,
					Description: "The share of rows in which a chosen column has no value."},
				{ID: 101, Title: "Age of columns", Type: timeseries, SoftMax: 1, Width: 24, Query: ask("freshness_series", func(q *query.Request) { q.Columns = []string{"$column"} }),
					Description: "How old the newest value of each chosen column was. A column that falls silent climbs, while the others lie near zero."},
			}},
			{Title: "Rows behind it", Panels: []Panel{
				{Title: "Newest predictions", Type: table, Width: 24, Height: 10, Query: ask("rows", func(q *query.Request) { q.Limit = 50 }), First: []string{"event_time", "id", "version", "score", "class", "value", "trace_id"}, Hide: append(bookkeeping(), "quantiles", "vector"),
					Description: "The newest predictions of the range with their exact inputs. A trace id leads to its trace."},
			}},
		},
	}
}

func featureView() Dashboard {
	return Dashboard{
		UID: ViewUID, Title: "Kedge / Feature view", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID, ModelUID, PipelineUID}, Marks: "$view",
		Description: "One feature view: how fresh it is, its columns over time, whether it serves what is stored, and its newest rows.",
		Variables: []Variable{
			{Name: "view", Label: "Feature view", List: "views"},
			{Name: "column", Label: "Columns", List: "columns", View: "$view", Multi: true},
		},
		Rows: []Row{
			{Title: "$view", Panels: []Panel{
				{Title: "Age", Type: table, Width: 8, Query: query.Request{Kind: "freshness", View: "$view"}, First: []string{"kind", "seconds", "rows"}, Hide: []string{"newest", "subject"},
					Description: "Seconds since the newest event of the view, and how many rows there are."},
				{Title: "Online and offline", Type: table, Width: 16, Query: query.Request{Kind: "consistency", View: "$view"}, Empty: "nothing of the view was served in the last hour",
					Description: "Values served in the last hour, recomputed from stored rows as of then. Any difference is a fault."},
				{Title: "Used by", Type: table, Width: 24, Height: 6, Query: query.Request{Kind: "usage", View: "$view"}, Empty: "no feature service names the view, and no model has inputs called like its features",
					Description: "Feature services that name the view, and models whose inputs are called like its features: who suffers when it does.",
					Links:       []Link{{Title: "Model", URL: "/d/" + ModelUID}}},
				{Title: "Columns over time", Type: timeseries, Width: 24, Height: 10, Query: query.Request{Kind: "summary", View: "$view", Columns: []string{"$column"}}, Values: []string{"p05", "p50", "p95"},
					Description: "The middle and the outer twentieths of the chosen numeric columns."},
				{Title: "Missing values", Type: timeseries, Query: query.Request{Kind: "summary", View: "$view", Columns: []string{"$column"}}, Values: []string{"null_share"}, Unit: "percentunit", SoftMax: 0.05,
					Description: "The share of rows in which a chosen column has no value."},
				{ID: 101, Title: "Age of columns", Type: timeseries, SoftMax: 1, Query: query.Request{Kind: "freshness_series", View: "$view", Columns: []string{"$column"}},
					Description: "How old the newest value of each chosen column was. A column that falls silent climbs, while the others lie near zero."},
				{Title: "Drift of all columns", Type: heatmap, Width: 24, ColorMax: 3, Query: query.Request{Kind: "drift_heatmap", View: "$view"}, Empty: learning,
					Description: "How many times its floor each column is away from its reference, the worst on top."},
				{Title: "Columns", Type: table, Width: 8, Query: query.Request{Kind: "catalog", View: "$view"},
					Description: "Columns, roles and types of the view."},
				{Title: "Newest rows", Type: table, Width: 16, Query: query.Request{Kind: "rows", View: "$view", Limit: 50}, First: []string{"event_time"}, Hide: append(bookkeeping(), "id", "deleted"),
					Description: "The newest rows of the range."},
			}},
		},
	}
}
