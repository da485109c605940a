package features

import (
	"context"
	"net/http"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/kedge-ml/kedge/internal/auth"
)

// Hiding says what happens to a column for somebody.
type Hiding uint8

// What may happen to a column.
const (
	Shown  Hiding = iota
	Masked        // null
	Denied        // the request that names it is refused
)

// Hides says what of a namespace somebody may not see, by a column's or
// feature's name. nil hides nothing.
type Hides func(name string) Hiding

func (h Hides) of(name string) Hiding {
	if h == nil {
		return Shown
	}
	return h(name)
}

func (h Hides) denied(view, name string) error {
	return &apiError{status: http.StatusForbidden, class: "FeastPermissionError", message: "a column policy denies " + view + ":" + name + ": ask without it, or ask an administrator for a role that the policy names"}
}

// hidesOf is what is hidden from whoever sends a request.
func (s *Server) hidesOf(ctx context.Context, c auth.Caller) Hides {
	if s.cfg.Hides == nil {
		return nil
	}
	return s.cfg.Hides(ctx, c)
}

// masked is the plan without what is hidden: features whose column is in no
// row, and so null. The plan itself is everybody's.
func (p *plan) masked(h Hides) (*plan, error) {
	out := *p
	out.features = append([]planFeature(nil), p.features...)
	out.derived = append([]planDerived(nil), p.derived...)
	changed := false
	for i := range out.features {
		f := &out.features[i]
		switch view := p.views[f.view].view.Name; h.of(f.name) {
		case Denied:
			return nil, h.denied(view, f.name)
		case Masked:
			f.masked, changed = true, true
		}
	}
	for i := range out.derived {
		d := &out.derived[i]
		name := d.view.spec.Features[d.feature].Name
		switch h.of(name) {
		case Denied:
			return nil, h.denied(d.view.name, name)
		case Masked:
			d.masked = true
		}
		for _, in := range d.inputs {
			d.masked = d.masked || out.features[in].masked
		}
		changed = changed || d.masked
	}
	if !changed {
		return p, nil
	}
	return &out, nil
}

// mask hides columns of a join's answer: asked features, and of an entity frame
// that was made here the frame's own columns.
func (p *historyPlan) mask(h Hides, stored bool, frame *arrow.Schema) error {
	if h == nil {
		return nil
	}
	if stored {
		p.maskedFrame = make([]bool, frame.NumFields())
		for i, f := range frame.Fields() {
			p.maskedFrame[i] = h.of(f.Name) != Shown || h.of(strings.TrimPrefix(f.Name, "input__")) != Shown // as predictions name what they were given
		}
	}
	for i := range p.columns {
		c := &p.columns[i]
		names := []string{c.feature}
		for _, in := range c.inputs {
			names = append(names, p.views[in[0]].columns[in[1]])
		}
		for _, name := range names {
			switch h.of(name) {
			case Denied:
				return h.denied("the asked view", name)
			case Masked:
				c.masked = true
			}
		}
	}
	return nil
}

// nulls is a column of as many nulls.
func (p *historyPlan) nulls(t arrow.DataType, n int) arrow.Array {
	return array.MakeArrayOfNull(p.memory, t, n)
}
