package drift_test

import (
	"fmt"
	"math"
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
	var predictions, labels, flipped, belated []string
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
			label := func(truth int, after time.Duration) string {
				return fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%d,"event_time":%q}`, id, truth, at.Add(after).Format(time.RFC3339Nano))
			}
			if minute < changed {
				labels = append(labels, label(truth, time.Minute))
			} else {
				belated = append(belated, label(truth, time.Hour))
			}
			if minute >= 30 && minute < 35 {
				flipped = append(flipped, label(1-truth, time.Hour))
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

	c.write(event.Labels, flipped)
	c.write(event.Labels, belated)
	for _, after := range []time.Duration{21 * time.Minute, 22 * time.Minute} {
		sch.Look(t.Context(), end.Add(after))
	}
	checkCorrected(t, s.store, begin, changed)
	later := ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: end.Add(time.Hour)})
	if got := cells(t, later, "detector"); !slices.Equal(got, detectors) {
		t.Errorf("corrections made incidents of %v from %v", got, detectors)
	}
}

// Few labels, all of them wrong, give a value and no alert: who labels first is
// not everybody. When the others have come it becomes an incident.
func TestImmatureNeverAlerts(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(17, 18))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, calm, last = 250, 45, 60
	var predictions, labels, late []string
	for i := range last * aMinute {
		at, score, id := begin.Add(time.Duration(i)*time.Minute/aMinute), rng.Float64(), fmt.Sprint("p", i)
		predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f},"segments":{"part":"a"}}`,
			id, at.Format(time.RFC3339Nano), rng.NormFloat64(), score))
		truth := 0
		if (rng.Float64() < score) == (i < calm*aMinute) {
			truth = 1
		}
		label := fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%d,"event_time":%q}`, id, truth, at.Add(time.Minute).Format(time.RFC3339Nano))
		if i < calm*aMinute || i%5 == 0 {
			labels = append(labels, label)
		} else {
			late = append(late, label)
		}
	}
	c.write(event.Predictions, predictions)
	c.write(event.Labels, labels)
	sch := newScheduler(t, s, c.registry)
	end := begin.Add(last * time.Minute)
	state := func(after ...time.Duration) (wrong, mature int, told []string) {
		for _, a := range after {
			sch.Look(t.Context(), end.Add(a))
		}
		f := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin.Add(calm * time.Minute), To: end, Columns: []string{"roc_auc"}})[0]
		value, ripe := values[*float64](t, f, "value"), values[bool](t, f, "mature")
		for i := range value {
			if value[i] != nil && *value[i] < 0.4 {
				wrong++
				if ripe[i] {
					mature++
				}
			}
		}
		incidents := ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: end.Add(time.Hour)})
		return wrong, mature, cells(t, incidents, "detector")
	}
	if wrong, mature, told := state(10*time.Second, 2*time.Minute, 20*time.Minute); wrong == 0 || mature > 0 || slices.Contains(told, "roc_auc") {
		t.Errorf("a fifth of the labels: %d windows are bad, %d of them mature, incidents of %v", wrong, mature, told)
	}
	c.write(event.Labels, late)
	if wrong, mature, told := state(21*time.Minute, 22*time.Minute); mature == 0 || mature < wrong || !slices.Contains(told, "roc_auc") {
		t.Errorf("all labels: %d windows are bad, %d of them mature, incidents of %v", wrong, mature, told)
	}
}

// checkCorrected holds that a window measured for good follows its corrected
// labels, and one that had none follows those that came after all.
func checkCorrected(t *testing.T, st *store.Store, begin time.Time, changed int) {
	t.Helper()
	f := series(t, st, query.Request{Namespace: "test", Model: "churn", From: begin, To: begin.Add(3 * time.Hour), Columns: []string{"roc_auc"}})[0]
	value, mature := values[*float64](t, f, "value"), values[bool](t, f, "mature")
	for i, at := range values[time.Time](t, f, "time") {
		minute := int(at.Sub(begin) / time.Minute)
		switch {
		case minute == 30:
			if !mature[i] || *value[i] > 0.25 { // what was 5/6 before every label was turned round
				t.Errorf("corrected window: %v mature %v", *value[i], mature[i])
			}
		case minute == 35:
			if *value[i] < 0.75 {
				t.Errorf("the window after it: %v", *value[i])
			}
		case minute >= changed:
			if !mature[i] || value[i] == nil || *value[i] > 0.6 {
				t.Errorf("minute %d, whose labels came after all: %v mature %v", minute, value[i], mature[i])
			}
		}
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

const speciesModel = `{"origin":"declared","task":"multiclass","labels":{"delay":"5m"},"signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["v1"]}]}`

// A model of three classes: what its probabilities promise is what labels say
// while they hold, and stays when they hold no longer; counts and worth are
// those of a search by hand.
func TestClassesAreExpectedAndWorth(t *testing.T) {
	c, s := newChurn(t, speciesModel)
	define(t, c.registry, "Monitor", "worth", `{"model":"churn","window":"1m","value":{"a":{"a":3,"b":-1},"b":{"b":1},"c":{"c":2,"a":-5}}}`, "")
	rng := rand.New(rand.NewPCG(21, 22))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, minutes, changed = 250, 50, 40
	names := []string{"a", "b", "c"}
	var predictions, labels []string
	value, hits := map[int]float64{}, map[int]float64{} // by window of five minutes
	worth := map[string]float64{"aa": 3, "ab": -1, "bb": 1, "cc": 2, "ca": -5}
	for i := range minutes * aMinute {
		at, id := begin.Add(time.Duration(i)*time.Minute/aMinute), fmt.Sprint("p", i)
		p := [3]float64{rng.ExpFloat64(), rng.ExpFloat64(), rng.ExpFloat64()}
		sum, best := p[0]+p[1]+p[2], 0
		for k := range p {
			if p[k] /= sum; p[k] > p[best] {
				best = k
			}
		}
		draw, truth := rng.Float64(), 0
		if i/aMinute >= changed {
			truth = rng.IntN(3)
		} else {
			for draw -= p[0]; draw > 0 && truth < 2; draw -= p[truth] {
				truth++
			}
		}
		value[i/aMinute/5] += worth[names[truth]+names[best]]
		if truth == best {
			hits[i/aMinute/5]++
		}
		predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"class":%q,"scores":{"a":%.6f,"b":%.6f,"c":%.6f}}}`,
			id, at.Format(time.RFC3339Nano), rng.NormFloat64(), names[best], p[0], p[1], p[2]))
		labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%q,"event_time":%q}`, id, names[truth], at.Add(time.Minute).Format(time.RFC3339Nano)))
	}
	c.write(event.Predictions, predictions)
	c.write(event.Labels, labels)
	sch := newScheduler(t, s, c.registry)
	end := begin.Add(minutes * time.Minute)
	for _, after := range []time.Duration{10 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		sch.Look(t.Context(), end.Add(after))
	}
	metric := func(name string) (at []time.Time, value, expected []*float64) {
		frames := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin, To: end, Columns: []string{name}})
		if len(frames) != 1 {
			t.Fatalf("%s: %d series", name, len(frames))
		}
		return values[time.Time](t, frames[0], "time"), values[*float64](t, frames[0], "value"), values[*float64](t, frames[0], "expected")
	}
	at, accuracy, expected := metric("accuracy")
	_, worths, _ := metric("business_value")
	_, areas, promised := metric("roc_auc")
	_, aa, expectedAA := metric("confusion/a/a")
	if len(at) < 4 {
		t.Fatalf("%d windows", len(at))
	}
	for i := range at {
		w := int(at[i].Sub(begin) / time.Minute / 5)
		holds := w < changed/5
		if math.Abs(*accuracy[i]-hits[w]/(5*aMinute)) > 1e-9 || math.Abs(*worths[i]-value[w]) > 1e-6 {
			t.Errorf("window %d: accuracy %v worth %v, by hand %v and %v", w, *accuracy[i], *worths[i], hits[w]/(5*aMinute), value[w])
		}
		if agree := math.Abs(*accuracy[i]-*expected[i]) < 0.05 && math.Abs(*areas[i]-*promised[i]) < 0.04; agree != holds || *expected[i] < 0.5 {
			t.Errorf("window %d: accuracy %v expected %v, area %v expected %v", w, *accuracy[i], *expected[i], *areas[i], *promised[i])
		}
		if agree := math.Abs(*aa[i]-*expectedAA[i]) < 60; agree != holds {
			t.Errorf("window %d: %v rows of a as a, expected %v", w, *aa[i], *expectedAA[i])
		}
	}
}

