package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// store is an online store that a test fills by hand.
type store struct {
	t      testing.TB
	reg    *registry.Registry
	online *features.Online
	at     int64
}

func (st *store) define(columns ...string) {
	st.t.Helper()
	spec := event.ViewSpec{Origin: event.Declared, Online: true, TTL: event.Duration(time.Hour),
		Keys: []event.FieldSpec{{Name: "driver", Type: event.ColumnType{Elem: event.Int64}}, {Name: "city", Type: event.ColumnType{Elem: event.String}}}}
	for i := 0; i < len(columns); i += 2 {
		typ, err := event.ParseType(columns[i+1])
		if err != nil {
			st.t.Fatal(err)
		}
		spec.Columns = append(spec.Columns, event.FieldSpec{Name: columns[i], Type: typ})
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		st.t.Fatal(err)
	}
	expect := uint64(0)
	if d, ok := st.reg.State().Get(event.FeatureViewKind, "default", "stats"); ok {
		expect = d.Version
	}
	if _, err := st.reg.Apply(st.t.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: "default", Name: "stats", Op: registry.Put, Expect: expect, Spec: raw, Who: "test"}); err != nil {
		st.t.Fatal(err)
	}
	if err := st.online.Define(st.reg.State()); err != nil {
		st.t.Fatal(err)
	}
}

// put stores one row; age is how long ago it was true.
func (st *store) put(driver int64, city string, age time.Duration, trips any, rate float64) {
	v := st.online.View("default", "stats")
	line := fmt.Sprintf(`{"view":"stats","key":{"driver":%d,"city":%q},"event_time":%q,"values":{"trips":%v,"rate":%v}}`,
		driver, city, time.UnixMicro(st.at).Add(-age).UTC().Format(time.RFC3339Nano), trips, rate)
	u := event.Unit{Topic: "kedge.default.features", Namespace: "default", Kind: event.Features}
	c, err := event.NewCatalog([]event.CatalogEntry{{Kind: event.FeatureViewKind, Namespace: "default", Name: "stats", UID: v.UID, Spec: st.spec()}})
	if err != nil {
		st.t.Fatal(err)
	}
	u.Reset(c)
	event.NewDecoder(event.DefaultDecoderConfig()).Decode(&u, event.Record{Value: []byte(line), Time: st.at})
	for _, b := range u.Batches {
		if err := st.online.Apply(st.t.Context(), b, st.at); err != nil {
			st.t.Fatal(err)
		}
	}
}

func (st *store) spec() json.RawMessage {
	d, _ := st.reg.State().Get(event.FeatureViewKind, "default", "stats")
	return d.Spec
}

// keyed is rate + 10 × trips + 100 × hour, of which only hour comes from the
// caller.
func keyed(version string, viewVersion uint64) Model {
	m := sum(version, 1, 10, 100)
	m.Signature.Inputs = []model.Input{
		{Name: "rate", Type: "Float64", View: "stats", ViewVersion: viewVersion},
		{Name: "n", Type: "Int64", View: "stats", ViewVersion: viewVersion, Feature: "trips"},
		{Name: "hour", Type: "Int64"},
	}
	return m
}

func newStore(t testing.TB, r *rig) *store {
	st := &store{t: t, reg: openRegistry(t), online: features.NewOnline(), at: time.Now().UnixMicro()}
	r.s.cfg.Features = NewFeatures(st.online, st.reg, "default", func() error { return nil })
	st.define("trips", "Int64", "rate", "Float64")
	return st
}

