package query

// trainingKinds are the questions about training runs and registered models.
func trainingKinds() []Kind {
	return []Kind{
		{Name: "runs", Title: "Training runs", Group: "Training", Subject: Optional, Reads: []string{"filter", "limit"}, Frame: Table, Default: "table",
			Help: "Training runs, newest first: state, rounds done, the metric on validation and test rows beside the baseline's and the live model's, device, cost, gate. Filter by run, parent, state, trigger or backend; the model is the job's name."},
		{Name: "run_metrics", Title: "Metrics of runs", Group: "Training", Subject: Optional, Reads: []string{"columns", "filter", "limit"}, Frame: TimeSeriesLong, Default: "timeseries",
			Help: "Every round's metrics of training runs: time, step, value, run, job, set (train or valid), metric. Columns are metrics; filter by run or set."},
		{Name: "training_cost", Title: "Cost of training", Group: "Training", Subject: Optional, Frame: NumericLong, Default: "bargauge",
			Help: "Per training job: runs, seconds of wall, CPU and GPU, the share of GPU time in which nothing ran on it, energy, and the share of what its triggers may start within a day that they have started. The model is the job's name."},
		{Name: "run_log", Title: "Log of runs", Group: "Training", Subject: NoSubject, Reads: []string{"filter", "limit"}, Frame: LogLines, Default: "logs",
			Help: "The lines that training runs wrote, newest first. Filter by run."},
		{Name: "models", Title: "Models", Group: "Training", Subject: Optional, Frame: Table, Default: "table",
			Help: "The registry of models as of the range's end: every version with its aliases and stage, what it did in the deployment then, and who decided that and why."},
	}
}
