package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// landed is one prediction as the test wrote it, and its newest label.
type landed struct {
	version, variant, key string
	score, threshold      float64
	label                 float64 // NaN: none
	late                  bool    // appended before the query's since
}

// TestArms compares every loss with a naive count over the same rows.
func TestArms(t *testing.T) {
	s := open(t)
	spec := []byte(`{"origin":"declared","signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["*"]}]}`)
	c, err := event.NewCatalog([]event.CatalogEntry{{Kind: event.ModelKind, Namespace: "test", Name: "m", UID: 5, Spec: spec}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), c.Schemas()); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var rows []landed
	var predictions, labels []string
	at := time.UnixMicro(minute).UTC().Format(time.RFC3339)
	for i := range 400 {
		r := landed{version: strconv.Itoa(1 + i%2), variant: []string{"champion", "canary"}[i%2], score: float64(rng.IntN(100)) / 100, threshold: 0.5, label: math.NaN(), late: i < 40}
		id := fmt.Sprintf("p%d", i)
		if i%5 == 0 { // a shadow, beside an answer that has the label
			r.version, r.variant = "9", "shadow"
			predictions = append(predictions, fmt.Sprintf(`{"model":"m","version":"9","variant":"shadow","id":"%s/9","event_time":%q,"inputs":{"x":1.0},"output":{"score":%v}}`, id, at, r.score))
		} else {
			r.key = fmt.Sprintf(`{"u":%d}`, i%30)
			r.threshold = 0.25
			predictions = append(predictions, fmt.Sprintf(`{"model":"m","version":%q,"variant":%q,"id":%q,"event_time":%q,"key":%s,"inputs":{"x":1.0},"output":{"score":%v},"threshold":0.25}`, r.version, r.variant, id, at, r.key, r.score))
		}
		if rng.IntN(3) > 0 {
			r.label = float64(rng.IntN(2))
			labels = append(labels, fmt.Sprintf(`{"model":"m","prediction_id":%q,"label":%v,"event_time":%q}`, id, 1-r.label, at)) // an older one
			labels = append(labels, fmt.Sprintf(`{"model":"m","prediction_id":%q,"label":%v,"event_time":%q,"created":%q}`, id, r.label, at, time.UnixMicro(minute).Add(time.Second).UTC().Format(time.RFC3339)))
			if rng.IntN(10) == 0 { // and withdrawn again
				r.label = math.NaN()
				labels = append(labels, fmt.Sprintf(`{"model":"m","prediction_id":%q,"label":null,"event_time":%q,"created":%q}`, id, at, time.UnixMicro(minute).Add(time.Minute).UTC().Format(time.RFC3339)))
			}
		}
		rows = append(rows, r)
	}
	since := minute + 40*1_000_000
	put(t, s, c, event.Predictions, predictions, func(i int) int64 { return minute + int64(i)*1_000_000 })
	put(t, s, c, event.Labels, labels, func(int) int64 { return since + 500_000_000 })
	for _, loss := range []string{"", "error", "brier", "log_loss", "absolute_error", "squared_error"} {
		for _, byEntity := range []bool{false, true} {
			got, err := s.Arms(t.Context(), store.ArmQuery{Namespace: "test", Model: "m", Loss: loss, Since: time.UnixMicro(since), ByEntity: byEntity})
			if err != nil {
				t.Fatal(err)
			}
			want := naive(rows, loss, byEntity)
			if len(got) != len(want) {
				t.Fatalf("%s: %d arms, want %d: %+v", loss, len(got), len(want), got)
			}
			for _, o := range got {
				w := want[o.Version+o.Variant]
				if o.Units != w.Units || o.Labelled != w.Labelled || math.Abs(o.Loss-w.Loss) > 1e-9 || math.Abs(o.LossSquared-w.LossSquared) > 1e-9 {
					t.Errorf("loss %q by entity %v:\n got %+v\nwant %+v", loss, byEntity, o, w)
				}
			}
		}
	}
	if _, err := s.Arms(t.Context(), store.ArmQuery{Namespace: "test", Model: "m", Loss: "regret"}); err == nil {
		t.Error("an unknown loss")
	}
	if got, err := s.Arms(t.Context(), store.ArmQuery{Namespace: "test", Model: "none", Loss: "brier"}); err != nil || got != nil {
		t.Errorf("a model without predictions: %v %v", got, err)
	}
}

