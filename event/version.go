package event

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/event/expression"
)

// FormerSpec is a version of a view that was, and how a row of it becomes a row
// of the version after it.
type FormerSpec struct {
	Version int         `json:"version" yaml:"version"`
	Columns []FieldSpec `json:"columns" yaml:"columns"`
	// Convert gives columns of the next version by expressions over this one's. A
	// column that is not listed keeps its value where this version has one of the
	// same name and type (or Int64 for Float64), and is null elsewhere.
	Convert map[string]string `json:"convert,omitempty" yaml:"convert,omitempty"`
}

// MaxViewVersion bounds the versions of a view.
const MaxViewVersion = 999

const viewVersionShift = 40

// ViewTableID is the table id of one version of a view.
func ViewTableID(uid uint64, version int) uint64 {
	return uid | uint64(max(version, 1)-1)<<viewVersionShift
}

// ViewUID is the UID of the definition that a view's table id was made of.
func ViewUID(tableID uint64) uint64 { return tableID & (1<<viewVersionShift - 1) }

// ViewVersion is the version that a view's table id was made of.
func ViewVersion(tableID uint64) int { return int(tableID>>viewVersionShift) + 1 }

// Number is the view's version; definitions that say nothing are of the first.
func (s *ViewSpec) Number() int { return max(s.Version, 1) }

func (s *ViewSpec) validateVersions() error {
	var errs []error
	if s.Version < 0 || s.Version > MaxViewVersion {
		errs = append(errs, fmt.Errorf("version: %d: want 1 to %d", s.Version, MaxViewVersion))
	}
	if len(s.Former) > 0 && s.Origin != Declared {
		errs = append(errs, errors.New("former: only a declared view has versions: state origin: declared"))
	}
	for i, f := range s.Former {
		where := fmt.Sprintf("former: version %d", f.Version)
		switch {
		case f.Version < 1 || f.Version >= s.Number():
			errs = append(errs, fmt.Errorf("%s: want one below the view's own, %d", where, s.Number()))
		case i > 0 && f.Version <= s.Former[i-1].Version:
			errs = append(errs, fmt.Errorf("%s: list the oldest first, each once", where))
		}
		errs = append(errs, checkFields(where, f.Columns, Declared))
		if _, err := newConversion(f, s.after(i)); err != nil {
			errs = append(errs, fmt.Errorf("%s: convert: %w", where, err))
		}
	}
	return errors.Join(errs...)
}

// after are the columns that rows of a former version are converted to.
func (s *ViewSpec) after(i int) []FieldSpec {
	if i+1 < len(s.Former) {
		return s.Former[i+1].Columns
	}
	return s.Columns
}

// conversion makes rows of one version rows of the next.
type conversion struct {
	from    []FieldSpec
	columns []converted
}

// converted is one column of the next version.
type converted struct {
	name    string
	typ     ColumnType
	program *expression.Program // nil: as it was
	from    int                 // of the former columns, without a program; -1: null
}

func newConversion(f FormerSpec, to []FieldSpec) (*conversion, error) {
	c := &conversion{from: f.Columns}
	for name := range f.Convert {
		if !slices.ContainsFunc(to, func(t FieldSpec) bool { return t.Name == name }) {
			return nil, fmt.Errorf("%q: the next version has no such column", name)
		}
	}
	for _, t := range to {
		col := converted{name: t.Name, typ: t.Type, from: slices.IndexFunc(f.Columns, func(o FieldSpec) bool { return o.Name == t.Name })}
		if text, ok := f.Convert[t.Name]; ok {
			p, err := expression.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", t.Name, err)
			}
			for _, name := range p.Names() {
				if !slices.ContainsFunc(f.Columns, func(o FieldSpec) bool { return o.Name == name }) {
					return nil, fmt.Errorf("%q: %s: version %d has no column %q", t.Name, p, f.Version, name)
				}
			}
			col.program = p
		} else if col.from >= 0 && !keeps(f.Columns[col.from].Type, t.Type) {
			return nil, fmt.Errorf("%q was %s and is %s: say how, by an expression", t.Name, f.Columns[col.from].Type, t.Type)
		}
		c.columns = append(c.columns, col)
	}
	return c, nil
}

