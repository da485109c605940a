package plugin

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kedge-ml/kedge/query"
)

func minutes(n int) []time.Time {
	out := make([]time.Time, n)
	for i := range out {
		out[i] = time.Unix(int64(60*i), 0).UTC()
	}
	return out
}

// TestThinKeepsExtremes holds, for any series, that what is left is within the
// width, in order of time, and has the smallest and the largest value.
func TestThinKeepsExtremes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(-1e6, 1e6), rapid.Just(math.NaN())), 1, 500).Draw(t, "values")
		points := rapid.IntRange(2, 200).Draw(t, "points")
		f := thin(query.Frame{Type: query.TimeSeriesWide, Columns: []query.Column{
			{Name: "time", Type: query.Time, Values: minutes(len(values))}, {Name: "v", Type: query.Float, Values: values}}}, points)
		times, got := f.Columns[0].Values.([]time.Time), f.Columns[1].Values.([]float64)
		if len(got) != len(times) || len(got) > max(points, 2) || len(values) <= points && len(got) != len(values) {
			t.Fatalf("%d of %d values at %d times for %d points", len(got), len(values), len(times), points)
		}
		if !slices.IsSortedFunc(times, time.Time.Compare) {
			t.Fatal("times are out of order")
		}
		isNumber := func(v float64) bool { return !math.IsNaN(v) }
		all, kept := slices.DeleteFunc(slices.Clone(values), not(isNumber)), slices.DeleteFunc(slices.Clone(got), not(isNumber))
		if len(all) > 0 && (len(kept) == 0 || slices.Max(all) != slices.Max(kept) || slices.Min(all) != slices.Min(kept)) {
			t.Fatalf("%v were thinned to %v", values, got)
		}
		if (len(f.Notices) > 0) != (len(values) > points) {
			t.Fatalf("notices %v for %d values", f.Notices, len(values))
		}
	})
}

// TestThinHeatmap holds that of each stretch of a heat map the largest value of
// every row is left, at the stretch's beginning, by a second way of reckoning.
func TestThinHeatmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, points := rapid.IntRange(1, 400).Draw(t, "windows"), rapid.IntRange(1, 100).Draw(t, "points")
		f := query.Frame{Type: query.HeatmapRows, Columns: []query.Column{{Name: "time", Type: query.Time, Values: minutes(n)}}}
		for _, name := range []string{"a", "b"} {
			var values []*float64
			for _, v := range rapid.SliceOfN(rapid.Float64Range(-1, 9), n, n).Draw(t, name) {
				if values = append(values, &v); v < 0 { // not judged
					values[len(values)-1] = nil
				}
			}
			f.Columns = append(f.Columns, query.Column{Name: name, Type: query.Float, Nullable: true, Values: values})
		}
		got := thin(f, points)
		if got.Rows() != min(n, points) || (len(got.Notices) > 0) != (n > points) {
			t.Fatalf("%d of %d cells for %d points, notices %v", got.Rows(), n, points, got.Notices)
		}
		begins := append(got.Columns[0].Values.([]time.Time), time.Unix(int64(60*n), 0))
		for i := range got.Rows() {
			for c := 1; c < 3; c++ {
				most := -1.0
				for k, at := range f.Columns[0].Values.([]time.Time) {
					if v := f.Columns[c].Values.([]*float64)[k]; v != nil && !at.Before(begins[i]) && at.Before(begins[i+1]) {
						most = max(most, *v)
					}
				}
				if v, ok := numberAt(got.Columns[c], i); ok && v != most || !ok && most >= 0 {
					t.Fatalf("cell %d of row %d is %v (%t), of its stretch the largest is %v", i, c, v, ok, most)
				}
			}
		}
	})
}

func not(f func(float64) bool) func(float64) bool { return func(v float64) bool { return !f(v) } }

// TestDealOut holds that a long frame and a frame of several values become
// series of one time and one value, labelled with whose they are.
func TestDealOut(t *testing.T) {
	long := query.Frame{Type: query.TimeSeriesLong, Columns: []query.Column{
		{Name: "column", Type: query.Text, Values: []string{"a", "b", "a"}},
		{Name: "time", Type: query.Time, Values: minutes(3)},
		{Name: "rows", Type: query.Uint, Values: []uint64{1, 2, 3}},
		{Name: "missing", Type: query.Float, Unit: "percentunit", Values: []float64{0.1, 0.2, 0.3}},
	}}
	var got []string
	for _, f := range shape([]query.Frame{long}, query.Request{Model: "m"}, limits{}) {
		v := f.Columns[1]
		got = append(got, fmt.Sprint(f.Type, " ", v.Name, v.Labels, v.Values, " ", v.Display))
	}
	want := []string{
		"timeseries-multi rowsmap[column:a model:m] [1 3] a · rows",
		"timeseries-multi missingmap[column:a model:m] [0.1 0.3] a · missing",
		"timeseries-multi rowsmap[column:b model:m] [2] b · rows",
		"timeseries-multi missingmap[column:b model:m] [0.2] b · missing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if one := shape([]query.Frame{long}, query.Request{}, limits{values: []string{"missing"}}); len(one) != 2 || one[1].Columns[1].Display != "b" {
		t.Errorf("one value chosen: %+v", one)
	}
	empty := long
	empty.Columns = pickAll(long.Columns, nil)
	if out := shape([]query.Frame{empty}, query.Request{}, limits{}); len(out) != 1 || out[0].Type != query.TimeSeriesMulti || len(out[0].Columns) != 2 {
		t.Errorf("no rows: %+v", out)
	}
}

