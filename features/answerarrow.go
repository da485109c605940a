package features

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
)

// wantsArrow reports whether a request asks for the binary answer.
func wantsArrow(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return accept != "" && strings.Contains(accept, "vnd.apache.arrow")
}

// arrowColumns collects the columns of a binary answer.
type arrowColumns struct {
	fields []arrow.Field
	arrays []arrow.Array
	place  []int32
}

func (c *arrowColumns) add(name string, col *event.Column) {
	c.fields = append(c.fields, arrow.Field{Name: name, Type: arrowType(col.Type), Nullable: true})
	c.arrays = append(c.arrays, buildColumn(memory.DefaultAllocator, col, c.place))
}

// makeArrow fills a.out with the answer as one Arrow IPC stream: the join keys,
// the features, a status per feature as NAME__status, and per view the rows'
// event times as VIEW__event_timestamp and, if asked for, their ages in seconds as
// VIEW__age.
func (a *answer) makeArrow(ctx context.Context, b *book, lim Limits, now int64) error {
	p, err := a.find(ctx, b, lim, now)
	if err != nil {
		return err
	}
	c := &arrowColumns{place: make([]int32, a.n)}
	for i := range c.place {
		c.place[i] = int32(i)
	}
	defer func() {
		for _, x := range c.arrays {
			x.Release()
		}
	}()
	for i := range a.keys {
		col := a.keys[i].arrow()
		c.add(a.keys[i].name, &col)
	}
	for i := range p.features {
		if !p.features[i].hidden {
			a.addFeature(c, p, &p.features[i])
		}
	}
	for i := range p.derived {
		if err := a.addDerived(c, p, &p.derived[i]); err != nil {
			return err
		}
	}
	for i := range p.views {
		c.add(p.views[i].view.Name+"__event_timestamp", a.eventTimes(i))
		if a.req.ages {
			c.add(p.views[i].view.Name+"__age", a.agesOf(i, now))
		}
	}
	return a.writeArrow(c)
}

func (a *answer) writeArrow(c *arrowColumns) error {
	schema := arrow.NewSchema(c.fields, nil)
	rec := array.NewRecordBatch(schema, c.arrays, int64(a.n))
	defer rec.Release()
	out := bytes.NewBuffer(a.out[:0])
	w := ipc.NewWriter(out, ipc.WithSchema(schema))
	if err := w.Write(rec); err != nil {
		return fmt.Errorf("write the Arrow answer: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write the Arrow answer: %w", err)
	}
	a.out = out.Bytes()
	return nil
}

// arrow is the key column as the request has it, in its view's type.
func (k *keyColumn) arrow() event.Column {
	switch k.typ {
	case event.Int32, event.Int64:
		col := newColumn(event.ColumnType{Elem: event.Int64}, true)
		for i := range k.column.values {
			n, _ := k.column.values[i].integer()
			col.AppendInt64(n)
		}
		return col
	}
	col := newColumn(event.ColumnType{Elem: event.String}, true)
	for i := range k.column.values {
		if v := &k.column.values[i]; v.kind == kindString {
			col.AppendBytes(v.raw)
		} else {
			col.AppendBytes(v.appendJSON(nil))
		}
	}
	return col
}

func (a *answer) addFeature(c *arrowColumns, p *plan, f *planFeature) {
	col, status := newColumn(f.typ, true), newColumn(event.ColumnType{Elem: event.String}, true)
	for row, state := range a.states[f.view] {
		st := Status(state)
		if st == Present {
			r := a.rows[f.view].Row(row)
			column := r.Column(f.name)
			if f.masked {
				column = -1
			}
			st = r.AppendTo(&col, column)
		} else {
			col.AppendNull()
		}
		status.AppendBytes([]byte(st.String()))
	}
	name := f.name
	if a.req.fullNames {
		name = p.views[f.view].view.Name + "__" + name
	}
	c.add(name, &col)
	c.add(name+"__status", &status)
}

func (a *answer) addDerived(c *arrowColumns, p *plan, d *planDerived) error {
	f := d.view.spec.Features[d.feature]
	col, status := newColumn(f.Type, true), newColumn(event.ColumnType{Elem: event.String}, true)
	for row := range a.n {
		x, err := a.derive(p, d, row)
		if err != nil {
			return err
		}
		if !appendNative(&col, x) {
			return badRequest("On-demand feature %s:%s: the expression gave %T, want %s", d.view.name, f.Name, x, f.Type)
		}
		st := Present
		if x == nil {
			st = NullValue
		}
		status.AppendBytes([]byte(st.String()))
	}
	name := f.Name
	if a.req.fullNames {
		name = d.view.name + "__" + name
	}
	c.add(name, &col)
	c.add(name+"__status", &status)
	return nil
}

func (a *answer) eventTimes(view int) *event.Column {
	col := newColumn(event.ColumnType{Elem: event.Timestamp}, true)
	for row := range a.n {
		if r := a.rows[view].Row(row); r.Found() {
			col.AppendInt64(r.Version().EventTime)
		} else {
			col.AppendNull()
		}
	}
	return &col
}

func (a *answer) agesOf(view int, now int64) *event.Column {
	col := newColumn(event.ColumnType{Elem: event.Float64}, true)
	for row := range a.n {
		if r := a.rows[view].Row(row); r.Found() {
			appendNumber(&col, number{float: true, f: float64(now-r.Version().EventTime) / 1e6})
			appendNotNull(&col)
		} else {
			col.AppendNull()
		}
	}
	return &col
}
