package query

// Kind describes one kind of question: what it is about, which members of a
// Request it reads, and the frames that answer it. The server refuses members
// that a kind does not read; the Grafana editor shows the ones that it does.
type Kind struct {
	Name    string    `json:"name"`
	Title   string    `json:"title"`
	Help    string    `json:"help"`
	Group   string    `json:"group"`           // heading in the editor
	Subject Subject   `json:"subject"`         // what must be named
	Reads   []string  `json:"reads"`           // members read beside kind, namespace, from, to
	Frame   FrameType `json:"frame"`           // of its first frame
	Default string    `json:"panel,omitempty"` // the panel that shows it best
	Shows   Showing   `json:"-"`               // what of a column that a policy protects its answer could tell
}

// Showing says how an answer could show values of a protected column, and so
// what is taken out of it for whoever may not see them.
type Showing uint8

// What answers show. A kind that says nothing is held to ShowsFindings.
const (
	ShowsFindings Showing = iota // statements about columns, in rows, frames and columns that name them
	ShowsData                    // rows whose columns are called like the data's own
	ShowsRecords                 // records as they came
	ShowsNames                   // nothing but names, times and counts
)

// Subject says what a kind is about.
type Subject string

// Subjects. Either takes a view or a model; Optional takes one or none.
const (
	NoSubject   Subject = "none"
	ViewOnly    Subject = "view"
	ModelOnly   Subject = "model"
	ViewOrModel Subject = "either"
	Optional    Subject = "optional"
)

// Kinds is the one table of question kinds that every Kedge answers.
func Kinds() []Kind { return append(append(roomKinds(), panelKinds()...), trainingKinds()...) }

