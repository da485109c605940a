package event

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unsafe"
)

// number is a JSON number taken apart: ±mant·10^exp. When digits did not fit
// (exact is false) only text is right.
type number struct {
	mant    uint64
	exp     int
	neg     bool
	integer bool // no fraction, no exponent
	exact   bool
	text    []byte
}

// maxDigits is how many decimal digits always fit in a uint64.
const maxDigits = 19

// number reads a JSON number at the cursor.
func (s *scanner) number() (n number, ok bool) {
	buf, start, p := s.buf, s.pos, s.pos
	if p < len(buf) && buf[p] == '-' {
		n.neg = true
		p++
	}
	first := p
	mant, p := digits(buf, p, 0)
	count := p - first
	if count == 0 || count > 1 && buf[first] == '0' {
		return n, s.badNumber(start)
	}
	n.integer = true
	if p < len(buf) && buf[p] == '.' {
		frac := p + 1
		mant, p = digits(buf, frac, mant)
		if p == frac {
			return n, s.badNumber(start)
		}
		n.integer = false
		n.exp = frac - p
		count += p - frac
	}
	if p < len(buf) && buf[p]|0x20 == 'e' {
		n.integer = false
		exp, end := exponent(buf, p+1)
		if end < 0 {
			return n, s.badNumber(start)
		}
		n.exp += exp
		p = end
	}
	n.mant, n.text, s.pos = mant, buf[start:p], p
	n.exact = count <= maxDigits || significant(buf[first:p]) <= maxDigits
	return n, true
}

// digits reads decimal digits from p on into acc, eight at a time.
func digits(buf []byte, p int, acc uint64) (uint64, int) {
	for p+8 <= len(buf) {
		w := binary.LittleEndian.Uint64(buf[p:])
		if (w&0xf0f0f0f0f0f0f0f0)|((w+0x0606060606060606)&0xf0f0f0f0f0f0f0f0)>>4 != 0x3333333333333333 {
			break
		}
		w = (w & 0x0f0f0f0f0f0f0f0f) * 2561 >> 8
		w = (w & 0x00ff00ff00ff00ff) * 6553601 >> 16
		acc = acc*100000000 + (w&0x0000ffff0000ffff)*42949672960001>>32
		p += 8
	}
	for p < len(buf) {
		d := buf[p] - '0'
		if d > 9 {
			break
		}
		acc = acc*10 + uint64(d)
		p++
	}
	return acc, p
}

// exponent reads [+-]digits; end is -1 where there are none. Absurd exponents
// saturate.
func exponent(buf []byte, p int) (exp, end int) {
	neg := false
	if p < len(buf) && (buf[p] == '+' || buf[p] == '-') {
		neg = buf[p] == '-'
		p++
	}
	first := p
	for p < len(buf) && buf[p]-'0' <= 9 {
		if exp < 1_000_000 {
			exp = exp*10 + int(buf[p]-'0')
		}
		p++
	}
	if p == first {
		return 0, -1
	}
	if neg {
		exp = -exp
	}
	return exp, p
}

// significant counts the digits of a number's mantissa without leading zeros.
func significant(text []byte) int {
	n := 0
	for _, c := range text {
		switch {
		case c|0x20 == 'e':
			return n
		case c == '.' || c == '0' && n == 0:
		default:
			n++
		}
	}
	return n
}

func (s *scanner) badNumber(at int) bool {
	s.pos = at
	return s.fail(ReasonMalformed, "a number is not written as JSON writes numbers")
}

// fastFloat reads the commonest floats: no exponent and at most 19 digits. It
// moves nothing when the number is another or none at all.
func (s *scanner) fastFloat() (f float64, ok bool) {
	buf, p := s.buf, s.pos
	neg := p < len(buf) && buf[p] == '-'
	if neg {
		p++
	}
	first, mant := p, uint64(0)
	for p < len(buf) && buf[p]-'0' <= 9 {
		mant = mant*10 + uint64(buf[p]-'0')
		p++
	}
	whole, frac := p-first, 0
	if whole == 0 || whole > 1 && buf[first] == '0' {
		return 0, false
	}
	if p < len(buf) && buf[p] == '.' {
		point := p + 1
		mant, p = digits(buf, point, mant)
		if frac = p - point; frac == 0 {
			return 0, false
		}
	}
	if whole+frac > maxDigits || p < len(buf) && buf[p]|0x20 == 'e' {
		return 0, false
	}
	if mant <= 1<<53 {
		f = float64(mant) / pow10[frac&31]
	} else {
		f = quotient(mant, frac, 53)
	}
	if neg {
		f = -f
	}
	s.pos = p
	return f, true
}

