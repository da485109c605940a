package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// MarshalJSON writes the column with its values as a JSON array. A time is
// RFC 3339 with nanoseconds; NaN and infinities are the strings "NaN",
// "Infinity" and "-Infinity"; a missing value is null.
func (c Column) MarshalJSON() ([]byte, error) {
	type head Column // without methods
	h := head(c)
	h.Values = nil
	out, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write column %q: %w", c.Name, err)
	}
	out = bytes.TrimSuffix(out, []byte(`null}`)) // "values" is the last member
	if out, err = appendValues(out, c.Values); err != nil {
		return nil, fmt.Errorf("write column %q: %w", c.Name, err)
	}
	return append(out, '}'), nil
}

func appendValues(dst []byte, values any) ([]byte, error) {
	switch v := values.(type) {
	case nil:
		return append(dst, "[]"...), nil
	case []time.Time:
		return appendEach(dst, v, appendTime), nil
	case []*time.Time:
		return appendEach(dst, v, orNull(appendTime)), nil
	case []float64:
		return appendEach(dst, v, appendFloat), nil
	case []*float64:
		return appendEach(dst, v, orNull(appendFloat)), nil
	case []int64:
		return appendEach(dst, v, appendInt), nil
	case []*int64:
		return appendEach(dst, v, orNull(appendInt)), nil
	case []uint64:
		return appendEach(dst, v, appendUint), nil
	case []*uint64:
		return appendEach(dst, v, orNull(appendUint)), nil
	case []bool:
		return appendEach(dst, v, strconv.AppendBool), nil
	case []*bool:
		return appendEach(dst, v, orNull(strconv.AppendBool)), nil
	case []string, []*string, []json.RawMessage:
		b, err := json.Marshal(v)
		return append(dst, b...), err
	}
	return nil, fmt.Errorf("values of type %T have no JSON form", values)
}

func appendEach[T any](dst []byte, values []T, one func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = one(dst, v)
	}
	return append(dst, ']')
}

func orNull[T any](one func([]byte, T) []byte) func([]byte, *T) []byte {
	return func(dst []byte, v *T) []byte {
		if v == nil {
			return append(dst, "null"...)
		}
		return one(dst, *v)
	}
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}

func appendInt(dst []byte, v int64) []byte   { return strconv.AppendInt(dst, v, 10) }
func appendUint(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, v, 10) }

func appendFloat(dst []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

// UnmarshalJSON reads what [Column.MarshalJSON] writes; Values gets the Go
// type that Type and Nullable name.
func (c *Column) UnmarshalJSON(b []byte) error {
	type head Column
	var h struct {
		head
		Values json.RawMessage `json:"values"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("read column: %w", err)
	}
	*c = Column(h.head)
	var err error
	if c.Values, err = readValues(c.Type, c.Nullable, h.Values); err != nil {
		return fmt.Errorf("read column %q: %w", c.Name, err)
	}
	return nil
}

func readValues(t ColumnType, nullable bool, b []byte) (any, error) {
	switch t {
	case Time:
		return readAs[time.Time](nullable, b)
	case Int:
		return readAs[int64](nullable, b)
	case Uint:
		return readAs[uint64](nullable, b)
	case Text:
		return readAs[string](nullable, b)
	case Bool:
		return readAs[bool](nullable, b)
	case RawJSON:
		var v []json.RawMessage
		return v, json.Unmarshal(b, &v)
	case Float:
		return readFloats(nullable, b)
	}
	return nil, fmt.Errorf("unknown column type %q", t)
}

func readAs[T any](nullable bool, b []byte) (any, error) {
	if nullable {
		var v []*T
		err := json.Unmarshal(b, &v)
		return v, err
	}
	var v []T
	err := json.Unmarshal(b, &v)
	return v, err
}

// wireFloat reads a number or one of the three words for what is none.
type wireFloat float64

func (f *wireFloat) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"NaN"`:
		*f = wireFloat(math.NaN())
	case `"Infinity"`:
		*f = wireFloat(math.Inf(1))
	case `"-Infinity"`:
		*f = wireFloat(math.Inf(-1))
	default:
		v, err := strconv.ParseFloat(string(b), 64)
		*f = wireFloat(v)
		return err
	}
	return nil
}

func readFloats(nullable bool, b []byte) (any, error) {
	var wire []*wireFloat
	if err := json.Unmarshal(b, &wire); err != nil {
		return nil, err
	}
	if nullable {
		out := make([]*float64, len(wire))
		for i, w := range wire {
			if w != nil {
				v := float64(*w)
				out[i] = &v
			}
		}
		return out, nil
	}
	out := make([]float64, len(wire))
	for i, w := range wire {
		if w == nil {
			return nil, fmt.Errorf("value %d is null in a column that is not nullable", i)
		}
		out[i] = float64(*w)
	}
	return out, nil
}
