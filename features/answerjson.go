package features

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/kedge-ml/kedge/event"
)

const epochTime = `"1970-01-01T00:00:00Z"`

// make fills a.out with the response to a.req as of now.
func (a *answer) make(ctx context.Context, b *book, lim Limits, now int64) error {
	p, err := a.find(ctx, b, lim, now)
	if err != nil {
		return err
	}
	a.out = append(a.out[:0], `{"results":[`...)
	for i := range a.keys {
		a.writeKey(&a.keys[i])
	}
	for i := range p.features {
		if f := &p.features[i]; !f.hidden {
			a.writeFeature(p, f)
		}
	}
	if err := a.writeDerived(p); err != nil {
		return err
	}
	a.writeMetadata(p)
	return nil
}

// describe writes what all features of a view share: statuses and times.
func (a *answer) describe(i int, v *planView, now int64) {
	rows := &a.rows[i]
	states, plain := a.states[i][:0], true
	text := append(a.tails[i].text[:0], `],"statuses":[`...)
	for row := range rows.refs {
		r := rows.Row(row)
		state := Present
		switch {
		case !r.Found():
			state = NotFound
		case v.view.Expired(r.Version().EventTime, now):
			state = OutsideMaxAge
		}
		plain = plain && state == Present && r.layout == v.layout
		states = append(states, byte(state))
		text = appendStatus(text, row, state)
	}
	rest := len(text)
	text = append(text, `],"event_timestamps":[`...)
	for row := range rows.refs {
		if row > 0 {
			text = append(text, ',')
		}
		if r := rows.Row(row); r.Found() {
			text = append(appendTime(append(text, '"'), r.Version().EventTime), '"')
		} else {
			text = append(text, epochTime...)
		}
	}
	if a.req.ages {
		text = append(text, `],"ages":[`...)
		text = appendAges(text, rows, now)
	}
	a.states[i], a.plain[i] = states, plain
	a.tails[i] = tail{append(text, ']', '}'), rest}
}

func appendStatus(text []byte, row int, s Status) []byte {
	if row > 0 {
		text = append(text, ',')
	}
	return append(append(append(text, '"'), s.String()...), '"')
}

func appendAges(text []byte, rows *Rows, now int64) []byte {
	for row := range rows.refs {
		if row > 0 {
			text = append(text, ',')
		}
		if r := rows.Row(row); r.Found() {
			text = appendFloat(text, float64(now-r.Version().EventTime)/1e6)
		} else {
			text = append(text, "null"...)
		}
	}
	return text
}

func (a *answer) writeKey(k *keyColumn) {
	a.startResult()
	for row := range k.column.values {
		if row > 0 {
			a.out = append(a.out, ',')
		}
		a.writeKeyValue(k, &k.column.values[row])
	}
	a.constantTail()
}

func (a *answer) writeKeyValue(k *keyColumn, v *entityValue) {
	switch k.typ {
	case event.Int32, event.Int64:
		n, _ := v.integer()
		a.out = strconv.AppendInt(a.out, n, 10)
	case event.Timestamp:
		t, _ := v.timestamp()
		a.out = strconv.AppendInt(a.out, floorDiv(t, 1_000_000), 10)
	default:
		a.out = v.appendJSON(a.out)
	}
}

func (a *answer) startResult() {
	if a.out[len(a.out)-1] == '}' {
		a.out = append(a.out, ',')
	}
	a.out = append(a.out, `{"values":[`...)
}

// constantTail ends the result of a column that the request itself gave.
func (a *answer) constantTail() {
	a.out = append(a.out, `],"statuses":[`...)
	for row := range a.n {
		if row > 0 {
			a.out = append(a.out, ',')
		}
		a.out = append(a.out, `"PRESENT"`...)
	}
	a.constantTimes()
}

func (a *answer) constantTimes() {
	a.out = append(a.out, `],"event_timestamps":[`...)
	for row := range a.n {
		if row > 0 {
			a.out = append(a.out, ',')
		}
		a.out = append(a.out, epochTime...)
	}
	a.out = append(a.out, `]}`...)
}

