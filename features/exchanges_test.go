package features

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// exchange recorded with Feast's own server.
type recorded struct {
	Name    string
	Request struct {
		Method, Path string
		Body         json.RawMessage
		Raw          *string
	}
	Response struct {
		Status      int
		ContentType *string `json:"content_type"`
		Text        string  `json:"raw_text"`
	}
}

// demoHouse is the repository that Feast's answers were recorded with.
func demoHouse(t testing.TB) *house {
	now, err := time.Parse(time.RFC3339, "2026-11-22T15:00:40Z")
	must(t, err)
	h := openHouse(t, now)
	driver, customer := fieldsOf("driver_id Int64"), fieldsOf("customer_id String")
	h.define(EntityKind, "driver", EntitySpec{JoinKey: "driver_id"})
	h.define(EntityKind, "customer", EntitySpec{JoinKey: "customer_id"})
	h.view("drv_fv", "1h", driver, fieldsOf("i32 Int32", "i64 Int64", "f32 Float32", "f64 Float64", "s String", "b Bool", "ts Timestamp",
		"li List(Int64)", "ls List(String)", "lf List(Float32)", "by Bytes"))
	h.view("pair_fv", "0s", append(driver, customer...), fieldsOf("f64 Float64", "rating Float64"))
	h.view("d3", "1h", driver, fieldsOf("i64 Int64", "f64 Float64", "s String", "ts Timestamp", "li List(Int64)", "m Json"))
	h.define(PushSourceKind, "drv_push", PushSourceSpec{Views: []string{"drv_fv"}, CreatedField: "created"})
	h.define(PushSourceKind, "pair_push", PushSourceSpec{Views: []string{"pair_fv"}})
	h.define(PushSourceKind, "d3_push", PushSourceSpec{Views: []string{"d3"}, CreatedField: "created"})
	h.define(FeatureServiceKind, "svc", ServiceSpec{Features: []string{"drv_fv:i64", "drv_fv:f64", "pair_fv:rating"}})
	h.define(OnDemandViewKind, "odfv", OnDemandSpec{
		Request:  []event.FieldSpec{{Name: "amount", Type: event.ColumnType{Elem: event.Float64}}},
		Features: []OnDemandFeature{{Name: "amount_x_f64", Type: event.ColumnType{Elem: event.Float64}, Expr: "drv_fv.f64 * amount"}},
	})
	values := `"i32":1,"i64":9007199254740993,"f32":0.1,"f64":0.1,"s":"a","b":true,"ts":"2026-11-21T14:54:00Z","li":[1,2],"ls":["x","y"],"lf":[0.5,1.5],"by":"AP8="`
	h.write(
		`{"view":"drv_fv","key":{"driver_id":1001},"event_time":"2026-11-22T14:49:00Z","values":{`+values+`}}`,
		`{"view":"drv_fv","key":{"driver_id":1002},"event_time":"2026-11-19T14:54:00Z","values":{`+values+`}}`,
		`{"view":"drv_fv","key":{"driver_id":1003},"event_time":"2026-11-22T14:53:00Z","values":{"i32":1,"f32":0.1,"b":true}}`,
		`{"view":"drv_fv","key":{"driver_id":1004},"event_time":"2026-11-22T14:53:00Z","values":{"f64":"Infinity"}}`,
		`{"view":"pair_fv","key":{"driver_id":1001,"customer_id":"c1"},"event_time":"2025-10-18T14:54:00Z","values":{"f64":7.0,"rating":4.5}}`,
	)
	return h
}

