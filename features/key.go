package features

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"

	"github.com/kedge-ml/kedge/event"
)

// Keys are encoded column by column, so that tuples never run into each other:
// eight bytes for a number, bool or timestamp; a length and the bytes for the
// rest. The same bytes are hashed, compared and stored.

func appendIntKey(dst []byte, v int64) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(v))
}

func appendFloatKey(dst []byte, v float64) []byte {
	if v == 0 {
		v = 0 // -0 and 0 are one key
	}
	if v != v {
		v = math.NaN() // one NaN
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

func appendStringKey[S string | []byte](dst []byte, v S) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v)))
	return append(dst, v...)
}

// appendColumnKey appends the key part that row i of a column holds.
func appendColumnKey(dst []byte, c *event.Column, i int) []byte {
	switch c.Type.Elem {
	case event.Bool:
		return appendIntKey(dst, int64(c.Bools[i]))
	case event.Int32:
		return appendIntKey(dst, int64(c.Int32s[i]))
	case event.Int64, event.Timestamp:
		return appendIntKey(dst, c.Int64s[i])
	case event.Float32:
		return appendFloatKey(dst, float64(c.Float32s[i]))
	case event.Float64:
		return appendFloatKey(dst, c.Float64s[i])
	}
	return appendStringKey(dst, c.Str(i))
}

// AppendKey appends the encoded key of row i, given the key columns in the
// view's order.
func AppendKey(dst []byte, columns []event.Column, i int) []byte {
	for k := range columns {
		dst = appendColumnKey(dst, &columns[k], i)
	}
	return dst
}

// decodeKey appends the parts of an encoded key to columns of the view's key
// types, one row.
func decodeKey(columns []event.Column, key []byte) error {
	for k := range columns {
		c := &columns[k]
		var n int
		switch c.Type.Elem {
		case event.String, event.Bytes, event.JSON:
			if len(key) < 4 {
				return fmt.Errorf("decode key: %d bytes left for column %d", len(key), k)
			}
			size := int(binary.LittleEndian.Uint32(key))
			if len(key)-4 < size {
				return fmt.Errorf("decode key: %d bytes left for a string of %d", len(key)-4, size)
			}
			c.Data = append(c.Data, key[4:4+size]...)
			c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
			n = 4 + size
		default:
			if len(key) < 8 {
				return fmt.Errorf("decode key: %d bytes left for column %d", len(key), k)
			}
			appendFixed(c, key[:8])
			n = 8
		}
		key = key[n:]
	}
	return nil
}

func appendFixed(c *event.Column, b []byte) {
	bits := binary.LittleEndian.Uint64(b)
	switch c.Type.Elem {
	case event.Bool:
		c.Bools = append(c.Bools, uint8(bits))
	case event.Int32:
		c.Int32s = append(c.Int32s, int32(bits))
	case event.Float32:
		c.Float32s = append(c.Float32s, float32(math.Float64frombits(bits)))
	case event.Float64:
		c.Float64s = append(c.Float64s, math.Float64frombits(bits))
	default:
		c.Int64s = append(c.Int64s, int64(bits))
	}
}

func hashKey(seed maphash.Seed, key []byte) uint64 { return maphash.Bytes(seed, key) }
