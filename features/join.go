package features

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/kedge-ml/kedge/event"
)

// HistorySource yields the stored rows of a view that can matter, ordered by
// its key columns (numbers by value, text by bytes) and then by event_time. A
// batch is valid until the next one.
type HistorySource func(ctx context.Context, q HistoryRange) iter.Seq2[*event.Batch, error]

// HistoryRange says which rows can matter to a join.
type HistoryRange struct {
	Schema  *event.Schema // of the view as it is defined
	Columns []string      // value columns wanted
	From    int64         // no row with an older event_time can be an answer
	To      int64         // nor one with a newer
	KnownTo int64         // rows known later are of no interest; maxTime: all are
}

// appendOrdered appends a key part whose bytes sort as the values do: numbers
// big-endian with the sign turned, text with its zeros escaped and an end mark.
func appendOrdered(dst []byte, c *event.Column, i int) []byte {
	switch c.Type.Elem {
	case event.Bool:
		return append(dst, c.Bools[i])
	case event.Int32:
		return binary.BigEndian.AppendUint32(dst, uint32(c.Int32s[i])^1<<31)
	case event.Int64, event.Timestamp:
		return binary.BigEndian.AppendUint64(dst, uint64(c.Int64s[i])^1<<63)
	case event.Float32, event.Float64:
		return binary.BigEndian.AppendUint64(dst, orderedBits(columnNumber(c, i).f))
	}
	for _, b := range c.Str(i) {
		dst = append(dst, b)
		if b == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

// appendOrderedKey appends the key of a batch's row.
func appendOrderedKey(dst []byte, b *event.Batch, row int) []byte {
	for i := b.Schema.KeyStart(); i < b.Schema.ValueStart(); i++ {
		dst = appendOrdered(dst, &b.Columns[i], row)
	}
	return dst
}

func orderedBits(f float64) uint64 {
	bits := math.Float64bits(f)
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}

// questions are the rows of an entity frame, as one view sees them, by key and
// then time.
type questions struct {
	keys  []byte  // ordered keys, one after another
	ends  []int   // end of question i's key
	times []int64 // of question i
	order []int32 // question i's row
	at    []int64 // µs, by row
}

// newQuestions encodes the entity rows' keys. columns are the view's key
// columns, in its order.
func newQuestions(columns []*event.Column, at []int64) *questions {
	type asked struct {
		head uint64 // the key's first eight bytes: most comparisons need no more
		at   int64
		from int // of the key
		end  int
		row  int32
	}
	var keys []byte
	all := make([]asked, len(at))
	for i := range at {
		from := len(keys)
		for _, c := range columns {
			keys = appendOrdered(keys, c, i)
		}
		all[i] = asked{head(keys[from:]), at[i], from, len(keys), int32(i)}
	}
	all = sorted(all, func(a, b asked) int {
		switch {
		case a.head < b.head:
			return -1
		case a.head > b.head:
			return 1
		case a.end-a.from != 8 || b.end-b.from != 8:
			if c := bytes.Compare(keys[a.from:a.end], keys[b.from:b.end]); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.row, b.row))
	})
	q := &questions{at: at, keys: make([]byte, 0, len(keys)), ends: make([]int, len(at)), times: make([]int64, len(at)), order: make([]int32, len(at))}
	for i := range all {
		q.keys = append(q.keys, keys[all[i].from:all[i].end]...)
		q.ends[i], q.times[i], q.order[i] = len(q.keys), all[i].at, all[i].row
	}
	return q
}

// sorted sorts a slice, a long one in two halves side by side that are then
// merged into another.
func sorted[T any](all []T, compare func(a, b T) int) []T {
	half := len(all) / 2
	if half < partQuestions {
		slices.SortFunc(all, compare)
		return all
	}
	low, high := all[:half], all[half:]
	var other sync.WaitGroup
	other.Go(func() { slices.SortFunc(high, compare) })
	slices.SortFunc(low, compare)
	other.Wait()
	out := make([]T, 0, len(all))
	for len(low) > 0 && len(high) > 0 {
		if compare(low[0], high[0]) <= 0 {
			out, low = append(out, low[0]), low[1:]
		} else {
			out, high = append(out, high[0]), high[1:]
		}
	}
	return append(append(out, low...), high...)
}

// head is the first eight bytes of a key as a number, zeros behind a shorter one.
func head(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// key is the key of question i.
func (q *questions) key(i int) []byte {
	from := 0
	if i > 0 {
		from = q.ends[i-1]
	}
	return q.keys[from:q.ends[i]]
}

// cut divides the questions into at most so many parts of about a size, in their
// order. Keys that begin with the same part stay together.
func (q *questions) cut(parts int, first *event.Column) (out []*questions) {
	n, from := len(q.order), 0
	for i := 1; i <= parts; i++ {
		end := i * n / parts
		for end > from && end < n && sameCell(first, int(q.order[end-1]), first, int(q.order[end])) {
			end++
		}
		if end > from {
			out = append(out, q.part(from, end))
			from = end
		}
	}
	return out
}

func (q *questions) part(from, end int) *questions {
	start := 0
	if from > 0 {
		start = q.ends[from-1]
	}
	p := &questions{at: q.at, keys: q.keys[start:q.ends[end-1]], ends: make([]int, end-from), times: q.times[from:end], order: q.order[from:end]}
	for i := range p.ends {
		p.ends[i] = q.ends[from+i] - start
	}
	return p
}

// joined is what a join found for each entity row. Values lie in the order in
// which they were found; Place says where row i's are.
type joined struct {
	columns  []event.Column // one per wanted column
	statuses []Status       // in found order: of the row, not of single values; nil from a join that read twice
	times    []int64        // event_time of the row; 0 without one; nil as statuses
	place    []int32
	early    int // entity rows of which a newer row was not known yet
	expired  int
	missing  int
}

// viewJoin answers the questions to one view in one pass over its rows.
type viewJoin struct {
	q       *questions
	asOf    asOf
	wanted  []string
	out     *joined
	next    int // first question without an answer
	key     []byte
	columns []int // wanted columns within the current batch's schema
	schema  *event.Schema
	// Values are copied column by column: what was found in from since the last
	// copy, -1 for nothing.
	from *event.Batch
	rows []int32
	// chosen are the rows found, for a join that only decides; nil: not kept
	chosen []choice
}

// join reads the source once. types are those of the wanted columns.
func join(q *questions, r HistoryRange, types []event.ColumnType, ttl int64, leaky bool, rows iter.Seq2[*event.Batch, error]) (*joined, error) {
	return newViewJoin(q, r, types, ttl, leaky).read(r, rows)
}

func newViewJoin(q *questions, r HistoryRange, types []event.ColumnType, ttl int64, leaky bool) *viewJoin {
	n := len(q.order)
	j := &viewJoin{q: q, asOf: asOf{ttl: ttl, leaky: leaky}, wanted: r.Columns,
		out: &joined{statuses: make([]Status, 0, n), times: make([]int64, 0, n), place: make([]int32, len(q.at))}}
	for _, t := range types {
		j.out.columns = append(j.out.columns, sizedColumn(t, n))
	}
	return j
}

// read takes the source's rows and ends the join.
func (j *viewJoin) read(r HistoryRange, rows iter.Seq2[*event.Batch, error]) (*joined, error) {
	n := len(j.q.order)
	for b, err := range rows {
		if err != nil {
			return nil, fmt.Errorf("point-in-time join with view %s: %w", r.Schema.Subject, err)
		}
		if j.batch(b); j.next == n {
			break // every question has its answer
		}
	}
	j.answerKey(maxTime)
	for j.next < n {
		j.answer(verdict{})
	}
	j.copy()
	return j.out, nil
}

// batch takes the next rows.
func (j *viewJoin) batch(b *event.Batch) {
	j.locate(b.Schema)
	defer j.copy()
	for row := range b.Rows {
		if j.next == len(j.q.order) {
			return
		}
		j.key = appendOrderedKey(j.key[:0], b, row)
		order := bytes.Compare(j.q.key(j.next), j.key)
		if order < 0 {
			if j.advance(); j.next == len(j.q.order) {
				return
			}
			order = bytes.Compare(j.q.key(j.next), j.key)
		}
		if order == 0 {
			j.asOf.add(fact{v: batchVersion(b, row), known: b.Columns[event.ColKnownAt].Int64s[row],
				deleted: b.Columns[event.FeatureDelete].Bools[row] != 0, batch: b, row: row})
		}
	}
	j.keep()
}

// locate finds the wanted columns in a batch's schema.
func (j *viewJoin) locate(s *event.Schema) {
	if s == j.schema {
		return
	}
	j.schema, j.columns = s, j.columns[:0]
	for _, name := range j.wanted {
		at := slices.IndexFunc(s.Values(), func(f event.Field) bool { return f.Name == name })
		if at >= 0 {
			at += s.ValueStart()
		}
		j.columns = append(j.columns, at)
	}
}

// advance answers the questions about keys before j.key.
func (j *viewJoin) advance() {
	for j.next < len(j.q.order) && bytes.Compare(j.q.key(j.next), j.key) < 0 {
		j.answerKey(maxTime)
	}
}

// answerKey answers the questions about the current key up to a time, with the
// rows that were collected; at maxTime it ends the key.
func (j *viewJoin) answerKey(before int64) {
	if j.next == len(j.q.order) {
		return
	}
	key := j.q.key(j.next)
	for j.next < len(j.q.order) {
		t := j.q.times[j.next]
		if before != maxTime && t >= before || !bytes.Equal(j.q.key(j.next), key) {
			break
		}
		j.answer(j.asOf.at(t))
	}
	if before == maxTime {
		j.asOf.reset()
	}
}

// answer writes the next question's answer.
func (j *viewJoin) answer(v verdict) {
	o := j.out
	o.place[j.q.order[j.next]] = int32(len(o.statuses))
	j.next++
	o.statuses, o.times = append(o.statuses, v.status), append(o.times, v.at)
	switch v.status {
	case OutsideMaxAge:
		o.expired++
	case NotFound:
		o.missing++
	}
	if v.early {
		o.early++
	}
	if j.chosen != nil {
		j.chosen = append(j.chosen, v.choice)
	}
	if v.batch == nil {
		j.rows = append(j.rows, -1)
		return
	}
	if v.batch != j.from {
		j.copy()
		j.from = v.batch
	}
	j.rows = append(j.rows, int32(v.row))
}

// copy takes the values of what was found over, while the batch has them.
func (j *viewJoin) copy() {
	for i := range j.out.columns {
		var src *event.Column
		if j.from != nil && j.columns[i] >= 0 {
			src = &j.from.Columns[j.columns[i]]
		}
		copyRows(&j.out.columns[i], src, j.rows)
	}
	j.from, j.rows = nil, j.rows[:0]
}

// keep answers what the collected rows can answer for good and copies the rows
// that later questions may need, because the batch's memory is used again.
func (j *viewJoin) keep() {
	if len(j.asOf.facts) == 0 {
		return
	}
	last := int64(minTime)
	for i := range j.asOf.facts {
		last = max(last, j.asOf.facts[i].v.EventTime)
	}
	j.answerKeyBefore(last)
	if len(j.asOf.facts) == 0 {
		return
	}
	j.asOf.prune(last)
	carry := event.NewBatch(j.schema, "")
	for i := range j.asOf.facts {
		f := &j.asOf.facts[i]
		for _, at := range j.columns {
			if at >= 0 {
				copyValue(&carry.Columns[at], &f.batch.Columns[at], f.row)
			}
		}
		f.batch, f.row = carry, i
	}
}

// answerKeyBefore answers what lies before a time; rows of that very time may
// still come.
func (j *viewJoin) answerKeyBefore(t int64) {
	key := j.q.key(j.next)
	j.answerKey(t)
	if j.next == len(j.q.order) || !bytes.Equal(j.q.key(j.next), key) {
		j.asOf.reset() // nobody asks about the key any more
	}
}
