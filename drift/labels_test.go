package drift_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

const (
	labelTolerance = 10 * time.Minute
	labelGap       = 10 * time.Second // between predictions
	aLabelWindow   = 28               // predictions of a window of five minutes
)

// said is what a producer says of the truth, in a phase of the test: before the
// predictions come, at once, while the window waits, after its labels were due,
// and later still.
type said struct {
	phase  int
	after  time.Duration // event_time from the prediction's
	value  float64       // NaN withdraws
	issued time.Duration // created, from the prediction's; 0: not said
	user   int
	about  string // the prediction's id
	at     time.Time
}

// timing is what is said of one prediction of a window. Numbers are drawn
// afresh.
type timing struct {
	name string
	late bool // every second prediction comes after its window was measured for good
	pair bool // two successive predictions are of one entity, and one label
	say  func(x, y, z float64) []said
}

func timings() []timing {
	no, m := math.NaN(), time.Minute
	one := func(s ...said) func(x, y, z float64) []said {
		return func(x, _, _ float64) []said { s[0].value = x; return s }
	}
	return []timing{
		{name: "never", say: func(_, _, _ float64) []said { return nil }},
		{name: "withdrawn when it was done with", say: func(x, _, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 3, after: m, value: no}}
		}},
		{name: "predictions come late", late: true, say: one(said{phase: 0, after: m})},
		{name: "before its prediction came", say: one(said{phase: 0, after: m})},
		{name: "at once", say: one(said{phase: 1, after: m})},
		{name: "while the window waits", say: one(said{phase: 2, after: 2 * m})},
		{name: "after it was due", say: one(said{phase: 3, after: 2 * m})},
		{name: "corrected twice", say: func(x, y, z float64) []said {
			return []said{{phase: 1, after: m, value: x, issued: m}, {phase: 2, after: m, value: y, issued: 2 * m}, {phase: 3, after: m, value: z, issued: 3 * m}}
		}},
		{name: "corrected without a word of when", say: func(x, y, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 3, after: m, value: y}}
		}},
		{name: "corrected, the correction first", say: func(x, y, _ float64) []said {
			return []said{{phase: 1, after: m, value: x, issued: 9 * m}, {phase: 3, after: m, value: y, issued: m}}
		}},
		{name: "two labels, the later one first", say: func(x, y, _ float64) []said {
			return []said{{phase: 1, after: 3 * m, value: x}, {phase: 2, after: m, value: y}}
		}},
		{name: "said three times", say: func(x, _, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 1, after: m, value: x}, {phase: 3, after: m, value: x}}
		}},
		{name: "withdrawn in time", say: func(x, _, _ float64) []said {
			return []said{{phase: 1, after: m, value: x, issued: m}, {phase: 2, after: m, value: no, issued: 2 * m}}
		}},
		{name: "withdrawn and said again", say: func(x, _, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 2, after: m, value: no}, {phase: 3, after: m, value: x}}
		}},
		{name: "withdrawn before it was said", say: func(x, _, _ float64) []said {
			return []said{{phase: 1, after: m, value: no, issued: 5 * m}, {phase: 3, after: m, value: x, issued: m}}
		}},
		{name: "the first of two withdrawn", say: func(x, y, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 1, after: 2 * m, value: y}, {phase: 3, after: m, value: no}}
		}},
		{name: "the second of two withdrawn", say: func(x, y, _ float64) []said {
			return []said{{phase: 1, after: m, value: x}, {phase: 1, after: 2 * m, value: y}, {phase: 3, after: 2 * m, value: no}}
		}},
		{name: "true when it was predicted", say: one(said{phase: 1})},
		{name: "true just before", say: one(said{phase: 1, after: -time.Microsecond})},
		{name: "at the edge of the tolerance", say: one(said{phase: 1, after: labelTolerance})},
		{name: "just beyond it", say: one(said{phase: 3, after: labelTolerance + time.Microsecond})},
		{name: "one label for two", pair: true, say: one(said{phase: 1, after: 4 * m})},
		{name: "one label between two", pair: true, say: one(said{phase: 3, after: labelGap - time.Microsecond})},
	}
}

// labelled are the predictions and statements of a test, all of them, whenever
// they come.
type labelled struct {
	way     string
	silence bool
	begin   time.Time
	at      []time.Time
	value   []float64
	user    []int
	phase   []int
	said    []said
}

