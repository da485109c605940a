package oip

import (
	"math"
	"strconv"
	"unicode/utf8"
)

// Append writes the response: the JSON part and, behind it, the binary
// tensors. headerLen is the length of the JSON part that this call wrote, for
// Inference-Header-Content-Length; it is -1 when everything is JSON.
func (r *Response) Append(dst []byte) (out []byte, headerLen int) {
	start := len(dst)
	dst = append(dst, `{"model_name":`...)
	dst = AppendString(dst, r.Model)
	if r.Version != "" {
		dst = append(dst, `,"model_version":`...)
		dst = AppendString(dst, r.Version)
	}
	if r.ID != "" {
		dst = append(dst, `,"id":`...)
		dst = AppendString(dst, r.ID)
	}
	dst = r.appendParams(dst)
	dst = append(dst, `,"outputs":[`...)
	var tail []byte
	for i := range r.Outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		t := &r.Outputs[i]
		dst = t.appendHead(dst)
		if r.Binary != nil && r.Binary[i] {
			before := len(tail)
			tail = t.appendBinary(tail)
			dst = append(dst, `,"parameters":{"binary_data_size":`...)
			dst = strconv.AppendInt(dst, int64(len(tail)-before), 10)
			dst = append(dst, `}}`...)
			headerLen = -2 // marks: at least one binary tensor
			continue
		}
		dst = append(dst, `,"data":[`...)
		dst = t.appendValues(dst)
		dst = append(dst, `]}`...)
	}
	dst = append(dst, `]}`...)
	if headerLen == 0 {
		return dst, -1
	}
	return append(dst, tail...), len(dst) - start
}

func (r *Response) appendParams(dst []byte) []byte {
	for i, p := range r.Params {
		if i == 0 {
			dst = append(dst, `,"parameters":{`...)
		} else {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, p.Name)
		dst = append(dst, ':')
		dst = AppendString(dst, p.Value)
	}
	if len(r.Params) > 0 {
		dst = append(dst, '}')
	}
	return dst
}

func (t *Tensor) appendHead(dst []byte) []byte {
	dst = append(dst, `{"name":`...)
	dst = AppendString(dst, t.Name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, t.Datatype...)
	dst = append(dst, `","shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, d, 10)
	}
	return append(dst, ']')
}

func (t *Tensor) appendValues(dst []byte) []byte {
	n := t.length()
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = t.appendValue(dst, i)
	}
	return dst
}

func (t *Tensor) appendValue(dst []byte, i int) []byte {
	switch f, width := t.Datatype.layout(); f {
	case boolFamily:
		return strconv.AppendBool(dst, t.Bools[i])
	case uintFamily:
		return strconv.AppendUint(dst, t.Uints[i], 10)
	case intFamily:
		return strconv.AppendInt(dst, t.Ints[i], 10)
	case bytesFamily:
		return AppendString(dst, text(t.Bytes[i]))
	default:
		return appendFloat(dst, t.Floats[i], width*8)
	}
}

// appendFloat writes the shortest text that reads back to the same value of
// the given width, always with a point or an exponent so that typed readers
// see a float; JSON's missing numbers are strings.
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, v, format, -1, max(bits, 32))
	for _, c := range dst[from:] {
		if c == '.' || c == 'e' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// AppendString writes a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
