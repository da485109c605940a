package trainer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/kedge-ml/kedge/event/parquetfile"
)

// ReadParquet reads a Parquet file of flat columns.
func ReadParquet(r io.ReaderAt, size int64, t Table, cfg BuilderConfig) (m *Matrix, err error) {
	defer func() { // damaged files make the library panic
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("read Parquet: the file is damaged: %v", p)
		}
	}()
	f, err := parquetfile.Open(r, size)
	if err != nil {
		return nil, fmt.Errorf("read Parquet: %w", err)
	}
	p := &parquetTable{Table: t}
	if err := p.begin(f.Schema(), cfg); err != nil {
		return nil, err
	}
	for _, g := range f.RowGroups() {
		if err := p.group(g); err != nil {
			return nil, fmt.Errorf("read Parquet: %w", err)
		}
	}
	return p.builder.Matrix()
}

// parquetTable reads one file; columns are by their index in the schema.
type parquetTable struct {
	Table
	columns []parquetColumn
	label   int
	weight  int
	time    int
	unit    time.Duration
	inputs  []int
	builder *Builder
	rows    int
}

type parquetColumn struct {
	name string
	kind string // as definitions spell it
}

func (p *parquetTable) begin(s *parquet.Schema, cfg BuilderConfig) error {
	p.label, p.weight, p.time = -1, -1, -1
	var fields []Field
	labelType := ""
	for i, f := range s.Fields() {
		kind, err := parquetType(f)
		if err != nil && !slices.Contains(p.Drop, f.Name()) {
			return err
		}
		p.columns = append(p.columns, parquetColumn{f.Name(), kind})
		switch {
		case slices.Contains(p.Drop, f.Name()):
		case f.Name() == p.Label:
			p.label, labelType = i, kind
		case p.Weight != "" && f.Name() == p.Weight:
			p.weight = i
		case p.Time != "" && f.Name() == p.Time:
			p.time, p.unit = i, timestampUnit(f)
		default:
			p.inputs = append(p.inputs, i)
			fields = append(fields, p.field(f.Name(), kind))
		}
	}
	if p.label < 0 || p.weight < 0 && p.Weight != "" || p.time < 0 && p.Time != "" {
		return fmt.Errorf("%w: the file has no column %q, %q or %q", ErrParam, p.Label, p.Weight, p.Time)
	}
	if p.time >= 0 && p.unit == 0 {
		return fmt.Errorf("%w: column %q is no timestamp: a bare integer has no unit", ErrType, p.Time)
	}
	var err error
	p.builder, err = NewBuilder(fields, labelType, cfg)
	return err
}

// parquetType maps a leaf onto the type that definitions spell.
func parquetType(f parquet.Field) (string, error) {
	if !f.Leaf() || f.Repeated() {
		return "", fmt.Errorf("%w: column %q is nested: leave it out, or derive numbers from it", ErrType, f.Name())
	}
	switch f.Type().Kind() {
	case parquet.Boolean:
		return "Bool", nil
	case parquet.Int32, parquet.Int64:
		return "Int64", nil
	case parquet.Float, parquet.Double:
		return "Float64", nil
	case parquet.ByteArray:
		return "String", nil
	}
	return "", fmt.Errorf("%w: column %q has the Parquet type %s", ErrType, f.Name(), f.Type())
}

// timestampUnit is 0 for a column that is no timestamp.
func timestampUnit(f parquet.Field) time.Duration {
	l := f.Type().LogicalType()
	if l == nil {
		return 0
	}
	t, ok := l.Value.(*format.TimestampType)
	if !ok || t.Unit.Value == nil {
		return 0
	}
	return t.Unit.Value.Duration()
}

