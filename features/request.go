package features

import (
	"bytes"
	"encoding/base64"

	"github.com/kedge-ml/kedge/event"
)

// entityColumn is one member of a request's "entities": a join key, or a value
// that an on-demand view wants.
type entityColumn struct {
	name   string
	values []entityValue
}

// entityValue is one scalar as the request has it. Objects and lists have kind
// kindObject and kindArray and no further meaning.
type entityValue struct {
	kind kind
	raw  []byte // text of a number or word; content of a string, escapes resolved
	i    int64  // of an integer that fits
	fits bool
}

// request is a parsed POST /get-online-features. Its memory is reused; raw
// slices alias the body or scratch.
type request struct {
	entities  []entityColumn
	service   []byte // feature_service; nil or empty: none
	features  []byte // the list's own text: equal texts mean equal lists
	known     []byte // a text that was read as such a list by an earlier request
	fullNames bool
	versions  bool // include_feature_view_version_metadata
	ages      bool // include_ages, ours
	hasEntity bool
	scratch   []byte
}

func (r *request) reset() {
	for i := range r.entities {
		r.entities[i].values = r.entities[i].values[:0]
	}
	*r = request{entities: r.entities[:0], known: r.known, scratch: r.scratch[:0]}
}

// parse reads a request's body. false means that the body is not what a client
// usually sends, right or wrong; the slow reader then judges.
func (r *request) parse(body []byte) bool {
	r.reset()
	s := &scanner{b: body}
	ok := s.object(func(name []byte, plain bool) bool {
		if !plain {
			return false
		}
		switch string(name) {
		case "entities":
			return r.parseEntities(s)
		case "features":
			return r.parseFeatures(s)
		case "feature_service":
			return r.parseService(s)
		case "full_feature_names":
			return parseFlag(s, &r.fullNames)
		case "include_feature_view_version_metadata":
			return parseFlag(s, &r.versions)
		case "include_ages":
			return parseFlag(s, &r.ages)
		}
		return s.skip(maxDepth)
	})
	s.space()
	return ok && s.i == len(body) && r.hasEntity
}

func parseFlag(s *scanner, to *bool) bool {
	k, raw, _, ok := s.scalar()
	*to = len(raw) == 4 // "true"
	return ok && k == kindBool
}

func (r *request) parseService(s *scanner) bool {
	k, raw, plain, ok := s.scalar()
	r.service = nil // of a member named twice the last one counts
	if k == kindString {
		r.service = r.content(raw, plain)
	}
	return ok && (k == kindString || k == kindNull)
}

// content resolves a string's escapes into memory that lives as long as the
// request.
func (r *request) content(raw []byte, plain bool) []byte {
	if plain {
		return raw
	}
	start := len(r.scratch)
	r.scratch = appendUnescaped(r.scratch, raw)
	return r.scratch[start:len(r.scratch):len(r.scratch)]
}

// maxKnown is the longest list that is remembered.
const maxKnown = 64 << 10

// parseFeatures finds the list's end. A program asks for one list again and
// again: where the text goes on as a list that was read before, it is that one.
func (r *request) parseFeatures(s *scanner) bool {
	s.space()
	if text := s.b[s.i:]; len(r.known) > 0 && bytes.HasPrefix(text, r.known) {
		r.features = text[:len(r.known)]
		s.i += len(r.known)
		return true
	}
	start := s.i
	ok := s.array(func() bool {
		_, _, ok := s.text()
		return ok
	})
	r.features = s.b[start:s.i]
	if ok && len(r.features) <= maxKnown {
		r.known = append(r.known[:0], r.features...)
	}
	return ok
}

// featureNames reads the list.
func (r *request) featureNames() (names []string) {
	s := &scanner{b: r.features}
	s.array(func() bool {
		raw, plain, ok := s.text()
		if !plain {
			raw = appendUnescaped(nil, raw)
		}
		names = append(names, string(raw))
		return ok
	})
	return names
}

