package features

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// A join of wide rows reads twice: in order what decides (key, times, version),
// then in no order the values of the rows that were chosen. Ordering is what
// costs the engine most, by the byte, and of what is stored most is not chosen.
//
// Between the two reads the store changes: parts merge, rows come, rows are
// erased. So a row is asked for by a hash of its key and event_time, which
// merges do not change, and taken if key, version and known_at are those that
// were chosen. If one is gone, the join is done again in one read.

// choice says which row of a key was chosen. Rows that are the same in both are
// the same row.
type choice struct {
	v     Version
	known int64 // known_at
}

// wide reports whether the values are worth a read of their own. Up to four
// numbers the second read costs more than the first one saves.
func (v *historyView) wide() bool {
	for _, t := range v.types {
		if t.List || fixedWidth(t) < 0 {
			return true
		}
	}
	return len(v.types) > 4
}

// joinTwice answers nil if a row that was chosen is not there any more.
func (h *History) joinTwice(ctx context.Context, q *questions, r HistoryRange, v *historyView, ask store.HistoryQuery, leaky bool) (*joined, error) {
	first, second := ask, ask
	first.Columns, first.Addressed = []string{}, true
	d, err := decide(q, r, int64(v.view.Spec.TTL)/1000, leaky, h.store.History(ctx, first))
	if err != nil {
		return nil, err
	}
	second.Addressed, second.Among = true, store.NewAddresses(len(q.at))
	for i, status := range d.statuses {
		if status == Present {
			second.Among.Add(d.address(i))
		}
	}
	return d.fetch(r, v.types, h.store.History(ctx, second))
}

// decided is a join without values: question i's row has address i and choice i.
type decided struct {
	*joined
	q      *questions
	chosen []choice
}

func decide(q *questions, r HistoryRange, ttl int64, leaky bool, rows iter.Seq2[*event.Batch, error]) (*decided, error) {
	r.Columns = []string{store.AddressColumn}
	j := newViewJoin(q, r, []event.ColumnType{{Elem: event.Int64}}, ttl, leaky)
	j.chosen = make([]choice, 0, len(q.at))
	out, err := j.read(r, rows)
	if err != nil {
		return nil, err
	}
	return &decided{out, q, j.chosen}, nil
}

func (d *decided) address(i int) int64 { return d.columns[0].Int64s[i] }

// repeats reports whether question i's row is that of the one before it.
func (d *decided) repeats(i int) bool {
	return i > 0 && d.statuses[i-1] == Present && d.chosen[i] == d.chosen[i-1] && bytes.Equal(d.q.key(i), d.q.key(i-1))
}

// fetch reads the values of the rows that were chosen, in any order, among
// others. Without one of them it answers nil.
func (d *decided) fetch(r HistoryRange, types []event.ColumnType, rows iter.Seq2[*event.Batch, error]) (*joined, error) {
	f := newFetch(d, r, types)
	for b, err := range rows {
		if err != nil {
			return nil, fmt.Errorf("point-in-time join with view %s: read the values: %w", r.Schema.Subject, err)
		}
		f.batch(b)
	}
	return f.done(), nil
}

// fetch finds chosen rows by their addresses.
type fetch struct {
	d      *decided
	copier *viewJoin
	slots  []int32 // open addressing: question + 1 by its row's address; 0: free
	found  []int32 // question → where its values lie; -1: nowhere yet
	n      int32   // rows found
	key    []byte
}

func newFetch(d *decided, r HistoryRange, types []event.ColumnType) *fetch {
	n := len(d.chosen)
	size := 1
	for size < 2*n {
		size *= 2
	}
	f := &fetch{d: d, copier: newViewJoin(d.q, r, types, 0, false), slots: make([]int32, size), found: make([]int32, n)}
	for i := range n {
		if f.found[i] = -1; d.statuses[i] != Present || d.repeats(i) {
			continue
		}
		at := f.slot(d.address(i))
		for f.slots[at] != 0 {
			at = (at + 1) & (size - 1)
		}
		f.slots[at] = int32(i) + 1
	}
	return f
}

// slot is where an address is looked for first. The map of bits took the low
// ones: rows that passed it by chance differ in the high ones.
func (f *fetch) slot(address int64) int {
	return int(uint64(address)>>32) & (len(f.slots) - 1)
}

func (f *fetch) batch(b *event.Batch) {
	j := f.copier
	j.locate(b.Schema)
	addresses := b.Columns[len(b.Schema.Fields)-1].Int64s
	for row, address := range addresses {
		if i := f.question(b, row, address); i >= 0 {
			f.found[i] = f.n
			f.n++
			j.rows = append(j.rows, int32(row))
		}
	}
	j.from = b
	j.copy()
}

// question is the one whose row was chosen and is this one; -1: none.
func (f *fetch) question(b *event.Batch, row int, address int64) int {
	encoded := false
	for at := f.slot(address); f.slots[at] != 0; at = (at + 1) & (len(f.slots) - 1) {
		i := int(f.slots[at]) - 1
		if f.found[i] >= 0 || f.d.address(i) != address || f.d.chosen[i] != (choice{batchVersion(b, row), b.Columns[event.ColKnownAt].Int64s[row]}) {
			continue
		}
		if !encoded {
			f.key, encoded = appendOrderedKey(f.key[:0], b, row), true
		}
		if bytes.Equal(f.key, f.d.q.key(i)) {
			return i
		}
	}
	return -1
}

// done lays the found values out as the join's.
func (f *fetch) done() *joined {
	out := f.copier.out
	nothing := f.n // the place behind all rows
	f.copier.rows = append(f.copier.rows, -1)
	f.copier.copy()
	out.statuses, out.times = nil, nil // they lie in the questions' order
	out.early, out.expired, out.missing = f.d.early, f.d.expired, f.d.missing
	for i, row := range f.d.q.order {
		switch {
		case f.d.statuses[i] != Present:
			f.found[i] = nothing
		case f.d.repeats(i):
			f.found[i] = f.found[i-1]
		case f.found[i] < 0:
			return nil
		}
		out.place[row] = f.found[i]
	}
	return out
}
