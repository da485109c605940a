package oip

import (
	"encoding/binary"
	"math"
)

// fromBinary reads little-endian elements; BYTES elements carry a 4-byte
// length each. The values are copied.
func (t *Tensor) fromBinary(b []byte, want int64) error {
	f, width := t.Datatype.layout()
	if f == bytesFamily {
		return t.bytesFromBinary(b, want)
	}
	if int64(len(b)) != want*int64(width) {
		return invalid("input %q has %d bytes of binary data and its shape %v of %s asks for %d", t.Name, len(b), t.Shape, t.Datatype, want*int64(width))
	}
	switch f {
	case boolFamily:
		for _, v := range b {
			t.Bools = append(t.Bools, v != 0)
		}
	case uintFamily:
		for ; len(b) > 0; b = b[width:] {
			t.Uints = append(t.Uints, littleUint(b, width))
		}
	case intFamily:
		shift := 64 - 8*uint(width)
		for ; len(b) > 0; b = b[width:] {
			t.Ints = append(t.Ints, int64(littleUint(b, width)<<shift)>>shift)
		}
	default:
		t.floatsFromBinary(b, width)
	}
	return nil
}

func littleUint(b []byte, width int) uint64 {
	switch width {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func (t *Tensor) floatsFromBinary(b []byte, width int) {
	for ; len(b) > 0; b = b[width:] {
		var v float64
		switch t.Datatype {
		case FP64:
			v = math.Float64frombits(binary.LittleEndian.Uint64(b))
		case FP32:
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case FP16:
			v = halfToFloat(binary.LittleEndian.Uint16(b))
		default: // BF16 is the upper half of an FP32
			v = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
		}
		t.Floats = append(t.Floats, v)
	}
}

func (t *Tensor) bytesFromBinary(b []byte, want int64) error {
	total := len(b)
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return invalid("input %q: binary element %d is cut short (%d bytes in all)", t.Name, len(t.Bytes), total)
		}
		n := int(binary.LittleEndian.Uint32(b))
		t.Bytes = append(t.Bytes, append([]byte(nil), b[4:4+n]...))
		b = b[4+n:]
		if int64(len(t.Bytes)) > want {
			break
		}
	}
	if int64(len(t.Bytes)) != want {
		return invalid("input %q has %d binary elements and its shape %v asks for %d", t.Name, len(t.Bytes), t.Shape, want)
	}
	return nil
}

// halfToFloat widens an IEEE 754 binary16.
func halfToFloat(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&0x1f), float64(h&0x3ff)
	if h>>15 != 0 {
		sign = -1
	}
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 0x1f:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// appendBinary writes the tensor's values in binary form.
func (t *Tensor) appendBinary(dst []byte) []byte {
	f, width := t.Datatype.layout()
	switch f {
	case boolFamily:
		for _, v := range t.Bools {
			dst = append(dst, boolByte(v))
		}
	case uintFamily:
		for _, v := range t.Uints {
			dst = appendLittle(dst, v, width)
		}
	case intFamily:
		for _, v := range t.Ints {
			dst = appendLittle(dst, uint64(v), width)
		}
	case bytesFamily:
		for _, v := range t.Bytes {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v)))
			dst = append(dst, v...)
		}
	case floatFamily:
		for _, v := range t.Floats {
			if t.Datatype == FP64 {
				dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
			} else {
				dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v)))
			}
		}
	}
	return dst
}

func appendLittle(dst []byte, v uint64, width int) []byte {
	for range width {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return dst
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}
