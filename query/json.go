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

// readFast reads a column in the order in which MarshalJSON writes it, without
// going over its numbers again and again. It reports whether it could; what it
// cannot read is for the patient way, which also says what is wrong.
func (c *Column) readFast(b []byte) bool {
	at := bytes.Index(b, []byte(`,"values":[`))
	if at < 0 || !bytes.HasSuffix(b, []byte("]}")) {
		return false
	}
	type head Column
	var h head
	if json.Unmarshal(append(bytes.Clone(b[:at]), '}'), &h) != nil || h.Type != Float {
		return false
	}
	values, err := readFloats(h.Nullable, b[at+len(`,"values":`):len(b)-1])
	if err != nil {
		return false
	}
	*c = Column(h)
	c.Values = values
	return true
}

// UnmarshalJSON reads what [Column.MarshalJSON] writes; Values gets the Go
// type that Type and Nullable name.
func (c *Column) UnmarshalJSON(b []byte) error {
	if c.readFast(b) {
		return nil
	}
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

// readFloats reads a JSON array of numbers and of the three words for what is
// none. It splits the text itself: a panel's frames are floats by the thousand.
// The text is valid JSON, and no number holds a comma.
func readFloats(nullable bool, b []byte) (any, error) {
	b = bytes.TrimSpace(b)
	var texts [][]byte
	switch {
	case len(b) >= 2 && b[0] == '[':
		if b = bytes.TrimSpace(b[1 : len(b)-1]); len(b) > 0 {
			texts = bytes.Split(b, []byte{','})
		}
	case string(b) != "null" && len(b) > 0:
		return nil, fmt.Errorf("values are not an array")
	}
	values := make([]float64, len(texts))
	var out []*float64
	if nullable {
		out = make([]*float64, len(texts))
	}
	for i, text := range texts {
		text = bytes.TrimSpace(text)
		if string(text) == "null" {
			if !nullable {
				return nil, fmt.Errorf("value %d is null in a column that is not nullable", i)
			}
			continue
		}
		v, err := readFloat(text)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", i, err)
		}
		if values[i] = v; nullable {
			out[i] = &values[i]
		}
	}
	if nullable {
		return out, nil
	}
	return values, nil
}

func readFloat(text []byte) (float64, error) {
	switch string(text) {
	case `"NaN"`:
		return math.NaN(), nil
	case `"Infinity"`:
		return math.Inf(1), nil
	case `"-Infinity"`:
		return math.Inf(-1), nil
	}
	return strconv.ParseFloat(string(text), 64)
}