// TestHiddenInputs: of what a column policy hides, neither value nor
// contribution is in the answer; the record has both, and the sum is the same.
func TestHiddenInputs(t *testing.T) {
	r := newRig(t)
	st := newStore(t, r)
	st.put(7, "Bern", 90*time.Second, 3, 0.5)
	if err := r.s.Load(keyed("1", 1)); err != nil {
		t.Fatal(err)
	}
	const ask = `{"key":{"city":"Bern","driver":7},"data":{"hour":2},"features":true,"explain":3}`
	for _, c := range []struct {
		hidden string
		want   []string
	}{
		{"", []string{`"n":{"value":3,`, `{"input":"n","value":30.0}`, `"others":0.0,`}},
		{"trips", []string{`"n":{"value":null,`, `"others":30.0,`}}, // the column that n is
		{"n", []string{`"n":{"value":null,`, `"others":30.0,`}},
	} {
		r.s.cfg.Hides = func(context.Context) func(string) bool {
			return func(column string) bool { return column == c.hidden }
		}
		status, body, _ := r.post("/v1/predict/fraud", ask)
		for _, want := range c.want {
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%q hidden: %d %s: want %s", c.hidden, status, body, want)
			}
		}
		if c.hidden != "" && strings.Contains(body, `"input":"n"`) {
			t.Errorf("%q hidden: %s", c.hidden, body)
		}
	}
	for _, rec := range r.recorded(3) {
		if fmt.Sprint(rec["attributions"]) != "map[hour:200 n:30 rate:0.5]" {
			t.Errorf("record: %v", rec)
		}
	}
}

// TestPredictByKey asks with keys: what the model saw, what it said, why, and
// that the record holds the same.
func TestPredictByKey(t *testing.T) {
	r := newRig(t)
	st := newStore(t, r)
	st.put(7, "Bern", 90*time.Second, 3, 0.5)
	st.put(8, "Bern", 2*time.Hour, 4, 0.25)
	if err := r.s.Load(keyed("1", 1)); err != nil {
		t.Fatal(err)
	}
	status, body, header := r.post("/v1/predict/fraud", `{"id":"p","key":{"city":"Bern","driver":7},"data":{"hour":2},"features":true,"explain":2}`)
	var a struct {
		Model, Version, Variant string
		Predictions             []struct {
			ID       string `json:"prediction_id"`
			Outputs  map[string]float64
			Features map[string]struct {
				Value  any
				From   string
				Status string
				Age    float64
			}
			Contributions []struct {
				Input string
				Value float64
			}
			Others, Base float64
		}
	}
	if err := json.Unmarshal([]byte(body), &a); status != 200 || err != nil {
		t.Fatalf("%d %s %v", status, body, err)
	}
	p := a.Predictions[0]
	if p.ID != "p" || p.Outputs["prediction"] != 230.5 || a.Version != "1" || header.Get("Kedge-Variant") != "champion" {
		t.Errorf("answer: %s", body)
	}
	if f := p.Features["n"]; f.Value != 3.0 || f.From != "stats:trips" || f.Status != "PRESENT" || f.Age < 90 || f.Age > 600 {
		t.Errorf("feature n: %+v", f)
	}
	if fmt.Sprint(p.Contributions) != "[{hour 200} {n 30}]" || p.Others != 0.5 {
		t.Errorf("contributions: %+v, others %v", p.Contributions, p.Others)
	}
	rec := r.recorded(1)[0]
	if fmt.Sprint(rec["inputs"]) != "map[hour:2 n:3 rate:0.5]" || fmt.Sprint(rec["key"]) != "map[city:Bern driver:7]" || fmt.Sprint(rec["attributions"]) != "map[hour:200 n:30]" {
		t.Errorf("record: %v", rec)
	}
	times, _ := rec["feature_times"].(map[string]any)
	if latency, _ := rec["latency"].(map[string]any); times["stats"] == nil || latency["features"] == nil {
		t.Errorf("record: feature times %v, latency %v", times, rec["latency"])
	}

	// Too old, never seen: both are missing, and told apart.
	status, body, _ = r.post("/v1/predict/fraud", `{"rows":[{"key":{"city":"Bern","driver":8},"data":{"hour":1}},{"key":{"city":"Thun","driver":7},"data":{"hour":null}}],"features":true}`)
	if err := json.Unmarshal([]byte(body), &a); status != 200 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	if f := a.Predictions[0].Features["rate"]; f.Status != "OUTSIDE_MAX_AGE" || f.Value != nil || f.Age < 7200 {
		t.Errorf("a row older than the ttl: %+v", f)
	}
	if f := a.Predictions[1].Features["rate"]; f.Status != "NOT_FOUND" || f.Value != nil {
		t.Errorf("a key that has no row: %+v", f)
	}
	if !strings.Contains(body, `"outputs":{"prediction":"NaN"}`) {
		t.Errorf("a sum of missing values: %s", body)
	}
}

