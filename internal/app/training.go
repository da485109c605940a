package app

// trainingKinds wires the questions about training runs.
func (a *App) trainingKinds(k map[string]KindFunc) {
	if a.store == nil {
		return
	}
	k["runs"] = a.store.Runs
	k["run_metrics"] = a.store.RunMetrics
	k["run_log"] = a.store.RunLog
}
