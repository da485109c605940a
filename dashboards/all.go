package dashboards

import "github.com/kedge-ml/kedge/query"

//go:generate go run ./gen

// Uids of the dashboards; alert rules and links name them.
const (
	OverviewUID = "kedge-overview"
	PipelineUID = "kedge-pipeline"
	ViewUID     = "kedge-view"
)

func titleOf(uid string) string {
	switch uid {
	case OverviewUID:
		return "Overview"
	case PipelineUID:
		return "Pipeline"
	case ViewUID:
		return "Feature view"
	}
	return uid
}

// All returns every dashboard.
func All() []Dashboard {
	return []Dashboard{overview(), pipeline(), featureView()}
}

func overview() Dashboard {
	return Dashboard{
		UID: OverviewUID, Title: "Kedge / Overview", From: "now-1h", Refresh: "30s", Links: []string{PipelineUID, ViewUID},
		Description: "Everything that Kedge watches at a glance: what arrives, how fresh it is, what is wrong.",
		Rows: []Row{
			{Title: "What arrives", Panels: []Panel{
				{Title: "Rows a second", Type: timeseries, Width: 16, Query: query.Request{Kind: "throughput"},
					Description: "Rows that landed in their tables, per stream. A stream that stops is a line that ends at zero."},
				{Title: "Freshness", Type: table, Width: 8, Query: query.Request{Kind: "freshness"},
					Description: "Seconds since the newest event of each model and view, the silent ones included."},
			}},
			{Title: "What is known", Panels: []Panel{
				{Title: "Models and views", Type: table, Width: 24, Query: query.Request{Kind: "catalog"},
					Description: "The catalogue: every model and view, who owns it, and what it is.",
					Links:       []Link{{Title: "Feature view", URL: "/d/" + ViewUID}}},
			}},
			{Title: "What is wrong", Panels: []Panel{
				{Title: "Dead letters", Type: table, Width: 12, Query: query.Request{Kind: "dead_letters", Limit: 20}, Empty: "no record is bad",
					Description: "The newest records that could not become rows, and why."},
				{Title: "Ledger", Type: table, Width: 12, Query: query.Request{Kind: "ledger"},
					Description: "Per partition: what was consumed and what became of it. Gaps and duplicates are zero, or something is wrong.",
					Links:       []Link{{Title: "Pipeline", URL: "/d/" + PipelineUID}}},
			}},
		},
	}
}

func pipeline() Dashboard {
	return Dashboard{
		UID: PipelineUID, Title: "Kedge / Pipeline", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID},
		Description: "From the broker to the tables: throughput, lag, the ledger, dead letters and storage.",
		Rows: []Row{
			{Title: "Flow", Panels: []Panel{
				{Title: "Rows a second by topic", Type: timeseries, Query: query.Request{Kind: "throughput", GroupBy: []string{"topic"}},
					Description: "Rows that landed, per topic."},
				{Title: "Ingest lag", Type: timeseries, Query: query.Request{Kind: "ingest_lag"},
					Description: "From the broker's append time to the row being queryable."},
			}},
			{Title: "Exactly once", Panels: []Panel{
				{Title: "Ledger", Type: table, Width: 24, Query: query.Request{Kind: "ledger"},
					Description: "Consumed = rows + dead letters + duplicates + tombstoned + dropped, per partition; gap and duplicate rows are zero."},
			}},
			{Title: "Refused and stored", Panels: []Panel{
				{Title: "Dead letters", Type: table, Width: 14, Query: query.Request{Kind: "dead_letters", Limit: 100}, Empty: "no record is bad",
					Description: "Records that could not become rows, newest first, with the reason and the raw bytes. Replay them with kedge dead-letters replay."},
				{Title: "Storage", Type: table, Width: 10, Query: query.Request{Kind: "disk"},
					Description: "Bytes and rows per table, growth a day, and days until the disk is full."},
			}},
		},
	}
}

func featureView() Dashboard {
	return Dashboard{
		UID: ViewUID, Title: "Kedge / Feature view", From: "now-1h", Refresh: "30s", Links: []string{OverviewUID, PipelineUID},
		Description: "One feature view: its columns over time and its newest rows.",
		Variables: []Variable{
			{Name: "view", Label: "Feature view", List: "views"},
			{Name: "column", Label: "Columns", List: "columns", View: "$view", Multi: true},
		},
		Rows: []Row{
			{Title: "$view", Panels: []Panel{
				{Title: "Columns over time", Type: timeseries, Width: 24, Height: 10, Query: query.Request{Kind: "summary", View: "$view", Columns: []string{"$column"}},
					Description: "Mean, null share and quantiles of the chosen columns per step."},
				{Title: "Columns", Type: table, Width: 8, Query: query.Request{Kind: "catalog", View: "$view"},
					Description: "Columns, roles and types of the view."},
				{Title: "Newest rows", Type: table, Width: 16, Query: query.Request{Kind: "rows", View: "$view", Limit: 50},
					Description: "The newest rows of the range."},
			}},
		},
	}
}