// truth is what a search through all that was said up to a phase finds: by id
// the newest statement about the prediction; else, of the moments of the
// tolerance about which the newest statement is no withdrawal, the first. Of two
// statements of one moment that one is newer which was issued later; if they do
// not say, which came later.
func (l *labelled) truth(i, phase int, due bool) (float64, bool) {
	newer := func(a, b said, came bool) bool {
		if !a.at.Equal(b.at) {
			return a.at.After(b.at)
		}
		if ia, ib := a.at.Add(a.issued-a.after), b.at.Add(b.issued-b.after); a.issued != 0 && b.issued != 0 && !ia.Equal(ib) {
			return ia.After(ib)
		}
		return came
	}
	best, found := said{}, false
	byMoment := map[time.Time]said{}
	for p := 0; p <= phase; p++ { // in the order in which they come
		for _, s := range l.said {
			switch {
			case s.phase != p:
			case l.way == "id":
				if s.about == fmt.Sprint("p", i) && (!found || newer(s, best, true)) {
					best, found = s, true
				}
			case s.user == l.user[i] && !s.at.Before(l.at[i]) && s.at.Sub(l.at[i]) <= labelTolerance:
				if b, there := byMoment[s.at]; !there || newer(s, b, true) {
					byMoment[s.at] = s
				}
			}
		}
	}
	for _, s := range byMoment {
		if !math.IsNaN(s.value) && (!found || s.at.Before(best.at)) {
			best, found = s, true
		}
	}
	if found && !math.IsNaN(best.value) {
		return best.value, true
	}
	return 0, l.silence && due
}

// window is the k-th window as it is after a phase: mean absolute error of those
// that are labelled, how many there are, and how many predictions.
func (l *labelled) window(k, phase int, due bool) (mae float64, there, predictions int) {
	for i := range l.at {
		if w := l.at[i].Sub(l.begin); w < 0 || int(w/(5*time.Minute)) != k || l.phase[i] > phase {
			continue
		}
		predictions++
		if y, ok := l.truth(i, phase, due); ok {
			mae += math.Abs(y - l.value[i])
			there++
		}
	}
	return mae / float64(max(there, 1)), there, predictions
}

func (l *labelled) predictions(phase int) (texts []string) {
	for i := range l.at {
		if l.phase[i] == phase {
			texts = append(texts, fmt.Sprintf(`{"model":%q,"version":"v1","id":"p%d","key":{"user":%d},"event_time":%q,"inputs":{"x":%.3f},"output":{"value":%v}}`,
				l.way, i, l.user[i], l.at[i].Format(time.RFC3339Nano), l.value[i], l.value[i]))
		}
	}
	return texts
}

// statements are events as the way has them; a view withdraws by a null, or by
// deleting the row.
func (l *labelled) statements(phase int) (texts []string) {
	for _, s := range l.said {
		if s.phase != phase {
			continue
		}
		value, created := fmt.Sprint(s.value), ""
		if math.IsNaN(s.value) {
			value = "null"
		}
		if s.issued != 0 {
			created = fmt.Sprintf(`,"created":%q`, s.at.Add(s.issued-s.after).Format(time.RFC3339Nano))
		}
		at := s.at.Format(time.RFC3339Nano)
		switch {
		case l.way == "id":
			texts = append(texts, fmt.Sprintf(`{"model":"id","prediction_id":%q,"label":%s,"event_time":%q%s}`, s.about, value, at, created))
		case l.way == "key":
			texts = append(texts, fmt.Sprintf(`{"model":"key","key":{"user":%d},"label":%s,"event_time":%q%s}`, s.user, value, at, created))
		case value == "null" && s.user%2 == 0:
			texts = append(texts, fmt.Sprintf(`{"view":"truth","key":{"user":%d},"delete":true,"event_time":%q%s}`, s.user, at, created))
		default:
			texts = append(texts, fmt.Sprintf(`{"view":"truth","key":{"user":%d},"values":{"left":%s},"event_time":%q%s}`, s.user, value, at, created))
		}
	}
	return texts
}

// come writes what comes in a phase: in the first one labels come before the
// predictions that they are about.
func (l *labelled) come(w *labelStream, phase int) {
	statements := event.Labels
	if l.way == "view" {
		statements = event.Features
	}
	if s := l.statements(phase); len(s) > 0 {
		w.write(statements, s)
	}
	if p := l.predictions(phase); len(p) > 0 {
		w.write(event.Predictions, p)
	}
}

