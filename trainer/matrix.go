package trainer

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Field describes one input before any row was read.
type Field struct {
	Name        string
	Type        string // as definitions spell it: Bool, Int64, Float64, String, Timestamp, …
	View        string // where the feature comes from, for the signature
	ViewVersion uint64
	Category    bool // treat numbers as categories; String and Bool columns are anyway
	Monotone    int  // +1: the prediction may only rise with it; -1: only fall
}

// Categorical reports whether the field's values are categories.
func (f Field) Categorical() bool { return f.Category || f.Type == "String" }

// Column is one input of a [Matrix].
type Column struct {
	Field
	Values     []float32 // NaN is missing; codes for a categorical column
	Categories []string  // value of each code
	Other      bool      // the last category stands for all rarer ones
}

// Matrix is a training set, column by column. Its rows may lie in any order;
// Time says when each was true.
type Matrix struct {
	Columns []Column
	Label   []float32 // a class code or a value
	Classes []string  // of the label's codes; nil for a number
	Weight  []float32 // nil: every row weighs 1
	Time    []int64   // event time, microseconds; nil if unknown
	Digest  string    // of the rows as they were read, whatever their order
}

// Rows is the number of rows.
func (m *Matrix) Rows() int { return len(m.Label) }

// Column returns a column by name, or nil.
func (m *Matrix) Column(name string) *Column {
	i := slices.IndexFunc(m.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &m.Columns[i]
}

// Select copies some rows into a matrix of their own.
func (m *Matrix) Select(rows []int) *Matrix {
	out := &Matrix{Classes: m.Classes, Digest: m.Digest}
	out.Label = pick(m.Label, rows)
	out.Weight = pick(m.Weight, rows)
	out.Time = pick(m.Time, rows)
	out.Columns = make([]Column, len(m.Columns))
	for i, c := range m.Columns {
		c.Values = pick(c.Values, rows)
		out.Columns[i] = c
	}
	return out
}

func pick[T any](v []T, rows []int) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}

// Row copies one row into dst, which has one place per column.
func (m *Matrix) Row(dst []float32, row int) {
	for i := range m.Columns {
		dst[i] = m.Columns[i].Values[row]
	}
}

// RowMajor copies rows one behind the other, as predictors take them.
func (m *Matrix) RowMajor(rows []int) []float32 {
	f := len(m.Columns)
	out := make([]float32, len(rows)*f)
	for c := range m.Columns {
		v := m.Columns[c].Values
		for i, r := range rows {
			out[i*f+c] = v[r]
		}
	}
	return out
}

// all lists every row.
func (m *Matrix) all() []int {
	out := make([]int, m.Rows())
	for i := range out {
		out[i] = i
	}
	return out
}

// weight is a row's weight.
func (m *Matrix) weight(row int) float64 {
	if m.Weight == nil {
		return 1
	}
	return float64(m.Weight[row])
}

// Split cuts a matrix by time: rows before TrainTo are trained on, rows before
// ValidTo choose rounds and parameters, the rest tests. Rows of one moment
// never part.
type Split struct{ TrainTo, ValidTo time.Time }

// SplitByShare finds the [Split] that puts about the given shares of the rows
// into training and validation.
func SplitByShare(m *Matrix, train, valid float64) (Split, error) {
	if m.Time == nil {
		return Split{}, fmt.Errorf("%w: split by time: the rows have no event time", ErrParam)
	}
	if !(train > 0 && valid >= 0 && train+valid <= 1) {
		return Split{}, fmt.Errorf("%w: split shares %v and %v", ErrParam, train, valid)
	}
	if m.Rows() == 0 {
		return Split{}, ErrNoRows
	}
	sorted := slices.Clone(m.Time)
	slices.Sort(sorted)
	at := func(share float64) time.Time {
		i := int(math.Round(share * float64(len(sorted))))
		if i >= len(sorted) {
			return time.UnixMicro(sorted[len(sorted)-1] + 1)
		}
		return time.UnixMicro(sorted[i])
	}
	return Split{TrainTo: at(train), ValidTo: at(train + valid)}, nil
}

// Apply cuts the matrix. A part may be empty.
func (s Split) Apply(m *Matrix) (train, valid, test *Matrix, err error) {
	if m.Time == nil {
		return nil, nil, nil, fmt.Errorf("%w: split by time: the rows have no event time", ErrParam)
	}
	var parts [3][]int
	a, b := s.TrainTo.UnixMicro(), s.ValidTo.UnixMicro()
	for r, t := range m.Time {
		switch {
		case t < a:
			parts[0] = append(parts[0], r)
		case t < b:
			parts[1] = append(parts[1], r)
		default:
			parts[2] = append(parts[2], r)
		}
	}
	return m.Select(parts[0]), m.Select(parts[1]), m.Select(parts[2]), nil
}
