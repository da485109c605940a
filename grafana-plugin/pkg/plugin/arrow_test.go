package plugin

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// everyType has a column of each type, nullable and not, with all that a column
// says of itself.
func everyType() query.Frame {
	at, inf, n, u, s, yes := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), math.Inf(-1), int64(7), uint64(8), "x", true
	col := func(name string, typ query.ColumnType, v any) query.Column {
		return query.Column{Name: name, Type: typ, Nullable: name[len(name)-1] == 'n', Values: v, Unit: "s", Display: "D", Labels: map[string]string{"k": "v"}, Thresholds: []query.Threshold{{Value: 1, State: "warning"}}}
	}
	return query.Frame{Name: "all", Type: query.Table, Revision: 9, Notices: []query.Notice{{Severity: "info", Text: "so"}}, Columns: []query.Column{
		col("t", query.Time, []time.Time{at, at}), col("tn", query.Time, []*time.Time{&at, nil}),
		col("f", query.Float, []float64{1.5, math.Inf(1)}), col("fn", query.Float, []*float64{&inf, nil}),
		col("i", query.Int, []int64{math.MaxInt64, math.MinInt64}), col("in", query.Int, []*int64{&n, nil}),
		col("u", query.Uint, []uint64{math.MaxUint64, 0}), col("un", query.Uint, []*uint64{&u, nil}),
		col("s", query.Text, []string{"a \"quoted\"", ""}), col("sn", query.Text, []*string{&s, nil}),
		col("b", query.Bool, []bool{true, false}), col("bn", query.Bool, []*bool{&yes, nil}),
		col("j", query.RawJSON, []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`null`)}),
	}}
}

// TestReadsWhatKedgeWrites holds that frames come out of Arrow as they went in,
// and that a stream that is cut off or is none is an error.
func TestReadsWhatKedgeWrites(t *testing.T) {
	want := []query.Frame{everyType(), {Name: "empty", Type: query.NumericLong, Columns: []query.Column{{Name: "v", Type: query.Float, Values: []float64{}}}}, {Name: "nothing", Type: query.TimeSeriesWide}}
	b, err := web.EncodeFrames(web.TypeArrow, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readFrames(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	for _, n := range []int{1, 7, 100, len(b) / 3} {
		if got, err := readFrames(b[:n]); err == nil {
			t.Errorf("%d bytes of a stream read as %d frames", n, len(got))
		}
	}
	if _, err := readFrames([]byte(`{"frames":[]}`)); err == nil {
		t.Error("JSON was read as Arrow")
	}
}

// FuzzReadFrames holds that no answer ends the plugin.
func FuzzReadFrames(f *testing.F) {
	b, err := web.EncodeFrames(web.TypeArrow, []query.Frame{everyType()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\xff\xff\xff\xff\x10\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = readFrames(b) })
}
