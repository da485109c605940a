package features

import (
	"encoding/json"

	"github.com/kedge-ml/kedge/event"
)

// writeDerived computes the on-demand features row by row.
func (a *answer) writeDerived(p *plan) error {
	for i := range p.derived {
		d := &p.derived[i]
		a.startResult()
		a.status = a.status[:0]
		for row := range a.n {
			if row > 0 {
				a.out, a.status = append(a.out, ','), append(a.status, ',')
			}
			x, err := a.derive(p, d, row)
			if err != nil {
				return err
			}
			if a.out, err = appendAny(a.out, x); err != nil {
				return badRequest("On-demand feature %s:%s: %v", d.view.name, d.view.spec.Features[d.feature].Name, err)
			}
			if x == nil {
				a.status = append(a.status, `"NULL_VALUE"`...)
			} else {
				a.status = append(a.status, `"PRESENT"`...)
			}
		}
		a.out = append(append(a.out, `],"statuses":[`...), a.status...)
		a.constantTimes()
	}
	return nil
}

func (a *answer) derive(p *plan, d *planDerived, row int) (any, error) {
	if d.masked {
		return nil, nil
	}
	inputs := make([]any, len(d.inputs))
	for i, at := range d.inputs {
		f := &p.features[at]
		if Status(a.states[f.view][row]) == Present {
			inputs[i] = a.rows[f.view].Row(row).value(f.name)
		}
	}
	request := make(map[string]any, len(d.view.spec.Request))
	for _, f := range d.view.spec.Request {
		v := &a.req.entity(f.Name).values[row]
		x, ok := v.native(f.Type)
		if !ok {
			return nil, badRequest("Request value %s in row %d: %s is not %s", f.Name, row, v.appendJSON(nil), f.Type)
		}
		request[f.Name] = x
	}
	x, err := d.view.eval(d.feature, inputs, request)
	if err != nil {
		return nil, err
	}
	f := d.view.spec.Features[d.feature]
	out, ok := convertDerived(x, f.Type)
	if !ok {
		return nil, badRequest("On-demand feature %s:%s: the expression gave %T, want %s", d.view.name, f.Name, x, f.Type)
	}
	return out, nil
}

// value is a column's value as expressions see it: nil for null.
func (r Row) value(name string) any {
	column := r.Column(name)
	if column < 0 || slotNull(r.slot, column) {
		return nil
	}
	c := &r.layout.columns[column]
	if c.variable < 0 {
		return nativeNumber(c.typ.Elem, getFixed(r.slot[c.at:], c.typ.Elem))
	}
	b := r.layout.variable(r.slot, r.block, c.variable)
	if !c.typ.List {
		return string(b)
	}
	list := []any{}
	for items := readList(b, c.typ.Elem); ; {
		item, null, ok := items.next()
		switch {
		case !ok:
			return list
		case null:
			list = append(list, nil)
		case items.width < 0:
			list = append(list, string(item))
		default:
			list = append(list, nativeNumber(c.typ.Elem, getFixed(item, c.typ.Elem)))
		}
	}
}

func nativeNumber(t event.Type, n number) any {
	switch {
	case t == event.Bool:
		return n.i != 0
	case n.float:
		return n.f
	}
	return n.i
}

// native is the value as expressions see it, if it is of type t.
func (v *entityValue) native(t event.ColumnType) (any, bool) {
	switch {
	case v.kind == kindNull:
		return nil, true
	case t.List:
		return nil, false
	}
	switch t.Elem {
	case event.Bool:
		return len(v.raw) == 4, v.kind == kindBool
	case event.Int32, event.Int64:
		return v.integer()
	case event.Timestamp:
		return v.timestamp()
	case event.Float32, event.Float64:
		if v.kind == kindString {
			return finiteWord(v.raw)
		}
		f, ok := parseFloat(v.raw)
		return f, ok && (v.kind == kindInteger || v.kind == kindFloat)
	}
	return string(v.raw), v.kind == kindString
}

// finiteWord reads the strings that stand for what no JSON number can.
func finiteWord(b []byte) (float64, bool) {
	switch string(b) {
	case "NaN", "Infinity", "-Infinity":
		return parseFloat(b)
	}
	return 0, false
}

// appendAny writes an expression's result.
func appendAny(dst []byte, x any) ([]byte, error) {
	switch x := x.(type) {
	case nil:
		return append(dst, "null"...), nil
	case float64:
		return appendFloat(dst, x), nil
	case string:
		return appendString(dst, x), nil
	}
	b, err := json.Marshal(x)
	return append(dst, b...), err
}
