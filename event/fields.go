package event

// FieldReader reads foreign JSON: any object as flat, named values. It is for
// one goroutine.
type FieldReader struct {
	scanner
	maxBytes int
	names    map[string]string
	path     []byte
}

// Bounds of the names that a reader remembers, in number and bytes.
const (
	maxInterned     = 10_000
	maxInternedName = 100
)

// NewFieldReader returns a reader within the bounds of cfg.
func NewFieldReader(cfg DecoderConfig) *FieldReader {
	r := &FieldReader{maxBytes: cfg.MaxRecordBytes, names: map[string]string{}}
	r.maxDepth = cfg.MaxDepth
	return r
}

// Fields appends the members of an object to dst. Objects within are flattened
// ("a":{"b":1} is the field "a.b"); arrays stay as JSON text; numbers are Int64
// where they are integers of 64 bits and else Float64.
func (r *FieldReader) Fields(dst []NamedValue, text []byte) ([]NamedValue, error) {
	r.start(text)
	r.path = r.path[:0]
	ok := acceptText(&r.scanner, r.maxBytes)
	if ok {
		dst, ok = r.object(dst)
	}
	if ok {
		ok = r.ended()
	}
	if !ok {
		return dst, RefusedError{r.fault.reason, r.fault.detail}
	}
	return dst, nil
}

// Member is one of an object, its value as it is written.
type Member struct {
	Name string
	Text []byte // of the text that was read
}

// Members appends the members of an object to dst. A name that stands twice is
// refused.
func (r *FieldReader) Members(dst []Member, text []byte) ([]Member, error) {
	r.start(text)
	if !acceptText(&r.scanner, r.maxBytes) || !r.members(&dst, len(dst)) || !r.ended() {
		return dst, RefusedError{r.fault.reason, r.fault.detail}
	}
	return dst, nil
}

func (r *FieldReader) members(dst *[]Member, from int) bool {
	if r.peek() != '{' {
		return r.notObject("it")
	}
	r.pos++
	for first := true; ; first = false {
		another, ok := r.more(first, '}')
		if !ok || !another {
			return ok
		}
		name, ok := r.name()
		if !ok {
			return false
		}
		r.path = append(r.path[:0], name...)
		m := Member{Name: r.intern()}
		for i := range (*dst)[from:] {
			if (*dst)[from+i].Name == m.Name {
				return r.twice(name)
			}
		}
		r.depth = 1
		if m.Text, ok = r.raw(); !ok {
			return false
		}
		*dst = append(*dst, m)
	}
}

// Elements calls visit with the text of each element of an array. A text that
// is no array counts as its own only element.
func (r *FieldReader) Elements(text []byte, visit func(element []byte) error) error {
	r.start(text)
	if !acceptText(&r.scanner, r.maxBytes) {
		return RefusedError{r.fault.reason, r.fault.detail}
	}
	if r.peek() != '[' {
		return visit(text)
	}
	r.pos++
	var list [][]byte
	for first := true; ; first = false {
		another, ok := r.more(first, ']')
		if ok && !another {
			break
		}
		element, ok2 := []byte(nil), false
		if ok {
			r.depth = 1
			element, ok2 = r.raw()
		}
		if !ok2 {
			return RefusedError{r.fault.reason, r.fault.detail}
		}
		list = append(list, element)
	}
	if !r.ended() {
		return RefusedError{r.fault.reason, r.fault.detail}
	}
	for _, element := range list {
		if err := visit(element); err != nil {
			return err
		}
	}
	return nil
}

func (r *FieldReader) object(dst []NamedValue) ([]NamedValue, bool) {
	if r.peek() != '{' {
		return dst, r.skip() && r.fail(ReasonType, "the record is not a JSON object")
	}
	if r.depth++; r.depth > r.maxDepth {
		return dst, r.fail(ReasonMalformed, "nested deeper than "+itoa(r.maxDepth)+" levels")
	}
	r.pos++
	base := len(r.path)
	for first := true; ; first = false {
		another, ok := r.more(first, '}')
		if !ok || !another {
			r.depth--
			r.path = r.path[:base]
			return dst, ok
		}
		name, ok := r.name()
		if !ok {
			return dst, false
		}
		r.path = append(r.path[:base], name...)
		if r.peek() == '{' {
			r.path = append(r.path, '.')
			dst, ok = r.object(dst)
		} else {
			var v Value
			v, ok = r.value()
			dst = append(dst, NamedValue{r.intern(), v})
		}
		if !ok {
			return dst, false
		}
	}
}

func (r *FieldReader) value() (v Value, ok bool) {
	switch c := r.peek(); c {
	case '"':
		b, ok := r.str()
		return Text(string(b)), ok
	case 't':
		return Flag(true), r.literal("true")
	case 'f':
		return Flag(false), r.literal("false")
	case 'n':
		return v, r.literal("null")
	case '[':
		b, ok := r.raw()
		return Value{Type: ColumnType{Elem: JSON}, Text: string(b)}, ok
	}
	if c := r.peek(); c != '-' && c-'0' > 9 {
		return v, r.notValue()
	}
	n, ok := r.number()
	if !ok {
		return v, false
	}
	if i, ok := n.int64(); ok && n.integer {
		return Int(i), true
	}
	f, ok := n.float64()
	if !ok {
		return v, r.fail(ReasonType, sentence("the number ", brief(n.text), " is beyond the range of Float64"))
	}
	return Float(f), true
}

func (r *FieldReader) intern() string {
	s, ok := r.names[string(r.path)]
	if !ok {
		s = string(r.path)
		if len(r.names) < maxInterned && len(s) <= maxInternedName {
			r.names[s] = s
		}
	}
	return s
}
