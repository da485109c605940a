package event

import (
	"bytes"
	"slices"
	"strconv"
)

// keyReader is a scanner that can write an entity key in its one canonical
// form: a JSON object, names ascending, no blanks, integers and strings
// written one way. Equal keys are equal texts.
type keyReader struct {
	scanner
	parts [MaxKeys]keyPart
}

// keyPart is one member of a key; both slices live as long as the text.
type keyPart struct{ name, value []byte }

// canonicalKey appends the key at the cursor to dst. A bare key counts as an
// object with the one member [scalarKey].
func (r *keyReader) canonicalKey(dst []byte) ([]byte, bool) {
	if r.peek() != '{' {
		ok := r.keyValue(&r.parts[0], []byte(scalarKey))
		return appendKey(dst, r.parts[:1]), ok
	}
	r.pos++
	n := 0
	for first := true; ; first = false {
		another, ok := r.more(first, '}')
		if !ok {
			return dst, false
		}
		if !another {
			break
		}
		name, ok := r.name()
		if !ok {
			return dst, false
		}
		if n == MaxKeys {
			return dst, r.fail(ReasonLimit, sentence("a key has at most ", itoa(MaxKeys), " parts"))
		}
		if !r.keyValue(&r.parts[n], name) {
			return dst, false
		}
		n++
	}
	if !r.sortParts(r.parts[:n]) {
		return dst, false
	}
	return appendKey(dst, r.parts[:n]), true
}

func (r *keyReader) sortParts(parts []keyPart) bool {
	if len(parts) == 0 {
		return r.fail(ReasonKey, "key is an empty object")
	}
	slices.SortFunc(parts, func(a, b keyPart) int { return bytes.Compare(a.name, b.name) })
	for i := 1; i < len(parts); i++ {
		if bytes.Equal(parts[i-1].name, parts[i].name) {
			return r.twice(parts[i].name)
		}
	}
	return true
}

func appendKey(dst []byte, parts []keyPart) []byte {
	sep := byte('{')
	for _, part := range parts {
		dst = append(AppendString(append(dst, sep), part.name), ':')
		dst = append(dst, part.value...)
		sep = ','
	}
	return append(dst, '}')
}

// keyValue reads one part's value in its canonical form.
func (r *keyReader) keyValue(part *keyPart, name []byte) bool {
	from := 0
	switch c := r.peek(); c {
	case '"':
		b, ok := r.str()
		if !ok {
			return false
		}
		from = len(r.scratch)
		r.scratch = AppendString(r.scratch, b)
	case 't', 'f':
		v, ok := r.flag("a key part")
		if !ok {
			return false
		}
		from = len(r.scratch)
		r.scratch = strconv.AppendBool(r.scratch, v)
	case 'n':
		return r.fail(ReasonKey, sentence("the key part ", brief(name), " is null"))
	default:
		v, ok := r.whole("a key part")
		if !ok {
			return false
		}
		from = len(r.scratch)
		r.scratch = strconv.AppendInt(r.scratch, v, 10)
	}
	*part = keyPart{name, r.scratch[from:len(r.scratch):len(r.scratch)]}
	return true
}

// jsonKey stores the key of a prediction or label.
func (d *Decoder) jsonKey(p *plan) bool {
	col := PredKey
	if p.schema.Kind == Labels {
		col = LabelKey
	}
	c := &p.batch.Columns[col]
	data, ok := d.canonicalKey(c.Data)
	c.Data = data
	if ok {
		c.endBytes()
	}
	return ok
}
