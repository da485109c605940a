package event

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// Native is a value as expressions see it.
func Native(v Value) any {
	if v.Type.List {
		list := make([]any, len(v.List))
		for i, e := range v.List {
			list[i] = Native(e)
		}
		return list
	}
	switch v.Type.Elem {
	case Bool:
		return v.Int != 0
	case Int32, Int64:
		return int(v.Int)
	case Float32, Float64:
		return v.Float
	case String, Bytes:
		return v.Text
	case Timestamp:
		return time.UnixMicro(v.Int).UTC()
	case JSON:
		var out any
		if err := json.Unmarshal([]byte(v.Text), &out); err == nil {
			return out
		}
	}
	return nil
}

// FromNative is what an expression gave, as a value.
func FromNative(out any) (Value, error) {
	switch v := out.(type) {
	case nil:
		return Value{}, nil
	case bool:
		return Flag(v), nil
	case int:
		return Int(int64(v)), nil
	case int64:
		return Int(v), nil
	case uint64:
		if v > math.MaxInt64 {
			return Value{}, fmt.Errorf("%d is beyond the range of Int64: write it as a float (%d.0) or as text", v, v)
		}
		return Int(int64(v)), nil
	case float64:
		return Float(v), nil
	case string:
		return Text(strings.ToValidUTF8(v, "\uFFFD")), nil
	case time.Time:
		return Time(v.UnixMicro()), nil
	case time.Duration:
		return Float(v.Seconds()), nil
	}
	text, err := json.Marshal(out)
	if err != nil {
		return Value{}, fmt.Errorf("a %T is no value", out)
	}
	return Value{Type: ColumnType{Elem: JSON}, Text: string(text)}, nil
}

// listOf reads a JSON array, which is what [FromNative] makes of a list.
func listOf(v Value) ([]Value, bool) {
	if v.Type.List || v.Type.Elem != JSON {
		return nil, false
	}
	var items []any
	d := json.NewDecoder(strings.NewReader(v.Text))
	d.UseNumber()
	if d.Decode(&items) != nil {
		return nil, false
	}
	out := make([]Value, len(items))
	for i, item := range items {
		if n, ok := item.(json.Number); ok {
			if whole, err := n.Int64(); err == nil {
				item = whole
			} else if item, err = n.Float64(); err != nil {
				return nil, false
			}
		}
		var err error
		if out[i], err = FromNative(item); err != nil {
			return nil, false
		}
	}
	return out, true
}