func (p *parquetTable) group(g parquet.RowGroup) error {
	rows := g.Rows()
	defer rows.Close()
	buf := make([]parquet.Row, chunkRows)
	for {
		n, err := rows.ReadRows(buf)
		if n > 0 {
			if err := p.add(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *parquetTable) add(rows []parquet.Row) error {
	chunk := Chunk{Columns: make([]ChunkColumn, len(p.inputs)), Time: p.times(p.rows, len(rows))}
	for i, column := range p.inputs {
		chunk.Columns[i] = p.column(rows, column)
	}
	chunk.Label = p.column(rows, p.label)
	if p.weight >= 0 {
		chunk.Weight = p.column(rows, p.weight).Numbers
	}
	if p.time >= 0 {
		for _, r := range rows {
			chunk.Time = append(chunk.Time, int64(time.Duration(r[p.time].Int64())*p.unit/time.Microsecond))
		}
	}
	p.rows += len(rows)
	return p.builder.Append(chunk)
}

// column takes one column out of rows. Flat schemas have one value per column
// and row, in order.
func (p *parquetTable) column(rows []parquet.Row, column int) (out ChunkColumn) {
	texts := p.columns[column].kind == "String"
	for _, r := range rows {
		v := r[column]
		switch {
		case texts:
			out.Texts = append(out.Texts, string(v.ByteArray()))
			out.Missing = append(out.Missing, v.IsNull())
		case v.IsNull():
			out.Numbers = append(out.Numbers, math.NaN())
		default:
			out.Numbers = append(out.Numbers, parquetNumber(v))
		}
	}
	return out
}

func parquetNumber(v parquet.Value) float64 {
	switch v.Kind() {
	case parquet.Boolean:
		if v.Boolean() {
			return 1
		}
		return 0
	case parquet.Int32:
		return float64(v.Int32())
	case parquet.Int64:
		return float64(v.Int64())
	case parquet.Float:
		return float64(v.Float())
	}
	return v.Double()
}

// Names that the extra columns of a written matrix have.
const (
	labelColumn  = "__label"
	weightColumn = "__weight"
	timeColumn   = "__time"
)

// WriteParquet writes a matrix: inputs by name (missing is null), then __label,
// __weight and __time where the matrix has them. Categories and classes are
// texts, or with codes the numbers that the model will be served with.
func WriteParquet(w io.Writer, m *Matrix, codes bool) error {
	if codes {
		m = coded(m)
	}
	schema := parquet.NewSchema("matrix", matrixSchema(m))
	out := parquet.NewWriter(w, schema, parquet.Compression(&parquet.Snappy))
	order := make(map[string]int)
	for i, c := range schema.Columns() {
		order[c[0]] = i
	}
	rows := make([]parquet.Row, 0, chunkRows)
	for r := range m.Rows() {
		rows = append(rows, matrixRow(m, r, order))
		if len(rows) == cap(rows) || r == m.Rows()-1 {
			if _, err := out.WriteRows(rows); err != nil {
				return fmt.Errorf("write Parquet: %w", err)
			}
			rows = rows[:0]
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return nil
}

// coded is the matrix with codes for plain numbers.
func coded(m *Matrix) *Matrix {
	out := *m
	out.Classes = nil
	out.Columns = slices.Clone(m.Columns)
	for i := range out.Columns {
		c := &out.Columns[i]
		c.Field = Field{Name: c.Name, Type: "Float64"}
	}
	return &out
}

func matrixSchema(m *Matrix) parquet.Group {
	g := parquet.Group{labelColumn: parquet.Leaf(parquet.FloatType)}
	if m.Classes != nil {
		g[labelColumn] = parquet.String()
	}
	if m.Weight != nil {
		g[weightColumn] = parquet.Leaf(parquet.FloatType)
	}
	if m.Time != nil {
		g[timeColumn] = parquet.Timestamp(parquet.Microsecond)
	}
	for i := range m.Columns {
		c := &m.Columns[i]
		leaf := parquet.Leaf(parquet.FloatType)
		if c.Categorical() {
			leaf = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
		}
		g[c.Name] = parquet.Optional(leaf)
	}
	return g
}

func matrixRow(m *Matrix, r int, order map[string]int) parquet.Row {
	row := make(parquet.Row, len(order))
	for i := range m.Columns {
		c := &m.Columns[i]
		at := order[c.Name]
		switch v := c.Values[r]; {
		case v != v:
			row[at] = parquet.NullValue().Level(0, 0, at)
		case c.Categorical():
			row[at] = parquet.ValueOf(c.Categories[int(v)]).Level(0, 1, at)
		default:
			row[at] = parquet.ValueOf(v).Level(0, 1, at)
		}
	}
	put := func(name string, v any) {
		at := order[name]
		row[at] = parquet.ValueOf(v).Level(0, 0, at)
	}
	if m.Classes != nil {
		put(labelColumn, m.Classes[int(m.Label[r])])
	} else {
		put(labelColumn, m.Label[r])
	}
	if m.Weight != nil {
		put(weightColumn, m.Weight[r])
	}
	if m.Time != nil {
		put(timeColumn, m.Time[r])
	}
	return row
}
