package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/kedge-ml/kedge/event"
)

// A Native block is: number of columns, number of rows, and per column its
// name, its type and its values. The types below write values straight from
// the slices that hold them.

// values is one column of a block.
type values interface {
	typ() string
	write(w *proto.Writer)
}

// named is a column with its name.
type named struct {
	name string
	values
}

// writeBlock writes one block.
func writeBlock(out io.Writer, buf *proto.Buffer, rows int, cols []named) error {
	w := proto.NewWriter(out, buf)
	w.ChainBuffer(func(b *proto.Buffer) {
		b.PutInt(len(cols))
		b.PutInt(rows)
	})
	for _, c := range cols {
		w.ChainBuffer(func(b *proto.Buffer) {
			b.PutString(c.name)
			b.PutString(c.typ())
			if s, ok := c.values.(constant); ok {
				s.state(b)
			}
		})
		c.write(w)
	}
	_, err := w.Flush()
	return err
}

// fixed is a column of fixed-width values.
type fixed[T any] struct {
	name string
	vals []T
}

func (f fixed[T]) typ() string { return f.name }

func (f fixed[T]) write(w *proto.Writer) {
	if len(f.vals) == 0 {
		return
	}
	raw(w, unsafe.Slice((*byte)(unsafe.Pointer(&f.vals[0])), len(f.vals)*int(unsafe.Sizeof(f.vals[0]))))
}

// raw writes bytes: large ones where they lie, small ones gathered.
func raw(w *proto.Writer, b []byte) {
	if len(b) >= 64<<10 {
		w.ChainWrite(b)
		return
	}
	w.ChainBuffer(func(buf *proto.Buffer) { buf.PutRaw(b) })
}

// text is a String column in the batch's own layout.
type text struct {
	data []byte
	ends []uint32
}

func (text) typ() string { return "String" }

func (t text) write(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) {
		b.Buf = slices.Grow(b.Buf, len(t.data)+2*len(t.ends))
		if len(t.data) == 0 { // every length is zero
			n := len(b.Buf)
			b.Buf = b.Buf[:n+len(t.ends)]
			clear(b.Buf[n:])
			return
		}
		from := uint32(0)
		for _, end := range t.ends {
			b.Buf = binary.AppendUvarint(b.Buf, uint64(end-from))
			b.Buf = append(b.Buf, t.data[from:end]...)
			from = end
		}
	})
}

// texts is a String column of a few strings.
type texts []string

func (texts) typ() string { return "String" }

func (t texts) write(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) {
		for _, s := range t {
			b.PutString(s)
		}
	})
}

type nullable struct {
	nulls []uint8
	values
}

func (n nullable) typ() string { return "Nullable(" + n.values.typ() + ")" }

func (n nullable) write(w *proto.Writer) {
	raw(w, n.nulls)
	n.values.write(w)
}

type array struct {
	ends []uint64
	values
}

func (a array) typ() string { return "Array(" + a.values.typ() + ")" }

func (a array) write(w *proto.Writer) {
	fixed[uint64]{vals: a.ends}.write(w)
	a.values.write(w)
}

type mapping struct {
	ends        []uint64
	names, vals values
}

func (m mapping) typ() string { return "Map(" + m.names.typ() + ", " + m.vals.typ() + ")" }

func (m mapping) write(w *proto.Writer) {
	fixed[uint64]{vals: m.ends}.write(w)
	m.names.write(w)
	m.vals.write(w)
}

type tuple struct {
	name  string
	parts []values
}

func (t tuple) typ() string { return t.name }

func (t tuple) write(w *proto.Writer) {
	for _, p := range t.parts {
		p.write(w)
	}
}

// constant is a LowCardinality(String) column with one value.
type constant struct {
	value string
	rows  int
}

func (constant) typ() string { return "LowCardinality(String)" }

// state precedes the values: the version of the keys' serialization.
func (constant) state(b *proto.Buffer) { b.PutInt64(1) }

func (c constant) write(w *proto.Writer) {
	const keysAreBytesAndDictionaryFollows = 1<<9 | 1<<10
	w.ChainBuffer(func(b *proto.Buffer) {
		b.PutInt64(keysAreBytesAndDictionaryFollows)
		b.PutInt64(1)
		b.PutString(c.value)
		b.PutInt64(int64(c.rows))
		b.Buf = append(b.Buf, make([]byte, c.rows)...)
	})
}

// columnValues views a batch's column. It fails where the column's slices are
// not of one length, since the engine would read on into the next column.
func columnValues(c *event.Column, rows int) (values, error) {
	v, n, err := plainValues(c)
	if err != nil {
		return nil, err
	}
	if n != rows {
		return nil, fmt.Errorf("%s column holds %d values, want %d", c.Type, n, rows)
	}
	if c.Nulls == nil || c.Type.List || isMap(c.Type.Elem) {
		return v, nil
	}
	if len(c.Nulls) != rows {
		return nil, fmt.Errorf("%s column holds %d null marks, want %d", c.Type, len(c.Nulls), rows)
	}
	return nullable{c.Nulls, v}, nil
}

func plainValues(c *event.Column) (v values, rows int, err error) {
	if c.Type.List {
		items, err := columnValues(c.Items, last(c.Ends))
		return array{c.Ends, items}, len(c.Ends), err
	}
	switch c.Type.Elem {
	case event.Bool:
		return fixed[uint8]{"Bool", c.Bools}, len(c.Bools), nil
	case event.Int32:
		return fixed[int32]{"Int32", c.Int32s}, len(c.Int32s), nil
	case event.Int64:
		return fixed[int64]{"Int64", c.Int64s}, len(c.Int64s), nil
	case event.Timestamp:
		return fixed[int64]{timestampType, c.Int64s}, len(c.Int64s), nil
	case event.Float32:
		return fixed[float32]{"Float32", c.Float32s}, len(c.Float32s), nil
	case event.Float64:
		return fixed[float64]{"Float64", c.Float64s}, len(c.Float64s), nil
	case event.FloatMap, event.StringMap, event.TimeMap:
		return mapValues(c)
	}
	return text{c.Data, c.StrEnds}, len(c.StrEnds), nil
}

func mapValues(c *event.Column) (values, int, error) {
	names, err := columnValues(c.Names, last(c.Ends))
	if err != nil {
		return nil, 0, err
	}
	items, err := columnValues(c.Items, last(c.Ends))
	return mapping{c.Ends, names, items}, len(c.Ends), err
}

func last(ends []uint64) int {
	if len(ends) == 0 {
		return 0
	}
	return int(ends[len(ends)-1])
}
