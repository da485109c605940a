package features

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// historyPlan is a request resolved against definitions and an entity frame.
type historyPlan struct {
	time    int // column of the frame
	leaky   bool
	until   store.Bounds
	views   []historyView
	keys    []frameKey      // key columns of the frame, as the views want them
	request map[string]int  // frame columns that on-demand features need
	columns []historyColumn // of the answer, behind the frame's own
	schema  *arrow.Schema   // of the answer
	// maskedFrame are the entity frame's own columns that are null in the answer;
	// nil: none is
	maskedFrame []bool
	limit       int              // entity rows held at a time
	memory      memory.Allocator // of the answer's columns
}

type historyView struct {
	view    *View
	keys    []int // historyPlan.keys
	columns []string
	types   []event.ColumnType
}

// frameKey is a frame's column read as a key of some type.
type frameKey struct {
	name   string
	column int
	typ    event.ColumnType
}

// historyColumn is one feature: stored, or computed from stored ones.
type historyColumn struct {
	name    string
	feature string // its name in its view
	masked  bool   // from whoever asks
	typ     event.ColumnType
	view    int // historyPlan.views
	column  int // historyView.columns
	derived *planDerived
	inputs  [][2]int // of derived: view and column of each input
}

func (h *History) plan(req HistoryRequest, frame *arrow.Schema) (*historyPlan, error) {
	b := h.online.book(req.Namespace)
	refs := req.Features
	if req.Service != "" {
		var err error
		if refs, err = b.serviceRefs(req.Service); err != nil {
			return nil, err
		}
	}
	if len(refs) == 0 && req.FromPredictions == "" {
		return nil, badRequest("No features specified for retrieval")
	}
	p := &historyPlan{leaky: req.IgnoreKnownAt, until: req.Until, request: map[string]int{}, memory: memory.DefaultAllocator}
	name := req.TimeColumn
	if name == "" {
		name = "event_timestamp"
	}
	if p.time = frameColumn(frame, name); p.time < 0 {
		return nil, badRequest("the entity frame has no column %q to say when each row is asked for; its columns are %v", name, frameNames(frame))
	}
	for _, s := range refs {
		if err := p.addRef(b, s, req.FullNames, frame); err != nil {
			return nil, err
		}
	}
	if err := p.mask(req.Hides, req.FromPredictions != "" || req.AllEntities || req.Labels != nil, frame); err != nil {
		return nil, err
	}
	if err := p.finish(frame); err != nil {
		return nil, err
	}
	p.limit = int(max(1024, min(h.cfg.Memory/2/p.bytesPerRow(), 1<<30)))
	return p, nil
}

func frameColumn(s *arrow.Schema, name string) int {
	if at := s.FieldIndices(name); len(at) > 0 {
		return at[0]
	}
	return -1
}

func frameNames(s *arrow.Schema) (names []string) {
	for _, f := range s.Fields() {
		names = append(names, f.Name)
	}
	return names
}

func (p *historyPlan) addRef(b *book, s string, fullNames bool, frame *arrow.Schema) error {
	r, ok := parseRef(s)
	if !ok {
		return badRequest("Invalid feature reference '%s'. Expected format: '<feature_view>:<feature>' or '<feature_view>@<version>:<feature>'", s)
	}
	name := r.feature
	if fullNames {
		name = r.view + "__" + name
	}
	if od := b.onDemand[r.view]; od != nil {
		return p.addDerived(od, r.feature, name, frame)
	}
	v := b.views[r.view]
	if v == nil {
		return b.noView(r.view)
	}
	view, column, err := p.addColumn(v, r.feature, frame)
	if err == nil {
		p.columns = append(p.columns, historyColumn{name: name, feature: r.feature, typ: p.views[view].types[column], view: view, column: column})
	}
	return err
}

func (p *historyPlan) addDerived(od *onDemandView, feature, name string, frame *arrow.Schema) error {
	at := slices.IndexFunc(od.spec.Features, func(f OnDemandFeature) bool { return f.Name == feature })
	if at < 0 {
		return badRequest("Feature %s not found in projection %s", feature, od.name)
	}
	c := historyColumn{name: name, feature: feature, typ: od.spec.Features[at].Type, derived: &planDerived{view: od, feature: at}}
	for _, in := range od.inputs {
		view, column, err := p.addColumn(in.view, in.column, frame)
		if err != nil {
			return err
		}
		c.inputs = append(c.inputs, [2]int{view, column})
	}
	for _, f := range od.spec.Request {
		if p.request[f.Name] = frameColumn(frame, f.Name); p.request[f.Name] < 0 {
			return notFound("RequestDataNotFoundInEntityRowsException", "Required request data source features %s not found in the entity rows, but required by feature views", pythonList([]string{f.Name}))
		}
	}
	p.columns = append(p.columns, c)
	return nil
}

// addColumn makes sure that a stored column is joined.
func (p *historyPlan) addColumn(v *View, name string, frame *arrow.Schema) (view, column int, err error) {
	at := slices.IndexFunc(v.Schema.Values(), func(f event.Field) bool { return f.Name == name })
	if at < 0 {
		return 0, 0, badRequest("Feature %s not found in projection %s", name, v.Name)
	}
	view = slices.IndexFunc(p.views, func(hv historyView) bool { return hv.view == v })
	if view < 0 {
		hv := historyView{view: v}
		for _, f := range v.Schema.Keys() {
			k, err := p.addKey(f, frame)
			if err != nil {
				return 0, 0, err
			}
			hv.keys = append(hv.keys, k)
		}
		view = len(p.views)
		p.views = append(p.views, hv)
	}
	hv := &p.views[view]
	column = slices.Index(hv.columns, name)
	if column < 0 {
		column = len(hv.columns)
		hv.columns, hv.types = append(hv.columns, name), append(hv.types, v.Schema.Values()[at].Type)
	}
	return view, column, nil
}

