package query

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

// TestFrameRoundTrip reads back every column type, with the values that JSON
// has no words for.
func TestFrameRoundTrip(t *testing.T) {
	at := time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC)
	f := Frame{Name: "x", Type: TimeSeriesWide, Revision: math.MaxUint64, Columns: []Column{
		{Name: "t", Type: Time, Values: []time.Time{at, {}}},
		{Name: "f", Type: Float, Unit: "s", Labels: map[string]string{"a": "b"}, Values: []float64{math.NaN(), math.Inf(-1)}},
		{Name: "nf", Type: Float, Nullable: true, Values: []*float64{nil, ptr(0.1)}},
		{Name: "i", Type: Int, Values: []int64{math.MaxInt64, math.MinInt64}},
		{Name: "u", Type: Uint, Nullable: true, Values: []*uint64{ptr(uint64(math.MaxUint64)), nil}},
		{Name: "s", Type: Text, Values: []string{"é\"", ""}},
		{Name: "b", Type: Bool, Values: []bool{true, false}},
		{Name: "j", Type: RawJSON, Values: []json.RawMessage{[]byte(`{"a":1}`), []byte(`null`)}},
		{Name: "empty", Type: Text, Values: nil},
	}}
	first, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Frame
	if err := json.Unmarshal(first, &back); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(back)
	if err != nil || string(first) != string(second) {
		t.Errorf("\n%s\n%s (%v)", first, second, err)
	}
	if v := back.Columns[1].Values.([]float64); !math.IsNaN(v[0]) || !math.IsInf(v[1], -1) {
		t.Errorf("floats: %v", v)
	}
	if v := back.Columns[3].Values.([]int64); v[0] != math.MaxInt64 {
		t.Errorf("an integer lost digits: %v", v)
	}
	if back.Rows() != 2 {
		t.Errorf("rows: %d", back.Rows())
	}
}

func TestReadRefusals(t *testing.T) {
	for _, bad := range []string{
		`{"name":"x","type":"float","values":[null]}`,
		`{"name":"x","type":"complex","values":[1]}`,
		`{"name":"x","type":"int","values":[1.5]}`,
		`{"name":"x","type":"time","values":["yesterday"]}`,
	} {
		var c Column
		if err := json.Unmarshal([]byte(bad), &c); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// TestColumnsInAnyOrder holds that members may stand in any order, and that
// what looks like the values of another column is not taken for it.
func TestColumnsInAnyOrder(t *testing.T) {
	for _, text := range []string{
		`{"name":"a","type":"float","values":[1,2]}`,
		`{"name":"a","values":[1,2],"type":"float"}`,
		`{"values":[1,2],"name":"a","type":"float"}`,
		`{"name":"a","type":"float","values":[1,2],"thresholds":[]}`,
		`{"name":"a","type":"float","labels":{"values":"[3]"},"values":[ 1 , 2 ]}`,
		` { "name" : "a" , "type" : "float" , "values" : [1,2] } `,
	} {
		var c Column
		if err := json.Unmarshal([]byte(text), &c); err != nil || c.Name != "a" {
			t.Errorf("%s: %+v, %v", text, c, err)
			continue
		}
		if v := c.Values.([]float64); len(v) != 2 || v[0] != 1 || v[1] != 2 {
			t.Errorf("%s: %v", text, v)
		}
	}
}

// TestFloatsAgreeWithTheLibrary reads arrays as encoding/json does, value by
// value, whatever space stands between them.
func TestFloatsAgreeWithTheLibrary(t *testing.T) {
	for _, text := range []string{"[]", " [ ] ", "null", "[1]", "[ -1.5e-7 , null,\n2E3,0.1 ]", "[null]", "[1e999]", "[true]", `["1"]`, "[[1]]", `[{"a":1}]`, `["a,b"]`, "7", "{}"} {
		var want []*float64
		wantErr := json.Unmarshal([]byte(text), &want)
		got, err := readFloats(true, []byte(text))
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %v, the library says %v", text, err, wantErr)
			continue
		}
		if err != nil {
			continue
		}
		values := got.([]*float64)
		if len(values) != len(want) {
			t.Fatalf("%s: %d values, want %d", text, len(values), len(want))
		}
		for i := range want {
			if (values[i] == nil) != (want[i] == nil) || want[i] != nil && *values[i] != *want[i] {
				t.Errorf("%s: value %d differs", text, i)
			}
		}
	}
}

func TestClient(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var q Request
		switch err := json.Unmarshal(body, &q); {
		case err != nil || r.Header.Get("Authorization") != "Bearer k":
			t.Errorf("request %s: %v", body, err)
		case q.Kind == "unknown":
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"code":"unknown_kind","message":"no such kind"}`)
		case q.Kind == "broken":
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<html>")
		default:
			json.NewEncoder(w).Encode(Answer{Frames: []Frame{{Name: q.Kind, Columns: []Column{{Name: "step", Type: Text, Values: []string{time.Duration(q.Step).String()}}}}}})
		}
	}))
	defer srv.Close()
	c := Client{Server: srv.URL + "/", Key: "k"}
	a, err := c.Do(context.Background(), Request{Kind: "throughput", Step: Duration(90 * time.Second)})
	if err != nil || a.Frames[0].Columns[0].Values.([]string)[0] != "1m30s" {
		t.Errorf("answer %+v, %v", a, err)
	}
	var refused *Error
	if _, err = c.Do(context.Background(), Request{Kind: "unknown"}); !errors.As(err, &refused) || refused.Code != "unknown_kind" || refused.Status != 400 {
		t.Errorf("refusal: %v", err)
	}
	if _, err = c.Do(context.Background(), Request{Kind: "broken"}); !errors.As(err, &refused) || refused.Status != 502 || refused.Message != "<html>" {
		t.Errorf("foreign answer: %v", err)
	}
}
