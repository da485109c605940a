package features

import (
	"encoding/binary"
	"math"

	"github.com/kedge-ml/kedge/event"
)

// rowWriter turns rows of batches into a key, a slot and a block. It keeps its
// memory, so that a row costs no allocation.
type rowWriter struct {
	layout *layout
	schema *event.Schema // of the batches that source indexes
	source []int         // per layout column: index into Batch.Columns, or -1
	keys   int           // index of the first key column
	nkeys  int
	key    []byte
	slot   []byte
	block  []byte
}

func (w *rowWriter) plan(l *layout, s *event.Schema) {
	if w.layout == l && w.schema == s {
		return
	}
	w.layout, w.schema = l, s
	w.keys, w.nkeys = s.KeyStart(), len(s.Keys())
	at := make(map[string]int, len(s.Values()))
	for i, f := range s.Values() {
		at[f.Name] = s.ValueStart() + i
	}
	w.source = make([]int, len(l.columns))
	for i, c := range l.columns {
		w.source[i] = -1
		if j, ok := at[c.name]; ok && widens(s.Fields[j].Type, c.typ) {
			w.source[i] = j
		}
	}
	w.slot = make([]byte, l.stride)
}

func batchVersion(b *event.Batch, row int) Version {
	return Version{
		EventTime: b.Columns[event.ColEventTime].Int64s[row],
		Created:   b.Columns[event.ColCreated].Int64s[row],
		Epoch:     b.Columns[event.ColEpoch].Int32s[row],
		Partition: b.Columns[event.ColPartition].Int32s[row],
		Offset:    b.Columns[event.ColOffset].Int64s[row],
		Index:     b.Columns[event.ColIndex].Int32s[row],
	}
}

// encodeKey fills w.key.
func (w *rowWriter) encodeKey(b *event.Batch, row int) {
	w.key = AppendKey(w.key[:0], b.Columns[w.keys:w.keys+w.nkeys], row)
}

// encode fills w.slot and w.block from a row whose key encodeKey has seen.
func (w *rowWriter) encode(b *event.Batch, row int, v Version) {
	l := w.layout
	clear(w.slot)
	deleted := b.Columns[event.FeatureDelete].Bools[row] != 0
	setSlotVersion(w.slot, v, deleted)
	w.startBlock()
	for i := range l.columns {
		c := &l.columns[i]
		src := w.source[i]
		null := deleted || src < 0 || b.Columns[src].Null(row)
		switch {
		case c.variable >= 0:
			if !null {
				null = !w.putVariable(&b.Columns[src], row, c)
			}
			l.setEnd(w.slot, c.variable, len(w.block))
		case !null:
			null = !w.putValue(&b.Columns[src], row, c)
		}
		if null {
			setSlotNull(w.slot, i)
		}
	}
}

func (w *rowWriter) startBlock() {
	w.block = w.block[:0]
	if w.layout.keyWidth > 0 {
		copy(w.slot[w.layout.keyAt:], w.key)
		return
	}
	w.block = append(w.block, w.key...)
	w.layout.setEnd(w.slot, 0, len(w.block))
}

// putValue writes a fixed-width value; false means that the type is unknown.
func (w *rowWriter) putValue(c *event.Column, row int, to *slotColumn) bool {
	b := w.slot[to.at:]
	var n number
	switch c.Type.Elem {
	case event.Unknown:
		return false
	case event.Float64:
		binary.LittleEndian.PutUint64(b, math.Float64bits(c.Float64s[row]))
		return true
	case event.Int64, event.Timestamp:
		if to.typ.Elem == c.Type.Elem {
			binary.LittleEndian.PutUint64(b, uint64(c.Int64s[row]))
			return true
		}
		n.i = c.Int64s[row]
	case event.Int32:
		n.i = int64(c.Int32s[row])
	case event.Float32:
		n.float, n.f = true, float64(c.Float32s[row])
	case event.Bool:
		n.i = int64(c.Bools[row])
	}
	putFixed(b, to.typ.Elem, n)
	return true
}

// putVariable appends a string or a list to the block; false means null. An
// empty list is a null one, as in the tables.
func (w *rowWriter) putVariable(c *event.Column, row int, to *slotColumn) bool {
	if c.Type.Elem == event.Unknown {
		return false
	}
	if !c.Type.List {
		w.block = append(w.block, c.Str(row)...)
		return true
	}
	from, end := c.Span(row)
	if from == end {
		return false
	}
	w.block = appendList(w.block, c.Items, int(from), int(end), to.typ.Elem)
	return true
}

