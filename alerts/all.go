package alerts

import (
	"time"

	"github.com/kedge-ml/kedge/query"
)

// All returns every rule, in its group.
func All() []Group {
	return []Group{
		{Name: "kedge-models", Interval: time.Minute, Rules: modelRules()},
		{Name: "kedge-data", Interval: time.Minute, Rules: dataRules()},
		{Name: "kedge-pipeline", Interval: time.Minute, Rules: pipelineRules()},
		{Name: "kedge-training", Interval: time.Minute, Rules: trainingRules()},
	}
}

func modelRules() []Rule {
	return []Rule{
		{
			UID: "kedge-drift", Title: "A column drifts", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "drift_state", Detector: "ks,chi2,mean_slowly,unseen"}, Values: []string{"state"}, Above: 0,
			Summary: "{{ $labels.column }} of {{ $labels.subject }} drifts", Dashboard: "kedge-overview", Panel: "Open incidents",
			Text: "A monitor has an open incident: the column is farther from its reference than chance and the reference's own unrest explain.",
		},
		{
			UID: "kedge-drift-share", Title: "Many columns drift at once", Severity: "critical", NoData: StateOK, Range: 24 * time.Hour, For: 5 * time.Minute,
			Query: query.Request{Kind: "drift_share"}, Values: []string{"share"}, Above: 0.5,
			Summary: "{{ $labels.subject }}: more than half of the watched columns drift", Dashboard: "kedge-overview", Panel: "Open incidents",
			Text: "So many columns at once are seldom the world: look at the producer, at a unit or time zone that changed, at a join that lost its key.",
		},
		{
			UID: "kedge-performance", Title: "A model performs worse", Severity: "critical", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "drift_state", Columns: []string{"(performance)"}}, Values: []string{"state"}, Above: 0,
			Summary: "{{ $labels.subject }} loses {{ $labels.detector }}", Dashboard: "kedge-model", Panel: "Performance",
			Text: "By labels, or by what is expected before they come, the model is worse than its reference, beyond chance and the reference's own unrest.",
		},
		{
			UID: "kedge-rollback", Title: "A model was rolled back", Severity: "warning", NoData: StateOK, Range: time.Hour,
			Query: query.Request{Kind: "rollbacks"}, Values: []string{"rollbacks"}, Above: 0,
			Summary: "{{ $labels.model }} went back to an earlier version", Dashboard: "kedge-serving", Panel: "Rollout history",
			Text: "A guard-rail or a person put an earlier version back in front within the last hour.",
		},
	}
}

func dataRules() []Rule {
	return []Rule{
		{
			UID: "kedge-data-quality", Title: "Values go missing", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "drift_state", Detector: "missing_rate,missing_slowly,constraint,volume"}, Values: []string{"state"}, Above: 0,
			Summary: "{{ $labels.column }} of {{ $labels.subject }} has lost values", Dashboard: "kedge-overview", Panel: "Open incidents",
			Text: "More rows than the reference knows have no usable value, a declared constraint is broken, or far more or fewer rows come than usual.",
		},
		{
			UID: "kedge-silent", Title: "A view or model is silent", Severity: "warning", NoData: StateOK, // nothing is registered: nobody is silent
			Range: time.Hour, For: 5 * time.Minute,
			Query: query.Request{Kind: "freshness"}, Values: []string{"seconds"}, Above: 3600,
			Summary: "No {{ $labels.kind }} of {{ $labels.subject }} for more than an hour", Dashboard: "kedge-overview", Panel: "Freshness",
			Text: "Every registered view and model reports its age, the silent ones included, so that silence is a value and not a gap.",
		},
		{
			UID: "kedge-silent-column", Title: "A column is silent", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour, For: 5 * time.Minute,
			Query: query.Request{Kind: "column_freshness"}, Values: []string{"behind"}, Above: 3600,
			Summary: "{{ $labels.column }} of {{ $labels.subject }} has had no value for more than an hour, while rows came", Dashboard: "kedge-overview", Panel: "Freshness of columns",
			Text: "Every registered column reports how far its newest value lies behind the newest row, one that was never seen too. A view or model that is silent as a whole is another rule's.",
		},
		{
			UID: "kedge-late", Title: "A view or model is late", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "drift_state", Detector: "freshness,cadence"}, Values: []string{"state"}, Above: 0,
			Summary: "{{ $labels.subject }} is later than its monitor allows", Dashboard: "kedge-overview", Panel: "Freshness",
			Text: "The monitor knows how often rows come, or was told when a batch must have come.",
		},
		{
			UID: "kedge-consistency", Title: "Served features differ from stored ones", Severity: "critical", NoData: StateOK, Range: time.Hour, For: 5 * time.Minute,
			Query: query.Request{Kind: "consistency"}, Values: []string{"rate"}, Numeric: true, Above: 0.001,
			Summary: "{{ $labels.feature }} of {{ $labels.view }} is served differently from what is stored", Dashboard: "kedge-view", Panel: "Online and offline",
			Text: "Values served in the last hour were recomputed from stored rows as of the time of serving, and came out different.",
		},
	}
}

