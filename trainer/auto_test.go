package trainer

import (
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/model"
)

// Nobody chooses anything, and the result beats the stated baseline on rows
// that neither has seen.
func TestAutoBeatsItsBaseline(t *testing.T) {
	x := xgboost(t)
	for kind, task := range map[string]model.Task{"binary": model.Binary} {
		m := sample(t, 2000, kind, 11)
		for i, v := range m.Columns[1].Values { // a shape that no line fits
			if v < 0 {
				m.Label[i] = float32(int(m.Label[i]) ^ b2i(m.Columns[2].Values[i] > 50))
			}
		}
		a, err := TrainAuto(t.Context(), "me", jobOn(m, x, Params{Rounds: 40, Threads: 1, Seed: 1}), x, Record{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", strings.Join(a.Choices, "\n"))
		metric := metricOf(task)
		if a.Best.Run.Params.Task != task || a.Best == a.Baseline || !a.Best.Run.Passed {
			t.Errorf("%s: task %s, passed %v", kind, a.Best.Run.Params.Task, a.Best.Run.Refused)
		}
		if got, base := a.Best.Report.Metrics[metric], a.Baseline.Report.Metrics[metric]; got >= base {
			t.Errorf("%s: %s %.4f against the baseline's %.4f", kind, metric, got, base)
		}
	}
}

// Without the library there is still a model, and on a line it is the choice.
func TestAutoWithoutTrees(t *testing.T) {
	a, err := TrainAuto(t.Context(), "me", jobOn(sample(t, 800, "real", 1), Linear{}, Params{}), nil, Record{})
	if err != nil || a.Best != a.Baseline || a.Best.Run.Backend != "linear" || !strings.Contains(strings.Join(a.Choices, " "), "not tried") {
		t.Errorf("%v, %v", err, a.Choices)
	}
}