// appendList appends items[from:end] as a list of type to: the count doubled,
// plus one if a bitmap of nulls follows, then the elements. A fixed-width
// element takes its width, a null one too; a string its length and bytes.
func appendList(dst []byte, items *event.Column, from, end int, to event.Type) []byte {
	nulls := false
	for i := from; i < end && !nulls; i++ {
		nulls = items.Null(i)
	}
	head := uint64(end-from) << 1
	if nulls {
		head |= 1
	}
	dst = binary.AppendUvarint(dst, head)
	if nulls {
		at := len(dst)
		dst = append(dst, make([]byte, (end-from+7)/8)...)
		for i := from; i < end; i++ {
			if items.Null(i) {
				dst[at+(i-from)>>3] |= 1 << ((i - from) & 7)
			}
		}
	}
	width := fixedWidth(event.ColumnType{Elem: to})
	for i := from; i < end; i++ {
		if width < 0 {
			s := items.Str(i)
			dst = binary.AppendUvarint(dst, uint64(len(s)))
			dst = append(dst, s...)
			continue
		}
		var b [8]byte
		putFixed(b[:], to, columnNumber(items, i))
		dst = append(dst, b[:width]...)
	}
	return dst
}

func columnNumber(c *event.Column, i int) number {
	switch c.Type.Elem {
	case event.Bool:
		return number{i: int64(c.Bools[i])}
	case event.Int32:
		return number{i: int64(c.Int32s[i])}
	case event.Float32:
		return number{float: true, f: float64(c.Float32s[i])}
	case event.Float64:
		return number{float: true, f: c.Float64s[i]}
	}
	return number{i: c.Int64s[i]}
}

// listReader walks an encoded list.
type listReader struct {
	n     int
	nulls []byte
	rest  []byte
	width int
	elem  event.Type
	i     int
}

func readList(b []byte, elem event.Type) listReader {
	head, k := binary.Uvarint(b)
	r := listReader{n: int(head >> 1), rest: b[k:], elem: elem, width: fixedWidth(event.ColumnType{Elem: elem})}
	if head&1 != 0 {
		r.nulls, r.rest = r.rest[:(r.n+7)/8], r.rest[(r.n+7)/8:]
	}
	return r
}

// next returns the next element's bytes; null elements of fixed width have
// bytes too.
func (r *listReader) next() (b []byte, null, ok bool) {
	if r.i == r.n {
		return nil, false, false
	}
	null = r.nulls != nil && r.nulls[r.i>>3]>>(r.i&7)&1 != 0
	width := r.width
	if width < 0 {
		size, k := binary.Uvarint(r.rest)
		r.rest, width = r.rest[k:], int(size)
	}
	b, r.rest = r.rest[:width], r.rest[width:]
	r.i++
	return b, null, true
}

// convertRow rewrites a row of one layout for another: kept columns are
// widened, new ones are null. slot must be zeroed and of the new stride.
func convertRow(from, to *layout, slot, block, newSlot, newBlock []byte) []byte {
	copy(newSlot[:slotNulls], slot[:slotNulls])
	if to.keyWidth > 0 {
		copy(newSlot[to.keyAt:to.keyAt+to.keyWidth], slot[from.keyAt:])
	} else {
		newBlock = append(newBlock, from.variable(slot, block, 0)...)
		to.setEnd(newSlot, 0, len(newBlock))
	}
	for i := range to.columns {
		c := &to.columns[i]
		j, ok := from.byName[c.name]
		null := !ok || slotNull(slot, j) || !widens(from.columns[j].typ, c.typ)
		if null {
			setSlotNull(newSlot, i)
		}
		if c.variable >= 0 {
			if !null {
				newBlock = convertVariable(newBlock, from.variable(slot, block, from.columns[j].variable), from.columns[j].typ, c.typ)
			}
			to.setEnd(newSlot, c.variable, len(newBlock))
		} else if !null {
			putFixed(newSlot[c.at:], c.typ.Elem, getFixed(slot[from.columns[j].at:], from.columns[j].typ.Elem))
		}
	}
	return newBlock
}

func convertVariable(dst, b []byte, from, to event.ColumnType) []byte {
	at := len(dst)
	dst = append(dst, b...)
	if from == to {
		return dst
	}
	r := readList(dst[at:], from.Elem) // Int64 → Float64: same width, in place
	for {
		item, _, ok := r.next()
		if !ok {
			return dst
		}
		putFixed(item, to.Elem, getFixed(item, from.Elem))
	}
}
