package features

import (
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// scanner walks a JSON text by hand: strict, without reflection, allocating
// nothing. It accepts what Python's json.loads accepts of valid UTF-8, which
// includes the bare words NaN, Infinity and -Infinity. A method that meets
// something else returns false, and the text goes to the slow reader, which can
// say what is wrong.
type scanner struct {
	b []byte
	i int
}

// maxDepth is how deep values may nest.
const maxDepth = 64

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// next skips space and takes c if it comes next.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// peek skips space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// text takes a string and returns its bytes between the quotes; plain says
// that they have no escapes.
func (s *scanner) text() (raw []byte, plain, ok bool) {
	if !s.next('"') {
		return nil, false, false
	}
	start, ascii := s.i, true
	plain = true
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			raw = s.b[start:s.i]
			s.i++
			return raw, plain, ascii || utf8.Valid(raw)
		case c == '\\':
			plain = false
			if !s.escape() {
				return nil, false, false
			}
		case c < ' ':
			return nil, false, false
		default:
			ascii = ascii && c < utf8.RuneSelf
			s.i++
		}
	}
	return nil, false, false
}

func (s *scanner) escape() bool {
	if s.i+1 >= len(s.b) {
		return false
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return true
	case 'u':
		if s.i+6 > len(s.b) {
			return false
		}
		for _, c := range s.b[s.i+2 : s.i+6] {
			if hexDigit(c) < 0 {
				return false
			}
		}
		s.i += 6
		return true
	}
	return false
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// number takes a number and returns its text; integer says that it has neither
// point nor exponent.
func (s *scanner) number() (text []byte, integer, ok bool) {
	s.space()
	start := s.i
	if s.i < len(s.b) && s.b[s.i] == '-' {
		s.i++
	}
	first := s.i
	if !s.digits() || (s.b[first] == '0' && s.i > first+1) {
		return nil, false, false
	}
	integer = true
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		integer = false
		if !s.digits() {
			return nil, false, false
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		integer = false
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return nil, false, false
		}
	}
	return s.b[start:s.i], integer, true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	return s.i > start
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i >= len(w) && string(s.b[s.i:s.i+len(w)]) == w {
		s.i += len(w)
		return true
	}
	return false
}

// kind of a JSON value.
type kind byte

const (
	kindNull kind = iota + 1
	kindBool
	kindInteger
	kindFloat
	kindString
	kindArray
	kindObject
)

// scalar takes a value that is neither array nor object. raw is the text of a
// number or a word, or the inside of a string.
func (s *scanner) scalar() (k kind, raw []byte, plain, ok bool) {
	c := s.peek()
	start := s.i
	switch c {
	case '"':
		raw, plain, ok = s.text()
		return kindString, raw, plain, ok
	case 'n':
		return kindNull, nil, true, s.word("null")
	case 't':
		ok = s.word("true")
		return kindBool, s.b[start:s.i], true, ok
	case 'f':
		ok = s.word("false")
		return kindBool, s.b[start:s.i], true, ok
	case 'N':
		ok = s.word("NaN")
		return kindFloat, s.b[start:s.i], true, ok
	case 'I':
		ok = s.word("Infinity")
		return kindFloat, s.b[start:s.i], true, ok
	}
	if s.word("-Infinity") {
		return kindFloat, s.b[start:s.i], true, true
	}
	raw, integer, ok := s.number()
	if integer {
		return kindInteger, raw, true, ok
	}
	return kindFloat, raw, true, ok
}

// skip takes any value.
func (s *scanner) skip(depth int) bool {
	switch s.peek() {
	case '{':
		return depth > 0 && s.object(func([]byte, bool) bool { return s.skip(depth - 1) })
	case '[':
		return depth > 0 && s.array(func() bool { return s.skip(depth - 1) })
	}
	_, _, _, ok := s.scalar()
	return ok
}

// object takes an object and calls member after each name.
func (s *scanner) object(member func(name []byte, plain bool) bool) bool {
	if !s.next('{') {
		return false
	}
	if s.next('}') {
		return true
	}
	for {
		name, plain, ok := s.text()
		if !ok || !s.next(':') || !member(name, plain) {
			return false
		}
		if s.next(',') {
			continue
		}
		return s.next('}')
	}
}

// array takes an array and calls item where each item starts.
func (s *scanner) array(item func() bool) bool {
	if !s.next('[') {
		return false
	}
	if s.next(']') {
		return true
	}
	for {
		if !item() {
			return false
		}
		if s.next(',') {
			continue
		}
		return s.next(']')
	}
}

// appendUnescaped appends the text that a string's inside stands for. Half a
// surrogate pair becomes U+FFFD.
func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch raw[i+1] {
		case 'u':
			r := hex4(raw[i+2:])
			i += 6
			if r >= 0xd800 && r < 0xdc00 && i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
				if low := hex4(raw[i+2:]); low >= 0xdc00 && low < 0xe000 {
					r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		default:
			dst = append(dst, raw[i+1])
		}
		i += 2
	}
	return dst
}

func hex4(b []byte) (r rune) {
	for _, c := range b[:4] {
		r = r<<4 | rune(hexDigit(c))
	}
	return r
}

// parseInt reads an integer's text; false when it leaves int64.
func parseInt(b []byte) (int64, bool) {
	neg := b[0] == '-'
	digits := b
	if neg {
		digits = b[1:]
	}
	if len(digits) > 18 {
		v, err := strconv.ParseInt(unsafeString(b), 10, 64)
		return v, err == nil
	}
	var v int64
	for _, c := range digits {
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return v, true
}

// parseFloat reads a number's text or one of the words for what is not finite.
func parseFloat(b []byte) (float64, bool) {
	switch string(b) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	v, err := strconv.ParseFloat(unsafeString(b), 64)
	return v, err == nil
}

// unsafeString lends b as a string to a call that does not keep it.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