func (r *request) parseEntities(s *scanner) bool {
	if r.hasEntity {
		return false // named twice: the slow reader lets the last one win
	}
	r.hasEntity = true
	return s.object(func(name []byte, plain bool) bool {
		c := r.addEntity(unsafeString(r.content(name, plain)))
		return c != nil && s.array(func() bool { return r.parseValue(s, c) })
	})
}

// addEntity returns a column to fill; nil when the name was there before.
func (r *request) addEntity(name string) *entityColumn {
	for i := range r.entities {
		if r.entities[i].name == name {
			return nil
		}
	}
	if len(r.entities) < cap(r.entities) {
		r.entities = r.entities[:len(r.entities)+1]
	} else {
		r.entities = append(r.entities, entityColumn{})
	}
	c := &r.entities[len(r.entities)-1]
	c.name, c.values = name, c.values[:0]
	return c
}

func (r *request) parseValue(s *scanner, c *entityColumn) bool {
	if c := s.peek(); c == '{' || c == '[' {
		return false // no key looks like this: the slow reader says so
	}
	k, raw, plain, ok := s.scalar()
	if !ok {
		return false
	}
	v := entityValue{kind: k, raw: raw}
	switch k {
	case kindInteger:
		v.i, v.fits = parseInt(raw)
	case kindString:
		v.raw = r.content(raw, plain)
	}
	c.values = append(c.values, v)
	return true
}

// entity finds a column by name.
func (r *request) entity(name string) *entityColumn {
	for i := range r.entities {
		if r.entities[i].name == name {
			return &r.entities[i]
		}
	}
	return nil
}

// appendKey appends the key part that a value stands for in a column of type
// t. Numbers may come as text and whole floats as integers, as Feast takes them.
func (v *entityValue) appendKey(dst []byte, t event.Type) ([]byte, bool) {
	switch t {
	case event.String:
		return appendStringKey(dst, v.raw), v.kind == kindString
	case event.Bool:
		return appendIntKey(dst, int64(b2i(len(v.raw) == 4))), v.kind == kindBool
	case event.Timestamp:
		t, ok := v.timestamp()
		return appendIntKey(dst, t), ok
	case event.Bytes:
		b, ok := decodeBase64(v.raw)
		return appendStringKey(dst, b), ok && v.kind == kindString
	case event.Int32, event.Int64:
		n, ok := v.integer()
		return appendIntKey(dst, n), ok && (t == event.Int64 || n == int64(int32(n)))
	}
	return dst, false
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// integer is the value as an integer, if it states one exactly.
func (v *entityValue) integer() (int64, bool) {
	switch v.kind {
	case kindInteger:
		return v.i, v.fits
	case kindString:
		return integerText(v.raw)
	case kindFloat:
		f, ok := parseFloat(v.raw)
		i := int64(f)
		return i, ok && float64(i) == f && f < 1<<63
	}
	return 0, false
}

// integerText reads the digits of a string, space around them allowed.
func integerText(b []byte) (int64, bool) {
	s := scanner{b: b}
	raw, integer, ok := s.number()
	s.space()
	if !ok || !integer || s.i != len(b) {
		return 0, false
	}
	return parseInt(raw)
}

// timestamp is the value in µs: whole seconds as a number, or RFC 3339.
func (v *entityValue) timestamp() (int64, bool) {
	switch v.kind {
	case kindInteger:
		return v.i * 1_000_000, v.fits && v.i < 1<<43 && v.i > -1<<43
	case kindString:
		t, err := event.ParseTime(v.raw)
		return t, err == nil
	}
	return 0, false
}

// appendJSON writes the value back, the way it was sent.
func (v *entityValue) appendJSON(dst []byte) []byte {
	switch v.kind {
	case kindNull:
		return append(dst, "null"...)
	case kindString:
		return appendString(dst, v.raw)
	case kindFloat:
		f, _ := parseFloat(v.raw)
		return appendFloat(dst, f)
	}
	return append(dst, v.raw...)
}

func decodeBase64(b []byte) ([]byte, bool) {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Decode(out, b)
	return out[:n], err == nil
}
