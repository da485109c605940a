package drift_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// The same through the store: rows are derived, judged against the same hours of
// the week and told. vicprice stands for what was constant, nswprice for what
// never is.
func TestElectricityChangeIsToldThroughTheStore(t *testing.T) {
	names, columns := elecColumns(t)
	vic, nsw := columns[slices.Index(names, "vicprice")], columns[slices.Index(names, "nswprice")]
	s, reg := newStream(t), openRegistry(t)
	const start, end = elecChange - 8*elecWeek, elecChange + 48
	s.together(func() {
		for from := 0; from < end; from += 4 * elecWeek {
			to := min(from+4*elecWeek, end)
			s.write(elecTime(from), elecTime(to).Sub(elecTime(from)), vic[from:to], nsw[from:to])
		}
	})
	define(t, reg, drift.MonitorKind, "market", fmt.Sprintf(`{"view":"user","window":"4h","season":"7d","reference":{"from":%q,"to":%q}}`,
		elecTime(0).Format(time.RFC3339), elecTime(start).Format(time.RFC3339)), "")
	sch := newScheduler(t, s, reg)
	for i := range 4 { // at most 300 windows each
		sch.Look(t.Context(), elecTime(end).Add(time.Duration(1+i)*10*time.Minute))
	}
	state := ask(t, sch.Monitors, query.Request{Namespace: "test", View: "user"})
	if to := values[*time.Time](t, state, "judged_to")[0]; to == nil || to.Before(elecTime(end)) {
		t.Fatalf("judged to %v, want %v: %v", to, elecTime(end), cells(t, state, "state"))
	}
	f := ask(t, s.store.Incidents, query.Request{Namespace: "test", View: "user", From: elecTime(0), To: elecTime(end).Add(time.Hour)})
	opened, found := values[time.Time](t, f, "opened"), false
	for i, column := range cells(t, f, "column") {
		line := fmt.Sprintf("%s of %s at %v: %s", cells(t, f, "detector")[i], column, opened[i], cells(t, f, "sentence")[i])
		if opened[i].Before(elecTime(elecChange)) {
			t.Errorf("in the quiet weeks: %s", line)
		}
		found = found || column == "amount" && !opened[i].After(elecTime(elecChange).Add(24*time.Hour))
		t.Log(line)
	}
	if !found {
		t.Error("the change was not told within a day")
	}
}
