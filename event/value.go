package event

import "encoding/base64"

// values reads the object of value columns.
func (d *Decoder) values(p *plan, what string) bool {
	if d.peek() != '{' {
		return d.notObject(what)
	}
	d.pos++
	for n, first := 0, true; ; n, first = n+1, false {
		another, ok := d.more(first, '}')
		if !ok || !another {
			return ok
		}
		d.depth = 2
		start := d.pos
		i := d.slotAt(p, n)
		switch {
		case i >= 0 && d.plainFloat(p, &p.slots[i]):
		case i >= 0:
			if !d.slotValue(p, &p.slots[i], start) {
				return false
			}
		case i == unknownSlot:
			if !d.unknownValue(p, start) {
				return false
			}
		default:
			return false
		}
	}
}

// plainFloat reads the value of a Float64 column if it is a number written in
// the commonest way, and else moves nothing.
func (d *Decoder) plainFloat(p *plan, s *slot) bool {
	if !s.plainFloat {
		return false
	}
	c := &p.batch.Columns[s.col]
	if len(c.Nulls) != p.batch.Rows {
		return false
	}
	f, ok := d.fastFloat()
	if ok {
		c.Float64s = append(c.Float64s, f)
		c.Nulls = append(c.Nulls, 0)
		d.env.stored++
	}
	return ok
}

const (
	unknownSlot int32 = -1
	badSlot     int32 = -2
)

// slotAt reads the name of the n-th member and returns its slot. Producers
// write rows in one order, so it first tries the slot that the n-th member had
// in the last row.
func (d *Decoder) slotAt(p *plan, n int) int32 {
	if n < len(p.hints) {
		if i := p.hints[n]; i >= 0 {
			q, rest := p.slots[i].quoted, d.buf[d.pos:]
			if len(q) > 0 && len(rest) > len(q) && string(rest[:len(q)]) == q {
				d.pos += len(q)
				if d.buf[d.pos] == ':' {
					d.pos++
					return i
				}
				if d.want(':') {
					return i
				}
				return badSlot
			}
		}
	}
	return d.slotNamed(p, n)
}

func (d *Decoder) slotNamed(p *plan, n int) int32 {
	name, ok := d.name()
	if !ok {
		return badSlot
	}
	i, ok := p.names[string(name)]
	if !ok {
		return unknownSlot
	}
	for len(p.hints) <= n {
		p.hints = append(p.hints, unknownSlot)
	}
	p.hints[n] = i
	return i
}

// memberName reads again the name of a member that starts at start.
func (d *Decoder) memberName(start int) []byte {
	now := d.pos
	d.pos = start
	name, _ := d.name()
	d.pos = now
	return name
}

// slotValue reads the value of a defined column.
func (d *Decoder) slotValue(p *plan, s *slot, start int) bool {
	if s.retired {
		return d.fail(ReasonRetracted, sentence("the column ", brief([]byte(s.name)), " is retired and takes no values"))
	}
	if s.col < 0 {
		return d.untyped(p, s, start)
	}
	c := &p.batch.Columns[s.col]
	if c.Len() != p.batch.Rows {
		return d.twice(d.memberName(start))
	}
	d.env.stored++
	switch {
	case d.peek() == 'n':
		c.AppendNull()
		return d.literal("null")
	case s.typ.List:
		return d.list(p, s, c)
	}
	return d.scalar(p, s, c)
}

// scalar reads one value that is not null into a column or into a list's items.
func (d *Decoder) scalar(p *plan, s *slot, c *Column) bool {
	switch s.typ.Elem {
	case Float64:
		f, ok := d.real(s.name)
		if ok {
			c.AppendFloat64(f)
		}
		return ok
	case Int64:
		return d.integer(p, s, c)
	case String:
		b, ok := d.text(s.name)
		if ok {
			c.AppendBytes(b)
		}
		return ok
	case Bool:
		v, ok := d.flag(s.name)
		if ok {
			c.AppendBool(v)
		}
		return ok
	case Timestamp:
		t, ok := d.when(s.name)
		if ok {
			c.AppendInt64(t)
		}
		return ok
	}
	return d.rareScalar(s, c)
}

