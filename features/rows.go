package features

import (
	"slices"

	"github.com/kedge-ml/kedge/event"
)

// Rows holds copies of rows that were looked up together, so that nothing is
// locked while an answer is made of them. Reset keeps the memory.
type Rows struct {
	data []byte
	refs []rowRef
	// Of a window view, of the wanted rows, in order: how far what brings their
	// events was folded in.
	wanted []int
	folded [][]reached
}

type rowRef struct {
	layout *layout // nil: not found
	at     int     // of the slot within data; the block follows it
}

// Reset empties the collection.
func (r *Rows) Reset() {
	clear(r.refs) // no layout is kept alive
	r.data, r.refs = r.data[:0], r.refs[:0]
	r.wanted, r.folded = r.wanted[:0], nil
}

// noteReached keeps a copy of where the parts stand, if the row that comes next is wanted.
func (r *Rows) noteReached(parts []reached) {
	if n := len(r.folded); n < len(r.wanted) && r.wanted[n] == len(r.refs) {
		r.folded = append(r.folded, slices.Clone(parts))
	}
}

// reachedBy is what noteReached kept of a row; nil: it was not wanted.
func (r *Rows) reachedBy(row int) []reached {
	if at, ok := slices.BinarySearch(r.wanted, row); ok && at < len(r.folded) {
		return r.folded[at]
	}
	return nil
}

// Len is the number of look-ups, found or not.
func (r *Rows) Len() int { return len(r.refs) }

// Row returns the i-th look-up's row.
func (r *Rows) Row(i int) Row {
	ref := r.refs[i]
	if ref.layout == nil {
		return Row{}
	}
	at := ref.at + ref.layout.stride
	slot := r.data[ref.at:at]
	return Row{ref.layout, slot, r.data[at : at+ref.layout.blockLen(slot)]}
}

// Row is a copy of one row. The zero Row is one that was not found.
type Row struct {
	layout *layout
	slot   []byte
	block  []byte
}

// Found reports whether the key has a row that is not a tombstone.
func (r Row) Found() bool { return r.layout != nil }

// Version is the row's place in its key's order.
func (r Row) Version() Version { return slotVersion(r.slot) }

// Column is the position of a value column in this row, or -1.
func (r Row) Column(name string) int {
	if r.layout != nil {
		if i, ok := r.layout.byName[name]; ok {
			return i
		}
	}
	return -1
}

// Get looks a key up as of now and adds the outcome to rows. The key is as
// [AppendKey] encodes it.
func (t *Table) Get(key []byte, now int64, rows *Rows) {
	if now >= t.future.due.Load() {
		t.admit(now)
	}
	h := hashKey(t.seed, key)
	s := &t.shards[h>>t.shift]
	s.mu.RLock()
	ref := rowRef{at: len(rows.data)}
	if slot, _ := s.find(uint32(h), key); slot != nil && !slotDeleted(slot) {
		ref.layout = s.layout
		rows.data = s.copyRow(rows.data, slot)
	}
	s.mu.RUnlock()
	rows.refs = append(rows.refs, ref)
}

func (t *Table) look(keys *Keys, now int64, rows *Rows, _ *Round) {
	for i := range keys.Len() {
		t.Get(keys.at(i), now, rows)
	}
}

func (t *Table) admit(now int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.future.admit(now, func(r futureRow) { t.put(r.key, r.slot, r.block, r.v) })
}

// AppendTo appends the value of a column (-1: none) to c, whose type it must
// have or widen to, and returns its status: null is appended for anything but
// Present.
func (r Row) AppendTo(c *event.Column, column int) Status {
	if !r.Found() {
		c.AppendNull()
		return NotFound
	}
	if column < 0 || slotNull(r.slot, column) || !widens(r.layout.columns[column].typ, c.Type) {
		c.AppendNull()
		return NullValue
	}
	sc := &r.layout.columns[column]
	if sc.variable < 0 {
		appendNumber(c, getFixed(r.slot[sc.at:], sc.typ.Elem))
		appendNotNull(c)
		return Present
	}
	b := r.layout.variable(r.slot, r.block, sc.variable)
	if !sc.typ.List {
		c.Data = append(c.Data, b...)
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
		appendNotNull(c)
		return Present
	}
	appendListTo(c, readList(b, sc.typ.Elem))
	return Present
}

func appendNotNull(c *event.Column) {
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, 0)
	}
}

func appendNumber(c *event.Column, n number) {
	if !n.float {
		n.f = float64(n.i)
	}
	switch c.Type.Elem {
	case event.Bool:
		c.Bools = append(c.Bools, uint8(n.i))
	case event.Int32:
		c.Int32s = append(c.Int32s, int32(n.i))
	case event.Int64, event.Timestamp:
		c.Int64s = append(c.Int64s, n.i)
	case event.Float32:
		c.Float32s = append(c.Float32s, float32(n.f))
	case event.Float64:
		c.Float64s = append(c.Float64s, n.f)
	}
}

func appendListTo(c *event.Column, r listReader) {
	for {
		b, null, ok := r.next()
		if !ok {
			break
		}
		switch {
		case null:
			c.Items.AppendNull()
			continue
		case r.width < 0:
			c.Items.Data = append(c.Items.Data, b...)
			c.Items.StrEnds = append(c.Items.StrEnds, uint32(len(c.Items.Data)))
		default:
			appendNumber(c.Items, getFixed(b, r.elem))
		}
		appendNotNull(c.Items)
	}
	c.Ends = append(c.Ends, uint64(c.Items.Len()))
}