// A window that was empty when it was measured was not judged: what comes of it
// late, predictions and labels, opens its incident.
func TestLateWindowIsJudged(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(19, 20))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, calm, back, last = 250, 45, 60, 90 // nothing comes between calm and back
	write := func(from, to int) {
		var predictions, labels []string
		for i := from * aMinute; i < to*aMinute; i++ {
			at, score, id, truth := begin.Add(time.Duration(i)*time.Minute/aMinute), rng.Float64(), fmt.Sprint("p", i), 0
			if (rng.Float64() < score) == (i < calm*aMinute || i >= back*aMinute) {
				truth = 1
			}
			predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f},"segments":{"part":"a"}}`,
				id, at.Format(time.RFC3339Nano), rng.NormFloat64(), score))
			labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%d,"event_time":%q}`, id, truth, at.Add(time.Minute).Format(time.RFC3339Nano)))
		}
		c.write(event.Predictions, predictions)
		c.write(event.Labels, labels)
	}
	sch := newScheduler(t, s, c.registry)
	opened := func(looks ...time.Duration) bool {
		for _, after := range looks {
			sch.Look(t.Context(), begin.Add(last*time.Minute+after))
		}
		return slices.Contains(cells(t, ask(t, s.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: begin, To: begin.Add(3 * time.Hour)}), "detector"), "roc_auc")
	}
	write(0, calm)
	write(back, last)
	if opened(10*time.Second, 2*time.Minute, 20*time.Minute) {
		t.Fatal("an incident of windows that are well")
	}
	write(calm, back)
	if !opened(21*time.Minute, 22*time.Minute, 23*time.Minute) {
		t.Error("no incident of windows that came late and are bad")
	}
	f := series(t, s.store, query.Request{Namespace: "test", Model: "churn", From: begin.Add(calm * time.Minute), To: begin.Add(back * time.Minute), Columns: []string{"roc_auc"}})[0]
	for i, v := range values[*float64](t, f, "value") {
		if v == nil || *v > 0.4 || !values[bool](t, f, "mature")[i] {
			t.Errorf("a window that came late: %+v", f)
			break
		}
	}
}