// rareScalar reads the types that only declared columns and nested values have.
func (d *Decoder) rareScalar(s *slot, c *Column) bool {
	switch s.typ.Elem {
	case Int32:
		v, ok := d.whole(s.name)
		if ok && int64(int32(v)) != v {
			return d.fail(ReasonType, sentence(s.name, " is beyond the range of Int32"))
		}
		c.AppendInt32(int32(v))
		return ok
	case Float32:
		return d.float32Value(s, c)
	case Bytes:
		b, ok := d.text(s.name)
		if !ok {
			return false
		}
		data, err := base64.StdEncoding.AppendDecode(c.Data, b)
		if err != nil {
			return d.fail(ReasonType, sentence(s.name, " must be base64 with padding"))
		}
		c.Data = data
		c.endBytes()
		return true
	}
	b, ok := d.raw()
	if ok {
		c.AppendBytes(b)
	}
	return ok
}

func (d *Decoder) float32Value(s *slot, c *Column) bool {
	if d.peek() == '"' {
		f, ok := d.real(s.name)
		c.AppendFloat32(float32(f))
		return ok
	}
	n, ok := d.numeral(s.name)
	if !ok {
		return false
	}
	f, ok := n.float32()
	if !ok {
		return d.fail(ReasonType, sentence(s.name, " is beyond the range of Float32"))
	}
	c.AppendFloat32(f)
	return true
}

// integer reads a value of an Int64 column. While the column's type is
// inferred, a value that needs Float64 asks for that instead.
func (d *Decoder) integer(p *plan, s *slot, c *Column) bool {
	start, widens := d.pos, d.infers(p) && !s.fixed
	if d.peek() == '"' && widens {
		if _, ok := d.real(s.name); !ok {
			return false
		}
		return d.widen(s, c, Evidence{Word: true})
	}
	n, ok := d.numeral(s.name)
	if !ok {
		return false
	}
	v, ok := n.int64()
	if ok && (n.integer || !widens) {
		c.AppendInt64(v)
		return true
	}
	if !widens {
		return d.fail(ReasonType, sentence(s.name, " must be an integer of 64 bits, found ", brief(n.text)))
	}
	if _, ok := n.float64(); !ok {
		d.pos = start
		return d.fail(ReasonType, sentence(s.name, " is beyond the range of Float64"))
	}
	return d.widen(s, c, Evidence{})
}

// widen notes that an Int64 column must become Float64.
func (d *Decoder) widen(s *slot, c *Column, e Evidence) bool {
	e.Name, e.Type = s.name, ColumnType{Float64, s.typ.List}
	d.note(e)
	c.AppendInt64(0)
	return true
}

// note adds evidence and holds the row back.
func (d *Decoder) note(e Evidence) {
	d.env.held = true
	d.evidence = append(d.evidence, e)
}

// list reads an array into a list column.
func (d *Decoder) list(p *plan, s *slot, c *Column) bool {
	if d.peek() != '[' {
		return d.fail(ReasonType, sentence(s.name, " must be an array, found ", d.found()))
	}
	d.pos++
	d.depth = 3
	for first := true; ; first = false {
		another, ok := d.more(first, ']')
		switch {
		case !ok:
			return false
		case !another:
			c.endList()
			return true
		case d.peek() == 'n':
			if !d.literal("null") {
				return false
			}
			c.Items.AppendNull()
		case !d.scalar(p, s, c.Items):
			return false
		}
	}
}

// infers reports whether events may change the definition.
func (d *Decoder) infers(p *plan) bool { return p.inferred && !d.cfg.DeclaredOnly }

