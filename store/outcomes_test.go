package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// statement is what a producer said about the truth, by any of the three ways.
type statement struct {
	id, key string // one of them
	at      time.Time
	label   *float64 // nil withdraws
}

// Labels that come by id, by key and from a view's column, late, corrected and
// withdrawn, against a search through all statements.
func TestOutcomesJoinLikeASearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	begin := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	const n, tolerance = 200, 10 * time.Minute
	var predictions, byID, byKey, byView []string
	var times []time.Time
	var idSaid, keySaid, viewSaid []statement
	say := func(i int, at time.Time) {
		v := float64(rng.IntN(2))
		text, label := fmt.Sprint(v), &v
		if rng.IntN(6) == 0 {
			text, label = "null", nil
		}
		stamp := at.Format(time.RFC3339Nano)
		byID = append(byID, fmt.Sprintf(`{"model":"churn","prediction_id":"p%d","label":%s,"event_time":%q}`, i, text, stamp))
		idSaid = append(idSaid, statement{id: fmt.Sprint("p", i), at: at, label: label})
		byKey = append(byKey, fmt.Sprintf(`{"model":"churn","key":{"user":%d},"label":%s,"event_time":%q}`, i%40, text, stamp))
		keySaid = append(keySaid, statement{key: fmt.Sprint(i % 40), at: at, label: label})
		byView = append(byView, fmt.Sprintf(`{"view":"truth","key":{"user":%d},"values":{"left":%s},"event_time":%q}`, i%40, text, stamp))
		viewSaid = append(viewSaid, statement{key: fmt.Sprint(i % 40), at: at, label: label})
	}
	for i := range n {
		at := begin.Add(time.Duration(i) * 9 * time.Second)
		times = append(times, at)
		predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":"p%d","key":{"user":%d},"event_time":%q,"inputs":{"x":1},"output":{"score":0.25},"segments":{"part":"s%d"}}`,
			i, i%40, at.Format(time.RFC3339Nano), i%3))
		for range rng.IntN(3) { // none, one, or one and its correction
			say(i, at.Add(time.Duration(1+rng.IntN(1500))*time.Second).Add(time.Duration(len(byID))*time.Microsecond))
		}
	}
	for name, c := range map[string]struct {
		labels []string
		kind   event.Kind
		join   store.LabelJoin
		want   func(i int) *float64
	}{
		"id": {byID, event.Labels, store.LabelJoin{}, func(i int) *float64 {
			return newest(idSaid, func(s statement) bool { return s.id == fmt.Sprint("p", i) })
		}},
		"key": {byKey, event.Labels, store.LabelJoin{By: "key", Tolerance: tolerance}, func(i int) *float64 { return nearest(keySaid, fmt.Sprint(i%40), times[i], tolerance) }},
		"view": {byView, event.Features, store.LabelJoin{By: "view", Tolerance: tolerance, View: "truth", Column: "left"}, func(i int) *float64 {
			return nearest(viewSaid, fmt.Sprint(i%40), times[i], tolerance)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			sub := storeEvents(t, s, event.Predictions, predictions)
			storeEvents(t, s, c.kind, c.labels)
			got, err := s.Outcomes(t.Context(), sub, c.join, []string{"part", "version"}, begin, begin.Add(24*time.Hour), 10_000)
			if err != nil || len(got.Time) != n || got.Predictions != n {
				t.Fatalf("%d outcomes of %d predictions, want %d: %v", len(got.Time), got.Predictions, n, err)
			}
			for row, at := range got.Time {
				i := int(at.Sub(begin) / (9 * time.Second))
				want := c.want(i)
				if got.There[row] != (want != nil) || want != nil && got.Label[row] != *want || got.Score[row] != 0.25 {
					t.Errorf("prediction %d: there %v label %v, want %v", i, got.There[row], got.Label[row], want)
				}
				if got.Groups["part"][row] != fmt.Sprint("s", i%3) || got.Groups["version"][row] != "v1" {
					t.Errorf("prediction %d is of %v", i, got.Groups)
				}
				if want == nil != math.IsNaN(got.Delay[row]) {
					t.Errorf("prediction %d: delay %v", i, got.Delay[row])
				}
			}
			for silence, delay := range map[string]time.Duration{"": 0, "1": time.Minute, "0": 100 * 365 * 24 * time.Hour} { // the last is not over yet
				j := c.join
				j.Silence, j.Delay = silence, delay
				checkCoverage(t, s, j, silence == "1", times, c.want)
			}
		})
	}
}

