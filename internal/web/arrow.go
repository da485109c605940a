package web

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/query"
)

// writeArrow writes a frame as an Arrow IPC stream of one record batch. Units,
// display names and labels travel as field metadata.
func writeArrow(w io.Writer, f *query.Frame) error {
	fields := make([]arrow.Field, len(f.Columns))
	arrays := make([]arrow.Array, len(f.Columns))
	for i := range f.Columns {
		c := &f.Columns[i]
		arr, err := arrowArray(c)
		if err != nil {
			return fmt.Errorf("column %q: %w", c.Name, err)
		}
		defer arr.Release()
		arrays[i] = arr
		fields[i] = arrow.Field{Name: c.Name, Type: arr.DataType(), Nullable: c.Nullable, Metadata: fieldMeta(c)}
	}
	meta := arrow.NewMetadata([]string{"name", "type"}, []string{f.Name, string(f.Type)})
	schema := arrow.NewSchema(fields, &meta)
	rec := array.NewRecordBatch(schema, arrays, int64(f.Rows()))
	defer rec.Release()
	iw := ipc.NewWriter(w, ipc.WithSchema(schema))
	if err := iw.Write(rec); err != nil {
		return err
	}
	return iw.Close()
}

func fieldMeta(c *query.Column) arrow.Metadata {
	m := map[string]string{}
	if c.Unit != "" {
		m["unit"] = c.Unit
	}
	if c.Display != "" {
		m["display"] = c.Display
	}
	for k, v := range c.Labels {
		m["label:"+k] = v
	}
	return arrow.MetadataFrom(m)
}

func arrowArray(c *query.Column) (arrow.Array, error) {
	mem := memory.DefaultAllocator
	switch v := c.Values.(type) {
	case []time.Time, []*time.Time:
		b := array.NewTimestampBuilder(mem, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"})
		return fill(b, v, func(t time.Time) { b.Append(arrow.Timestamp(t.UnixMicro())) })
	case []float64, []*float64:
		b := array.NewFloat64Builder(mem)
		return fill(b, v, b.Append)
	case []int64, []*int64:
		b := array.NewInt64Builder(mem)
		return fill(b, v, b.Append)
	case []uint64, []*uint64:
		b := array.NewUint64Builder(mem)
		return fill(b, v, b.Append)
	case []string, []*string:
		b := array.NewStringBuilder(mem)
		return fill(b, v, b.Append)
	case []bool, []*bool:
		b := array.NewBooleanBuilder(mem)
		return fill(b, v, b.Append)
	case []json.RawMessage:
		b := array.NewStringBuilder(mem)
		return fill(b, v, func(m json.RawMessage) { b.Append(string(m)) })
	}
	return nil, fmt.Errorf("values of type %T have no Arrow form", c.Values)
}

// fill appends values of []T or []*T and returns the finished array.
func fill[T any](b array.Builder, values any, add func(T)) (arrow.Array, error) {
	defer b.Release()
	switch v := values.(type) {
	case []T:
		b.Reserve(len(v))
		for _, x := range v {
			add(x)
		}
	case []*T:
		b.Reserve(len(v))
		for _, x := range v {
			if x == nil {
				b.AppendNull()
				continue
			}
			add(*x)
		}
	default:
		return nil, fmt.Errorf("values of type %T do not fit", values)
	}
	return b.NewArray(), nil
}
