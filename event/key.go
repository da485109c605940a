package event

import "slices"

// scalarKey names the key part of a view whose first event had a bare key.
const scalarKey = "key"

// entityKey reads a feature row's key into the key columns.
func (d *Decoder) entityKey(p *plan) bool {
	if p.draft {
		return d.draftKey()
	}
	if d.peek() != '{' {
		if len(p.keys) != 1 {
			return d.fail(ReasonKey, sentence("key must be an object with ", itoa(len(p.keys)), " parts, found ", d.found()))
		}
		return d.keyPart(p, 0)
	}
	d.pos++
	parts := 0
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			break
		}
		name, ok := d.name()
		if !ok {
			return false
		}
		i := p.keyNamed(name, parts)
		if i < 0 {
			return d.fail(ReasonKey, sentence("key has a part ", brief(name), " that the view does not have"))
		}
		if p.batch.Columns[p.keys[i].col].Len() != p.batch.Rows {
			return d.twice(name)
		}
		if !d.keyPart(p, i) {
			return false
		}
		parts++
	}
	if parts != len(p.keys) {
		return d.fail(ReasonKey, sentence("key has ", itoa(parts), " of its ", itoa(len(p.keys)), " parts"))
	}
	return true
}

// keyNamed returns the index of a key part, −1 if there is none. The n-th
// member is most often the n-th part.
func (t *target) keyNamed(name []byte, n int) int {
	if n < len(t.keys) && t.keys[n].name == string(name) {
		return n
	}
	for i := range t.keys {
		if t.keys[i].name == string(name) {
			return i
		}
		for _, a := range t.keys[i].aliases {
			if a == string(name) {
				return i
			}
		}
	}
	return -1
}

func (d *Decoder) keyPart(p *plan, i int) bool {
	s := &p.keys[i]
	switch d.peek() {
	case 'n':
		return d.fail(ReasonKey, sentence("the key part ", s.name, " is null"))
	case '"':
		if s.typ.Elem == Int64 { // never a word for NaN here
			return d.fail(ReasonType, sentence("the key part ", s.name, " must be an integer, found a string"))
		}
	}
	if s.typ.Elem == Int64 {
		v, ok := d.whole(s.name)
		p.batch.Columns[s.col].AppendInt64(v)
		return ok
	}
	return d.scalar(p, s, &p.batch.Columns[s.col])
}

// draftKey reads a key for evidence.
func (d *Decoder) draftKey() bool {
	if d.peek() != '{' {
		return d.draftPart(scalarKey)
	}
	d.pos++
	d.depth = 2
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			break
		}
		name, ok := d.name()
		if !ok || !d.draftPart(string(name)) {
			return false
		}
	}
	if len(d.keys) == 0 {
		return d.fail(ReasonKey, "key is an empty object")
	}
	return true
}

func (d *Decoder) draftPart(name string) bool {
	if d.peek() == 'n' {
		return d.fail(ReasonKey, sentence("the key part ", brief([]byte(name)), " is null"))
	}
	if err := CheckName(name); err != nil || len(d.keys) == MaxKeys {
		return d.fail(ReasonLimit, sentence("a key has at most ", itoa(MaxKeys), " named parts; ", brief([]byte(name)), " cannot be one"))
	}
	if slices.ContainsFunc(d.keys, func(e Evidence) bool { return e.Name == name }) {
		return d.twice([]byte(name))
	}
	e, ok := d.classify(name)
	if !ok {
		return false
	}
	if e.Word {
		e.Type.Elem, e.Word = String, false
	}
	if !keyType(e.Type) {
		return d.fail(ReasonType, sentence("the key part ", brief([]byte(name)), " must be a string, an integer or a boolean"))
	}
	e.Name, e.Exact = name, false
	d.keys = append(d.keys, e)
	return true
}
