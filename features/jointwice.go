package features

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"

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

// joinTwice answers nil if a row that was chosen is not there any more. first is
// the first key column, by row.
func (h *History) joinTwice(ctx context.Context, q *questions, first *event.Column, r HistoryRange, v *historyView, ask store.HistoryQuery, leaky bool) (*joined, error) {
	d, err := h.decideParts(ctx, q, first, r, int64(v.view.Spec.TTL)/1000, leaky, ask)
	if err != nil {
		return nil, err
	}
	second := ask
	second.Addressed, second.Among = true, store.NewAddresses(len(q.at))
	for i, status := range d.statuses {
		if status == Present {
			second.Among.Add(d.address(i))
		}
	}
	return d.fetch(r, v.types, h.store.History(ctx, second))
}

// partQuestions is from how many questions on they are decided in parts, side by
// side: the engine orders a range of keys on one thread.
const partQuestions = 64 << 10

// decideParts decides ranges of keys at the same time, each in a read of its own.
func (h *History) decideParts(ctx context.Context, q *questions, first *event.Column, r HistoryRange, ttl int64, leaky bool, ask store.HistoryQuery) (*decided, error) {
	parts := []*questions{q}
	if n := len(q.order) / partQuestions; ask.FirstKeys != nil && n > 1 {
		parts = q.cut(min(n, runtime.GOMAXPROCS(0), 4), first)
	}
	ask.Columns, ask.Addressed, ask.Memory = []string{}, true, ask.Memory/int64(len(parts))
	out := make([]*decided, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	for i, part := range parts {
		g.Go(func() (err error) {
			ask := ask
			if len(parts) > 1 {
				keys := newColumn(first.Type, false)
				for _, row := range part.order {
					copyValue(&keys, first, int(row))
				}
				ask.FirstKeys = firstKeys(&keys)
			}
			out[i], err = decide(part, r, ttl, leaky, h.store.History(ctx, ask))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return together(q, out), nil
}

// together is what was decided of all questions, from that of their parts.
func together(q *questions, parts []*decided) *decided {
	if len(parts) == 1 {
		return parts[0]
	}
	n := len(q.order)
	out := &decided{&joined{columns: []event.Column{sizedColumn(event.ColumnType{Elem: event.Int64}, n)}, statuses: make([]Status, 0, n), times: make([]int64, 0, n), place: make([]int32, len(q.at))},
		q, make([]choice, 0, n)}
	for _, p := range parts {
		c := &out.columns[0]
		c.Int64s, c.Nulls = append(c.Int64s, p.columns[0].Int64s...), append(c.Nulls, p.columns[0].Nulls...)
		out.statuses, out.times, out.chosen = append(out.statuses, p.statuses...), append(out.times, p.times...), append(out.chosen, p.chosen...)
		out.early, out.expired, out.missing = out.early+p.early, out.expired+p.expired, out.missing+p.missing
	}
	for i, row := range q.order {
		out.place[row] = int32(i)
	}
	return out
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
	j.chosen = make([]choice, 0, len(q.order))
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