// int64 returns the number as an integer. It accepts a fraction of zeros
// ("3.0"), which tools write for integer columns that had nulls.
func (n number) int64() (int64, bool) {
	m := n.mant
	if !n.exact {
		return 0, false
	}
	for e := n.exp; e < 0 && m != 0; e++ {
		if m%10 != 0 {
			return 0, false
		}
		m /= 10
	}
	for e := n.exp; e > 0 && m != 0; e-- {
		hi, lo := bits.Mul64(m, 10)
		if hi != 0 {
			return 0, false
		}
		m = lo
	}
	if n.neg {
		return -int64(m), m <= 1<<63
	}
	return int64(m), m < 1<<63
}

// float64 returns the nearest float64, ties to even; ok is false where it
// would be infinite.
func (n number) float64() (float64, bool) {
	if n.exact {
		if f, ok := n.smallFloat(); ok {
			return f, true
		}
		if n.exp >= -maxPow5 && n.exp <= maxPow5 {
			return n.scale(53), true
		}
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(n.text), len(n.text)), 64)
	return f, err == nil
}

// float32 returns the nearest float32, rounded once.
func (n number) float32() (float32, bool) {
	if n.exact && n.exp >= -maxPow5 && n.exp <= maxPow5 {
		f := float32(n.scale(24))
		return f, !math.IsInf(float64(f), 0)
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(n.text), len(n.text)), 32)
	return float32(f), err == nil
}

// smallFloat is Clinger's case: mantissa and power of ten are both exact
// floats, so one operation rounds once.
func (n number) smallFloat() (float64, bool) {
	if n.mant > 1<<53 || n.exp < -22 || n.exp > 22 {
		return 0, false
	}
	f := float64(n.mant)
	if n.exp < 0 {
		f /= pow10[-n.exp&31]
	} else {
		f *= pow10[n.exp&31]
	}
	if n.neg {
		f = -f
	}
	return f, true
}

// maxPow5 is the largest k for which 5^k fits in a uint64.
const maxPow5 = 27

// scale computes mant·10^exp for |exp| ≤ maxPow5, correctly rounded to the
// given number of significant bits: 10^k is 5^k·2^k and 5^k is exact in 64
// bits, so a 128-bit product or quotient and one sticky bit hold all there is
// to know. The result is far from the ends of float64's exponent range.
func (n number) scale(mantissaBits int) float64 {
	if n.mant == 0 {
		return math.Copysign(0, sign(n.neg))
	}
	var f float64
	if n.exp < 0 {
		f = quotient(n.mant, -n.exp, mantissaBits)
	} else {
		f = multiple(n.mant, n.exp, mantissaBits)
	}
	if n.neg {
		f = -f
	}
	return f
}

// quotient returns m/10^k for m > 0.
func quotient(m uint64, k, mantissaBits int) float64 {
	d := pow5[k&31]
	shift, up := bits.LeadingZeros64(m), bits.LeadingZeros64(d)
	hi, d := m<<shift, d<<up
	lo := hi << 63 // hi:lo = m·2^(shift+63), so that the quotient fits
	q, r := bits.Div64(hi>>1, lo, d)
	lead := bits.LeadingZeros64(q)
	return assemble(q<<lead, r != 0, up-k-shift-lead-63, mantissaBits)
}

// multiple returns m·10^k for m > 0.
func multiple(m uint64, k, mantissaBits int) float64 {
	shift := bits.LeadingZeros64(m)
	hi, lo := bits.Mul64(m<<shift, pow5[k&31])
	lead := bits.LeadingZeros64(hi)
	top := hi << lead
	if lead > 0 {
		top |= lo >> (64 - lead)
	}
	return assemble(top, lo<<lead != 0, k-shift+64-lead, mantissaBits)
}

// assemble returns top·2^exp2 rounded to n bits, ties to even; top has its
// highest bit set and sticky says whether more lies below it.
func assemble(top uint64, sticky bool, exp2, n int) float64 {
	drop := 64 - n
	kept, rest := top>>drop, top&(1<<drop-1)
	half := uint64(1) << (drop - 1)
	if rest > half || rest == half && (sticky || kept&1 == 1) {
		kept++
	}
	const bias, fraction = 1023, 52
	scale := math.Float64frombits(uint64(exp2+drop+bias) << fraction)
	return float64(kept) * scale
}

func sign(neg bool) float64 {
	if neg {
		return -1
	}
	return 1
}

// pow10 and pow5 are padded to 32 so that a masked index needs no bounds check.
var pow10 = [32]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

var pow5 = [32]uint64{1, 5, 25, 125, 625, 3125, 15625, 78125, 390625, 1953125, 9765625,
	48828125, 244140625, 1220703125, 6103515625, 30517578125, 152587890625, 762939453125,
	3814697265625, 19073486328125, 95367431640625, 476837158203125, 2384185791015625,
	11920928955078125, 59604644775390625, 298023223876953125, 1490116119384765625,
	7450580596923828125}
