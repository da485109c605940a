package features

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// appendFloat writes a float as Python's json does: the shortest text that
// reads back the same, always with a point or an exponent, exponents from 1e16
// up and below 1e-4 with at least two digits. What is not finite is a string.
func appendFloat(dst []byte, f float64) []byte {
	switch {
	case f != f:
		return append(dst, `"NaN"`...)
	case f > math.MaxFloat64:
		return append(dst, `"Infinity"`...)
	case f < -math.MaxFloat64:
		return append(dst, `"-Infinity"`...)
	}
	a := math.Abs(f)
	if a < 1e8 && (a >= 1e-4 || a == 0) {
		if v := uint64(a*1e7 + 0.5); float64(v)/1e7 == a {
			return appendDecimal(dst, v, math.Signbit(f))
		}
	}
	if a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}

// appendDecimal writes v/1e7. A value that is such a quotient, rounded once,
// with at most 15 digits has no other decimal of that length, so that these
// digits without trailing zeros are the shortest ones; finding them this way
// costs a third of the general way.
func appendDecimal(dst []byte, v uint64, negative bool) []byte {
	if negative {
		dst = append(dst, '-')
	}
	dst = append(strconv.AppendUint(dst, v/1e7, 10), '.')
	rest, digits := uint32(v%1e7), 7
	if rest == 0 {
		return append(dst, '0')
	}
	for rest%10 == 0 {
		rest /= 10
		digits--
	}
	at := len(dst)
	dst = append(dst, "0000000"[:digits]...)
	for i := at + digits - 1; rest > 0; i-- {
		dst[i] = '0' + byte(rest%10)
		rest /= 10
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string with the escapes that Python's json uses
// when it may write non-ASCII characters as they are.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

func appendBytes(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendTime writes µs as RFC 3339 with Z and 0, 3 or 6 digits of fraction,
// unquoted.
func appendTime(dst []byte, micros int64) []byte {
	t := time.UnixMicro(micros).UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	}
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	switch fraction := t.Nanosecond() / 1_000; {
	case fraction == 0:
	case fraction%1_000 == 0:
		dst = appendDigits(append(dst, '.'), fraction/1_000, 3)
	default:
		dst = appendDigits(append(dst, '.'), fraction, 6)
	}
	return append(dst, 'Z')
}

// appendDigits writes n, which is not negative, with leading zeros.
func appendDigits(dst []byte, n, digits int) []byte {
	at := len(dst)
	dst = append(dst, "000000"[:digits]...)
	for i := at + digits - 1; n > 0; i-- {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
	return dst
}

// appendNumberJSON writes a fixed-width value of a type. Timestamps are whole
// seconds since the epoch, as Feast has them.
func appendNumberJSON(dst []byte, t event.Type, n number) []byte {
	switch {
	case t == event.Bool:
		return strconv.AppendBool(dst, n.i != 0)
	case t == event.Timestamp:
		return strconv.AppendInt(dst, floorDiv(n.i, 1_000_000), 10)
	case n.float:
		return appendFloat(dst, n.f)
	}
	return strconv.AppendInt(dst, n.i, 10)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// appendVariableJSON writes a string, bytes, JSON or list value from its
// stored form.
func appendVariableJSON(dst, b []byte, t event.ColumnType) []byte {
	if !t.List {
		return appendTextJSON(dst, b, t.Elem)
	}
	dst = append(dst, '[')
	r := readList(b, t.Elem)
	for first := true; ; first = false {
		item, null, ok := r.next()
		if !ok {
			return append(dst, ']')
		}
		if !first {
			dst = append(dst, ',')
		}
		switch {
		case null:
			dst = append(dst, "null"...)
		case r.width < 0:
			dst = appendTextJSON(dst, item, t.Elem)
		default:
			dst = appendNumberJSON(dst, t.Elem, getFixed(item, t.Elem))
		}
	}
}

func appendTextJSON(dst, b []byte, t event.Type) []byte {
	switch t {
	case event.Bytes:
		return appendBytes(dst, b)
	case event.JSON:
		return append(dst, b...)
	}
	return appendString(dst, b)
}
