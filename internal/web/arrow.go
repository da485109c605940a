package web

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/query"
)

// writeArrow writes a frame as an Arrow IPC stream of one record batch. What a
// frame and its columns say of themselves beside their values travels as
// metadata: name, type, revision and notices of the schema; type, unit, display,
// thresholds and labels ("label:NAME") of its fields.
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
		m, err := fieldMeta(c)
		if err != nil {
			return fmt.Errorf("column %q: %w", c.Name, err)
		}
		fields[i] = arrow.Field{Name: c.Name, Type: arr.DataType(), Nullable: c.Nullable, Metadata: m}
	}
	meta, err := frameMeta(f)
	if err != nil {
		return err
	}
	schema := arrow.NewSchema(fields, &meta)
	rec := array.NewRecordBatch(schema, arrays, int64(f.Rows()))
	defer rec.Release()
	iw := ipc.NewWriter(w, ipc.WithSchema(schema))
	if err := iw.Write(rec); err != nil {
		return err
	}
	return iw.Close()
}

func frameMeta(f *query.Frame) (arrow.Metadata, error) {
	m := map[string]string{"name": f.Name, "type": string(f.Type)}
	if f.Revision > 0 {
		m["revision"] = strconv.FormatUint(f.Revision, 10)
	}
	if len(f.Notices) > 0 {
		b, err := json.Marshal(f.Notices)
		if err != nil {
			return arrow.Metadata{}, err
		}
		m["notices"] = string(b)
	}
	return arrow.MetadataFrom(m), nil
}

func fieldMeta(c *query.Column) (arrow.Metadata, error) {
	m := map[string]string{"type": string(c.Type)}
	if c.Unit != "" {
		m["unit"] = c.Unit
	}
	if c.Display != "" {
		m["display"] = c.Display
	}
	if len(c.Thresholds) > 0 {
		b, err := json.Marshal(c.Thresholds)
		if err != nil {
			return arrow.Metadata{}, err
		}
		m["thresholds"] = string(b)
	}
	for k, v := range c.Labels {
		m["label:"+k] = v
	}
	return arrow.MetadataFrom(m), nil
}

// noValues are the values of a column that has none.
func noValues(t query.ColumnType) any {
	switch t {
	case query.Time:
		return []time.Time{}
	case query.Float:
		return []float64{}
	case query.Int:
		return []int64{}
	case query.Uint:
		return []uint64{}
	case query.Bool:
		return []bool{}
	}
	return []string{}
}

func arrowArray(c *query.Column) (arrow.Array, error) {
	mem, values := memory.DefaultAllocator, c.Values
	if values == nil {
		values = noValues(c.Type)
	}
	switch v := values.(type) {
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
