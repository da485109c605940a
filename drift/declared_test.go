package drift_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// incidentsOf are the states of a monitor's incidents, by "column detector".
func incidentsOf(t *testing.T, f query.Frame, monitor string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i, m := range cells(t, f, "monitor") {
		if m == monitor {
			out[cells(t, f, "column")[i]+" "+cells(t, f, "detector")[i]] = cells(t, f, "state")[i] + ": " + cells(t, f, "why")[i] + cells(t, f, "sentence")[i]
		}
	}
	return out
}

// What is declared of a view is held from the first window on: a limit is
// broken, a bounded mean leaves its range for good, a batch comes in another size
// by six in the morning of Rome, on either side of a change of the clocks.
func TestDeclaredLimitsMeansAndBatches(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(51, 52))
	begin := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC) // the clocks go forward in the night to come
	define(t, reg, drift.MonitorKind, "limits", `{"view":"user","window":"1m","constraints":[{"column":"amount","max":6.5}],"cadence":{"by":"06:00","zone":"Europe/Rome","rows":[9000,11000]}}`, "")
	minute := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Minute) }
	write := func(from, to int, mean float64, spike bool) {
		s.together(func() {
			for m := from; m < to; m++ {
				amounts, calm := normals(rng, 250, 0), make([]float64, 250)
				for i := range calm {
					calm[i] = mean + 0.1*(rng.Float64()-0.5)
				}
				if spike {
					amounts[17] = 7 // one row of 250
				}
				s.write(minute(m), time.Minute, amounts, calm)
			}
		})
	}
	sch := newScheduler(t, s, reg)
	look := func(at time.Time) map[string]string {
		sch.Look(t.Context(), at)
		return incidentsOf(t, ask(t, s.store.Incidents, query.Request{Namespace: "test", View: "user", From: begin, To: begin.Add(72 * time.Hour)}), "limits")
	}
	write(0, 40, 0.5, false)
	look(minute(41))
	if quiet := look(minute(44)); len(quiet) != 0 {
		t.Errorf("before anything happened: %v", quiet)
	}
	write(40, 90, 0.9, true)
	look(minute(91))
	got := look(minute(94))
	if said := got["amount constraint"]; !strings.Contains(said, "the largest value is 7, the limit is 6.5") {
		t.Errorf("one row beyond its limit: %v", got)
	}
	if said := got["calm mean_slowly"]; !strings.HasPrefix(said, "open") {
		t.Errorf("a mean that left its range: %v", got)
	}
	if _, ok := got["amount ks"]; ok {
		t.Errorf("one row in 250 is no drift of the distribution: %v", got)
	}
	rome := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC) }
	if got := look(rome(28, 4, 59)); got["(rows) cadence"] != "" {
		t.Errorf("a minute before six of Rome: %v", got["(rows) cadence"])
	}
	if said := look(rome(28, 5, 0))["(rows) cadence"]; !strings.HasPrefix(said, "open") || !strings.Contains(said, "22,500 rows by 06:00 Europe/Rome, 9,000 to 11,000 were due") {
		t.Errorf("at six of Rome: %q", said)
	}
	s.write(rome(28, 20, 0), 40*time.Minute, normals(rng, 10_000, 0), normals(rng, 10_000, 0.5))
	if said := look(rome(29, 3, 59))["(rows) cadence"]; !strings.HasPrefix(said, "open") {
		t.Errorf("a minute before six of summer time: %q", said)
	}
	if said := look(rome(29, 4, 0))["(rows) cadence"]; !strings.HasPrefix(said, "resolved") {
		t.Errorf("a batch as it was due: %q", said)
	}
}

// A model's input moves while its view has stopped and a change is planned: the
// monitor that knows of neither tells, the others keep quiet and say why. No
// label means 0 once it is late, and a withdrawn one is none.
func TestWhatIsKnownIsNotTold(t *testing.T) {
	c, s := newChurn(t, strings.Replace(churnModel, `"delay":"5m"`, `"delay":"5m","silence":"0"`, 1))
	rng := rand.New(rand.NewPCG(53, 54))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	minute := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Minute) }
	define(t, c.registry, drift.MonitorKind, "free", `{"model":"churn","window":"1m"}`, "")
	define(t, c.registry, drift.MonitorKind, "fed", `{"model":"churn","window":"1m","upstream":["user"]}`, "")
	define(t, c.registry, drift.MonitorKind, "sale", `{"model":"churn","window":"1m"}`, "")
	define(t, c.registry, drift.ActionKind, "march", fmt.Sprintf(`{"do":"planned","monitor":"sale","column":"x","from":%q,"until":%q}`, minute(40).Format(time.RFC3339), minute(80).Format(time.RFC3339)), "everything half price")
	sch := newScheduler(t, s, c.registry)
	s.together(func() {
		for m := range 42 {
			s.write(minute(m), time.Minute, normals(rng, 250, 0), normals(rng, 250, 5))
		}
	})
	var positives, predictions, labels []string
	for m := range 56 {
		for i := range 250 {
			at, id, score, x := minute(m).Add(time.Duration(i)*time.Minute/250), fmt.Sprintf("p%d-%d", m, i), rng.Float64(), rng.NormFloat64()
			if m >= 50 {
				x += 2
			}
			predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f}}`, id, at.Format(time.RFC3339Nano), x, score))
			if rng.Float64() < score { // only what happened is ever reported
				labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":1,"event_time":%q}`, id, at.Add(time.Minute).Format(time.RFC3339Nano)))
				positives = append(positives, id)
			}
		}
		if m >= 43 && m%4 == 3 {
			c.write(event.Predictions, predictions)
			c.write(event.Labels, labels)
			predictions, labels = nil, nil
			sch.Look(t.Context(), minute(m+1).Add(10*time.Second))
		}
	}
	for _, m := range []int{58, 60, 66} {
		sch.Look(t.Context(), minute(m))
	}
	f := ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: minute(100)})
	for monitor, want := range map[string]string{"free": "open: ", "fed": "silenced: its view user is stale", "sale": "silenced: planned by ann: everything half price"} {
		if got := incidentsOf(t, f, monitor)["x ks"]; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", monitor, got, want)
		}
	}
	metric := func(name string) (value []*float64, coverage []float64) {
		frame := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: minute(30), To: minute(35), Columns: []string{name}})[0]
		return values[*float64](t, frame, "value"), values[float64](t, frame, "coverage")
	}
	value, coverage := metric("roc_auc")
	if len(value) != 1 || coverage[0] != 1 || *value[0] < 0.78 || *value[0] > 0.88 {
		t.Fatalf("with silence for 0: %v of coverage %v", value, coverage)
	}
	positive := func() float64 {
		tp, _ := metric("true_positive")
		fn, _ := metric("false_negative")
		return *tp[0] + *fn[0]
	}
	before := positive()
	var nulls []string
	for _, id := range positives {
		if strings.HasPrefix(id, "p31-") {
			nulls = append(nulls, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":null,"event_time":%q}`, id, minute(57).Format(time.RFC3339)))
		}
	}
	c.write(event.Labels, nulls)
	sch.Look(t.Context(), minute(67))
	if after := positive(); after != before-float64(len(nulls)) || len(nulls) == 0 {
		t.Errorf("%v positives, %d withdrawn, %v left", before, len(nulls), after)
	}
	if !slices.Contains(cells(t, f, "monitor"), "free") {
		t.Error("the control told nothing")
	}
}
