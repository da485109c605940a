package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/parquetfile"
)

// parquetFile reads Parquet. Nested columns are flattened ("a.b"); lists of
// scalars become lists; what is nested deeper is refused when the file opens.
type parquetFile struct {
	file    *parquet.File
	columns []parquetColumn
}

type parquetColumn struct {
	name    string
	list    bool
	present int // definition level at which a list has an element, even a null one
	value   func(parquet.Value) (event.Value, error)
}

func newParquet(r io.ReaderAt, size int64, f Format) (p *parquetFile, err error) {
	defer recovered(&err)
	file, err := parquetfile.Open(r, size)
	if err != nil {
		return nil, damaged(err)
	}
	p = &parquetFile{file: file}
	for _, path := range file.Schema().Columns() {
		leaf, ok := file.Schema().Lookup(path...)
		if !ok {
			return nil, fmt.Errorf("column %s: not in the file's schema", strings.Join(path, "."))
		}
		c, err := newParquetColumn(path, leaf, f)
		if err != nil {
			return nil, err
		}
		p.columns = append(p.columns, c)
	}
	return p, nil
}

// damaged explains what the library found wrong with a file.
func damaged(err error) error {
	return fmt.Errorf("not a whole Parquet file (truncated, damaged or another format): %w", err)
}

// recovered turns a panic of the Parquet library, which damaged files can
// cause, into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = damaged(fmt.Errorf("%v", r))
	}
}

func newParquetColumn(path []string, leaf parquet.LeafColumn, f Format) (parquetColumn, error) {
	name := columnName(path)
	c := parquetColumn{name: name, list: leaf.MaxRepetitionLevel == 1}
	if leaf.MaxRepetitionLevel > 1 {
		return c, fmt.Errorf("column %s holds lists of lists, which cannot be read", name)
	}
	c.present = int(leaf.MaxDefinitionLevel)
	if c.list && leaf.Node.Optional() {
		c.present--
	}
	var err error
	c.value, err = converter(leaf.Node.Type(), f.Columns[name].Elem)
	if err != nil {
		return c, fmt.Errorf("column %s: %w", name, err)
	}
	return c, nil
}

// columnName joins a path; the two steps that lists add to it are left out.
func columnName(path []string) string {
	if n := len(path); n >= 3 && path[n-2] == "list" && (path[n-1] == "element" || path[n-1] == "item") {
		path = path[:n-2]
	}
	return strings.Join(path, ".")
}

func (p *parquetFile) total() int64 { return p.file.NumRows() }

func (p *parquetFile) read(yield func(Row, error) bool) {
	index := int64(0)
	stopped := false
	for _, group := range p.file.RowGroups() {
		err := p.group(group, &index, func(row Row, bad error) bool {
			stopped = !yield(row, bad)
			return !stopped
		})
		if stopped {
			return
		}
		if err != nil {
			yield(Row{Index: index}, err)
			return
		}
	}
	if index != p.total() {
		yield(Row{Index: index}, damaged(fmt.Errorf("it has %d rows and states %d", index, p.total())))
	}
}

func (p *parquetFile) group(group parquet.RowGroup, index *int64, yield func(Row, error) bool) error {
	rows, err := openRows(group)
	if err != nil {
		return err
	}
	defer rows.Close() // read only: what was read is read
	buf := make([]parquet.Row, 256)
	fields := make([]event.NamedValue, len(p.columns))
	for i, c := range p.columns {
		fields[i].Name = c.name
	}
	for {
		n, err := readRows(rows, buf)
		for _, row := range buf[:n] {
			bad := p.fill(fields, row)
			if bad != nil {
				bad = RowError{*index, bad}
			}
			if !yield(Row{Index: *index, Fields: fields}, bad) {
				return nil
			}
			*index++
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return damaged(err)
		case n == 0:
			return damaged(io.ErrNoProgress)
		}
	}
}

func openRows(group parquet.RowGroup) (rows parquet.Rows, err error) {
	defer recovered(&err)
	return group.Rows(), nil
}

func readRows(rows parquet.Rows, buf []parquet.Row) (n int, err error) {
	defer recovered(&err)
	return rows.ReadRows(buf)
}

func (p *parquetFile) fill(fields []event.NamedValue, row parquet.Row) error {
	for i := range fields {
		fields[i].Value = event.Value{}
	}
	for _, v := range row {
		i := v.Column()
		if i < 0 || i >= len(p.columns) {
			return fmt.Errorf("a value names column %d of %d", i, len(p.columns))
		}
		c := &p.columns[i]
		x := event.Value{}
		if !v.IsNull() {
			var err error
			if x, err = c.value(v); err != nil {
				return fmt.Errorf("column %s: %w", c.name, err)
			}
		}
		c.store(&fields[i].Value, x, v)
	}
	return nil
}

func (c *parquetColumn) store(to *event.Value, x event.Value, v parquet.Value) {
	switch {
	case !c.list:
		*to = x
	case v.DefinitionLevel() >= c.present:
		to.List = append(to.List, x)
		to.Type.List = true
		if !x.IsNull() {
			to.Type.Elem = x.Type.Elem
		}
	}
}