// untyped reads a value of a column that has no type yet.
func (d *Decoder) untyped(p *plan, s *slot, start int) bool {
	if d.peek() != 'n' && !d.infers(p) {
		return d.overflowValue(start)
	}
	e, ok := d.classify(s.name)
	if !ok || e.Type == (ColumnType{}) || e.Type == s.typ {
		return ok
	}
	if s.typ.List && !e.Type.List {
		return d.fail(ReasonType, sentence(s.name, " must be an array: it was one when it was first met"))
	}
	e.Name = s.name
	d.note(e)
	return true
}

// unknownValue reads a member that the definition does not have; its name
// starts at start.
func (d *Decoder) unknownValue(p *plan, start int) bool {
	if !d.infers(p) {
		return d.overflowValue(start)
	}
	name := string(d.memberName(start))
	if err := CheckName(name); err != nil {
		return d.fail(ReasonLimit, err.Error())
	}
	if len(p.slots)+len(d.evidence) >= MaxColumns {
		return d.fail(ReasonLimit, sentence("a view or model has at most ", itoa(MaxColumns), " columns; ", brief([]byte(name)), " is one more"))
	}
	if !d.roomForColumns(len(d.evidence) + 1) {
		return false
	}
	e, ok := d.classify(name)
	e.Name = name
	d.note(e)
	return ok
}

// overflowValue keeps a member as text beside the row's columns.
func (d *Decoder) overflowValue(start int) bool {
	now := d.pos
	d.pos = start
	quoted, ok := d.raw()
	d.pos = now
	value, ok2 := d.raw()
	if !ok || !ok2 {
		return false
	}
	sep := byte(',')
	if d.env.overflown == 0 {
		sep = '{'
	}
	d.env.overflown++
	d.overflow = append(append(append(append(d.overflow, sep), quoted...), ':'), value...)
	return true
}

// classify reads any value and says what type it speaks for.
func (d *Decoder) classify(what string) (e Evidence, ok bool) {
	switch c := d.peek(); c {
	case 'n':
		return e, d.literal("null")
	case 't', 'f':
		e.Type.Elem = Bool
		_, ok = d.flag(what)
		return e, ok
	case '{':
		e.Type.Elem = JSON
		return e, d.skip()
	case '[':
		return d.classifyList(what)
	case '"':
		b, ok := d.str()
		e.Type.Elem = String
		if _, is := floatWord(b); is {
			e.Type.Elem, e.Word = Float64, true
		}
		return e, ok
	}
	n, ok := d.numeral(what)
	if !ok {
		return e, false
	}
	return d.classifyNumber(n, what)
}

func (d *Decoder) classifyNumber(n number, what string) (e Evidence, ok bool) {
	if v, ok := n.int64(); ok && n.integer {
		e.Type.Elem = Int64
		f := float64(v)
		e.Exact = f >= 1<<63 || int64(f) != v
		return e, true
	}
	e.Type.Elem = Float64
	if _, ok := n.float64(); !ok {
		return e, d.fail(ReasonType, sentence(what, " is beyond the range of Float64"))
	}
	return e, true
}

// classifyList gives a list of one type that type, and any other list Json.
func (d *Decoder) classifyList(what string) (Evidence, bool) {
	var all Evidence
	mixed := false
	d.pos++
	for first := true; ; first = false {
		another, ok := d.more(first, ']')
		if !ok {
			return all, false
		}
		if !another {
			break
		}
		if c := d.peek(); c == '[' || c == '{' {
			mixed = true
			d.depth = 3
			if !d.skip() {
				return all, false
			}
			continue
		}
		e, ok := d.classify(what)
		if !ok {
			return all, false
		}
		all = all.join(e)
		mixed = mixed || !compatible(all.Type, e)
	}
	if mixed {
		return Evidence{Type: ColumnType{Elem: JSON}}, true
	}
	all.Type.List = true
	return all, true
}
