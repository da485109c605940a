package features

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
)

// arrowType is how a column's type looks in files.
func arrowType(t event.ColumnType) arrow.DataType {
	if t.List {
		return arrow.ListOf(arrowType(event.ColumnType{Elem: t.Elem}))
	}
	switch t.Elem {
	case event.Bool:
		return arrow.FixedWidthTypes.Boolean
	case event.Int32:
		return arrow.PrimitiveTypes.Int32
	case event.Int64:
		return arrow.PrimitiveTypes.Int64
	case event.Float32:
		return arrow.PrimitiveTypes.Float32
	case event.Float64:
		return arrow.PrimitiveTypes.Float64
	case event.Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case event.Bytes:
		return arrow.BinaryTypes.Binary
	}
	return arrow.BinaryTypes.String
}

// buildColumn gathers rows of a column, by place, into an Arrow array.
func buildColumn(mem memory.Allocator, c *event.Column, place []int32) arrow.Array {
	if c.Type.Elem == event.Float64 && !c.Type.List && c.Nulls != nil { // most features are
		return gatherFloat64s(mem, c, place)
	}
	b := array.NewBuilder(mem, arrowType(c.Type))
	defer b.Release()
	b.Reserve(len(place))
	for _, i := range place {
		appendArrow(b, c, int(i))
	}
	return b.NewArray()
}

// gatherFloat64s is buildColumn without a builder's calls per value.
func gatherFloat64s(mem memory.Allocator, c *event.Column, place []int32) arrow.Array {
	values, valid := memory.NewResizableBuffer(mem), memory.NewResizableBuffer(mem)
	defer values.Release()
	defer valid.Release()
	values.Resize(len(place) * arrow.Float64SizeBytes)
	valid.Resize(int(bitutil.BytesForBits(int64(len(place)))))
	out, bits, nulls := arrow.Float64Traits.CastFromBytes(values.Bytes()), valid.Bytes(), 0
	clear(bits)
	for i, from := range place {
		out[i] = c.Float64s[from]
		bits[i>>3] |= (c.Nulls[from] ^ 1) << (i & 7)
		nulls += int(c.Nulls[from])
	}
	data := array.NewData(arrow.PrimitiveTypes.Float64, len(place), []*memory.Buffer{valid, values}, nil, nulls, 0)
	defer data.Release()
	return array.NewFloat64Data(data)
}

func appendArrow(b array.Builder, c *event.Column, i int) {
	if l, ok := b.(*array.ListBuilder); ok {
		from, end := c.Span(i)
		if from == end {
			l.AppendNull()
			return
		}
		l.Append(true)
		for j := from; j < end; j++ {
			appendArrow(l.ValueBuilder(), c.Items, int(j))
		}
		return
	}
	if c.Null(i) {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(c.Bools[i] != 0)
	case *array.Int32Builder:
		b.Append(c.Int32s[i])
	case *array.Int64Builder:
		b.Append(c.Int64s[i])
	case *array.Float32Builder:
		b.Append(c.Float32s[i])
	case *array.Float64Builder:
		b.Append(c.Float64s[i])
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(c.Int64s[i]))
	case *array.BinaryBuilder:
		b.Append(c.Str(i))
	case *array.StringBuilder:
		b.Append(string(c.Str(i)))
	default:
		b.AppendNull()
	}
}

// appendTimes reads a frame's time column as µs. first is the number of the
// first row, for errors.
func appendTimes(dst []int64, a arrow.Array, first int) ([]int64, error) {
	for i := range a.Len() {
		t, ok := int64(0), !a.IsNull(i)
		if ok {
			t, ok = timeAt(a, i)
		}
		if !ok {
			return dst, badRequest("entity frame row %d: %s is no time: want a timestamp, or ISO 8601 text", first+i, valueText(a, i))
		}
		dst = append(dst, t)
	}
	return dst, nil
}

// timeAt reads a timestamp of any unit, a date, or ISO text. A bare integer has
// no unit and is none.
func timeAt(a arrow.Array, i int) (int64, bool) {
	switch a := a.(type) {
	case *array.Timestamp:
		v := int64(a.Value(i))
		switch a.DataType().(*arrow.TimestampType).Unit {
		case arrow.Second:
			return v * 1_000_000, v < math.MaxInt64/1_000_000 && v > math.MinInt64/1_000_000
		case arrow.Millisecond:
			return v * 1_000, v < math.MaxInt64/1_000 && v > math.MinInt64/1_000
		case arrow.Nanosecond:
			return floorDiv(v, 1_000), true
		}
		return v, true
	case *array.Date32:
		return int64(a.Value(i)) * 86400_000_000, true
	case *array.Date64:
		return int64(a.Value(i)) * 1_000, true
	case array.StringLike:
		t, err := looseTime(a.Value(i))
		return t, err == nil
	case *array.Dictionary:
		return timeAt(a.Dictionary(), a.GetValueIndex(i))
	}
	return 0, false
}

func valueText(a arrow.Array, i int) string {
	s := fmt.Sprintf("%.80s", a.ValueStr(i))
	if a.IsNull(i) {
		s = "null"
	}
	return s + " (" + a.DataType().String() + ")"
}

// appendKeys reads a frame's column as a key column.
func appendKeys(dst *event.Column, a arrow.Array, name string, first int) error {
	for i := range a.Len() {
		if a.IsNull(i) {
			return badRequest("entity frame row %d: join key %s is null: a key has no null", first+i, name)
		}
		if !appendKeyValue(dst, a, i) {
			return badRequest("entity frame row %d: join key %s: %s is no %s", first+i, name, valueText(a, i), dst.Type)
		}
	}
	return nil
}