// converter returns how a column's values are read, by its logical type.
func converter(t parquet.Type, stated event.Type) (func(parquet.Value) (event.Value, error), error) {
	var logical format.LogicalTypeValue
	if l := t.LogicalType(); l != nil {
		logical = l.Value
	}
	switch l := logical.(type) {
	case *format.TimestampType:
		return timestamp(l), nil
	case *format.DateType:
		return func(v parquet.Value) (event.Value, error) {
			return event.Time(int64(v.Int32()) * unitMicros("day")), nil
		}, nil
	case *format.DecimalType:
		return decimal(t.Kind(), int(l.Scale)), nil
	case *format.UUIDType:
		return func(v parquet.Value) (event.Value, error) {
			id, err := uuid.FromBytes(v.ByteArray())
			return event.Text(id.String()), err
		}, nil
	case *format.IntType:
		if !l.IsSigned {
			return unsigned, nil
		}
	case *format.Float16Type:
		return nil, errors.New("16-bit floats cannot be read")
	}
	return plainConverter(t.Kind(), logical, stated)
}

func timestamp(l *format.TimestampType) func(parquet.Value) (event.Value, error) {
	divide, multiply := int64(1), int64(1)
	switch l.Unit.Value.(type) {
	case *format.NanoSeconds:
		divide = 1000
	case *format.MilliSeconds:
		multiply = 1000
	}
	return func(v parquet.Value) (event.Value, error) {
		t := floorDiv(v.Int64(), divide)
		if t > event.MaxTime/multiply || t < event.MinTime/multiply {
			return event.Value{}, fmt.Errorf("the time %d lies outside the years 1900 to 2299", v.Int64())
		}
		return event.Time(t * multiply), nil
	}
}

func unsigned(v parquet.Value) (event.Value, error) {
	if v.Kind() == parquet.Int32 {
		return event.Int(int64(v.Uint32())), nil
	}
	if u := v.Uint64(); u>>63 != 0 {
		return event.Value{}, fmt.Errorf("%d is beyond 64 bits with a sign", u)
	}
	return event.Int(v.Int64()), nil
}

func decimal(kind parquet.Kind, scale int) func(parquet.Value) (event.Value, error) {
	return func(v parquet.Value) (event.Value, error) {
		digits := ""
		switch kind {
		case parquet.Int32:
			digits = strconv.FormatInt(int64(v.Int32()), 10)
		case parquet.Int64:
			digits = strconv.FormatInt(v.Int64(), 10)
		default:
			digits = bigEndian(v.ByteArray()).String()
		}
		f, err := strconv.ParseFloat(digits+"e-"+strconv.Itoa(scale), 64)
		return event.Float(f), err
	}
}

// bigEndian reads a two's complement integer.
func bigEndian(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

func plainConverter(kind parquet.Kind, logical format.LogicalTypeValue, stated event.Type) (func(parquet.Value) (event.Value, error), error) {
	switch kind {
	case parquet.Boolean:
		return func(v parquet.Value) (event.Value, error) { return event.Flag(v.Boolean()), nil }, nil
	case parquet.Int32:
		return func(v parquet.Value) (event.Value, error) { return event.Int(int64(v.Int32())), nil }, nil
	case parquet.Int64:
		return func(v parquet.Value) (event.Value, error) { return event.Int(v.Int64()), nil }, nil
	case parquet.Int96:
		return int96, nil
	case parquet.Float:
		return func(v parquet.Value) (event.Value, error) {
			return event.Value{Type: event.ColumnType{Elem: event.Float32}, Float: float64(v.Float())}, nil
		}, nil
	case parquet.Double:
		return func(v parquet.Value) (event.Value, error) { return event.Float(v.Double()), nil }, nil
	}
	switch logical.(type) {
	case *format.JsonType:
		return func(v parquet.Value) (event.Value, error) {
			return event.Value{Type: event.ColumnType{Elem: event.JSON}, Text: string(v.ByteArray())}, nil
		}, nil
	case *format.StringType, *format.EnumType:
		return text, nil
	}
	if stated == event.String {
		return text, nil
	}
	return func(v parquet.Value) (event.Value, error) {
		return event.Value{Type: event.ColumnType{Elem: event.Bytes}, Text: string(v.ByteArray())}, nil
	}, nil
}

func text(v parquet.Value) (event.Value, error) {
	if !utf8.Valid(v.ByteArray()) {
		return event.Value{}, errors.New("is not valid UTF-8")
	}
	return event.Text(string(v.ByteArray())), nil
}

// int96 reads the old timestamp: nanoseconds of the day, then the Julian day.
func int96(v parquet.Value) (event.Value, error) {
	var b [12]byte
	for i, w := range v.Int96() {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	const epoch = 2440588 // Julian day of 1970-01-01
	nanos := int64(binary.LittleEndian.Uint64(b[:8]))
	day := int64(binary.LittleEndian.Uint32(b[8:])) - epoch
	return event.Time(day*unitMicros("day") + floorDiv(nanos, 1000)), nil
}
