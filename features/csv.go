package features

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// csvReader reads CSV with a head line. A column's type follows from its first
// frameBatch rows: Int64, Float64, Bool or text; times stay the text they are.
// An empty field is null.
type csvReader struct {
	r      *csv.Reader
	schema *arrow.Schema
	held   [][]string // rows read for the types
	line   int
}

func openCSV(r io.Reader) (*FileFrame, error) {
	c := &csvReader{r: csv.NewReader(r)}
	head, err := c.r.Read()
	if err != nil {
		return nil, badRequest("read the entity frame: could not read the CSV's head line: %w", err)
	}
	head = slices.Clone(head)
	for len(c.held) < frameBatch {
		row, err := c.r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, badRequest("read the entity frame: not CSV: %w", err)
		}
		c.held = append(c.held, row)
	}
	fields := make([]arrow.Field, len(head))
	for i, name := range head {
		fields[i] = arrow.Field{Name: name, Type: csvType(c.held, i), Nullable: true}
	}
	c.schema, c.r.ReuseRecord = arrow.NewSchema(fields, nil), true
	return &FileFrame{schema: c.schema, next: c.next, close: func() error { return nil }}, nil
}

// csvType is the narrowest type that all fields of a column have.
func csvType(rows [][]string, column int) arrow.DataType {
	whole, number, flag, some := true, true, true, false
	for _, row := range rows {
		s := row[column]
		if s == "" {
			continue
		}
		some = true
		_, err := strconv.ParseInt(s, 10, 64)
		whole = whole && err == nil
		_, err = strconv.ParseFloat(s, 64)
		number = number && err == nil
		flag = flag && (s == "true" || s == "false" || s == "True" || s == "False")
		if !whole && !number && !flag {
			break
		}
	}
	switch {
	case !some:
	case whole:
		return arrow.PrimitiveTypes.Int64
	case number:
		return arrow.PrimitiveTypes.Float64
	case flag:
		return arrow.FixedWidthTypes.Boolean
	}
	return arrow.BinaryTypes.String
}

// next reads up to frameBatch rows.
func (c *csvReader) next() (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, c.schema)
	defer b.Release()
	n := 0
	for ; n < frameBatch; n++ {
		row, err := c.row()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = c.append(b, row)
		}
		if err != nil {
			return nil, err
		}
		c.line++
	}
	if n == 0 {
		return nil, io.EOF
	}
	return b.NewRecordBatch(), nil
}

func (c *csvReader) row() ([]string, error) {
	if len(c.held) > 0 {
		row := c.held[0]
		c.held = c.held[1:]
		return row, nil
	}
	return c.r.Read()
}

func (c *csvReader) append(b *array.RecordBuilder, row []string) error {
	for i, s := range row {
		if s == "" {
			b.Field(i).AppendNull()
			continue
		}
		var err error
		switch b := b.Field(i).(type) {
		case *array.Int64Builder:
			var v int64
			v, err = strconv.ParseInt(s, 10, 64)
			b.Append(v)
		case *array.Float64Builder:
			var v float64
			v, err = strconv.ParseFloat(s, 64)
			b.Append(v)
		case *array.BooleanBuilder:
			var v bool
			v, err = strconv.ParseBool(s)
			b.Append(v)
		case *array.StringBuilder:
			b.Append(s)
		}
		if err != nil {
			return badRequest("entity frame row %d: column %s: %q is no %s, which the first rows say it is", c.line, c.schema.Field(i).Name, s, c.schema.Field(i).Type)
		}
	}
	return nil
}