func appendKeyValue(dst *event.Column, a arrow.Array, i int) bool {
	if d, ok := a.(*array.Dictionary); ok {
		return appendKeyValue(dst, d.Dictionary(), d.GetValueIndex(i))
	}
	switch dst.Type.Elem {
	case event.Int32, event.Int64:
		v, ok := integerAt(a, i)
		if dst.Type.Elem == event.Int32 {
			dst.Int32s = append(dst.Int32s, int32(v))
			return ok && v == int64(int32(v))
		}
		dst.Int64s = append(dst.Int64s, v)
		return ok
	case event.Bool:
		b, ok := a.(*array.Boolean)
		if ok {
			dst.AppendBool(b.Value(i))
		}
		return ok
	case event.Timestamp:
		t, ok := timeAt(a, i)
		dst.AppendInt64(t)
		return ok
	}
	switch a := a.(type) {
	case array.StringLike:
		dst.AppendBytes([]byte(a.Value(i)))
		return true
	case *array.Binary:
		dst.AppendBytes(a.Value(i))
		return true
	}
	return false
}

// integerAt reads any integer, and a float that is one.
func integerAt(a arrow.Array, i int) (int64, bool) {
	switch a := a.(type) {
	case *array.Int64:
		return a.Value(i), true
	case *array.Int32:
		return int64(a.Value(i)), true
	case *array.Int16:
		return int64(a.Value(i)), true
	case *array.Int8:
		return int64(a.Value(i)), true
	case *array.Uint32:
		return int64(a.Value(i)), true
	case *array.Uint16:
		return int64(a.Value(i)), true
	case *array.Uint8:
		return int64(a.Value(i)), true
	case *array.Uint64:
		return int64(a.Value(i)), a.Value(i) <= math.MaxInt64
	case *array.Float64:
		f := a.Value(i)
		return int64(f), float64(int64(f)) == f && math.Abs(f) <= 1<<53
	}
	return 0, false
}

// nativeAt reads a frame's value as expressions see it.
func nativeAt(a arrow.Array, i int, t event.ColumnType) (any, bool) {
	if a.IsNull(i) {
		return nil, true
	}
	if d, ok := a.(*array.Dictionary); ok {
		return nativeAt(d.Dictionary(), d.GetValueIndex(i), t)
	}
	switch t.Elem {
	case event.Int32, event.Int64:
		return integerAt(a, i)
	case event.Timestamp:
		return timeAt(a, i)
	case event.Float32, event.Float64:
		if f, ok := a.(*array.Float32); ok {
			return float64(f.Value(i)), true
		}
		if f, ok := a.(*array.Float64); ok {
			return f.Value(i), true
		}
		n, ok := integerAt(a, i)
		return float64(n), ok
	case event.Bool:
		b, ok := a.(*array.Boolean)
		return ok && b.Value(i), ok
	}
	s, ok := a.(array.StringLike)
	if !ok {
		return nil, false
	}
	return s.Value(i), true
}

// derive computes an on-demand feature for entity rows.
func (c *chunk) derive(p *historyPlan, h *historyColumn, r arrow.RecordBatch, from, n int) (arrow.Array, error) {
	od := h.derived.view
	col := newColumn(h.typ, true)
	place := make([]int32, n)
	inputs, request := make([]any, len(h.inputs)), map[string]any{}
	for row := range n {
		place[row] = int32(row)
		for i, in := range h.inputs {
			j := c.joined[in[0]]
			inputs[i] = nativeValue(&j.columns[in[1]], int(j.place[from+row]))
		}
		for _, f := range od.spec.Request {
			x, ok := nativeAt(r.Column(p.request[f.Name]), row, f.Type)
			if !ok {
				return nil, badRequest("entity frame row %d: request value %s: %s is not %s", from+row, f.Name, valueText(r.Column(p.request[f.Name]), row), f.Type)
			}
			request[f.Name] = x
		}
		x, err := od.eval(h.derived.feature, inputs, request)
		if err != nil {
			return nil, err
		}
		out, ok := convertDerived(x, h.typ)
		if !ok || !appendNative(&col, out) {
			return nil, badRequest("On-demand feature %s:%s: the expression gave %T, want %s", od.name, h.name, x, h.typ)
		}
	}
	return buildColumn(p.memory, &col, place), nil
}

// nativeValue is a column's value as expressions see it: nil for null.
func nativeValue(c *event.Column, i int) any {
	if c.Type.List {
		from, end := c.Span(i)
		if from == end {
			return nil
		}
		list := make([]any, 0, end-from)
		for j := from; j < end; j++ {
			list = append(list, nativeValue(c.Items, int(j)))
		}
		return list
	}
	switch {
	case c.Null(i):
		return nil
	case fixedWidth(c.Type) < 0:
		return string(c.Str(i))
	}
	return nativeNumber(c.Type.Elem, columnNumber(c, i))
}

// appendNative appends what an expression gave.
func appendNative(c *event.Column, x any) bool {
	switch x := x.(type) {
	case nil:
		c.AppendNull()
	case float64:
		appendNumber(c, number{float: true, f: x})
		appendNotNull(c)
	case int64:
		appendNumber(c, number{i: x})
		appendNotNull(c)
	case bool:
		c.AppendBool(x)
	case string:
		c.AppendBytes([]byte(x))
	case []any:
		for _, e := range x {
			if !appendNative(c.Items, e) {
				return false
			}
		}
		c.Ends = append(c.Ends, uint64(c.Items.Len()))
	default:
		return false
	}
	return true
}