// TestArmsByKeyAndView are arms whose labels come as a model's definition says:
// the version and variant of the prediction decide which arm a label is of.
func TestArmsByKeyAndView(t *testing.T) {
	s := open(t)
	c, err := event.NewCatalog([]event.CatalogEntry{
		{Kind: event.ModelKind, Namespace: "test", Name: "m", UID: 5, Spec: []byte(`{"origin":"declared","signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["*"]}]}`)},
		{Kind: event.FeatureViewKind, Namespace: "test", Name: "truth", UID: 6, Spec: []byte(`{"origin":"declared","keys":[{"name":"user","type":"Int64"}],"columns":[{"name":"left","type":"Float64"}]}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), c.Schemas()); err != nil {
		t.Fatal(err)
	}
	const tolerance, late = 10 * time.Minute, 40
	rng := rand.New(rand.NewPCG(7, 8))
	begin := time.UnixMicro(minute).UTC()
	var rows []landed
	var times []time.Time
	var said []statement
	var predictions, labels, truths []string
	for i := range 300 {
		r := landed{version: strconv.Itoa(1 + i%2), variant: []string{"champion", "canary"}[i%2], key: strconv.Itoa(i / 2 % 30), score: float64(rng.IntN(100)) / 100, threshold: 0.5, late: i < late}
		at := begin.Add(time.Duration(i) * 9 * time.Second)
		id := fmt.Sprintf("p%d", i)
		if i%5 == 4 { // beside the answer before it
			r.version, r.variant, r.key, at, id = "9", "shadow", rows[i-1].key, times[i-1], fmt.Sprintf("p%d/9", i-1)
		} else if rng.IntN(2) == 0 {
			y := float64(rng.IntN(2))
			told := at.Add(time.Duration(rng.IntN(1200))*time.Second + time.Duration(i)*time.Microsecond)
			said = append(said, statement{key: r.key, at: told, label: &y})
			labels = append(labels, fmt.Sprintf(`{"model":"m","key":{"user":%s},"label":%v,"event_time":%q}`, r.key, y, told.Format(time.RFC3339Nano)))
			truths = append(truths, fmt.Sprintf(`{"view":"truth","key":{"user":%s},"values":{"left":%v},"event_time":%q}`, r.key, y, told.Format(time.RFC3339Nano)))
		}
		rows, times = append(rows, r), append(times, at)
		predictions = append(predictions, fmt.Sprintf(`{"model":"m","version":%q,"variant":%q,"id":%q,"event_time":%q,"key":{"user":%s},"inputs":{"x":1.0},"output":{"score":%v},"threshold":0.5}`, r.version, r.variant, id, at.Format(time.RFC3339Nano), r.key, r.score))
	}
	since := time.UnixMicro(minute).Add(late * 9 * time.Second)
	put(t, s, c, event.Predictions, predictions, func(i int) int64 { return minute + int64(i)*9_000_000 })
	put(t, s, c, event.Labels, labels, func(int) int64 { return minute + 7_200_000_000 })
	put(t, s, c, event.Features, truths, func(int) int64 { return minute + 7_200_000_000 })
	for _, by := range []string{"key", "view"} {
		for silence, delay := range map[string]time.Duration{"": 0, "1": time.Minute, "0": 100 * 365 * 24 * time.Hour} { // the last is not over yet
			for i := range rows {
				rows[i].label = math.NaN()
				if y := nearest(said, rows[i].key, times[i], tolerance); y != nil {
					rows[i].label = *y
				} else if silence == "1" {
					rows[i].label = 1
				}
			}
			for _, loss := range []string{"error", "brier"} {
				q := store.ArmQuery{Namespace: "test", Model: "m", Loss: loss, Since: since, ByEntity: loss == "brier",
					Labels: store.LabelJoin{By: by, Tolerance: tolerance, View: "truth", Column: "left", Silence: silence, Delay: delay}}
				got, err := s.Arms(t.Context(), q)
				want := naive(rows, loss, q.ByEntity)
				if err != nil || len(got) != len(want) || len(got) != 3 {
					t.Fatalf("by %s: %d arms, want %d: %+v %v", by, len(got), len(want), got, err)
				}
				for _, o := range got {
					w := want[o.Version+o.Variant]
					if o.Units != w.Units || o.Labelled != w.Labelled || o.Labelled == 0 || math.Abs(o.Loss-w.Loss) > 1e-9 || math.Abs(o.LossSquared-w.LossSquared) > 1e-9 {
						t.Errorf("by %s, silence %q, loss %s:\n got %+v\nwant %+v", by, silence, loss, o, w)
					}
				}
			}
		}
	}
}

func naive(rows []landed, loss string, byEntity bool) map[string]store.ArmOutcome {
	units := map[string]map[string][]float64{}
	for i, r := range rows {
		if r.late {
			continue
		}
		arm := r.version + r.variant
		if units[arm] == nil {
			units[arm] = map[string][]float64{}
		}
		unit := strconv.Itoa(i)
		if byEntity && r.key != "" {
			unit = r.key
		}
		units[arm][unit] = append(units[arm][unit], nil...)
		if l := lossOf(r, loss); !math.IsNaN(l) {
			units[arm][unit] = append(units[arm][unit], l)
		}
	}
	out := map[string]store.ArmOutcome{}
	for arm, us := range units {
		o := store.ArmOutcome{}
		for _, ls := range us {
			o.Units++
			if len(ls) == 0 {
				continue
			}
			mean := 0.0
			for _, l := range ls {
				mean += l / float64(len(ls))
			}
			o.Labelled++
			o.Loss += mean
			o.LossSquared += mean * mean
		}
		out[arm] = o
	}
	return out
}

func lossOf(r landed, loss string) float64 {
	y, p := r.label, r.score
	switch loss {
	case "error":
		if math.IsNaN(y) || (p >= r.threshold) == (y == 1) {
			return 0 * y
		}
		return 1
	case "brier", "squared_error":
		return (p - y) * (p - y)
	case "absolute_error":
		return math.Abs(p - y)
	case "log_loss":
		if y == 0 {
			p = 1 - p
		}
		return -math.Log(max(p, 1e-15)) + 0*y
	}
	return math.NaN()
}

// put stores envelopes as ingest would.
func put(t *testing.T, s *store.Store, c *event.Catalog, kind event.Kind, lines []string, appended func(i int) int64) {
	t.Helper()
	u := event.Unit{Topic: "kedge.test." + kind.String(), Namespace: "test", Kind: kind}
	u.Reset(c)
	d := event.NewDecoder(event.DefaultDecoderConfig())
	for i, line := range lines {
		d.Decode(&u, event.Record{Offset: int64(i), Time: appended(i), Value: []byte(line)})
	}
	if len(u.Dead) > 0 || len(u.Batches) != 1 {
		t.Fatalf("%d dead letters (%+v), %d tables\n%s", len(u.Dead), u.Dead, len(u.Batches), strings.Join(lines[:1], "\n"))
	}
	if err := s.Insert(t.Context(), "token-"+kind.String(), u.Batches[0]); err != nil {
		t.Fatal(err)
	}
}

// TestDrifted lists what a monitor found, at the newest revision.
func TestDrifted(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Predictions, TableID: 7}
	start := time.UnixMicro(minute).UTC()
	for i, v := range []store.Verdict{{Column: "a", Drifted: true}, {Column: "b", Drifted: true}, {Column: "b"}, {Column: "c"}} {
		v.Namespace, v.Monitor, v.Subject, v.Detector, v.Start, v.End = "test", "m", "m", "ks", start, start.Add(time.Hour)
		if err := s.SaveVerdicts(t.Context(), sub, []store.Verdict{v}, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Drifted(t.Context(), "test", "m", start); err != nil || fmt.Sprint(got) != "[a]" {
		t.Errorf("%v %v", got, err)
	}
	if got, err := s.Drifted(t.Context(), "test", "m", start.Add(2*time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("later: %v %v", got, err)
	}
}