func roomKinds() []Kind {
	return []Kind{
		{Name: "catalog", Title: "Catalogue", Group: "Catalogue", Subject: Optional, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "The models and views that Kedge knows; with a view or model: its columns, versions and types. Never a scan."},
		{Name: "search", Title: "Search", Group: "Catalogue", Subject: NoSubject, Reads: []string{"filter", "limit"}, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Definitions of any kind in which every word of filter.text stands somewhere: names, columns, descriptions, owners, tags; the best match first. Filter by kind, owner, team or tier too."},
		{Name: "audit", Title: "Audit", Group: "Catalogue", Subject: NoSubject, Reads: []string{"filter", "limit"}, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Who changed what in the namespace and who was refused, the newest first. Filter by subject, what or allowed. It takes the permission audit:read."},
		{Name: "throughput", Title: "Throughput", Group: "Pipeline", Subject: NoSubject, Reads: []string{"step", "group_by", "max_points"}, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Rows a second that landed, per stream or per topic."},
		{Name: "ingest_lag", Title: "Ingest lag", Group: "Pipeline", Subject: NoSubject, Reads: []string{"step", "max_points"}, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Seconds from the broker's append time to the row being queryable, per topic."},
		{Name: "ledger", Title: "Ledger", Group: "Pipeline", Subject: NoSubject, Reads: nil, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Per partition: what was consumed, what became of it, and whether any row is missing or doubled."},
		{Name: "dead_letters", Title: "Dead letters", Group: "Pipeline", Subject: NoSubject, Reads: []string{"filter", "limit"}, Frame: Table, Default: "table", Shows: ShowsRecords,
			Help: "Records that could not become rows, newest first, with the reason and the raw bytes, and counts by reason. Keys, values and details take the permission dead-letter:read: they are null without it."},
		{Name: "disk", Title: "Storage", Group: "Pipeline", Subject: NoSubject, Reads: nil, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "Bytes and rows per table, growth a day, and days until the disk is full."},
		{Name: "freshness", Title: "Freshness", Group: "Data", Subject: Optional, Reads: nil, Frame: NumericLong, Default: "table", Shows: ShowsNames,
			Help: "Seconds since the newest event of every registered view and model, of one without events since its registration: silence is a value."},
		{Name: "column_freshness", Title: "Freshness of columns", Group: "Data", Subject: Optional, Reads: []string{"columns"}, Frame: NumericLong, Default: "table", Shows: ShowsNames,
			Help: "Of every registered column, those never seen included: seconds since its newest value, or since its registration, and how many seconds that lies behind the newest row of its view or model. What the rule of silent columns asks."},
		{Name: "freshness_series", Title: "Freshness over time", Group: "Data", Subject: ViewOrModel, Reads: []string{"columns", "step", "max_points"}, Frame: TimeSeriesWide, Default: "timeseries", Shows: ShowsNames,
			Help: "Per registered column the age of its newest value at the end of each step. A column that falls silent is a line that climbs."},
		{Name: "rows", Title: "Rows", Group: "Data", Subject: ViewOrModel, Reads: []string{"columns", "filter", "limit", "version", "params"}, Frame: Table, Default: "table", Shows: ShowsData,
			Help: "The rows of a view or model in a range, newest first; with params {\"labels\": true} a model's labels."},
		{Name: "score_distribution", Title: "Score distribution", Group: "Data", Subject: ModelOnly, Reads: []string{"step", "filter", "version", "max_points"}, Frame: HeatmapRows, Default: "heatmap",
			Help: "How many scores of a model fell into each of twenty cells of [0, 1], per step."},
		{Name: "label_coverage", Title: "Label coverage", Group: "Data", Subject: ModelOnly, Reads: []string{"step", "version", "max_points"}, Frame: TimeSeriesWide, Default: "timeseries",
			Help: "Per step of prediction time: predictions, the share whose label has come, and the means of score and label over those."},
		{Name: "summary", Title: "Summary over time", Group: "Data", Subject: ViewOrModel, Reads: []string{"columns", "step", "group_by", "filter", "version", "max_points", "params"}, Frame: TimeSeriesMulti, Default: "timeseries",
			Help: "Count, null share, mean, deviation, minimum, maximum and quantiles of numeric columns per step."},
		{Name: "drift", Title: "Drift over time", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns", "detector"}, Frame: TimeSeriesMulti, Default: "timeseries",
			Help: "Per column and detector: the distance of each judged window from its reference, and the floor it is held against."},
		{Name: "quality", Title: "Data quality", Group: "Drift", Subject: ViewOrModel, Reads: nil, Frame: TimeSeriesLong, Default: "timeseries",
			Help: "Per column and derived window, or stretch of windows in a long range: rows, and the share of them without a value."},
		{Name: "consistency", Title: "Online and offline", Group: "Data", Subject: Optional, Reads: nil, Frame: Table, Default: "table",
			Help: "Per feature: how many served values of the last hour were recomputed from stored rows, and how many came out different."},
		{Name: "rollouts", Title: "Rollouts", Group: "Serving", Subject: Optional, Reads: nil, Frame: Table, Default: "table", Shows: ShowsNames,
			Help: "What was live: every change of a model's deployment, newest first, with who, why and the evidence; the last row is the state that the range began with."},
		{Name: "verdicts", Title: "Verdicts", Group: "Drift", Subject: Optional, Reads: []string{"limit"}, Frame: Table, Default: "table",
			Help: "What monitors judged, newest first, each window at its newest revision: distance, floor, severity and a plain sentence."},
		{Name: "incidents", Title: "Incidents", Group: "Drift", Subject: Optional, Reads: []string{"limit"}, Frame: Table, Default: "table",
			Help: "What is open, or was opened in the range: since when, how severe, whether somebody was told, and who decided what about it."},
		{Name: "distribution", Title: "Distribution", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns"}, Frame: Table, Default: "barchart",
			Help: "Per column: the shares of the reference and of a range (default: the newest judged window) in every bin, and the bin's part of their distance."},
		{Name: "contributions", Title: "What moved most", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns", "limit"}, Frame: Table, Default: "table",
			Help: "The bins and categories of all columns whose share of rows changed most, the largest change first."},
		{Name: "performance", Title: "Performance", Group: "Model", Subject: ModelOnly, Reads: []string{"columns", "segment", "group_by"}, Frame: TimeSeriesMulti, Default: "timeseries",
			Help: "Per metric and window: the value that labels give, the value expected without them, both with errors, the share of labels that have come, and whether they have had their time. Columns are metrics; segment {\"district\": \"\"} asks for the gaps between a segment's values, group_by for each of them, group_by \"*\" for those of every segment."},
		{Name: "segment_drift", Title: "Drift per segment", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns", "segment", "detector", "limit"}, Frame: Table, Default: "table",
			Help: "Per judged window, segment and column: how many times its floor the segment is away from its own reference, newest windows first, the worst on top. Segment {\"district\": \"\"} asks for every value of one dimension."},
		{Name: "root_cause", Title: "Causes", Group: "Drift", Subject: ViewOrModel, Reads: []string{"limit"}, Frame: Table, Default: "table",
			Help: "The columns under suspicion: by how their drift moves with the change of the model's performance over the range's windows, and by how much they matter to it."},
		{Name: "segment_search", Title: "Segment search", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns", "limit"}, Frame: Table, Default: "table",
			Help: "Slices of raw rows, told by one condition or two, in which the model's error rose most since the reference; with one numeric column, in which that column moved most. Shown: beyond chance, corrected for the search."},
		{Name: "version_compare", Title: "Version against version", Group: "Drift", Subject: ModelOnly, Reads: []string{"columns", "version", "params"}, Frame: Table, Default: "table",
			Help: "What a version met, answered and was worth over a range, beside another one: columns that differ beyond chance, the farthest on top, and metrics with their errors. Params: against, the other version."},
		{Name: "monitors", Title: "Monitors", Group: "Drift", Subject: Optional, Reads: nil, Frame: Table, Default: "table",
			Help: "What is watched, against which reference, in which windows, and how far each monitor is."},
		{Name: "reference", Title: "Reference", Group: "Drift", Subject: ViewOrModel, Reads: nil, Frame: Table, Default: "table",
			Help: "What may be expected of a monitor's reference: how far its own windows lie from it, and the smallest change that it can show."},
		{Name: "constraints", Title: "Learnt constraints", Group: "Drift", Subject: ViewOrModel, Reads: []string{"columns"}, Frame: Table, Default: "table",
			Help: "What every window should keep, as a monitor's reference suggests it: shares, ranges and lists of values, and how many of the reference's own windows broke what its other parts suggest. Withheld: too many did."},
		{Name: "backtest", Title: "Backtest", Group: "Drift", Subject: ViewOrModel, Reads: []string{"params"}, Frame: Table, Default: "table",
			Help: "How often a policy would have told somebody over past windows. Params: alpha, need, of, clear, cooldown."},
	}
}

// KindNamed finds a kind by its name.
func KindNamed(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}
