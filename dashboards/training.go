package dashboards

import "github.com/kedge-ml/kedge/query"

// Reasons for which panels of a Kedge that trains nothing hold no rows.
const (
	untrained = "nothing was trained in the range"
	noGPU     = "no run of the range held a GPU: there is none, or none was asked for"
)

func training() Dashboard {
	return Dashboard{
		UID: TrainingUID, Title: "Kedge / Training", From: "now-7d", Refresh: "1m", Links: []string{OverviewUID, ModelUID, ServingUID}, Marks: "*",
		Description: "What was trained, how good it became round by round, what a search found, and what it cost in processors, GPUs and energy.",
		Rows: []Row{
			{Title: "Runs", Panels: []Panel{
				{Title: "Training runs", Type: table, Width: 24, Height: 9, Query: query.Request{Kind: "runs", Limit: 100}, Empty: untrained, First: []string{"created", "job", "state", "metric", "valid", "test", "baseline", "live", "passed", "device", "device_reason", "duration", "error"}, Hide: []string{"owner", "artifact"},
					Description: "Runs and trials, newest first: state, who or what started them, the device that was used and why, the score on held-out rows beside the baseline's and the live model's, and whether the gate let the model pass.",
					Links:       []Link{{Title: "Model", URL: "/d/" + ModelUID}, {Title: "Serving", URL: "/d/" + ServingUID}}},
				{Title: "Held-out scores", Type: barchart, Width: 12, Query: query.Request{Kind: "runs", Limit: 20}, Values: []string{"test", "baseline", "live"}, Empty: untrained,
					Description: "Per run the metric on rows that it has not seen, beside what the stated baseline and the live model reach on the same rows."},
				{Title: "Metrics by round", Type: timeseries, Width: 12, Query: query.Request{Kind: "run_metrics"}, Values: []string{"value"}, Empty: untrained,
					Description: "Every round's metrics on training and validation rows. Lines that part say that a model learns its rows by heart."},
			}},
			{Title: "Search", Panels: []Panel{
				{Title: "Trials stopped early", Type: table, Width: 12, Query: query.Request{Kind: "runs", Filter: map[string]string{"state": "pruned"}, Limit: 100}, Empty: "no search has stopped a trial in the range",
					Description: "Trials that fell behind their search and were stopped: each is a run of its own, with the search as its parent."},
				{Title: "Log", Type: logs, Width: 12, Query: query.Request{Kind: "run_log", Limit: 200}, Empty: untrained,
					Description: "What runs wrote, newest first: the first place to look when one failed."},
			}},
			{Title: "GPU and cost", Panels: []Panel{
				{Title: "Time by job", Type: bargauge, Width: 8, Query: query.Request{Kind: "training_cost"}, Values: []string{"wall", "cpu", "gpu"}, Empty: untrained,
					Description: "Seconds of wall clock, processor and GPU that the runs of each job took in the range."},
				{Title: "GPU held and idle", Type: bargauge, Width: 8, Query: query.Request{Kind: "training_cost"}, Values: []string{"idle_share"}, Unit: "percentunit", Empty: noGPU,
					Description: "The share of the time a GPU was held in which nothing ran on it. It is paid for all the same."},
				{Title: "Triggered runs and their budget", Type: bargauge, Width: 8, Query: query.Request{Kind: "training_cost"}, Values: []string{"budget_share"}, Unit: "percentunit", Empty: untrained,
					Description: "The share of the runs that a job's triggers may start within a day which they have started. At one, the next alert retrains nothing."},
				{Title: "Energy", Type: bargauge, Width: 12, Query: query.Request{Kind: "training_cost"}, Values: []string{"energy"}, Unit: "kwatth", Empty: noGPU,
					Description: "Energy that GPUs took for the runs of each job, by the devices' own counters."},
				{Title: "Runs by job", Type: table, Width: 12, Query: query.Request{Kind: "training_cost"}, Empty: untrained,
					Description: "Runs, failures, triggered runs, time and energy of each job in the range, jobs without a run included."},
			}},
		},
	}
}
