package web

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/kedge-ml/kedge/query"
)

func ptr[T any](v T) *T { return &v }

// everyType has one column of each type, nullable and not.
func everyType() query.Frame {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	col := func(name string, typ query.ColumnType, nullable bool, v any) query.Column {
		return query.Column{Name: name, Type: typ, Nullable: nullable, Values: v, Unit: "s", Labels: map[string]string{"k": "v"}, Thresholds: []query.Threshold{{Value: 2, State: "warning"}}}
	}
	return query.Frame{Name: "all", Type: query.Table, Revision: 7, Notices: []query.Notice{{Severity: "info", Text: "so"}}, Columns: []query.Column{
		col("t", query.Time, false, []time.Time{at, at}),
		col("tn", query.Time, true, []*time.Time{&at, nil}),
		col("f", query.Float, false, []float64{1.5, math.NaN()}),
		col("fn", query.Float, true, []*float64{ptr(math.Inf(-1)), nil}),
		col("i", query.Int, false, []int64{math.MaxInt64, math.MinInt64}),
		col("in", query.Int, true, []*int64{ptr(int64(7)), nil}),
		col("u", query.Uint, false, []uint64{math.MaxUint64, 0}),
		col("un", query.Uint, true, []*uint64{ptr(uint64(8)), nil}),
		col("s", query.Text, false, []string{`a "quoted", line` + "\n", ""}),
		col("sn", query.Text, true, []*string{ptr("x"), nil}),
		col("b", query.Bool, false, []bool{true, false}),
		col("bn", query.Bool, true, []*bool{ptr(true), nil}),
		col("j", query.RawJSON, false, []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`null`)}),
	}}
}

func TestArrowHoldsWhatTheFrameHolds(t *testing.T) {
	f := everyType()
	b, err := EncodeFrames(TypeArrow, []query.Frame{f, f})
	if err != nil {
		t.Fatal(err)
	}
	in := bytes.NewReader(b)
	for n := range 2 { // one stream per frame, one after the other
		r, err := ipc.NewReader(in)
		if err != nil {
			t.Fatalf("stream %d: %v", n, err)
		}
		if !r.Next() {
			t.Fatalf("stream %d has no batch: %v", n, r.Err())
		}
		rec := r.RecordBatch()
		for key, want := range map[string]string{"name": "all", "type": "table", "revision": "7", "notices": `[{"severity":"info","text":"so"}]`} {
			if got, _ := rec.Schema().Metadata().GetValue(key); got != want {
				t.Errorf("%s %q, want %q", key, got, want)
			}
		}
		if int(rec.NumCols()) != len(f.Columns) || rec.NumRows() != 2 {
			t.Fatalf("got %d × %d", rec.NumCols(), rec.NumRows())
		}
		for i := range f.Columns {
			c, arr := &f.Columns[i], rec.Column(i)
			if got, want := arr.IsNull(1), c.Nullable; got != want {
				t.Errorf("%s: null %v, want %v", c.Name, got, want)
			}
			for key, want := range map[string]string{"unit": "s", "type": string(c.Type), "label:k": "v", "thresholds": `[{"value":2,"state":"warning"}]`} {
				if got, _ := rec.Schema().Field(i).Metadata.GetValue(key); got != want {
					t.Errorf("%s: %s %q, want %q", c.Name, key, got, want)
				}
			}
		}
		if got := rec.Column(4).(*array.Int64).Value(0); got != math.MaxInt64 {
			t.Errorf("int64 became %d", got)
		}
		if got := rec.Column(0).(*array.Timestamp).Value(0); int64(got) != f.Columns[0].Values.([]time.Time)[0].UnixMicro() {
			t.Errorf("time became %d", got)
		}
		if r.Next() {
			t.Error("a second batch")
		}
		r.Release()
	}
}

func TestCSVAndJSONFrames(t *testing.T) {
	f := everyType()
	b, err := EncodeFrames(TypeCSV, []query.Frame{f})
	if err != nil {
		t.Fatal(err)
	}
	want := "t,tn,f,fn,i,in,u,un,s,sn,b,bn,j\n" +
		"2026-01-02T03:04:05.000006Z,2026-01-02T03:04:05.000006Z,1.5,-Inf,9223372036854775807,7,18446744073709551615,8,\"a \"\"quoted\"\", line\n\",x,true,true,\"{\"\"a\"\":1}\"\n" +
		"2026-01-02T03:04:05.000006Z,,NaN,,-9223372036854775808,,0,,,,false,,null\n"
	if string(b) != want {
		t.Errorf("got  %q\nwant %q", b, want)
	}
	if b, err = EncodeFrames(TypeJSON, nil); err != nil || strings.TrimSpace(string(b)) != `{"frames":[]}` {
		t.Errorf("no frames: %s, %v", b, err)
	}
	if _, err = EncodeFrames(TypeArrow, []query.Frame{{Columns: []query.Column{{Name: "x", Type: query.Float}}}, {}}); err != nil {
		t.Errorf("a column without values, a frame without columns: %v", err)
	}
	if _, err = EncodeFrames(TypeArrow, []query.Frame{{Columns: []query.Column{{Name: "x", Values: []int{1}}}}}); err == nil {
		t.Error("a column of an unknown Go type was accepted")
	}
}

func TestNegotiate(t *testing.T) {
	for accept, want := range map[string]string{
		"": TypeJSON, "*/*": TypeJSON, "text/csv": TypeCSV, "text/csv;q=0.2, application/json;q=0.9": TypeJSON,
		TypeArrow: TypeArrow, "text/html, */*;q=0.1": TypeJSON, "text/html": "", "nonsense": "", "text/csv;q=0": "",
	} {
		got, err := Negotiate(accept)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", accept, got, err)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("text/csv;q=0.2, application/json")
	f.Fuzz(func(t *testing.T, accept string) {
		if got, err := Negotiate(accept); err == nil && got == "" {
			t.Fatalf("%q: neither a type nor an error", accept)
		}
	})
}
