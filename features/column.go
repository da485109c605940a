package features

import "github.com/kedge-ml/kedge/event"

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