// checkCoverage holds the labels of each ten minutes against a count.
func checkCoverage(t *testing.T, s *store.Store, j store.LabelJoin, spoken bool, times []time.Time, want func(i int) *float64) {
	t.Helper()
	const step = 10 * time.Minute
	counted, there, labels := map[time.Time]int64{}, map[time.Time]float64{}, map[time.Time]float64{}
	for i, at := range times {
		w, label := at.Truncate(step), want(i)
		counted[w]++
		switch {
		case label != nil:
			there[w], labels[w] = there[w]+1, labels[w]+*label
		case spoken:
			there[w], labels[w] = there[w]+1, labels[w]+1
		}
	}
	frames, err := s.LabelCoverage(t.Context(), query.Request{Namespace: "default", Model: "churn", From: times[0], To: times[0].Add(time.Hour), Step: query.Duration(step)}, j)
	if err != nil || len(frames) != 1 || frames[0].Rows() != len(counted) || len(counted) < 3 {
		t.Fatalf("%d steps: %+v %v", len(counted), frames, err)
	}
	c := frames[0].Columns
	for i, at := range c[0].Values.([]time.Time) {
		share, mean := there[at]/float64(counted[at]), labels[at]/there[at]
		got := math.NaN()
		if said := c[4].Values.([]*float64)[i]; said != nil {
			got = *said
		}
		if c[1].Values.([]int64)[i] != counted[at] || math.Abs(c[2].Values.([]float64)[i]-share) > 1e-12 || !(math.Abs(got-mean) <= 1e-12) {
			t.Errorf("by %q, silence %q, %s: %d predictions, coverage %v, mean label %v; want %d, %v, %v", j.By, j.Silence, at, c[1].Values.([]int64)[i], c[2].Values.([]float64)[i], got, counted[at], share, mean)
		}
	}
}

func newest(said []statement, about func(statement) bool) *float64 {
	var best *statement
	for i := range said {
		if about(said[i]) && (best == nil || said[i].at.After(best.at)) {
			best = &said[i]
		}
	}
	if best == nil {
		return nil
	}
	return best.label
}

// nearest is the first label of an entity within the tolerance; a null is none.
func nearest(said []statement, key string, after time.Time, tolerance time.Duration) *float64 {
	var best *statement
	for i := range said {
		s := &said[i]
		if s.key == key && s.label != nil && !s.at.Before(after) && s.at.Sub(after) <= tolerance && (best == nil || s.at.Before(best.at)) {
			best = s
		}
	}
	if best == nil {
		return nil
	}
	return best.label
}

// storeEvents decodes texts against a declared definition of each subject and
// stores them; the answer is the table of the first.
func storeEvents(t *testing.T, s *store.Store, kind event.Kind, texts []string) store.Subject {
	t.Helper()
	catalog, err := event.NewCatalog([]event.CatalogEntry{
		{Kind: event.ModelKind, Namespace: "default", Name: "churn", UID: 1, Spec: []byte(`{"origin":"declared","signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["v1"]}]}`)},
		{Kind: event.FeatureViewKind, Namespace: "default", Name: "truth", UID: 2, Spec: []byte(`{"origin":"declared","keys":[{"name":"user","type":"Int64"}],"columns":[{"name":"left","type":"Float64"}]}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), catalog.Schemas()); err != nil {
		t.Fatal(err)
	}
	u := &event.Unit{Topic: "kedge.default." + kind.String(), Namespace: "default", Kind: kind, Epoch: 1}
	u.Reset(catalog)
	d := event.NewDecoder(event.DefaultDecoderConfig())
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).UnixMicro()
	for i, text := range texts {
		d.Decode(u, event.Record{Offset: int64(i), Time: now, Value: []byte(text)})
	}
	if len(u.Dead) > 0 || len(u.Proposals) > 0 {
		t.Fatalf("dead letters %+v, proposals %+v", u.Dead, u.Proposals)
	}
	for _, b := range u.Batches {
		if b.Rows == 0 {
			continue
		}
		if err := s.Insert(t.Context(), fmt.Sprint(kind, "/", b.Schema.TableID), b); err != nil {
			t.Fatal(err)
		}
		return store.Subject{Kind: b.Schema.Kind, TableID: b.Schema.TableID}
	}
	t.Fatal("no batch")
	return store.Subject{}
}