// timingsOf are those of a window: one alone, where the window is what the timing
// is about, else seven, of four predictions each.
func timingsOf(k int) []timing {
	all := timings()
	if k < 2 {
		return all[k : k+1]
	}
	from := 2 + 7*(k-2)
	return all[from : from+7]
}

const labelWindows = 5

// newLabelled is half an hour of a reference with labels at once and, after
// ten minutes without any, windows in which they come as they do.
func newLabelled(way string, silence bool, first time.Time) *labelled {
	rng := rand.New(rand.NewPCG(3, uint64(len(way))))
	l := &labelled{way: way, silence: silence, begin: first.Add(40 * time.Minute)}
	user := 0
	predict := func(at time.Time, t timing, n int) {
		if !t.pair || n%2 == 0 {
			user++
		}
		i, phase := len(l.at), 0
		if t.late && n%2 == 1 {
			phase = 3
		}
		l.at, l.value, l.user, l.phase = append(l.at, at), append(l.value, math.Round(rng.NormFloat64()*1000)/1000), append(l.user, user), append(l.phase, phase)
		if t.pair && n%2 == 1 {
			return
		}
		for _, s := range t.say(5+rng.Float64(), 10+rng.Float64(), 20+rng.Float64()) {
			s.user, s.about, s.at = user, fmt.Sprint("p", i), at.Add(s.after)
			l.said = append(l.said, s)
		}
	}
	for n := range 6 * aLabelWindow {
		predict(first.Add(time.Duration(n)*labelGap), timings()[3], n)
	}
	for k := range labelWindows {
		here := timingsOf(k)
		for n := range aLabelWindow {
			predict(l.begin.Add(time.Duration(k)*5*time.Minute+time.Duration(n)*labelGap), here[n*len(here)/aLabelWindow], n)
		}
	}
	return l
}

// Every way in which labels come and every time at which they do, from events to
// the realised metric, its coverage and its maturity, against a search through
// all that was said.
func TestLabelsComeAsPeopleHaveThem(t *testing.T) {
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	w := newLabelStream(t, first, map[string]string{
		"id":   `"delay":"30m","silence":"0"`,
		"key":  `"by":"key","tolerance":"10m","delay":"30m"`,
		"view": `"by":"view","view":"truth","column":"left","tolerance":"10m","delay":"30m","silence":"0"`,
	})
	ways := []*labelled{newLabelled("id", true, first), newLabelled("key", false, first), newLabelled("view", true, first)}
	end := ways[0].begin.Add(labelWindows * 5 * time.Minute)
	sch := newScheduler(t, w.stream, w.registry)
	phase := 0
	for _, step := range []struct {
		phases []int           // that come
		looks  []time.Duration // after the end
		due    bool
	}{
		{[]int{0, 1}, []time.Duration{10 * time.Second, 2 * time.Minute}, false},
		{[]int{2}, []time.Duration{6 * time.Minute}, false},
		{nil, []time.Duration{45 * time.Minute}, true},
		{[]int{3}, []time.Duration{45 * time.Minute}, true}, // at the moment of the last look: two measurements of one window share a tick
		{nil, []time.Duration{50 * time.Minute}, true},
	} {
		for _, phase = range step.phases {
			for _, l := range ways {
				l.come(w, phase)
			}
		}
		for _, a := range step.looks {
			sch.Look(t.Context(), end.Add(a))
		}
		for _, l := range ways {
			l.check(t, w, phase, step.due)
		}
	}
}

// A truth is the same truth as a number and as a text, whichever of them a task
// reckons with; what is neither is no label.
func TestLabelsAreNumbersOrTexts(t *testing.T) {
	no := math.NaN()
	for _, c := range []struct {
		task, metric string
		number       []float64
		text         []string
		want         float64 // by hand; predictions are scores .9 .1 .9 .1, classes 2 1 2 1, values 2 1 2 1
		rows         int
	}{
		{"binary", "accuracy", []float64{1, 0, 0, 0}, make([]string, 4), 0.75, 4},
		{"binary", "accuracy", []float64{no, no, no, no}, []string{"1", "0", "false", "0.0"}, 0.75, 4},
		{"binary", "accuracy", []float64{1, no, 7, no}, []string{"", "true", "", "maybe"}, 0.5, 2},
		{"multiclass", "accuracy", []float64{no, no, no, no}, []string{"2", "1", "1", "1"}, 0.75, 4},
		{"multiclass", "accuracy", []float64{2, 1, 1, no}, []string{"", "", "", "1"}, 0.75, 4},
		{"multiclass", "confusion/1/2", []float64{2, 1, 1, no}, []string{"", "", "", "1"}, 1, 4},
		{"regression", "mae", []float64{3, 1, no, no}, []string{"", "", "2.5", "many"}, 0.5, 3},
	} {
		o := &store.Outcomes{Score: []float64{.9, .1, .9, .1}, Class: []string{"2", "1", "2", "1"}, Value: []float64{2, 1, 2, 1}, Threshold: []float64{no, no, no, no},
			Time: make([]time.Time, 4), Scores: make([]map[string]float64, 4), There: []bool{true, true, true, true}, Label: c.number, LabelClass: c.text}
		got, rows := drift.MetricsOf(o, c.task)
		if v, ok := got[c.metric]; !ok || math.Abs(v-c.want) > 1e-12 || rows != c.rows {
			t.Errorf("%s of %v %q: %v of %d rows (%v), want %v of %d", c.task, c.number, c.text, v, rows, ok, c.want, c.rows)
		}
	}
}

