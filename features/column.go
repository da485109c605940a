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

// columnLen is the number of rows of a column.
func columnLen(c *event.Column) int {
	if c.Type.List {
		return len(c.Ends)
	}
	switch c.Type.Elem {
	case event.Unknown:
		return len(c.Nulls)
	case event.Bool:
		return len(c.Bools)
	case event.Int32:
		return len(c.Int32s)
	case event.Int64, event.Timestamp:
		return len(c.Int64s)
	case event.Float32:
		return len(c.Float32s)
	case event.Float64:
		return len(c.Float64s)
	}
	return len(c.StrEnds)
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
