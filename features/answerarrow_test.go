package features

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
)

// TestArrowAnswer asks for the same as JSON and as Arrow.
func TestArrowAnswer(t *testing.T) {
	h := openHouse(t, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	h.view("v", "1h", fieldsOf("k Int64"), fieldsOf("x Float64", "s String", "l List(Int64)"))
	h.define(OnDemandViewKind, "od", map[string]any{"features": []map[string]string{{"name": "twice", "type": "Float64", "expr": "v.x * 2"}}})
	h.write(`{"view":"v","key":{"k":1},"event_time":"2026-05-01T11:59:00Z","values":{"x":1.5,"s":"a","l":[1,9007199254740993]}}`,
		`{"view":"v","key":{"k":2},"event_time":"2026-05-01T11:59:00Z","values":{"x":null,"s":"b"}}`,
		`{"view":"v","key":{"k":3},"event_time":"2026-04-01T11:59:00Z","values":{"x":3}}`)
	ask := func(body string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.http.URL+"/get-online-features", bytes.NewReader([]byte(body)))
		must(t, err)
		req.Header.Set("Accept", "application/vnd.apache.arrow.stream")
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		must(t, err)
		return res, out
	}
	res, out := ask(`{"features":["v:x","v:s","v:l","od:twice"],"entities":{"k":[1,2,3,4]}}`)
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "application/vnd.apache.arrow.stream" {
		t.Fatalf("%d %s %s", res.StatusCode, got, out)
	}
	r, err := ipc.NewReader(bytes.NewReader(out))
	must(t, err)
	defer r.Release()
	if !r.Next() {
		t.Fatal("no record")
	}
	want := map[string]string{
		"k": "[1 2 3 4]", "x": "[1.5 (null) (null) (null)]", "x__status": `["PRESENT" "NULL_VALUE" "OUTSIDE_MAX_AGE" "NOT_FOUND"]`,
		"s": `["a" "b" (null) (null)]`, "twice": "[3 (null) (null) (null)]", "twice__status": `["PRESENT" "NULL_VALUE" "NULL_VALUE" "NULL_VALUE"]`,
		"l__status": `["PRESENT" "NULL_VALUE" "OUTSIDE_MAX_AGE" "NOT_FOUND"]`,
	}
	rec := r.RecordBatch()
	for name, text := range want {
		at := rec.Schema().FieldIndices(name)
		if len(at) != 1 || fmt.Sprint(rec.Column(at[0])) != text {
			t.Errorf("%s: %v, want %s", name, rec, text)
		}
	}
	if at := rec.Schema().FieldIndices("v__event_timestamp"); len(at) != 1 || !rec.Column(at[0]).IsNull(3) || rec.Column(at[0]).IsNull(2) {
		t.Errorf("event times: %v", rec)
	}
	if res, out := ask(`{"features":["v:nope"],"entities":{"k":[1]}}`); res.StatusCode != 400 || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("a mistake: %d %s", res.StatusCode, out)
	}
}

// TestAges asks for ages, of rows that are served, withheld and not there, as JSON
// and as Arrow; who does not ask gets none.
func TestAges(t *testing.T) {
	h := openHouse(t, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	h.view("v", "1h", fieldsOf("k Int64"), fieldsOf("x Float64"))
	h.write(`{"view":"v","key":{"k":1},"event_time":"2026-05-01T11:58:59.5Z","values":{"x":1.5}}`,
		`{"view":"v","key":{"k":2},"event_time":"2026-05-01T11:00:00Z","values":{"x":null}}`,
		`{"view":"v","key":{"k":3},"event_time":"2026-04-30T12:00:00Z","values":{"x":3}}`)
	ask := func(more, accept string) []byte {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.http.URL+"/get-online-features", strings.NewReader(`{"features":["v:x"],"entities":{"k":[1,2,3,4]}`+more+`}`))
		must(t, err)
		req.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		must(t, err)
		return out
	}
	var got struct{ Results []struct{ Ages []*float64 } }
	must(t, json.Unmarshal(ask(`,"include_ages":true`, ""), &got))
	ages := got.Results[1].Ages
	if len(ages) != 4 || *ages[0] != 60.5 || *ages[1] != 3600 || *ages[2] != 86400 || ages[3] != nil {
		t.Errorf("ages %+v, want 60.5, 3600, 86400 and null", ages)
	}
	if out := ask("", ""); bytes.Contains(out, []byte("ages")) {
		t.Errorf("ages that nobody asked for: %s", out)
	}
	r, err := ipc.NewReader(bytes.NewReader(ask(`,"include_ages":true`, "application/vnd.apache.arrow.stream")))
	must(t, err)
	defer r.Release()
	if !r.Next() {
		t.Fatal("no record")
	}
	rec := r.RecordBatch()
	if at := rec.Schema().FieldIndices("v__age"); len(at) != 1 || fmt.Sprint(rec.Column(at[0])) != "[60.5 3600 86400 (null)]" {
		t.Errorf("ages in Arrow: %v", rec)
	}
}