func TestRowsAreCutWithANotice(t *testing.T) {
	f := query.Frame{Type: query.Table, Columns: []query.Column{{Name: "n", Type: query.Int, Values: []int64{1, 2, 3}}}}
	for i, v := range []any{minutes(3), make([]*time.Time, 3), make([]float64, 3), make([]*float64, 3), make([]int64, 3), make([]*int64, 3), make([]uint64, 3), make([]*uint64, 3),
		make([]string, 3), make([]*string, 3), make([]bool, 3), make([]*bool, 3), make([]json.RawMessage, 3)} { // all that a field takes
		f.Columns = append(f.Columns, query.Column{Name: fmt.Sprint(i), Values: v})
	}
	if g, err := toGrafana(&shape([]query.Frame{f}, query.Request{}, limits{rows: 2})[0], leads{}); err != nil || g.Rows() != 2 {
		t.Errorf("columns of every type: %v", err)
	}
	if _, err := toGrafana(&query.Frame{Columns: []query.Column{{Name: "a", Values: []int64{1}}, {Name: "b", Values: []int64{}}}}, leads{}); err == nil {
		t.Error("columns of unequal length are a frame, which would fail every query of a request")
	}
	out := shape([]query.Frame{f}, query.Request{}, limits{rows: 2})[0]
	if out.Rows() != 2 || len(out.Notices) != 1 || out.Notices[0].Severity != "warning" {
		t.Errorf("%+v", out)
	}
	if out = shape([]query.Frame{f}, query.Request{}, limits{rows: 3})[0]; out.Rows() != 3 || len(out.Notices) != 0 {
		t.Errorf("nothing is to be cut: %+v", out)
	}
}

// TestTableAsNumbers holds that rows which agree in their texts become one
// number, the largest: alerting refuses two of the same labels.
func TestTableAsNumbers(t *testing.T) {
	f := query.Frame{Type: query.Table, Columns: []query.Column{
		{Name: "topic", Type: query.Text, Values: []string{"a", "b", "a"}},
		{Name: "partition", Type: query.Int, Values: []int64{0, 0, 1}},
		{Name: "gap", Type: query.Float, Values: []float64{math.NaN(), 2, 3}},
		{Name: "at", Type: query.Time, Values: minutes(3)},
	}}
	all := shape([]query.Frame{f, f}, query.Request{}, limits{values: []string{"gap"}, numeric: true})
	if len(all) != 1 {
		t.Errorf("numbers in %d frames, which alerting refuses", len(all))
	}
	if out := all[0]; out.Type != query.NumericLong || len(out.Columns) != 2 || fmt.Sprint(out.Columns[0].Values, out.Columns[1].Values) != "[a b] [3 2]" {
		t.Errorf("%+v", out)
	}
}

// TestFilters holds that a dashboard's filters reach the members that a kind
// reads, and that the others are told of.
func TestFilters(t *testing.T) {
	summary, _ := query.KindNamed("summary")
	ledger, _ := query.KindNamed("ledger")
	r, notices, err := applyFilters(query.Request{View: "v", Filter: map[string]string{"x": "own"}}, summary, []adhocFilter{
		{Key: "model", Operator: "=", Value: "m"}, {Key: "column", Operator: "=|", Values: []string{"a", "b"}},
		{Key: "district", Operator: "=", Value: "centre"}, {Key: "x", Operator: "=", Value: "theirs"}, {Key: "detector", Operator: "=", Value: "ks"},
	})
	if err != nil || r.Model != "m" || r.View != "" || !slices.Equal(r.Columns, []string{"a", "b"}) || r.Filter["district"] != "centre" || r.Filter["x"] != "own" || len(notices) != 1 {
		t.Errorf("%+v, %v, %v", r, notices, err)
	}
	if r, notices, err = applyFilters(query.Request{}, ledger, []adhocFilter{{Key: "model", Operator: "=", Value: "m"}}); err != nil || r.Model != "" || len(notices) != 1 {
		t.Errorf("a kind without a subject: %+v, %v, %v", r, notices, err)
	}
	if _, _, err = applyFilters(query.Request{}, summary, []adhocFilter{{Key: "model", Operator: "=~", Value: "m"}}); err == nil {
		t.Error("a comparison that Kedge lacks was ignored")
	}
}