// check holds what is answered of each window against the search.
func (l *labelled) check(t *testing.T, w *labelStream, phase int, due bool) {
	t.Helper()
	r := query.Request{Namespace: "test", Model: l.way, From: l.begin, To: l.begin.Add(24 * time.Hour), Columns: []string{"mae"}}
	f := series(t, w.stream.store, r)
	if len(f) != 1 {
		t.Fatalf("%d series", len(f))
	}
	row := map[int]int{}
	for i, at := range values[time.Time](t, f[0], "time") {
		row[int(at.Sub(l.begin)/(5*time.Minute))] = i
	}
	value, coverage := values[*float64](t, f[0], "value"), values[float64](t, f[0], "coverage")
	mature, predictions := values[bool](t, f[0], "mature"), values[uint64](t, f[0], "predictions")
	for k := range labelWindows {
		var when []string
		for _, one := range timingsOf(k) {
			when = append(when, one.name)
		}
		mae, there, n := l.window(k, phase, due)
		share := float64(there) / float64(n)
		i, ok := row[k]
		if !ok {
			t.Errorf("%s, phase %d due %v, %q: no row; want %d of %d", l.way, phase, due, when, there, n)
			continue
		}
		same := (value[i] == nil) == (there == 0) && (there == 0 || math.Abs(*value[i]-mae) < 1e-9) && math.Abs(coverage[i]-share) < 1e-9
		if !same || int(predictions[i]) != n || mature[i] != (due && share >= 0.5) {
			got := "nothing"
			if value[i] != nil {
				got = fmt.Sprint(*value[i])
			}
			t.Errorf("%s, phase %d due %v, %q: %s of %.3f of %d, mature %v; want %v of %.3f of %d", l.way, phase, due, when, got, coverage[i], predictions[i], mature[i], mae, share, n)
		}
	}
}

// labelStream holds models of numbers, called by the way in which their labels
// come, and the view truth.
type labelStream struct {
	churn
	stream *stream
}

func newLabelStream(t *testing.T, first time.Time, labels map[string]string) *labelStream {
	t.Helper()
	s, reg := newStream(t), openRegistry(t)
	define(t, reg, event.FeatureViewKind, "truth", `{"origin":"declared","keys":[{"name":"user","type":"Int64"}],"columns":[{"name":"left","type":"Float64"}]}`, "")
	define(t, reg, "Monitor", "truth", `{"view":"truth","off":true}`, "")
	for model, spec := range labels {
		define(t, reg, event.ModelKind, model, fmt.Sprintf(`{"origin":"declared","task":"regression","labels":{%s},"signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["v1"]}]}`, spec), "")
		define(t, reg, "Monitor", model, fmt.Sprintf(`{"model":%q,"window":"1m","columns":["value"],"season":"1ns","reference":{"from":%q,"to":%q}}`,
			model, first.Format(time.RFC3339), first.Add(30*time.Minute).Format(time.RFC3339)), "")
	}
	var entries []event.CatalogEntry
	for _, kind := range []string{event.FeatureViewKind, event.ModelKind} {
		for _, d := range reg.State().List(kind, "test") {
			entries = append(entries, event.CatalogEntry{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec})
		}
	}
	catalog, err := event.NewCatalog(entries)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Prepare(t.Context(), catalog.Schemas()); err != nil {
		t.Fatal(err)
	}
	return &labelStream{churn{t: t, store: s.store, catalog: catalog, registry: reg}, s}
}