func pipelineRules() []Rule {
	return []Rule{
		{
			UID: "kedge-ledger-gap", Title: "Rows are missing from a table", Severity: "critical", NoData: StateOK, Range: time.Hour,
			Query: query.Request{Kind: "ledger"}, Values: []string{"gap_rows"}, Numeric: true, Above: 0,
			Summary: "{{ $labels.topic }}: the ledger counts rows that no table holds", Dashboard: "kedge-pipeline", Panel: "Ledger",
			Text: "Consumed records and stored rows do not agree. Nothing else in Kedge can be trusted until this is understood.",
		},
		{
			UID: "kedge-ledger-duplicates", Title: "Rows stand twice in a table", Severity: "critical", NoData: StateOK, Range: time.Hour,
			Query: query.Request{Kind: "ledger"}, Values: []string{"duplicate_rows"}, Numeric: true, Above: 0,
			Summary: "{{ $labels.topic }}: a table holds rows twice", Dashboard: "kedge-pipeline", Panel: "Ledger",
			Text: "The same record of a partition is stored more than once.",
		},
		{
			UID: "kedge-lag", Title: "Ingest lags behind", Severity: "warning", NoData: StateOK, Range: 10 * time.Minute, For: 5 * time.Minute,
			Query: query.Request{Kind: "ingest_lag"}, Reduce: "last", Above: 60,
			Summary: "{{ $labels.series }}: rows can be asked for more than a minute after they were sent", Dashboard: "kedge-pipeline", Panel: "Ingest lag",
			Text: "From the broker's append to the row being queryable. Verdicts, freshness and online features are late by as much.",
		},
	}
}

func trainingRules() []Rule {
	return []Rule{
		{
			UID: "kedge-gpu-idle", Title: "A GPU is held and idle", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "training_cost"}, Values: []string{"idle_share"}, Above: 0.5,
			Summary: "{{ $labels.job }} held a GPU and left it idle for more than half of the time", Dashboard: "kedge-training", Panel: "GPU held and idle",
			Text: "Of the time that the job's runs of the last day held a GPU, nothing ran on it for more than half.",
		},
		{
			UID: "kedge-training-budget", Title: "A job has spent its budget", Severity: "warning", NoData: StateOK, Range: 24 * time.Hour,
			Query: query.Request{Kind: "training_cost"}, Values: []string{"budget_share"}, Above: 0.999,
			Summary: "{{ $labels.job }}: its triggers have started all the runs that they may within a day", Dashboard: "kedge-training", Panel: "Triggered runs and their budget",
			Text: "Until a run is a day old no schedule and no alert retrains this job. The budget stands in the job's definition.",
		},
	}
}
