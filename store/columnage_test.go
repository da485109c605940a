package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// sparse is a batch of which column c has values up to row last[c], in some rows.
func sparse(rng *rand.Rand, s *event.Schema, rows int64, last []int64) *event.Batch {
	b := batch(s, 0, rows)
	for i, l := range last {
		c := &b.Columns[s.ValueStart()+i]
		for row := range b.Rows {
			c.Nulls[row] = 0
			if int64(row) > l || int64(row) < l && rng.IntN(3) > 0 {
				c.Nulls[row] = 1
			}
		}
	}
	return b
}

// newestBrute walks the rows.
func newestBrute(b *event.Batch, value int, from, to time.Time) time.Time {
	var newest time.Time
	c := &b.Columns[b.Schema.ValueStart()+value]
	for row := range b.Rows {
		at := at(int64(row))
		has := false
		switch {
		case c.Ends != nil:
			before := uint64(0)
			if row > 0 {
				before = c.Ends[row-1]
			}
			has = c.Ends[row] > before
		default:
			has = !c.Null(row)
		}
		if has && !at.Before(from) && at.Before(to) {
			newest = at
		}
	}
	return newest
}

// TestNewestValuesAgainstBruteForce: rows of the last hour, older ones, derived
// windows, and a column without any value, at several moments.
func TestNewestValuesAgainstBruteForce(t *testing.T) {
	s, rng := open(t), rand.New(rand.NewPCG(1, 2))
	fields := []event.Field{}
	last := []int64{11_999, 9000, 3000, 40, -1}
	for i := range last {
		fields = append(fields, event.Field{Name: fmt.Sprintf("c%d", i), Type: scalar([]event.Type{event.Float64, event.String, event.Bool}[i%3])})
	}
	fields = append(fields, event.Field{Name: "list", Type: list(event.Int64)}, event.Field{Name: "map", Type: scalar(event.FloatMap)}, event.Field{Name: "a.b", Type: scalar(event.Float64)})
	view := features(1, fields...)
	b := sparse(rng, view, 12_000, last)
	insert(t, s, "s", b)
	g, _ := dist.EdgeGrid([]float64{1})
	window := store.WindowSummary{Column: "c4", Start: at(-7200), Summary: dist.Summarize(g, []float64{1})}
	sub := store.Subject{Kind: event.Features, TableID: 1}
	if err := s.SaveSummaries(t.Context(), sub, []store.WindowSummary{window}, time.Hour, 1); err != nil {
		t.Fatal(err)
	}
	for _, end := range []int64{12_000, 11_000, 9001, 5000, 30} {
		from, to := at(end-10_000), at(end)
		got := must[[]store.Newest](t)(s.NewestValues(t.Context(), query.Request{View: "view1", From: from, To: to}))
		if len(got) != 1 || !got[0].Rows.Equal(at(end-1)) {
			t.Fatalf("as of %d: %+v", end, got)
		}
		for i, f := range fields {
			want := newestBrute(b, i, from, to)
			if f.Name == "c4" {
				want = at(-3600) // the end of the derived window
			}
			if have, ok := got[0].Columns[f.Name]; !have.Equal(want) || !ok {
				t.Errorf("as of %d, %s: %v, want %v", end, f.Name, have, want)
			}
		}
	}
	if got := must[[]store.Newest](t)(s.NewestValues(t.Context(), query.Request{Model: "view1"})); len(got) != 0 {
		t.Errorf("a model of the view's name: %+v", got)
	}

	r := query.Request{View: "view1", From: at(0), To: at(11_950), Step: query.Duration(10 * time.Minute)}
	times := must[store.ValueTimes](t)(s.ValueTimesOf(t.Context(), r))
	if len(times.Starts) != 20 || !times.Ends[19].Equal(at(11_950)) {
		t.Fatalf("%d steps to %v", len(times.Starts), times.Ends)
	}
	for i, f := range fields {
		for k, start := range times.Starts {
			if want := newestBrute(b, i, start, times.Ends[k]); !times.Columns[f.Name][k].Equal(want) {
				t.Errorf("%s in step %d: %v, want %v", f.Name, k, times.Columns[f.Name][k], want)
			}
		}
	}
	r.Columns = []string{"c1"}
	if times := must[store.ValueTimes](t)(s.ValueTimesOf(t.Context(), r)); len(times.Columns) != 1 {
		t.Errorf("one column: %v", times.Columns)
	}
}
