package drift_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

const churnModel = `{"origin":"declared","task":"binary","labels":{"delay":"5m"},"signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["v1","v2"]}]}`

// churn writes predictions and labels of a declared model into a store, with
// their ledger rows.
type churn struct {
	t        *testing.T
	store    *store.Store
	catalog  *event.Catalog
	registry *registry.Registry
	offset   int64
}

func (c *churn) write(kind event.Kind, texts []string) {
	c.t.Helper()
	u := &event.Unit{Topic: "kedge.test." + kind.String(), Namespace: "test", Kind: kind, Epoch: 1}
	u.Reset(c.catalog)
	d := event.NewDecoder(event.DefaultDecoderConfig())
	for _, text := range texts {
		d.Decode(u, event.Record{Offset: c.offset, Time: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), Value: []byte(text)})
		c.offset++
	}
	if len(u.Dead) > 0 {
		c.t.Fatalf("dead letter: %+v", u.Dead[0])
	}
	token := fmt.Sprint("churn/", kind, c.offset)
	for _, b := range u.Batches {
		if err := c.store.Insert(c.t.Context(), token, b); err != nil {
			c.t.Fatal(err)
		}
	}
	row := event.LedgerRow{Topic: u.Topic, From: c.offset - int64(len(texts)), To: c.offset - 1, Records: int64(len(texts)), Windows: u.Windows()}
	if err := c.store.InsertLedger(c.t.Context(), token+"/ledger", row); err != nil {
		c.t.Fatal(err)
	}
}

// A model whose scores say what happens, until they do not: what is expected
// without labels stays up, what labels say falls and becomes an incident, and
// a window whose labels are missing never does.
func TestPerformanceFallsWhereExpectationStays(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(7, 8))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, calm, changed, silent = 250, 45, 65, 75 // minutes at which things change
	var predictions, labels []string
	for minute := range silent {
		for i := range aMinute {
			at := begin.Add(time.Duration(minute)*time.Minute + time.Duration(i)*time.Minute/aMinute)
			score, id := rng.Float64(), fmt.Sprintf("p%d-%d", minute, i)
			predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v%d","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f},"segments":{"part":"%c"}}`,
				1+i%2, id, at.Format(time.RFC3339Nano), rng.NormFloat64(), score, 'a'+rune(i%3)))
			truth := 0
			if chance := rng.Float64(); chance < score && minute < calm || chance < 0.5 && minute >= calm {
				truth = 1
			}
			if minute < changed {
				labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%d,"event_time":%q}`, id, truth, at.Add(time.Minute).Format(time.RFC3339Nano)))
			}
		}
	}
	c.write(event.Predictions, predictions)
	c.write(event.Labels, labels)
	sch := newScheduler(t, s, c.registry)
	end := begin.Add(silent * time.Minute)
	for _, after := range []time.Duration{10 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		sch.Look(t.Context(), end.Add(after))
	}
	checkMetrics(t, s.store, begin, calm, changed)
	incidents := ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: end.Add(time.Hour)})
	detectors := cells(t, incidents, "detector")
	if !slices.Contains(detectors, "roc_auc") || slices.Contains(detectors, "expected_roc_auc") || slices.Contains(detectors, "ks") {
		t.Errorf("incidents of %v, want one of roc_auc alone", detectors)
	}
	gaps := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin, To: end, Columns: []string{"selection_gap"}, Segment: map[string]string{"part": ""}})
	if len(gaps) != 1 || gaps[0].Rows() == 0 {
		t.Errorf("gaps between parts: %+v", gaps)
	}
	versions := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin, To: end, Columns: []string{"roc_auc"}, GroupBy: []string{"version"}})
	if len(versions) != 2 {
		t.Errorf("%d versions, want 2", len(versions))
	}
	all := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin, To: end, Columns: []string{"roc_auc"}, GroupBy: []string{"*"}})
	if len(all) != 2+3 {
		t.Errorf("%d versions and parts, want 5", len(all))
	}
}

func series(t *testing.T, st *store.Store, r query.Request) []query.Frame {
	t.Helper()
	frames, err := st.Performance(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

func checkMetrics(t *testing.T, st *store.Store, begin time.Time, calm, changed int) {
	t.Helper()
	frames := series(t, st, query.Request{Namespace: "test", Model: "churn", From: begin, To: begin.Add(3 * time.Hour), Columns: []string{"roc_auc"}})
	if len(frames) != 1 || frames[0].Rows() < 8 {
		t.Fatalf("performance %+v", frames)
	}
	f := frames[0]
	column := map[string]any{}
	for _, c := range f.Columns {
		column[c.Name] = c.Values
	}
	for i, at := range column["time"].([]time.Time) {
		minute := int(at.Sub(begin) / time.Minute)
		value, expected, coverage, mature := column["value"].([]*float64)[i], column["expected"].([]*float64)[i], column["coverage"].([]float64)[i], column["mature"].([]bool)[i]
		if expected == nil || *expected < 0.78 || *expected > 0.88 { // 5/6 in the limit
			t.Errorf("minute %d: expected %v", minute, expected)
		}
		switch {
		case minute < calm:
			if !mature || coverage != 1 || value == nil || *value < 0.78 {
				t.Errorf("minute %d: %v coverage %v mature %v", minute, value, coverage, mature)
			}
		case minute < changed:
			if !mature || value == nil || *value > 0.57 {
				t.Errorf("minute %d: %v coverage %v mature %v", minute, value, coverage, mature)
			}
		default:
			if mature || value != nil || coverage != 0 {
				t.Errorf("minute %d: %v coverage %v mature %v, without labels", minute, value, coverage, mature)
			}
		}
	}
}
