package event

import (
	"strconv"

	"github.com/kedge-ml/kedge/event/expression"
)

// chooseVersion finds the version of a view that an event is of. An event that
// says nothing is of the oldest: its producer knows of no other.
func (d *Decoder) chooseVersion() bool {
	e := &d.env
	t := e.versioned
	switch {
	case t == nil:
		e.unknown += e.versions
		return true
	case e.versions > 1:
		return d.twice([]byte("version"))
	case e.versions == 0:
		if len(t.former) > 0 {
			t = t.former[0]
		}
		e.plan = d.u.plan(t)
		return true
	}
	d.pos = e.versionAt
	word, ok := d.word("version")
	if !ok {
		return false
	}
	n, err := strconv.Atoi(string(word))
	if err == nil && n == t.version {
		e.plan = d.u.plan(t)
		return true
	}
	for _, f := range t.former {
		if err == nil && n == f.version {
			e.plan = d.u.plan(f)
			return true
		}
	}
	return d.fail(ReasonUndefined, sentence("view ", brief(e.subject), " has no version ", brief(word), ", its newest is ", itoa(t.version), ": apply the definition of that version first"))
}

// convert makes the row of an older version, which is read and not yet
// complete, one of the newest. What it was is not kept.
func (d *Decoder) convert() bool {
	e := &d.env
	p := e.plan
	row := p.batch.Rows
	values := d.former[:0]
	for _, s := range p.slots {
		v := Value{}
		if c := &p.batch.Columns[s.col]; c.Len() > row {
			v = c.Value(row)
		}
		values = append(values, v)
	}
	d.former = values
	var keys []Value
	for i := p.schema.KeyStart(); i < p.schema.ValueStart(); i++ {
		keys = append(keys, p.batch.Columns[i].Value(row))
	}
	if d.machine == nil {
		d.machine = expression.NewMachine()
	}
	for _, f := range e.versioned.former {
		if f.version < p.version || e.del {
			continue
		}
		var err error
		if values, err = f.convert.convert(d.machine, values); err != nil {
			return d.fail(ReasonConvert, sentence("a row of version ", itoa(p.version), ": ", err.Error()))
		}
	}
	p.batch.rollback()
	q := d.u.plan(e.versioned)
	e.plan, e.stored = q, 0
	for i, v := range keys {
		q.batch.Columns[q.schema.KeyStart()+i].Append(v)
	}
	if e.del {
		return true
	}
	for i, v := range values {
		q.batch.Columns[q.slots[i].col].Append(v)
	}
	e.stored = len(values)
	return true
}
