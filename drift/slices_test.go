package drift_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// sliceRows are rows of eight features, of which none says anything, until
// planted: then errors of the window rise where a word and a number meet.
func sliceRows(rng *rand.Rand, n int, planted bool) drift.SliceRows {
	r := drift.SliceRows{Numbers: map[string][]float64{}, Texts: map[string][]string{}}
	for i := range 2 * n {
		worth := rng.ExpFloat64()
		for k := range 4 {
			x, word := rng.NormFloat64(), fmt.Sprint("w", rng.IntN(6))
			name, text := fmt.Sprint("x", k), fmt.Sprint("t", k)
			r.Numbers[name], r.Texts[text] = append(r.Numbers[name], x), append(r.Texts[text], word)
		}
		if planted && i >= n && r.Texts["t2"][i] == "w3" && r.Numbers["x1"][i] > 0.7 {
			worth += 2
		}
		r.Worth, r.Current = append(r.Worth, worth), append(r.Current, i >= n)
	}
	return r
}

// A planted slice of two conditions is shown; where nothing
// is planted nothing is shown, as often as the correction promises.
func TestSliceSearchFindsWhatIsPlantedAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 42))
	o := drift.DefaultSliceOptions()
	o.Rising = true
	found, err := drift.SearchSlices(sliceRows(rng, 8_000, true), o)
	if err != nil || len(found) == 0 {
		t.Fatalf("%d slices (%v)", len(found), err)
	}
	if name := found[0].Name(); !strings.Contains(name, "t2 = w3") && !strings.Contains(name, "x1 ≥ 0.6") || found[0].Adjusted > 1e-6 {
		t.Errorf("first is %s: effect %v, p %v", name, found[0].Effect, found[0].Adjusted)
	}
	both := slices.IndexFunc(found, func(s drift.Slice) bool {
		return strings.Contains(s.Name(), "t2 = w3") && strings.Contains(s.Name(), "x1 ≥ 0.6")
	})
	if both < 0 || found[both].Adjusted > 1e-6 || math.Abs(found[both].Effect-2) > 0.3 { // the others are wider, and thinner
		t.Errorf("the planted pair is number %d of %+v", both, found)
	}
	const searches = 300
	shown := 0
	for range searches {
		quiet, err := drift.SearchSlices(sliceRows(rng, 600, false), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range quiet {
			if s.Adjusted <= 0.05 {
				shown++
				break
			}
		}
	}
	if limit := 0.05*searches + 3*math.Sqrt(0.05*0.95*searches); float64(shown) > limit {
		t.Errorf("%d of %d searches among nothing show something, at most %.0f may", shown, searches, limit)
	}
	t.Logf("%d of %d searches among nothing show something", shown, searches)
	if _, err := drift.SearchSlices(sliceRows(rng, 50, false), o); err == nil {
		t.Error("a hundred rows were searched")
	}
}

// A slice that the model was always worse on is no news: only what rose since
// the reference is shown, and by how much.
func TestSliceSearchLeavesOutWhatWasAlwaysBad(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 44))
	o := drift.DefaultSliceOptions()
	o.Rising = true
	rows := sliceRows(rng, 8_000, false)
	for i := range rows.Worth {
		switch {
		case rows.Texts["t0"][i] == "w1": // before and now
			rows.Worth[i] += 3
		case rows.Texts["t3"][i] == "w4" && rows.Current[i]:
			rows.Worth[i]++
		}
	}
	found, err := drift.SearchSlices(rows, o)
	if err != nil {
		t.Fatal(err)
	}
	news := false
	for _, s := range found {
		if s.Adjusted > 0.05 {
			continue
		}
		news = news || s.Name() == "t3 = w4" && math.Abs(s.Effect-1) < 0.3
		if strings.Contains(s.Name(), "t0 = w1") && !strings.Contains(s.Name(), "t3 = w4") {
			t.Errorf("%s is shown, which rose by %.2f of %.2f", s.Name(), s.Effect, s.Inside)
		}
	}
	if !news {
		t.Errorf("what rose is not shown: %+v", found)
	}
}

