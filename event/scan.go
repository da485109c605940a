package event

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks over one JSON text without building anything. Its methods
// return false after [scanner.fail]; the first fault stays.
type scanner struct {
	buf      []byte
	pos      int
	scratch  []byte // unescaped strings of the current text
	depth    int    // how many brackets are open at the cursor
	maxDepth int
	fault    fault
}

// fault says why a text was refused.
type fault struct {
	reason Reason
	detail string
}

func (s *scanner) start(buf []byte) {
	s.buf, s.pos, s.depth, s.scratch, s.fault = buf, 0, 0, s.scratch[:0], fault{}
}

// fail notes the first fault and returns false.
func (s *scanner) fail(r Reason, detail string) bool {
	if s.fault.reason == "" {
		s.fault = fault{r, detail}
	}
	return false
}

// ws moves over white space.
func (s *scanner) ws() {
	for s.pos < len(s.buf) {
		switch s.buf[s.pos] {
		case ' ', '\n', '\t', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek moves over white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.buf) && s.buf[s.pos] > ' ' {
		return s.buf[s.pos]
	}
	s.ws()
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// want moves over white space and the byte c.
func (s *scanner) want(c byte) bool {
	if s.peek() != c {
		return s.unexpected(c)
	}
	s.pos++
	return true
}

func (s *scanner) unexpected(want byte) bool {
	if s.pos >= len(s.buf) {
		return s.fail(ReasonMalformed, "the JSON ends too early")
	}
	return s.fail(ReasonMalformed, sentence("expected ", string(rune(want)), " at byte ", itoa(s.pos), ", found ", printable(s.buf[s.pos])))
}

// more is called before each member or element: it consumes the separator and
// reports whether another one follows. first must be true once after the
// opening bracket.
func (s *scanner) more(first bool, closing byte) (another, ok bool) {
	switch c := s.peek(); {
	case c == closing:
		s.pos++
		return false, true
	case first:
		return true, true
	case c == ',':
		s.pos++
		if s.peek() == closing {
			return false, s.unexpected('"')
		}
		return true, true
	}
	return false, s.unexpected(closing)
}

// name reads a member's name and the colon after it.
func (s *scanner) name() ([]byte, bool) {
	if s.peek() != '"' {
		return nil, s.unexpected('"')
	}
	b, ok := s.str()
	if !ok {
		return nil, false
	}
	return b, s.want(':')
}

// str reads the string at the cursor. The bytes alias the text, or the
// scratch space when the string has escapes, and live as long as the text.
func (s *scanner) str() ([]byte, bool) {
	start := s.pos + 1
	p := plainEnd(s.buf, start)
	if p < len(s.buf) && s.buf[p] == '"' {
		s.pos = p + 1
		return s.buf[start:p], true
	}
	return s.escaped(start, p)
}

// plainEnd returns the index of the first quote, backslash or control
// character from p on, or len(buf).
func plainEnd(buf []byte, p int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for p+8 <= len(buf) {
		w := binary.LittleEndian.Uint64(buf[p:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		hit := ((w - ones*0x20) | (quote - ones) | (slash - ones)) &^ w & tops
		if hit == 0 {
			// Bytes ≥ 0x80 differ from all three, and are masked by &^ w above;
			// but a borrow from a lower byte can only follow a real hit.
			p += 8
			continue
		}
		return p + bits.TrailingZeros64(hit)/8
	}
	for p < len(buf) && buf[p] != '"' && buf[p] != '\\' && buf[p] >= ' ' {
		p++
	}
	return p
}

// escaped finishes a string from the first special byte, at p, on.
func (s *scanner) escaped(start, p int) ([]byte, bool) {
	from := len(s.scratch)
	for {
		s.scratch = append(s.scratch, s.buf[start:p]...)
		if p >= len(s.buf) {
			s.pos = p
			return nil, s.fail(ReasonMalformed, "the JSON ends inside a string")
		}
		switch s.buf[p] {
		case '"':
			s.pos = p + 1
			return s.scratch[from:len(s.scratch):len(s.scratch)], true
		case '\\':
			if p = s.escape(p + 1); p < 0 {
				return nil, false
			}
		default:
			return nil, s.fail(ReasonMalformed, "a string has an unescaped control character at byte "+itoa(p))
		}
		start = p
		p = plainEnd(s.buf, p)
	}
}

// escape appends the character of the escape whose letter is at p, and returns
// the index after it, or -1.
func (s *scanner) escape(p int) int {
	if p >= len(s.buf) {
		s.fail(ReasonMalformed, "the JSON ends inside a string")
		return -1
	}
	const letters, meaning = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if i := strings.IndexByte(letters, s.buf[p]); i >= 0 {
		s.scratch = append(s.scratch, meaning[i])
		return p + 1
	}
	r, ok := hex4(s.buf, p)
	if !ok {
		s.fail(ReasonMalformed, "a string has a wrong escape at byte "+itoa(p-1))
		return -1
	}
	p += 5
	if utf16.IsSurrogate(r) {
		low, ok := hex4(s.buf, p+1)
		pair := utf16.DecodeRune(r, low)
		if !ok || s.buf[p] != '\\' || pair == utf8.RuneError {
			s.fail(ReasonEncoding, "a string has half a surrogate pair, which is no character")
			return -1
		}
		r, p = pair, p+6
	}
	s.scratch = utf8.AppendRune(s.scratch, r)
	return p
}

// hex4 reads the "uXXXX" of an escape at p.
func hex4(buf []byte, p int) (rune, bool) {
	if p+5 > len(buf) || p < 1 || buf[p] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range buf[p+1 : p+5] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// literal reads true, false or null.
func (s *scanner) literal(word string) bool {
	if len(s.buf)-s.pos >= len(word) && string(s.buf[s.pos:s.pos+len(word)]) == word {
		s.pos += len(word)
		return true
	}
	return s.fail(ReasonMalformed, "expected "+word+" at byte "+itoa(s.pos))
}

// skip moves over one value of any kind and checks that it is JSON.
func (s *scanner) skip() bool { return s.skipAt(s.depth) }

func (s *scanner) skipAt(depth int) bool {
	switch c := s.peek(); c {
	case '{', '[':
		if depth+1 > s.maxDepth {
			return s.fail(ReasonMalformed, "nested deeper than "+itoa(s.maxDepth)+" levels")
		}
		return s.skipMembers(c, depth+1)
	case '"':
		_, ok := s.str()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	if c := s.peek(); c != '-' && c-'0' > 9 {
		return s.notValue()
	}
	_, ok := s.number()
	return ok
}

func (s *scanner) skipMembers(open byte, depth int) bool {
	s.pos++
	for first := true; ; first = false {
		another, ok := s.more(first, open+2) // in ASCII '{'+2 is '}', '['+2 is ']'
		if !ok || !another {
			return ok
		}
		if open == '{' {
			if _, ok := s.name(); !ok {
				return false
			}
		}
		if !s.skipAt(depth) {
			return false
		}
	}
}

func (s *scanner) notValue() bool {
	if s.pos >= len(s.buf) {
		return s.fail(ReasonMalformed, "the JSON ends too early")
	}
	return s.fail(ReasonMalformed, sentence("expected a value at byte ", itoa(s.pos), ", found ", printable(s.buf[s.pos])))
}

// raw moves over one value and returns its bytes, without white space around.
func (s *scanner) raw() ([]byte, bool) {
	s.peek()
	start := s.pos
	if !s.skip() {
		return nil, false
	}
	return s.buf[start:s.pos], true
}

// ended checks that nothing but white space follows.
func (s *scanner) ended() bool {
	if s.ws(); s.pos < len(s.buf) {
		return s.fail(ReasonMalformed, "bytes follow the JSON value")
	}
	return true
}
