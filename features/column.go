package features

import (
	"bytes"
	"math"

	"github.com/kedge-ml/kedge/event"
)

// newColumn returns an empty column of a type, as event.NewBatch makes them.
func newColumn(t event.ColumnType, nullable bool) event.Column {
	c := event.Column{Type: t}
	if t.List {
		items := newColumn(event.ColumnType{Elem: t.Elem}, true)
		c.Items = &items
		return c
	}
	if nullable {
		c.Nulls = []uint8{}
	}
	return c
}

// sizedColumn is an empty nullable column with room for so many values.
func sizedColumn(t event.ColumnType, n int) event.Column {
	c := newColumn(t, true)
	if t.List {
		return c
	}
	c.Nulls = make([]uint8, 0, n)
	switch t.Elem {
	case event.Float64:
		c.Float64s = make([]float64, 0, n)
	case event.Int64, event.Timestamp:
		c.Int64s = make([]int64, 0, n)
	}
	return c
}

// copyRows appends rows of src, or nulls where a row is -1 or src is nil.
func copyRows(dst, src *event.Column, rows []int32) {
	if src != nil && src.Type == dst.Type && src.Type.Elem == event.Float64 && !src.Type.List && src.Nulls != nil { // most are
		for _, r := range rows {
			if r < 0 {
				dst.AppendNull()
				continue
			}
			dst.Float64s, dst.Nulls = append(dst.Float64s, src.Float64s[r]), append(dst.Nulls, src.Nulls[r])
		}
		return
	}
	for _, r := range rows {
		if r < 0 || src == nil {
			dst.AppendNull()
		} else {
			copyValue(dst, src, int(r))
		}
	}
}

// copyValue appends row i of src to dst, whose type it must have or widen to. A
// value of another type becomes null.
func copyValue(dst, src *event.Column, i int) {
	switch {
	case src.Null(i) || !widens(src.Type, dst.Type) || src.Type.Elem == event.Unknown:
		dst.AppendNull()
	case dst.Type.List:
		from, end := src.Span(i)
		for j := from; j < end; j++ {
			copyValue(dst.Items, src.Items, int(j))
		}
		dst.Ends = append(dst.Ends, uint64(dst.Items.Len()))
	case fixedWidth(dst.Type) < 0:
		dst.AppendBytes(src.Str(i))
	default:
		appendNumber(dst, columnNumber(src, i))
		appendNotNull(dst)
	}
}

// sameShape reports whether two schemas have the same columns in the same
// order, so that a row of one is a row of the other.
func sameShape(a, b *event.Schema) bool {
	if a == b {
		return true
	}
	if len(a.Fields) != len(b.Fields) || len(a.Keys()) != len(b.Keys()) {
		return false
	}
	for i := range a.Fields {
		if a.Fields[i] != b.Fields[i] {
			return false
		}
	}
	return true
}

// sameCell reports whether two columns of one type hold the same value: bit by
// bit, but one NaN is like another.
func sameCell(a *event.Column, i int, b *event.Column, j int) bool {
	if a.Type.List {
		fromA, endA := a.Span(i)
		fromB, endB := b.Span(j)
		if endA-fromA != endB-fromB {
			return false
		}
		for k := range endA - fromA {
			if !sameCell(a.Items, int(fromA+k), b.Items, int(fromB+k)) {
				return false
			}
		}
		return true
	}
	if a.Null(i) || b.Null(j) {
		return a.Null(i) == b.Null(j)
	}
	if fixedWidth(a.Type) < 0 {
		return bytes.Equal(a.Str(i), b.Str(j))
	}
	x, y := columnNumber(a, i), columnNumber(b, j)
	return x == y && math.Signbit(x.f) == math.Signbit(y.f) || x.float && x.f != x.f && y.f != y.f
}
