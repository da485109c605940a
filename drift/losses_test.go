package drift_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

const etaModel = `{"origin":"declared","task":"regression","labels":{"delay":"5m"},"signatures":[{"id":1,"columns":[{"name":"distance","type":"Float64"},{"name":"road","type":"String"}],"versions":["v1"]}]}`

// cellMeans is the simplest model of a loss: its mean per whole unit of the
// first number and value of the first category.
func cellMeans(_ context.Context, in perf.Inputs, loss []float64) (perf.LossModel, error) {
	cell := func(in perf.Inputs, row int) [2]float64 {
		var at [2]float64
		for _, c := range in.Columns[:len(in.Columns)-1] {
			if c.Categories > 0 {
				at[1] = c.Values[row]
			} else {
				at[0] = math.Floor(c.Values[row])
			}
		}
		return at
	}
	sums, counts := map[[2]float64]float64{}, map[[2]float64]float64{}
	for i, x := range loss {
		at := cell(in, i)
		sums[at] += x
		counts[at]++
	}
	return func(rows perf.Inputs) ([]float64, error) {
		if i := slices.IndexFunc(rows.Columns, func(c perf.InputColumn) bool { return c.Name == "distance" }); i >= 0 && slices.Max(rows.Columns[i].Values) > 100 {
			return nil, errors.New("the learner has no answer")
		}
		out := make([]float64, rows.Rows)
		for i := range out {
			at := cell(rows, i)
			out[i] = sums[at] / max(counts[at], 1)
		}
		return out, nil
	}, nil
}

// A model of numbers is worse on far trips and on gravel. When trips become
// such, its error is expected to rise at once, as it turns out two days later.
func TestErrorIsExpectedBeforeLabelsCome(t *testing.T) {
	c, s := newChurn(t, etaModel)
	rng := rand.New(rand.NewPCG(17, 18))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, calm, end = 200, 45, 60
	var predictions, labels, late []string
	for minute := range end {
		for i := range aMinute {
			at := begin.Add(time.Duration(minute)*time.Minute + time.Duration(i)*time.Minute/aMinute)
			distance, road := 4*rng.Float64(), "tar"
			if minute >= calm {
				distance = 3 + rng.Float64()
			}
			if rng.IntN(4) == 0 || minute >= calm && rng.IntN(2) == 0 {
				road = "gravel"
			}
			noise := 0.2 + distance
			if road == "gravel" {
				noise += 2
			}
			id, value := fmt.Sprintf("e%d-%d", minute, i), 20+3*distance
			predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"distance":%.5f,"road":%q},"output":{"value":%.5f}}`, id, at.Format(time.RFC3339Nano), distance, road, value))
			label := fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%.5f,"event_time":%q}`, id, value+noise*rng.NormFloat64(), at.Add(time.Minute).Format(time.RFC3339Nano))
			if minute < calm {
				labels = append(labels, label)
			} else {
				late = append(late, label)
			}
		}
	}
	c.write(event.Predictions, predictions)
	c.write(event.Labels, labels)
	sch, err := drift.NewScheduler(drift.SchedulerConfig{Namespace: "test", Losses: cellMeans, Scope: telemetry.Discard()}, s.store, c.registry, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := begin.Add(end * time.Minute)
	for _, after := range []time.Duration{10 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		sch.Look(t.Context(), stop.Add(after))
	}
	before, risky := maeOf(t, s.store, begin.Add(30*time.Minute), begin.Add(calm*time.Minute)), maeOf(t, s.store, begin.Add(calm*time.Minute), stop)
	for _, w := range before {
		if w.value == nil || w.expected == nil || math.Abs(*w.value-*w.expected) > 0.25 {
			t.Errorf("a calm window: %+v", w)
		}
	}
	for _, w := range risky {
		if w.value != nil || w.expected == nil || *w.expected < 1.4**before[0].expected {
			t.Errorf("a window of far trips, without labels: %+v, calm ones expect %.2f", w, *before[0].expected)
		}
	}
	incidents := ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: stop.Add(time.Hour)})
	detectors := cells(t, incidents, "detector")
	if i := slices.Index(detectors, "expected_mae"); i < 0 {
		t.Errorf("incidents of %v, want one of expected_mae", detectors)
	} else if said := cells(t, incidents, "sentence")[i]; !strings.HasPrefix(said, "expected_mae is ") || strings.Contains(said, "the model's expected") {
		t.Errorf("told as %q", said)
	}
	c.write(event.Labels, late)
	for _, after := range []time.Duration{21 * time.Minute, 22 * time.Minute} {
		sch.Look(t.Context(), stop.Add(after))
	}
	for _, w := range maeOf(t, s.store, begin.Add(calm*time.Minute), stop) {
		if w.value == nil || *w.value < *w.lower || *w.value > *w.upper {
			t.Errorf("a window of far trips with its labels: %+v", w)
		}
	}
	predictions = nil
	for i := range 10 * aMinute { // which the learner cannot answer for
		at := stop.Add(time.Duration(i) * time.Minute / aMinute)
		predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":"f%d","event_time":%q,"inputs":{"distance":200,"road":"tar"},"output":{"value":600}}`, i, at.Format(time.RFC3339Nano)))
	}
	c.write(event.Predictions, predictions)
	for _, after := range []time.Duration{23 * time.Minute, 26 * time.Minute} {
		sch.Look(t.Context(), stop.Add(after))
	}
	silent := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: stop, To: stop.Add(5 * time.Minute), Columns: []string{"mae"}})
	if len(silent) != 1 || silent[0].Rows() != 1 || !strings.Contains(cells(t, silent[0], "about")[0], "no expected value: expect the loss") {
		t.Errorf("a window whose error cannot be expected: %+v", silent)
	}
}

// maeWindow is a window's mean absolute error; nil where there is none.
type maeWindow struct{ value, expected, lower, upper *float64 }

func (w maeWindow) String() string {
	text := func(x *float64) string {
		if x == nil {
			return "none"
		}
		return fmt.Sprintf("%.3f", *x)
	}
	return fmt.Sprintf("was %s, expected %s (%s to %s)", text(w.value), text(w.expected), text(w.lower), text(w.upper))
}

func maeOf(t *testing.T, st *store.Store, from, to time.Time) []maeWindow {
	t.Helper()
	frames := series(t, st, query.Request{Namespace: "test", Model: "churn", From: from, To: to, Columns: []string{"mae"}})
	if len(frames) != 1 || frames[0].Rows() < 3 {
		t.Fatalf("performance from %v: %+v", from, frames)
	}
	column := map[string][]*float64{}
	for _, c := range frames[0].Columns {
		if v, ok := c.Values.([]*float64); ok {
			column[c.Name] = v
		}
	}
	out := make([]maeWindow, frames[0].Rows())
	for i := range out {
		out[i] = maeWindow{column["value"][i], column["expected"][i], column["lower"][i], column["upper"][i]}
	}
	return out
}