func (a *answer) writeFeature(p *plan, f *planFeature) {
	a.startResult()
	t := &a.tails[f.view]
	if nulls := a.writeValues(p, f); nulls {
		a.out = append(append(append(a.out, `],"statuses":[`...), a.status...), t.text[t.rest:]...)
	} else {
		a.out = append(a.out, t.text...)
	}
}

// writeValues writes a feature's values and, when a row states null, the
// statuses into a.status.
func (a *answer) writeValues(p *plan, f *planFeature) (nulls bool) {
	if !f.masked && a.plain[f.view] && !f.typ.List && fixedWidth(f.typ) == 8 {
		nulls = a.writeWide(p, f)
	} else {
		nulls = a.writeAny(p, f)
	}
	if nulls {
		a.writeStatuses(p, f)
	}
	return nulls
}

// writeWide writes an eight-byte column when every row is there and has the
// plan's layout: the common case, without a look at anything but the slot.
func (a *answer) writeWide(p *plan, f *planFeature) (nulls bool) {
	rows := &a.rows[f.view]
	at, bit := p.views[f.view].layout.columns[f.column].at, byte(1)<<(f.column&7)
	mask := slotNulls + f.column>>3
	out := a.out
	for i := range rows.refs {
		if i > 0 {
			out = append(out, ',')
		}
		slot := rows.data[rows.refs[i].at:]
		if slot[mask]&bit != 0 {
			out, nulls = append(out, "null"...), true
			continue
		}
		v := binary.LittleEndian.Uint64(slot[at:])
		switch f.typ.Elem {
		case event.Float64:
			out = appendFloat(out, math.Float64frombits(v))
		case event.Int64:
			out = strconv.AppendInt(out, int64(v), 10)
		default:
			out = appendNumberJSON(out, f.typ.Elem, number{i: int64(v)})
		}
	}
	a.out = out
	return nulls
}

func (a *answer) writeAny(p *plan, f *planFeature) (nulls bool) {
	rows, l := &a.rows[f.view], p.views[f.view].layout
	out := a.out
	for row, state := range a.states[f.view] {
		if row > 0 {
			out = append(out, ',')
		}
		if Status(state) != Present {
			out = append(out, "null"...)
			continue
		}
		r := rows.Row(row)
		column := f.column
		if r.layout != l {
			column = r.Column(f.name)
		}
		if f.masked || column < 0 || slotNull(r.slot, column) {
			out, nulls = append(out, "null"...), true
			continue
		}
		out = r.appendJSON(out, column)
	}
	a.out = out
	return nulls
}

func (a *answer) writeStatuses(p *plan, f *planFeature) {
	a.status = a.status[:0]
	for row, state := range a.states[f.view] {
		st := Status(state)
		if r := a.rows[f.view].Row(row); st == Present {
			column := f.column
			if r.layout != p.views[f.view].layout {
				column = r.Column(f.name)
			}
			if f.masked || column < 0 || slotNull(r.slot, column) {
				st = NullValue
			}
		}
		a.status = appendStatus(a.status, row, st)
	}
}

// appendJSON writes a value that is not null.
func (r Row) appendJSON(dst []byte, column int) []byte {
	c := &r.layout.columns[column]
	if c.variable >= 0 {
		return appendVariableJSON(dst, r.layout.variable(r.slot, r.block, c.variable), c.typ)
	}
	return appendNumberJSON(dst, c.typ.Elem, getFixed(r.slot[c.at:], c.typ.Elem))
}

func (a *answer) writeMetadata(p *plan) {
	a.out = append(a.out, `],"metadata":{"feature_names":[`...)
	for i := range a.keys {
		if i > 0 {
			a.out = append(a.out, ',')
		}
		a.out = appendString(a.out, a.keys[i].name)
	}
	if len(a.keys) > 0 && len(p.names) > 0 {
		a.out = append(a.out, ',')
	}
	a.out = append(append(a.out, p.names...), ']')
	if a.req.versions {
		a.out = append(a.out, p.metadata...)
	}
	a.out = append(a.out, `}}`...)
}
