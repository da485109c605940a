package features

import (
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// addressedBatches yields rows as they come, with addresses of a few bits only, so
// that many rows share one.
func addressedBatches(s *event.Schema, rows []factRow, size int) iter.Seq2[*event.Batch, error] {
	values := append(slices.Clone(s.Values()), event.Field{Name: store.AddressColumn, Type: event.ColumnType{Elem: event.Int64}})
	wider := event.NewSchema(s.Kind, s.Namespace, s.Subject, s.TableID, s.Keys(), values)
	return func(yield func(*event.Batch, error) bool) {
		b := event.NewBatch(wider, "")
		for chunk := range slices.Chunk(rows, size) {
			b.Reset()
			for _, r := range chunk {
				addRow(b, r)
				at := &b.Columns[len(b.Columns)-1]
				at.Int64s[len(at.Int64s)-1], at.Nulls[len(at.Nulls)-1] = r.v.EventTime%4<<32, 0
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// checkTwice joins in two reads, the first in up to four parts, of which the second has the rows in another
// order and some of them twice; then one that was chosen is missing from it.
func checkTwice(t *testing.T, r *rand.Rand, s *event.Schema, rows []factRow, frame *event.Batch, keys [][]any, at []int64, ttl int64, leaky bool) {
	t.Helper()
	want := []string{"l", "x", "s"}
	types := []event.ColumnType{{Elem: event.Int64, List: true}, {Elem: event.Float64}, {Elem: event.String}}
	ordered := slices.Clone(rows)
	slices.SortStableFunc(ordered, func(a, b factRow) int {
		if c := compareKeys(a.keys, b.keys); c != 0 {
			return c
		}
		return int(a.v.EventTime - b.v.EventTime)
	})
	q, parts := newQuestions(keyColumns(frame), at), []*decided(nil)
	for _, part := range q.cut(1+r.IntN(4), keyColumns(frame)[0]) {
		d, err := decide(part, HistoryRange{Schema: s}, ttl, leaky, addressedBatches(s, ordered, 1+r.IntN(8)))
		must(t, err)
		parts = append(parts, d)
	}
	d := together(q, parts)
	shuffled := append(slices.Clone(rows), rows[:len(rows)/3]...)
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	got, err := d.fetch(HistoryRange{Schema: s, Columns: want}, types, addressedBatches(s, shuffled, 1+r.IntN(8)))
	must(t, err)
	if got == nil {
		t.Fatal("a chosen row was not found")
	}
	checkJoined(t, got, d.joined, rows, keys, at, want, ttl, leaky)

	chosen := slices.Index(d.statuses, Present)
	if chosen < 0 {
		return
	}
	left := slices.DeleteFunc(shuffled, func(f factRow) bool { return f.v == d.chosen[chosen].v })
	if got, err = d.fetch(HistoryRange{Schema: s, Columns: want}, types, addressedBatches(s, left, 5)); got != nil || err != nil {
		t.Fatalf("a chosen row that is gone: %v, %v", got, err)
	}
}
