package features

import (
	"strings"
	"unicode/utf8"
)

// node is a parsed JSON value, members in order. It is the slow reader's form:
// for requests that the fast one does not know, for writes, and for saying what
// is wrong with a body.
type node struct {
	kind    kind
	raw     []byte // text of a number or word
	text    string // of a string
	items   []node // of an array, or an object's values
	names   []string
	integer int64 // of an integer that fits
	fits    bool
}

// member returns an object's member; the last one wins, as in Python.
func (n *node) member(name string) *node {
	for i := len(n.names) - 1; i >= 0; i-- {
		if n.names[i] == name {
			return &n.items[i]
		}
	}
	return nil
}

// jsonError is where and how a text stops being JSON, in the words of Python's
// json module; at counts characters.
type jsonError struct {
	at  int
	msg string
}

func (e *jsonError) Error() string { return e.msg }

// reader builds nodes, failing as Python's scanner does.
type reader struct {
	s     string
	i     int
	depth int
}

// parseNode reads a whole JSON text.
func parseNode(body string) (*node, *jsonError) {
	r := &reader{s: body}
	r.space()
	n, err := r.value()
	if err != nil {
		return nil, err
	}
	r.space()
	if r.i < len(r.s) {
		return nil, r.fail(r.i, "Extra data")
	}
	return &n, nil
}

func (r *reader) fail(at int, msg string) *jsonError {
	return &jsonError{utf8.RuneCountInString(r.s[:min(at, len(r.s))]), msg}
}

func (r *reader) space() {
	for r.i < len(r.s) && strings.IndexByte(" \t\n\r", r.s[r.i]) >= 0 {
		r.i++
	}
}

func (r *reader) value() (node, *jsonError) {
	if r.i >= len(r.s) {
		return node{}, r.fail(r.i, "Expecting value")
	}
	switch r.s[r.i] {
	case '"':
		text, err := r.text()
		return node{kind: kindString, text: text}, err
	case '{':
		return r.nested(r.object)
	case '[':
		return r.nested(r.array)
	}
	sc := scanner{b: []byte(r.s), i: r.i}
	k, raw, _, ok := sc.scalar()
	if !ok && (r.s[r.i] == '-' || r.s[r.i]-'0' <= 9) {
		raw, k, ok = r.longestNumber()
		sc.i = r.i + len(raw)
	}
	if !ok {
		return node{}, r.fail(r.i, "Expecting value")
	}
	r.i = sc.i
	n := node{kind: k, raw: raw}
	if k == kindInteger {
		n.integer, n.fits = parseInt(raw)
	}
	return n, nil
}

// longestNumber is what Python takes of a text like "01" or "1.x": the longest
// number at its start.
func (r *reader) longestNumber() (raw []byte, k kind, ok bool) {
	for end := min(len(r.s), r.i+400); end > r.i; end-- {
		sc := scanner{b: []byte(r.s[r.i:end])}
		if text, integer, ok := sc.number(); ok && len(text) == end-r.i {
			if integer {
				return text, kindInteger, true
			}
			return text, kindFloat, true
		}
	}
	return nil, 0, false
}

func (r *reader) nested(read func() (node, *jsonError)) (node, *jsonError) {
	if r.depth++; r.depth > maxDepth {
		return node{}, r.fail(r.i, "Too many levels of nesting")
	}
	n, err := read()
	r.depth--
	return n, err
}

func (r *reader) object() (node, *jsonError) {
	n := node{kind: kindObject}
	r.i++
	r.space()
	if r.i < len(r.s) && r.s[r.i] == '}' {
		r.i++
		return n, nil
	}
	for {
		if r.i >= len(r.s) || r.s[r.i] != '"' {
			return n, r.fail(r.i, "Expecting property name enclosed in double quotes")
		}
		name, err := r.text()
		if err != nil {
			return n, err
		}
		r.space()
		if r.i >= len(r.s) || r.s[r.i] != ':' {
			return n, r.fail(r.i, "Expecting ':' delimiter")
		}
		r.i++
		r.space()
		v, err := r.value()
		if err != nil {
			return n, err
		}
		n.names, n.items = append(n.names, name), append(n.items, v)
		if done, err := r.separator('}'); done || err != nil {
			return n, err
		}
	}
}

func (r *reader) array() (node, *jsonError) {
	n := node{kind: kindArray}
	r.i++
	r.space()
	if r.i < len(r.s) && r.s[r.i] == ']' {
		r.i++
		return n, nil
	}
	for {
		v, err := r.value()
		if err != nil {
			return n, err
		}
		n.items = append(n.items, v)
		if done, err := r.separator(']'); done || err != nil {
			return n, err
		}
	}
}

// separator takes a comma or the closing byte.
func (r *reader) separator(closing byte) (done bool, err *jsonError) {
	r.space()
	if r.i < len(r.s) && r.s[r.i] == closing {
		r.i++
		return true, nil
	}
	if r.i >= len(r.s) || r.s[r.i] != ',' {
		return false, r.fail(r.i, "Expecting ',' delimiter")
	}
	r.i++
	r.space()
	return false, nil
}

func (r *reader) text() (string, *jsonError) {
	start := r.i
	for r.i++; r.i < len(r.s); {
		switch c := r.s[r.i]; {
		case c == '"':
			raw := r.s[start+1 : r.i]
			r.i++
			return string(appendUnescaped(nil, []byte(raw))), nil
		case c < ' ':
			return "", r.fail(r.i, "Invalid control character at")
		case c == '\\':
			if err := r.escape(start); err != nil {
				return "", err
			}
		default:
			r.i++
		}
	}
	return "", r.fail(start, "Unterminated string starting at")
}

func (r *reader) escape(start int) *jsonError {
	sc := scanner{b: []byte(r.s[r.i:min(len(r.s), r.i+6)])}
	if sc.escape() {
		r.i += sc.i
		return nil
	}
	switch {
	case r.i+1 >= len(r.s):
		return r.fail(start, "Unterminated string starting at")
	case r.s[r.i+1] == 'u':
		return r.fail(r.i+1, `Invalid \uXXXX escape`)
	}
	return r.fail(r.i, `Invalid \escape`)
}

// appendJSON writes the value as Python's json would, without spaces.
func (n *node) appendJSON(dst []byte) []byte {
	switch n.kind {
	case kindNull:
		return append(dst, "null"...)
	case kindString:
		return appendString(dst, n.text)
	case kindFloat:
		f, _ := parseFloat(n.raw)
		return appendFloat(dst, f)
	case kindArray:
		dst = append(dst, '[')
		for i := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.items[i].appendJSON(dst)
		}
		return append(dst, ']')
	case kindObject:
		dst = append(dst, '{')
		for i := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.items[i].appendJSON(append(appendString(dst, n.names[i]), ':'))
		}
		return append(dst, '}')
	}
	return append(dst, n.raw...)
}
