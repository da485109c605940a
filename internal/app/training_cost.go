package app

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/kedge-ml/kedge/query"
)

// trainingJobKind is the definition whose triggers have a budget.
const trainingJobKind = "TrainingJob"

// defaultTriggerBudget is how many runs triggers may start within a day unless
// a job says otherwise.
const defaultTriggerBudget = 24

// answerTrainingCost is what the runs of every job took, and how much of what its
// triggers may start they have started. A job without runs is listed with
// nothing, so that its silence is a value.
func (a *App) answerTrainingCost(ctx context.Context, r query.Request) ([]query.Frame, error) {
	f, err := a.store.TrainingCost(ctx, r)
	if err != nil {
		return nil, err
	}
	jobs := texts(f, "job")
	budgets := a.triggerBudgets(r.Namespace)
	for job := range budgets {
		if !slices.Contains(jobs, job) && (r.Model == "" || r.Model == job) {
			jobs = append(jobs, job)
		}
	}
	more := len(jobs) - f.Rows()
	for i := range f.Columns {
		switch v := f.Columns[i].Values.(type) {
		case []float64:
			f.Columns[i].Values = append(v, make([]float64, more)...)
		case []*float64: // of a GPU that it has not held
			f.Columns[i].Values = append(v, make([]*float64, more)...)
		}
	}
	f.Columns[0].Values = orNone(jobs)
	shares := make([]float64, len(jobs))
	for i, n := range values(f, "triggered") {
		if b := budgets[jobs[i]]; b > 0 {
			shares[i] = n / float64(b)
		}
	}
	f.Columns = append(f.Columns, query.Column{Name: "budget_share", Type: query.Float, Unit: "percentunit", Values: shares,
		Thresholds: []query.Threshold{{Value: 0.8, State: "warning"}, {Value: 1, State: "critical"}}})
	return []query.Frame{f}, nil
}

// triggerBudgets are the runs a day that the triggers of each job may start; a
// job without triggers has none.
func (a *App) triggerBudgets(namespace string) map[string]int {
	out := map[string]int{}
	for _, d := range a.registry.State().List(trainingJobKind, namespace) {
		var spec struct {
			Triggers []struct {
				Budget int `json:"budget"`
			} `json:"triggers"`
		}
		if json.Unmarshal(d.Spec, &spec) != nil {
			continue // told of where it was defined
		}
		for _, t := range spec.Triggers {
			if t.Budget == 0 {
				t.Budget = defaultTriggerBudget
			}
			out[d.Name] = max(out[d.Name], t.Budget)
		}
	}
	return out
}