func keeps(from, to ColumnType) bool {
	return from == to || from.List == to.List && from.Elem == Int64 && to.Elem == Float64
}

// convert returns the next version's values, in its columns' order.
func (c *conversion) convert(m *expression.Machine, values []Value) ([]Value, error) {
	m.Clear()
	for i, f := range c.from {
		m.Set(f.Name, Native(values[i]))
	}
	out := make([]Value, len(c.columns))
	for i, col := range c.columns {
		v := Value{}
		switch {
		case col.program != nil:
			res, err := m.Run(col.program)
			if err == nil {
				v, err = FromNative(res)
			}
			if err != nil {
				return nil, fmt.Errorf("column %s: %w", col.name, err)
			}
		case col.from >= 0:
			v = values[col.from]
		}
		var ok bool
		if out[i], ok = v.as(col.typ); !ok {
			return nil, fmt.Errorf("column %s wants %s, its conversion gave %s", col.name, col.typ, v.Type)
		}
	}
	return out, nil
}

// as is the value in a column's type, where nothing of it is lost.
func (v Value) as(t ColumnType) (Value, bool) {
	switch {
	case v.Type == t, v.IsNull() && !t.List:
		return v, true
	case t.List:
		return v.asList(t)
	}
	out := Value{Type: t, Int: v.Int, Float: v.Float, Text: v.Text}
	switch from := v.Type.Elem; t.Elem {
	case Int64, Int32:
		ok := from == Int64 || from == Int32
		if from == Float64 && v.Float == float64(int64(v.Float)) && v.Float > -1<<63 && v.Float < 1<<63 {
			out.Int, out.Float, ok = int64(v.Float), 0, true
		}
		return out, ok && (t.Elem == Int64 || int64(int32(out.Int)) == out.Int)
	case Float64, Float32:
		if from == Int64 || from == Int32 {
			out.Float, out.Int = float64(v.Int), 0
			return out, true
		}
		return out, from == Float64 || from == Float32
	case Bytes, String:
		return out, from == String || from == Bytes
	case Timestamp:
		micros, err := ParseTime([]byte(v.Text))
		out.Int, out.Text = micros, ""
		return out, from == String && err == nil
	case JSON:
		out = Value{Type: t, Text: string(AppendValue(nil, v))}
		return out, true
	}
	return out, false
}

// asList reads the JSON array that an expression's list is.
func (v Value) asList(t ColumnType) (Value, bool) {
	if v.IsNull() {
		return Value{Type: t}, true
	}
	if v.Type.List {
		out := Value{Type: t, List: make([]Value, len(v.List))}
		for i, e := range v.List {
			var ok bool
			if out.List[i], ok = e.as(ColumnType{Elem: t.Elem}); !ok {
				return out, false
			}
		}
		return out, true
	}
	list, ok := listOf(v)
	if !ok {
		return Value{}, false
	}
	return Value{Type: ColumnType{Elem: t.Elem, List: true}, List: list}.asList(t)
}

// Append adds a value of the column's type as a row.
func (c *Column) Append(v Value) {
	if c.Type.List {
		for _, e := range v.List {
			c.Items.Append(e)
		}
		c.endList()
		return
	}
	if v.IsNull() {
		c.AppendNull()
		return
	}
	switch c.Type.Elem {
	case Bool:
		c.AppendBool(v.Int != 0)
	case Int32:
		c.AppendInt32(int32(v.Int))
	case Int64, Timestamp:
		c.AppendInt64(v.Int)
	case Float32:
		c.AppendFloat32(float32(v.Float))
	case Float64:
		c.AppendFloat64(v.Float)
	default:
		c.AppendBytes([]byte(v.Text))
	}
}
