package event

import "math"

func (s *scanner) twice(name []byte) bool {
	return s.fail(ReasonMalformed, sentence("the member ", brief(name), " stands twice"))
}

// notObject refuses a value that should be an object.
func (s *scanner) notObject(what string) bool {
	if s.pos >= len(s.buf) {
		return s.fail(ReasonMalformed, "the JSON ends too early")
	}
	return s.fail(ReasonType, sentence(what, " must be an object, found ", s.found()))
}

// found names the kind of value at the cursor.
func (s *scanner) found() string {
	switch c := s.peek(); {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't', c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == '-', c-'0' <= 9:
		return "a number"
	}
	return "no JSON value"
}

// text reads a member that must be a string.
func (s *scanner) text(what string) ([]byte, bool) {
	if s.peek() != '"' {
		return nil, s.fail(ReasonType, sentence(what, " must be a string, found ", s.found()))
	}
	return s.str()
}

// word reads a string, or an integer as its digits: producers write ids and
// versions both ways.
func (s *scanner) word(what string) ([]byte, bool) {
	c := s.peek()
	if c != '-' && c-'0' > 9 {
		return s.text(what)
	}
	n, ok := s.number()
	if ok && !n.integer {
		return nil, s.fail(ReasonType, sentence(what, " must be a string or an integer, found a fraction"))
	}
	return n.text, ok
}

// when reads a time.
func (s *scanner) when(what string) (int64, bool) {
	if s.peek() != '"' {
		detail := sentence(what, " must be an RFC 3339 string, found ", s.found())
		if c := s.peek(); c == '-' || c-'0' <= 9 {
			detail = sentence(what, " is a bare number, whose unit nobody knows: send RFC 3339, or state the unit in a source")
		}
		return 0, s.fail(ReasonTime, detail)
	}
	b, ok := s.str()
	if !ok {
		return 0, false
	}
	t, bad := parseTime(b)
	if bad != timeOK {
		return 0, s.fail(ReasonTime, sentence(what, " ", brief(b), " ", string(bad)))
	}
	return t, true
}

// flag reads a boolean.
func (s *scanner) flag(what string) (value, ok bool) {
	switch s.peek() {
	case 't':
		return true, s.literal("true")
	case 'f':
		return false, s.literal("false")
	}
	return false, s.fail(ReasonType, sentence(what, " must be true or false, found ", s.found()))
}

// real reads a float: a number or one of the three words.
func (s *scanner) real(what string) (float64, bool) {
	c := s.peek()
	if c == '"' {
		b, ok := s.str()
		if !ok {
			return 0, false
		}
		if f, ok := floatWord(b); ok {
			return f, true
		}
		return 0, s.fail(ReasonType, sentence(what, " must be a number, found the string ", brief(b)))
	}
	if c != '-' && c-'0' > 9 {
		return 0, s.fail(ReasonType, sentence(what, " must be a number, found ", s.found()))
	}
	n, ok := s.number()
	if !ok {
		return 0, false
	}
	f, ok := n.float64()
	if !ok {
		return 0, s.fail(ReasonType, sentence(what, " is beyond the range of Float64"))
	}
	return f, true
}

// numeral reads a value that must be a JSON number.
func (s *scanner) numeral(what string) (number, bool) {
	if c := s.peek(); c != '-' && c-'0' > 9 {
		return number{}, s.fail(ReasonType, sentence(what, " must be a number, found ", s.found()))
	}
	return s.number()
}

// whole reads an integer.
func (s *scanner) whole(what string) (int64, bool) {
	n, ok := s.numeral(what)
	if !ok {
		return 0, false
	}
	v, ok := n.int64()
	if !ok {
		return 0, s.fail(ReasonType, sentence(what, " must be an integer of 64 bits, found ", brief(n.text)))
	}
	return v, true
}

// floatWord reads the three strings that stand for floats JSON cannot write.
func floatWord(b []byte) (float64, bool) {
	switch string(b) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	return 0, false
}