func (p *historyPlan) addKey(f event.Field, frame *arrow.Schema) (int, error) {
	column := frameColumn(frame, f.Name)
	if column < 0 {
		return 0, badRequest("the entity frame has no column %q, a join key; its columns are %v", f.Name, frameNames(frame))
	}
	k := frameKey{f.Name, column, f.Type}
	if i := slices.Index(p.keys, k); i >= 0 {
		return i, nil
	}
	p.keys = append(p.keys, k)
	return len(p.keys) - 1, nil
}

// finish makes the answer's schema.
func (p *historyPlan) finish(frame *arrow.Schema) error {
	fields, seen := slices.Clone(frame.Fields()), map[string]bool{}
	for i, f := range fields {
		seen[f.Name] = true
		fields[i].Nullable = f.Nullable || p.maskedFrame != nil && p.maskedFrame[i]
	}
	for _, c := range p.columns {
		if seen[c.name] {
			return &apiError{status: 400, class: "FeatureNameCollisionError", message: fmt.Sprintf("two columns of the answer are named %s: ask for full feature names, or rename the entity frame's column", c.name)}
		}
		seen[c.name] = true
		fields = append(fields, arrow.Field{Name: c.name, Type: arrowType(c.typ), Nullable: true})
	}
	p.schema = arrow.NewSchema(fields, nil)
	return nil
}

// chunk is a part of the entity frame and what was joined with it.
type chunk struct {
	records []arrow.RecordBatch
	rows    int
	at      []int64
	keys    []event.Column
	joined  []*joined
}

// read takes records until the plan's limit is reached.
func (p *historyPlan) read(in FrameReader) (*chunk, error) {
	c := &chunk{}
	for _, k := range p.keys {
		c.keys = append(c.keys, newColumn(k.typ, false))
	}
	for c.rows < p.limit {
		r, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.take(c, r)
		}
		if err != nil {
			c.release()
			var own *apiError
			if errors.As(err, &own) {
				return nil, err
			}
			return nil, badRequest("read the entity frame: %w", err)
		}
	}
	return c, nil
}

func (p *historyPlan) take(c *chunk, r arrow.RecordBatch) (err error) {
	r.Retain()
	c.records = append(c.records, r)
	if c.at, err = appendTimes(c.at, r.Column(p.time), c.rows); err != nil {
		return err
	}
	for i, k := range p.keys {
		if err := appendKeys(&c.keys[i], r.Column(k.column), k.name, c.rows); err != nil {
			return err
		}
	}
	c.rows += int(r.NumRows())
	return nil
}

func (c *chunk) release() {
	for _, r := range c.records {
		r.Release()
	}
}

// write adds the features to the chunk's records, in the frame's order. One is
// made while the one before it is written.
func (c *chunk) write(p *historyPlan, out FrameWriter) error {
	made := make(chan arrow.RecordBatch)
	stop := make(chan struct{})
	written := make(chan error, 1)
	go func() {
		defer close(stop)
		for rec := range made {
			err := out.Write(rec)
			rec.Release()
			if err != nil {
				written <- fmt.Errorf("history: write the answer: %w", err)
				return
			}
		}
		written <- nil
	}()
	err := c.make(p, made, stop)
	close(made)
	return errors.Join(err, <-written)
}

// make yields the chunk's records with the features, until stop closes.
func (c *chunk) make(p *historyPlan, to chan<- arrow.RecordBatch, stop <-chan struct{}) error {
	from := 0
	for _, r := range c.records {
		rec, err := c.record(p, r, from)
		if err != nil {
			return err
		}
		select {
		case to <- rec:
		case <-stop:
			rec.Release()
			return nil
		}
		from += int(r.NumRows())
	}
	return nil
}

// record is a record of the frame with the features behind its own columns.
func (c *chunk) record(p *historyPlan, r arrow.RecordBatch, from int) (arrow.RecordBatch, error) {
	n := int(r.NumRows())
	cols, made := slices.Clone(r.Columns()), []arrow.Array{}
	defer func() {
		for _, a := range made {
			a.Release()
		}
	}()
	for i := range p.maskedFrame {
		if p.maskedFrame[i] {
			cols[i] = p.nulls(cols[i].DataType(), n)
			made = append(made, cols[i])
		}
	}
	for i := range p.columns {
		a, err := c.column(p, &p.columns[i], r, from, n)
		if err != nil {
			return nil, err
		}
		cols, made = append(cols, a), append(made, a)
	}
	return array.NewRecordBatch(p.schema, cols, int64(n)), nil
}

func (c *chunk) column(p *historyPlan, h *historyColumn, r arrow.RecordBatch, from, n int) (arrow.Array, error) {
	if h.masked {
		return p.nulls(arrowType(h.typ), n), nil
	}
	if h.derived != nil {
		return c.derive(p, h, r, from, n)
	}
	j := c.joined[h.view]
	return buildColumn(p.memory, &j.columns[h.column], j.place[from:from+n]), nil
}