// TestPredictByKeyRefuses holds status and words of what cannot be answered.
func TestPredictByKeyRefuses(t *testing.T) {
	r := newRig(t)
	st := newStore(t, r)
	if err := r.s.Load(keyed("1", 1)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		model, body string
		status      int
		word        string
	}{
		{"fraud", `{"key":{"driver":7},"data":{"hour":1}}`, 400, `key part "city" is missing`},
		{"fraud", `{"key":{"driver":"x","city":"Bern"},"data":{"hour":1}}`, 400, `key part "driver" is not a Int64`},
		{"fraud", `{"key":{"driver":7,"city":"Bern"}}`, 400, `no data "hour"`},
		{"fraud", `{"key":{"driver":7,"city":"Bern"},"data":{"hour":"noon"}}`, 400, `data "hour" is not a Int64`},
		{"fraud", `{"key":{"driver":7,"city":"Bern"},"data":{"hour":1.5}}`, 400, `data "hour" is not a Int64`},
		{"fraud", `{}`, 400, "neither key nor data"},
		{"fraud", `{"rows":[]}`, 400, "0 rows"},
		{"fraud", `{"kee":1}`, 400, "kee"},
		{"fraud", `{"key":7,"data":{"hour":1}}`, 400, "key of row 0"},
		{"nope", `{"key":{"driver":7}}`, 404, "nope"},
	} {
		status, body, _ := r.post("/v1/predict/"+c.model, c.body)
		var e struct{ Code, Message string }
		if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || e.Code == "" || !strings.Contains(e.Message, c.word) {
			t.Errorf("%s\n got %d %s\nwant %d …%s…", c.body, status, body, c.status, c.word)
		}
	}
	ask := `{"key":{"driver":7,"city":"Bern"},"data":{"hour":1}}`
	if status, body, _ := r.post("/v1/predict/fraud", ask); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	st.define("trips", "Float64", "rate", "Float64") // the model was trained when trips were integers
	status, body, header := r.post("/v1/predict/fraud", ask)
	if status != 503 || !strings.Contains(body, "is Float64 since version 2") || header.Get("Retry-After") == "" {
		t.Errorf("a view of another type: %d %s", status, body)
	}
	st.define("rate", "Float64")
	if status, body, _ := r.post("/v1/predict/fraud", ask); status != 503 || !strings.Contains(body, "has no column") {
		t.Errorf("a view without the column: %d %s", status, body)
	}
	r.s.cfg.Features.ready = func() error { return errors.New("still filling") }
	if status, body, _ := r.post("/v1/predict/fraud", ask); status != 503 || !strings.Contains(body, "still filling") {
		t.Errorf("not ready: %d %s", status, body)
	}
}

// TestOutcome sends labels of every kind; each is a record under its
// prediction's id.
func TestOutcome(t *testing.T) {
	r := newRig(t)
	if err := r.client.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: "kedge.default.labels", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	status, body, _ := r.post("/v1/outcome", `[{"model":"m","prediction_id":"a","label":1.5},{"model":"m","prediction_id":"b","label":"yes","event_time":"2026-01-02T03:04:05Z"},{"model":"m","prediction_id":"c","label":null},{"model":"m","prediction_id":"d","label":true}]`)
	if status != 200 || body != `{"accepted":4}` {
		t.Fatalf("%d %s", status, body)
	}
	tp := stream.TopicPartition{Topic: "kedge.default.labels"}
	got := map[string]any{}
	for b, err := range r.client.FetchRange(t.Context(), tp, 0, 3) {
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Records {
			var l map[string]any
			if err := json.Unmarshal(rec.Value, &l); err != nil {
				t.Fatal(err)
			}
			got[string(rec.Key)] = l["label"]
		}
		b.Release()
	}
	if fmt.Sprint(got) != "map[a:1.5 b:yes c:<nil> d:1]" {
		t.Errorf("labels: %v", got)
	}
	for _, bad := range []string{`{}`, `{"model":"m","prediction_id":"a"}`, `{"model":"m","prediction_id":"","label":1}`, `{"model":"m","prediction_id":"a","label":[1]}`, `{"model":"m","prediction_id":"a","label":1,"event_time":"noon"}`, `{"model":"m","prediction_id":"a","label":1,"weight":-1}`, `[`} {
		if status, body, _ := r.post("/v1/outcome", bad); status != 400 {
			t.Errorf("%s: %d %s", bad, status, body)
		}
	}
}