// The column whose drift moves with the loss is first, important ones before
// others, and one that drifts by itself is behind them.
func TestCausesAreRankedByWhatTheyDo(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 44))
	columns := []drift.CauseSeries{{Column: "alone", Importance: 0.5}, {Column: "cause", Importance: 0.9}, {Column: "echo", Importance: 0.1}, {Column: "short", Importance: 0.9}}
	var loss []float64
	for i := range 40 {
		l := 0.0
		if i >= 25 {
			l = 0.1 + 0.02*rng.NormFloat64()
		}
		loss = append(loss, -l) // a metric that falls
		columns[0].Times = append(columns[0].Times, 5+rng.NormFloat64())
		columns[1].Times = append(columns[1].Times, 0.3+20*l+0.1*rng.NormFloat64())
		columns[2].Times = append(columns[2].Times, 0.3+20*l+0.1*rng.NormFloat64())
		columns[3].Times = append(columns[3].Times, map[bool]float64{true: 9, false: math.NaN()}[i > 36])
	}
	ranked := drift.RankCauses(columns, loss)
	names := ""
	for _, c := range ranked {
		names += c.Column + " "
	}
	if names != "cause echo alone short " || ranked[0].Correlation < 0.9 || ranked[0].P > 1e-6 || !math.IsNaN(ranked[3].Correlation) {
		t.Errorf("%s: %+v", names, ranked)
	}
	if unknown := drift.RankCauses(columns, nil); unknown[0].Column != "short" || !math.IsNaN(unknown[0].Correlation) {
		t.Errorf("without performance: %+v", unknown)
	}
}

// One part in ten goes wrong while an input moves: the search names the part,
// the ranking the input, and the windows before say nothing.
func TestBlameIsAnsweredFromStoredRows(t *testing.T) {
	c, s := newChurn(t, churnModel)
	rng := rand.New(rand.NewPCG(45, 46))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const aMinute, minutes, changed = 250, 60, 45
	var predictions, labels []string
	for i := range minutes * aMinute {
		at, part, id := begin.Add(time.Duration(i)*time.Minute/aMinute), 'a'+byte(i%10), fmt.Sprint("p", i)
		score, x, truth, wrong := rng.Float64(), rng.NormFloat64(), 0, i/aMinute >= changed
		if wrong {
			x++
		}
		if chance := rng.Float64(); wrong && part == 'c' && chance > score || (!wrong || part != 'c') && chance < score {
			truth = 1
		}
		predictions = append(predictions, fmt.Sprintf(`{"model":"churn","version":"v1","id":%q,"event_time":%q,"inputs":{"x":%.4f},"output":{"score":%.4f},"segments":{"part":"%c"}}`, id, at.Format(time.RFC3339Nano), x, score, part))
		labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":%q,"label":%d,"event_time":%q}`, id, truth, at.Add(time.Minute).Format(time.RFC3339Nano)))
	}
	c.write(event.Predictions, predictions)
	c.write(event.Labels, labels)
	sch := newScheduler(t, s, c.registry)
	end := begin.Add(minutes * time.Minute)
	for _, after := range []time.Duration{10 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		sch.Look(t.Context(), end.Add(after))
	}
	at := func(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }
	found := ask(t, sch.SegmentSearch, query.Request{Namespace: "test", Model: "churn", From: at(changed), To: end})
	if found.Rows() == 0 || !strings.Contains(cells(t, found, "slice")[0], "part = c") || !values[bool](t, found, "shown")[0] {
		t.Errorf("the search found %+v", found)
	}
	quiet := ask(t, sch.SegmentSearch, query.Request{Namespace: "test", Model: "churn", From: at(25), To: at(changed)})
	for i, shown := range values[bool](t, quiet, "shown") {
		if shown {
			t.Errorf("before anything happened: %s", cells(t, quiet, "sentence")[i])
		}
	}
	if _, err := sch.SegmentSearch(t.Context(), query.Request{Namespace: "test", Model: "churn", Columns: []string{"nothing"}}); err == nil {
		t.Error("a search by a column that is not there was answered")
	}
	causes := ask(t, sch.RootCause, query.Request{Namespace: "test", Model: "churn"})
	if names := cells(t, causes, "column"); len(names) < 2 || names[0] != "x" || *values[*float64](t, causes, "correlation")[0] < 0.7 || !strings.Contains(cells(t, causes, "sentence")[0], "roc_auc") {
		t.Errorf("causes %+v", causes)
	}
}
