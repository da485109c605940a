package drift_test

import (
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// What a plan says that a monitor will store is what one stores: the rows of a
// window, counted in the store, times the windows of a day. Beyond its budget a
// definition is told so.
func TestCostIsWhatIsStored(t *testing.T) {
	p := newPromoted(t)
	p.minutes(50, 0)
	stored := map[string]int64{}
	frames, err := p.store.Disk(t.Context(), query.Request{})
	if err != nil {
		t.Fatal(err)
	}
	for i, table := range cells(t, frames[0], "table") {
		stored[table] = values[int64](t, frames[0], "rows")[i]
		t.Logf("%s: %d rows, %.0f bytes each", table, stored[table], float64(values[int64](t, frames[0], "bytes")[i])/float64(max(stored[table], 1)))
	}
	judged := 0
	for minute := range 50 {
		if _, ok := p.judged(minute); ok {
			judged++
		}
	}
	c, err := drift.CostOf(t.Context(), p.store, "test", &drift.MonitorSpec{Model: "churn"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Columns != 2 || c.RowsADay < 350_000 || c.RowsADay > 370_000 || c.Beyond != "" || judged < 10 {
		t.Fatalf("%+v, %d windows judged; want 2 columns and 360,000 rows a day", c, judged)
	}
	really := 1440 * (float64(stored["summaries"])/50 + float64(stored["verdicts"])/float64(judged))
	if ratio := c.Stored / really; ratio < 0.7 || ratio > 1.4 {
		t.Errorf("%.0f rows a day are expected, %.0f come at the rate of %v in %d windows", c.Stored, really, stored, judged)
	}

	c, err = drift.CostOf(t.Context(), p.store, "test", &drift.MonitorSpec{Model: "churn", Segments: []string{"version"}, Budget: 3})
	if err != nil || c.Segments != 2 || !strings.Contains(c.Beyond, "2 columns × 2 segments are more than the budget of 3") {
		t.Errorf("beyond its budget: %+v, %v", c, err)
	}
	if c, err = drift.CostOf(t.Context(), p.store, "test", &drift.MonitorSpec{Model: "nobody"}); c != nil || err != nil {
		t.Errorf("of a model without rows: %+v, %v", c, err)
	}
}
