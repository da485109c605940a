package source

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// appendAny appends a decoded value as JSON in the form that events have:
// integers exact, NaN and infinities as texts, times in RFC 3339, bytes in
// base64, members in the order of their names.
func appendAny(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return event.AppendString(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int32:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	case float32:
		return appendFloat(dst, float64(v), 32), nil
	case float64:
		return appendFloat(dst, v, 64), nil
	case []byte:
		return appendBase64(dst, v), nil
	case time.Time:
		return append(event.AppendTime(append(dst, '"'), v.UnixMicro()), '"'), nil
	case time.Duration:
		return appendFloat(dst, v.Seconds(), 64), nil
	case json.Number:
		return append(dst, v...), nil
	case *big.Rat:
		f, _ := v.Float64()
		return appendFloat(dst, f, 64), nil
	case []any:
		return appendList(dst, len(v), func(dst []byte, i int) ([]byte, error) { return appendAny(dst, v[i]) })
	case map[string]any:
		return appendMembers(dst, v)
	}
	return appendReflected(dst, v)
}

// appendReflected takes what a codec gives in types of its own: fixed-size
// arrays of bytes, and named scalar types.
func appendReflected(dst []byte, v any) ([]byte, error) {
	r := reflect.ValueOf(v)
	switch {
	case r.Kind() == reflect.Array && r.Type().Elem().Kind() == reflect.Uint8:
		b := make([]byte, r.Len())
		reflect.Copy(reflect.ValueOf(b), r)
		return appendBase64(dst, b), nil
	case r.CanInt():
		return strconv.AppendInt(dst, r.Int(), 10), nil
	case r.CanUint():
		return strconv.AppendUint(dst, r.Uint(), 10), nil
	case r.CanFloat():
		return appendFloat(dst, r.Float(), 64), nil
	case r.Kind() == reflect.String:
		return event.AppendString(dst, r.String()), nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("a value of type %T has no JSON form", v)
	}
	return append(dst, b...), nil
}

func appendMembers(dst []byte, m map[string]any) ([]byte, error) {
	names := slices.Sorted(maps.Keys(m))
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendAny(append(event.AppendString(dst, name), ':'), m[name]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendList(dst []byte, n int, element func(dst []byte, i int) ([]byte, error)) ([]byte, error) {
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = element(dst, i); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, f, 'g', -1, bits)
	for _, c := range dst[from:] {
		if c == '.' || c == 'e' {
			return dst
		}
	}
	return append(dst, '.', '0') // a float stays one, also when it is whole
}

func appendBase64(dst, b []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"')
}