// ours lists what we answer differently on purpose, by exchange. docs/feast.md
// says why.
var ours = map[string]struct {
	status  int
	message string
}{
	"15-missing-entity-key":                {400, "Missing join key values for keys: ['driver_id'] of feature view drv_fv. Provided join_key_values: ['customer_id']"},
	"18-empty-entities":                    {400, "entities is empty: give the values of at least one join key"},
	"19-empty-entity-list":                 {400, "Missing join key values for keys: ['driver_id'] of feature view drv_fv. Provided join_key_values: ['driver_id']"},
	"19b-empty-list-all-keys":              {400, "Missing join key values for keys: ['driver_id'] of feature view drv_fv. Provided join_key_values: ['driver_id', 'customer_id']"},
	"22-wrong-entity-type":                 {400, "Entity key driver_id in row 0: invalid literal for Int64: \"abc\""},
	"24-null-entity":                       {400, "Entity key driver_id is null in row 0: a key has no null"},
	"40-push-online":                       {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"40b-push-online-epoch-ts":             {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"42-push-older-event":                  {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"44b-push-naive-ts":                    {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"44d-push-big-int64":                   {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"44f-push-null-among-ints":             {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"44h-push-epoch-event-ts":              {400, "event_timestamp in row 0: 1795272840 is not an ISO 8601 time"},
	"44i-push-extra-column":                {400, "column by in row 0: \"x\" is no value of type Bytes"},
	"90-push-epoch-event-ts":               {400, "event_timestamp in row 0: 1795272840 is not an ISO 8601 time"},
	"97-push-iso-in-unixtimestamp-feature": {200, ""},
	"98-push-nan-string":                   {200, ""},
}

func TestRecordedExchanges(t *testing.T) {
	dir := testenv.Shared(t, "reference/feast")
	h := demoHouse(t)
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	var list []struct{ Name string }
	must(t, json.Unmarshal(index, &list))
	for _, e := range list {
		var x recorded
		raw, err := os.ReadFile(filepath.Join(dir, e.Name+".json"))
		must(t, err)
		must(t, json.Unmarshal(raw, &x))
		t.Run(e.Name, func(t *testing.T) { replay(t, h, x) })
	}
}

func replay(t *testing.T, h *house, x recorded) {
	body := []byte(x.Request.Body)
	if x.Request.Raw != nil {
		body = []byte(*x.Request.Raw)
	}
	status, contentType, got := h.ask(x.Request.Method, x.Request.Path, body)
	want := x.Response
	if o, ok := ours[x.Name]; ok {
		if status != o.status {
			t.Fatalf("status %d, want %d: %s", status, o.status, got)
		}
		if o.message != "" && detailOf(t, got).Message != o.message {
			t.Fatalf("message %q, want %q", detailOf(t, got).Message, o.message)
		}
		return
	}
	switch {
	case want.Status == 500:
		checkMistake(t, status, got, want.Text)
	case want.Status != status:
		t.Fatalf("status %d, Feast %d: %s", status, want.Status, got)
	case strings.HasPrefix(want.Text, `{"results"`):
		compareVectors(t, parseVectors(t, got), parseVectors(t, want.Text))
	case got != want.Text:
		t.Fatalf("body %s\nFeast %s", got, want.Text)
	}
	if wantType := want.ContentType; (wantType == nil) != (contentType == "") || wantType != nil && *wantType != contentType {
		t.Fatalf("content type %q", contentType)
	}
}

type detail struct{ Module, Class, Message string }

func detailOf(t *testing.T, body string) (d detail) {
	t.Helper()
	var inner string
	if json.Unmarshal([]byte(body), &inner) != nil || json.Unmarshal([]byte(inner), &d) != nil || d.Module != "feast.errors" {
		t.Fatalf("not an error body of Feast: %s", body)
	}
	return d
}

// checkMistake: Feast's 500 with a bare text is our 400 with the same text in
// an error that its client raises.
func checkMistake(t *testing.T, status int, got, want string) {
	d := detailOf(t, got)
	var bare string
	must(t, json.Unmarshal([]byte(want), &bare))
	var named detail
	if json.Unmarshal([]byte(bare), &named) == nil && named.Class != "" {
		bare = named.Message
	} else {
		named.Class = "FeastError"
	}
	unquoted := strings.Trim(bare, `'"`)
	if status != 400 || d.Class != named.Class || d.Message != bare && d.Message != unquoted {
		t.Fatalf("%d %+v, want 400 %s %q", status, d, named.Class, bare)
	}
}

type vectors struct {
	Results []struct {
		Values          []json.RawMessage
		Statuses        []string
		EventTimestamps []string `json:"event_timestamps"`
	}
	Metadata struct {
		FeatureNames []string `json:"feature_names"`
	}
}

func parseVectors(t *testing.T, text string) (v vectors) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &v))
	if len(v.Results) != len(v.Metadata.FeatureNames) {
		t.Fatalf("%d results for names %v", len(v.Results), v.Metadata.FeatureNames)
	}
	return v
}

// compareVectors compares by name, cell by cell, and lets through: a value
// older than the ttl is withheld, null says so, integers are exact.
func compareVectors(t *testing.T, got, want vectors) {
	a, b := slices.Sorted(slices.Values(got.Metadata.FeatureNames)), slices.Sorted(slices.Values(want.Metadata.FeatureNames))
	if !slices.Equal(a, b) {
		t.Fatalf("names %v, want %v", a, b)
	}
	for i, name := range want.Metadata.FeatureNames {
		w, g := want.Results[i], got.Results[slices.Index(got.Metadata.FeatureNames, name)]
		for row := range w.Values {
			gv, wv := string(g.Values[row]), string(w.Values[row])
			gs, ws := g.Statuses[row], w.Statuses[row]
			switch {
			case gs == "OUTSIDE_MAX_AGE" && ws == "PRESENT" && gv == "null" && strings.HasPrefix(w.EventTimestamps[row], "2026-11-19"):
			case gs == "NULL_VALUE" && ws == "PRESENT" && gv == "null" && wv == "null":
			case gs == ws && gv == "9007199254740993" && wv == "9007199254740992":
			case gs != ws || gv != wv:
				t.Errorf("%s row %d: %s %s, Feast %s %s", name, row, gv, gs, wv, ws)
			}
			if g.EventTimestamps[row] != w.EventTimestamps[row] {
				t.Errorf("%s row %d: at %s, Feast %s", name, row, g.EventTimestamps[row], w.EventTimestamps[row])
			}
		}
	}
}

// TestClientWire replays what Feast's Python client sends.
func TestClientWire(t *testing.T) {
	raw, err := os.ReadFile(testenv.Shared(t, "reference/feast/sdk-remote-client-wire.json"))
	must(t, err)
	var list []struct {
		Path     string
		Body     json.RawMessage
		Status   int
		Response string
	}
	must(t, json.Unmarshal(raw, &list))
	h := demoHouse(t)
	h.now += (10 * time.Minute).Microseconds()
	for i, x := range list {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			status, _, got := h.ask("POST", x.Path, x.Body)
			switch {
			case x.Status == 500:
				checkMistake(t, status, got, x.Response)
			case status != x.Status:
				t.Fatalf("status %d, want %d: %s", status, x.Status, got)
			case strings.HasPrefix(x.Response, `{"results"`):
				compareWire(t, parseVectors(t, got), parseVectors(t, x.Response))
			case got != x.Response:
				t.Fatalf("%s, want %s", got, x.Response)
			}
		})
	}
}

// compareWire compares without times: the recording spans several set-ups.
func compareWire(t *testing.T, got, want vectors) {
	for _, v := range []vectors{got, want} {
		for i := range v.Results {
			for row := range v.Results[i].EventTimestamps {
				v.Results[i].EventTimestamps[row] = ""
			}
		}
	}
	compareVectors(t, got, want)
}
