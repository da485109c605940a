package drift_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/kedge-ml/kedge/drift/files"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// employmentColumn reads a column of one of the census files.
func employmentColumn(t *testing.T, file, name string) []float64 {
	t.Helper()
	f, err := files.Open(testenv.Shared(t, "data/employment_MA_"+file+".pq"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	c, err := f.Column(name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Numbers
}

func yes(xs []float64) []bool {
	out := make([]bool, len(xs))
	for i, x := range xs {
		out[i] = x == 1
	}
	return out
}

// Census people of Massachusetts: fitted on 2015, what is expected of each later
// year without its truth is what its late truth then says, within a band that
// a year of rows has, while nothing about the years is wrong.
func TestEmploymentExpectedIsRealisedYearByYear(t *testing.T) {
	ref := perf.Rows{Score: employmentColumn(t, "reference", "predicted_probability"), Predicted: yes(employmentColumn(t, "reference", "prediction")),
		Truth: yes(employmentColumn(t, "reference", "employed"))}
	fit, err := perf.FitCBPE(ref, perf.ValueMatrix{{1, 0}, {0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	truth := map[float64]bool{}
	labels := employmentColumn(t, "analysis_target", "employed")
	for i, id := range employmentColumn(t, "analysis_target", "id") {
		truth[id] = labels[i] == 1
	}
	ids, years := employmentColumn(t, "analysis", "id"), employmentColumn(t, "analysis", "year")
	scores, predicted := employmentColumn(t, "analysis", "predicted_probability"), employmentColumn(t, "analysis", "prediction")
	byYear := map[float64]*perf.Rows{}
	for i, id := range ids {
		label, ok := truth[id]
		if !ok {
			t.Fatalf("row %v has no truth", id)
		}
		r := byYear[years[i]]
		if r == nil {
			r = &perf.Rows{}
			byYear[years[i]] = r
		}
		r.Score, r.Predicted, r.Truth = append(r.Score, scores[i]), append(r.Predicted, predicted[i] == 1), append(r.Truth, label)
	}
	if len(byYear) < 3 {
		t.Fatalf("%d years", len(byYear))
	}
	for year, rows := range byYear {
		e, err := fit.Estimate(*rows)
		if err != nil {
			t.Fatal(err)
		}
		realised := perf.Realized(*rows, perf.ValueMatrix{{1, 0}, {0, 1}})
		for _, m := range []perf.Metric{perf.ROCAUC, perf.Accuracy, perf.F1} {
			line := fmt.Sprintf("%v %s: expected %.4f (%.4f to %.4f), realised %.4f", year, m, e[m].Value, e[m].Lower, e[m].Upper, realised[m])
			if math.Abs(e[m].Value-realised[m]) > 0.01 {
				t.Error(line)
			}
			t.Log(line)
		}
	}
}
