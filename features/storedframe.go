package features

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// JoinStored is [History.Join] with an entity frame that is made of stored
// rows: a model's predictions, or every key of the asked views.
func (h *History) JoinStored(ctx context.Context, req HistoryRequest, out FrameWriter) (report *HistoryReport, err error) {
	views, err := h.viewsOf(req)
	if err != nil {
		return nil, err
	}
	join := func(r io.Reader) error {
		in, err := newStreams(r)
		if err != nil {
			return fmt.Errorf("history: read the stored entity frame: %w", err)
		}
		defer in.close()
		report, err = h.Join(ctx, req, in, out)
		return err
	}
	if req.FromPredictions != "" {
		f := store.PredictionFrame{Namespace: req.Namespace, Model: req.FromPredictions, From: req.From, To: req.To, Labels: req.WithLabels, Keys: keysOf(views), Until: req.Until, Sample: req.Sample}
		if f.To == 0 {
			f.To = event.MaxTime
		}
		err = h.store.Predictions(ctx, f, join)
	} else if req.Labels != nil {
		err = h.joinLabels(ctx, req, join)
	} else {
		err = h.joinEntities(ctx, req, views, join)
	}
	if errors.Is(err, store.ErrUnknown) {
		err = notFound("FeastError", "%v", err)
	}
	return report, err
}

func (h *History) joinLabels(ctx context.Context, req HistoryRequest, join func(io.Reader) error) error {
	b, l := h.online.book(req.Namespace), req.Labels
	v := b.views[l.View]
	if v == nil || v.windows != nil {
		return b.noView(l.View)
	}
	f := store.LabelFrame{Schema: v.Schema, Label: l.Column, Weight: l.Weight, From: l.From, To: l.To, Lead: l.Lead, Until: req.Until, Sample: req.Sample}
	if f.To == 0 {
		f.To = event.MaxTime
	}
	return h.store.LabelRows(ctx, f, join)
}

func (h *History) joinEntities(ctx context.Context, req HistoryRequest, views []*event.Schema, join func(io.Reader) error) error {
	if len(views) == 0 || len(req.At) == 0 {
		return badRequest("all entities: name features and at least one time")
	}
	for _, v := range views[1:] {
		if !slices.EqualFunc(v.Keys(), views[0].Keys(), func(a, b event.Field) bool { return a.Name == b.Name && a.Type == b.Type }) {
			return badRequest("all entities: views %s and %s have different keys: send a frame of entities", views[0].Subject, v.Subject)
		}
	}
	return h.store.Entities(ctx, views, req.At, join)
}

// Feature is where a column of a training set comes from.
type Feature struct {
	Column string // in the answer
	View   string
	Name   string // in the view
	Type   event.ColumnType
}

// Describe resolves what a request asks for: its features in order, and the
// names of the definitions that decide their values, as "Kind/name".
func (h *History) Describe(req HistoryRequest) (features []Feature, definitions []string, err error) {
	b := h.online.book(req.Namespace)
	uses := func(kind, name string) {
		if id := kind + "/" + name; !slices.Contains(definitions, id) {
			definitions = append(definitions, id)
		}
	}
	refs := req.Features
	if req.Service != "" {
		if refs, err = b.serviceRefs(req.Service); err != nil {
			return nil, nil, err
		}
		uses(FeatureServiceKind, req.Service)
	}
	view := func(v *View) {
		if v.windows == nil {
			uses(event.FeatureViewKind, v.Name)
			return
		}
		uses(WindowViewKind, v.Name)
		uses(event.FeatureViewKind, v.windows.plan.source.Subject)
	}
	for _, s := range refs {
		r, ok := parseRef(s)
		if !ok {
			return nil, nil, badRequest("feature %q: want view:feature", s)
		}
		f := Feature{Column: r.feature, View: r.view, Name: r.feature}
		if req.FullNames {
			f.Column = r.view + "__" + r.feature
		}
		if od := b.onDemand[r.view]; od != nil {
			uses(OnDemandViewKind, od.name)
			for _, in := range od.inputs {
				view(in.view)
			}
			at := slices.IndexFunc(od.spec.Features, func(x OnDemandFeature) bool { return x.Name == r.feature })
			if at < 0 {
				return nil, nil, badRequest("on-demand view %s has no feature %s", r.view, r.feature)
			}
			f.Type = od.spec.Features[at].Type
		} else if v := b.views[r.view]; v != nil {
			view(v)
			at := slices.IndexFunc(v.Schema.Values(), func(x event.Field) bool { return x.Name == r.feature })
			if at < 0 {
				return nil, nil, badRequest("view %s has no feature %s", r.view, r.feature)
			}
			f.Type = v.Schema.Values()[at].Type
		} else {
			return nil, nil, b.noView(r.view)
		}
		features = append(features, f)
	}
	if req.Labels != nil {
		uses(event.FeatureViewKind, req.Labels.View)
	}
	return features, definitions, nil
}

// viewsOf are the views whose rows the asked features are made of.
func (h *History) viewsOf(req HistoryRequest) (out []*event.Schema, err error) {
	b := h.online.book(req.Namespace)
	refs := req.Features
	if req.Service != "" {
		if refs, err = b.serviceRefs(req.Service); err != nil {
			return nil, err
		}
	}
	add := func(v *View) {
		s := v.Schema
		if v.windows != nil {
			s = v.windows.plan.source
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, s := range refs {
		r, _ := parseRef(s)
		if od := b.onDemand[r.view]; od != nil {
			for _, in := range od.inputs {
				add(in.view)
			}
		} else if v := b.views[r.view]; v != nil {
			add(v)
		} else {
			return nil, b.noView(r.view)
		}
	}
	return out, nil
}

func keysOf(views []*event.Schema) (out []event.Field) {
	for _, v := range views {
		for _, k := range v.Keys() {
			if !slices.ContainsFunc(out, func(f event.Field) bool { return f.Name == k.Name }) {
				out = append(out, k)
			}
		}
	}
	return out
}

// streams reads Arrow streams of one schema, one after another: the engine
// answers in several.
type streams struct {
	r      io.Reader
	now    *ipc.Reader
	schema *arrow.Schema
}

func newStreams(r io.Reader) (*streams, error) {
	first, err := ipc.NewReader(r)
	if err != nil {
		return nil, err
	}
	return &streams{r: r, now: first, schema: first.Schema()}, nil
}

// Schema is that of the first stream.
func (s *streams) Schema() *arrow.Schema { return s.schema }

// Read returns the next record.
func (s *streams) Read() (arrow.RecordBatch, error) {
	for {
		if s.now.Next() {
			return s.now.RecordBatch(), nil
		}
		if err := s.now.Err(); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		next, err := ipc.NewReader(s.r)
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, err
		}
		s.now.Release()
		s.now = next
	}
}

func (s *streams) close() { s.now.Release() }
