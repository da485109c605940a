package xgb

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Data is a training or evaluation set. Values are column-major: value of row
// r and column c at c*Rows+r; NaN is missing.
type Data struct {
	Rows, Columns int
	Values        []float32
	Label         []float32 // empty for a set that is only predicted
	Weight        []float32 // empty: all rows weigh 1
	Names         []string  // empty, or one per column
	Types         []string  // empty, or one per column: "q" a quantity, "c" a category
	Threads       int       // 0: the library decides
}

// Matrix is a DMatrix. Free it; it does not need the data any more.
type Matrix struct {
	l    *Library
	h    uintptr
	rows int
}

// NewMatrix copies data into the library.
func (l *Library) NewMatrix(d Data) (*Matrix, error) {
	if d.Rows <= 0 || d.Columns <= 0 || len(d.Values) != d.Rows*d.Columns {
		return nil, fmt.Errorf("xgboost matrix: %d×%d values in a slice of %d", d.Rows, d.Columns, len(d.Values))
	}
	m := &Matrix{l: l, rows: d.Rows}
	var pin runtime.Pinner
	defer pin.Unpin()
	array := arrayInterface(&pin, d.Values, fmt.Sprintf(`[%d, %d]`, d.Rows, d.Columns), fmt.Sprintf(`[4, %d]`, 4*d.Rows))
	config := fmt.Sprintf(`{"missing": NaN, "nthread": %d}`, d.Threads)
	err := l.call("XGDMatrixCreateFromDense", func() int32 { return l.matrixFromDense(array, config, &m.h) })
	if err != nil {
		return nil, err
	}
	if err := m.describe(d); err != nil {
		return nil, errors.Join(err, m.Free())
	}
	return m, nil
}

// describe sets everything beside the values.
func (m *Matrix) describe(d Data) error {
	return errors.Join(
		m.info("label", d.Label), m.info("weight", d.Weight),
		m.strings("feature_name", d.Names), m.strings("feature_type", d.Types),
	)
}

func (m *Matrix) info(field string, v []float32) error {
	if len(v) == 0 {
		return nil
	}
	if len(v) != m.rows {
		return fmt.Errorf("xgboost matrix: %d values of %s for %d rows", len(v), field, m.rows)
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	array := arrayInterface(&pin, v, fmt.Sprintf(`[%d]`, len(v)), "null")
	return m.l.call("XGDMatrixSetInfoFromInterface", func() int32 { return m.l.matrixSetInfo(m.h, field, array) })
}

func (m *Matrix) strings(field string, v []string) error {
	if len(v) == 0 {
		return nil
	}
	return withStrings(v, func(p **byte, n uint64) error {
		return m.l.call("XGDMatrixSetStrFeatureInfo", func() int32 { return m.l.matrixSetStrings(m.h, field, p, n) })
	})
}

// withStrings hands strings to fn in the library's layout, pinned.
func withStrings(v []string, fn func(p **byte, n uint64) error) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	c := cStrings(v)
	for _, p := range c {
		pin.Pin(p)
	}
	pin.Pin(unsafe.SliceData(c))
	return fn(unsafe.SliceData(c), uint64(len(c)))
}

// arrayInterface describes pinned memory as the library's JSON.
func arrayInterface(pin *runtime.Pinner, v []float32, shape, strides string) string {
	p := unsafe.SliceData(v)
	pin.Pin(p)
	return fmt.Sprintf(`{"data": [%d, true], "shape": %s, "strides": %s, "typestr": "<f4", "version": 3}`,
		uintptr(unsafe.Pointer(p)), shape, strides)
}

// Free gives the matrix's memory back.
func (m *Matrix) Free() error {
	if m.h == 0 {
		return nil
	}
	h := m.h
	m.h = 0
	return m.l.call("XGDMatrixFree", func() int32 { return m.l.matrixFree(h) })
}