// TestPredictVerb asks as TensorFlow Serving's and KServe's clients do.
func TestPredictVerb(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"fraud:predict", `{"instances":[[1,2],[3,null]]}`, 200, `{"predictions":[21.0,"NaN"]}`},
		{"fraud:predict", `{"signature_name":"serving_default","instances":[{"f0":1,"f1":2.5}]}`, 200, `{"predictions":[26.0]}`},
		{"fraud:predict", `{"inputs":{"f0":[1,2],"f1":[[2],[3]]}}`, 200, `{"outputs":[21.0,32.0]}`},
		{"fraud:predict", `{"inputs":[[1,2]]}`, 200, `{"outputs":[21.0]}`},
		{"fraud/versions/1:predict", `{"instances":[[1,2]]}`, 200, `{"predictions":[21.0]}`},
		{"fraud/versions/2:predict", `{"instances":[[1,2]]}`, 404, `no version`},
		{"fraud:classify", `{"instances":[[1,2]]}`, 404, `verb`},
		{"fraud:predict", `{"instances":[[1]]}`, 400, `has 1 values`},
		{"fraud:predict", `{"instances":[]}`, 400, `at least one row`},
		{"fraud:predict", `{"instances":[{"f0":1}]}`, 400, `f1`},
		{"fraud:predict", `{"instances":[{"f0":1,"f1":1,"x":1}]}`, 400, `unexpected input`},
		{"fraud:predict", `{}`, 400, `either`},
		{"fraud:predict", `{"inputs":{"f0":[1],"f1":[1,2]}}`, 400, `different lengths`},
	} {
		status, body, _ := r.post("/v1/models/"+c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s\n got %d %s\nwant %d %s", c.path, c.body, status, body, c.status, c.want)
		}
	}
	for path, want := range map[string]string{"": `{"models":["fraud"]}`, "/fraud": `"ready":true`, "/fraud/versions/1": `"state":"AVAILABLE"`} {
		if status, body := r.get("/v1/models" + path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestShadowByKey holds that a shadow with other inputs gets its own look-up.
func TestShadowByKey(t *testing.T) {
	r := newRig(t)
	st := newStore(t, r)
	st.put(7, "Bern", time.Second, 3, 0.5)
	shadow := sum("2", 2)
	shadow.Signature.Inputs = []model.Input{{Name: "trips", Type: "Int64", View: "stats"}}
	for _, m := range []Model{keyed("1", 0), shadow} {
		if err := r.s.Load(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.s.SetRouting("fraud", Routing{Champion: "1", Shadows: []string{"2"}}, Block); err != nil {
		t.Fatal(err)
	}
	if status, body, _ := r.post("/v1/predict/fraud", `{"id":"p","key":{"city":"Bern","driver":7},"data":{"hour":0}}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	seen := map[string]string{}
	for _, p := range r.recorded(2) {
		seen[p["id"].(string)] = fmt.Sprint(p["inputs"], p["output"])
	}
	if want := "map[p:map[hour:0 n:3 rate:0.5] map[value:30.5] p/2:map[trips:3] map[value:6]]"; fmt.Sprint(seen) != want {
		t.Errorf("\n got %v\nwant %v", seen, want)
	}
}
