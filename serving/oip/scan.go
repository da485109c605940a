package oip

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// span is a half-open range of the body.
type span struct{ from, to int }

// scanner walks one JSON document. It reports the first fault by position and
// never reads past the end.
type scanner struct {
	b     []byte
	i     int
	depth int
}

func (s *scanner) fail(what string) error {
	return invalid("malformed JSON at byte %d: %s", s.i, what)
}

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

// peek returns the next byte that is not space, or 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return s.fail("expected '" + string(rune(c)) + "'")
	}
	s.i++
	return nil
}

// object calls member for each name; member must consume the value.
func (s *scanner) object(member func(name []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		name, err := s.str()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
		s.space()
	}
}

// array calls element at each element; element must consume it.
func (s *scanner) array(element func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next consumes a comma (more follows) or the closing byte.
func (s *scanner) next(closing byte) (done bool, err error) {
	switch s.peek() {
	case ',':
		s.i++
		return false, nil
	case closing:
		s.i++
		return true, nil
	}
	return false, s.fail("expected ',' or '" + string(rune(closing)) + "'")
}

// str reads a string. The result aliases the body when it holds no escapes.
func (s *scanner) str() ([]byte, error) {
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			out := s.b[from:s.i]
			s.i++
			if !utf8.Valid(out) {
				return nil, s.fail("string is not UTF-8")
			}
			return out, nil
		case c == '\\':
			return s.escaped(from)
		case c < ' ':
			return nil, s.fail("control character in string")
		}
		s.i++
	}
	return nil, s.fail("string without end")
}

// escaped reads the rest of a string that has escapes into fresh memory.
func (s *scanner) escaped(from int) ([]byte, error) {
	out := bytes.Clone(s.b[from:s.i])
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, s.fail("string is not UTF-8")
			}
			return out, nil
		case c < ' ':
			return nil, s.fail("control character in string")
		case c != '\\':
			out = append(out, c)
		default:
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		}
	}
	return nil, s.fail("string without end")
}

func (s *scanner) escape(out []byte) ([]byte, error) {
	if s.i >= len(s.b) {
		return nil, s.fail("string without end")
	}
	c := s.b[s.i]
	s.i++
	const plain, meaning = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if k := bytes.IndexByte([]byte(plain), c); k >= 0 {
		return append(out, meaning[k]), nil
	}
	if c != 'u' {
		return nil, s.fail("unknown escape")
	}
	r, err := s.hex4()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(r) {
		r = s.lowSurrogate(r)
	}
	return utf8.AppendRune(out, r), nil
}

// lowSurrogate completes a pair; a lone half becomes U+FFFD as in encoding/json.
func (s *scanner) lowSurrogate(high rune) rune {
	if s.i+6 > len(s.b) || s.b[s.i] != '\\' || s.b[s.i+1] != 'u' {
		return utf8.RuneError
	}
	before := s.i
	s.i += 2
	low, err := s.hex4()
	r := utf16.DecodeRune(high, low)
	if err != nil || r == utf8.RuneError {
		s.i = before
		return utf8.RuneError
	}
	return r
}

func (s *scanner) hex4() (rune, error) {
	if s.i+4 > len(s.b) {
		return 0, s.fail("short \\u escape")
	}
	v, err := strconv.ParseUint(string(s.b[s.i:s.i+4]), 16, 32)
	if err != nil || s.b[s.i] == '+' || s.b[s.i] == '_' {
		return 0, s.fail("bad \\u escape")
	}
	s.i += 4
	return rune(v), nil
}

// token returns the bytes of a number, true, false or null.
func (s *scanner) token() []byte {
	s.space()
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '-', c == '+', c == '.', c == 'E':
			s.i++
		default:
			return s.b[from:s.i]
		}
	}
	return s.b[from:s.i]
}

// skip consumes one value of any kind, checking it, and returns its range.
func (s *scanner) skip() (span, error) {
	c := s.peek()
	from := s.i
	var err error
	switch c {
	case '{':
		err = s.nest(func() error {
			return s.object(func([]byte) error { _, err := s.skip(); return err })
		})
	case '[':
		err = s.nest(func() error {
			return s.array(func() error { _, err := s.skip(); return err })
		})
	case '"':
		_, err = s.str()
	default:
		if !validScalar(s.token()) {
			err = s.fail("expected a value")
		}
	}
	return span{from, s.i}, err
}

func (s *scanner) nest(inner func() error) error {
	if s.depth == 0 {
		return s.fail("nested too deep")
	}
	s.depth--
	defer func() { s.depth++ }()
	return inner()
}

// skipArray jumps over an array without looking into its elements: whoever
// reads it later checks them. Strings are honoured.
func (s *scanner) skipArray() (span, error) {
	if s.peek() != '[' {
		return span{}, s.fail("expected '['")
	}
	from, level := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '[':
			level++
		case ']':
			level--
			if level == 0 {
				s.i++
				return span{from, s.i}, nil
			}
		case '"':
			if _, err := s.str(); err != nil {
				return span{}, err
			}
			continue
		case '{', '}':
			return span{}, s.fail("an object inside tensor data")
		}
		s.i++
	}
	return span{}, s.fail("array without end")
}

func validScalar(t []byte) bool {
	switch string(t) {
	case "true", "false", "null":
		return true
	}
	return validNumber(t)
}

// validNumber checks JSON's number grammar, which is narrower than strconv's.
func validNumber(t []byte) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(t) && t[i] >= '0' && t[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(t) && t[i] == '-' {
		i++
	}
	if i < len(t) && t[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(t) && t[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(t) && (t[i] == 'e' || t[i] == 'E') {
		i++
		if i < len(t) && (t[i] == '+' || t[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(t)
}

// text views bytes as a string for strconv, which keeps no reference.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
