package query

// panelKinds are the kinds that exist for panels, annotations and alert rules.
func panelKinds() []Kind {
	step := []string{"step", "version", "max_points"}
	return []Kind{
		{Name: "drift_state", Title: "Drift state", Group: "Drift", Subject: Optional, Reads: []string{"columns", "detector"}, Frame: NumericLong, Default: "table",
			Help: "Per judged column: 0 while no incident is open, else 1 (notice), 2 (warning) or 3 (critical). What alert rules ask. Several detectors are separated by commas."},
		{Name: "drift_share", Title: "Share of columns that drift", Group: "Drift", Subject: Optional, Reads: []string{"detector"}, Frame: NumericLong, Default: "bargauge",
			Help: "Per view and model: the share of its judged columns that have an open incident."},
		{Name: "drift_heatmap", Title: "Drift heat map", Group: "Drift", Subject: ViewOrModel, Reads: []string{"detector", "limit"}, Frame: HeatmapRows, Default: "heatmap",
			Help: "Per judged window and column: how many times its floor the column is away from its reference; the worst columns on top."},
		{Name: "serving_latency", Title: "Latency", Group: "Serving", Subject: ModelOnly, Reads: step, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Median, 95th and 99th percentile of a prediction's time in ms, its stages, and the slowest as exemplars."},
		{Name: "latency_heatmap", Title: "Latency heat map", Group: "Serving", Subject: ModelOnly, Reads: step, Frame: HeatmapRows, Default: "heatmap", Shows: ShowsNames,
			Help: "How many predictions took how long, per step, with the slowest as exemplars."},
		{Name: "serving_throughput", Title: "Predictions a second", Group: "Serving", Subject: ModelOnly, Reads: []string{"step", "max_points"}, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Predictions a second of a model, per version and variant."},
		{Name: "serving_errors", Title: "Requests by outcome", Group: "Serving", Subject: ModelOnly, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Requests a second that the asked process answered, refused (a bad request, a missing feature, a fault of the model) and rejected (too many at once), of the last day since it started."},
		{Name: "trace", Title: "Trace", Group: "Serving", Subject: NoSubject, Reads: []string{"filter"}, Frame: Spans, Default: "traces",
			Help: "The spans of one trace that the asked process keeps, the earliest first. Filter by trace_id. Where a collector runs, the trace is whole there."},
		{Name: "deployments", Title: "Rollout history", Group: "Serving", Subject: Optional, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Deployments, rollbacks, new artefacts and withdrawals, newest first, with who and why."},
		{Name: "rollbacks", Title: "Rollbacks", Group: "Serving", Subject: Optional, Frame: NumericLong, Default: "stat", Shows: ShowsNames,
			Help: "Per deployed model: how often it went back to an earlier version in the range."},
		{Name: "annotations", Title: "Annotations", Group: "Catalogue", Subject: Optional, Reads: []string{"filter"}, Frame: Table, Default: "table",
			Help: "Marks for time axes: deployments, rollbacks, retrainings, drift incidents. Filter by type."},
		{Name: "lineage", Title: "Lineage", Group: "Catalogue", Subject: Optional, Frame: NodeGraph, Default: "nodeGraph", Shows: ShowsNames,
			Help: "What feeds what: topics, views, models, deployed versions."},
		{Name: "usage", Title: "Used by", Group: "Catalogue", Subject: Optional, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Who uses a view: the feature services that name it, and the models whose inputs are called like its features."},
		{Name: "dead_letter_log", Title: "Dead letters as a log", Group: "Pipeline", Subject: NoSubject, Reads: []string{"filter", "limit"}, Frame: LogLines, Default: "logs", Shows: ShowsRecords,
			Help: "Records that could not become rows, newest first, as log lines; without the permission dead-letter:read they say the reason alone."},
	}
}
