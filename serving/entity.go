package serving

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving/oip"
)

// ErrFeatures is behind every refusal because the online store cannot give
// what a model wants.
var ErrFeatures = errors.New("the features cannot be served")

// Features looks model inputs up in the online store of this process.
type Features struct {
	online    *features.Online
	reg       *registry.Registry
	namespace string
	ready     func() error
}

// NewFeatures returns a look-up over online tables. ready says why the tables
// are not fresh yet; reg knows what the views looked like when a model was
// trained.
func NewFeatures(o *features.Online, reg *registry.Registry, namespace string, ready func() error) *Features {
	return &Features{o, reg, namespace, ready}
}

// EntityRow is one prediction asked for by key.
type EntityRow struct {
	KeyText string             // the key as the caller wrote it, for the record
	Key     []event.NamedValue // parts of the entity key
	Data    []event.NamedValue // inputs that no view has
}

// viewInputs are the inputs of a model that come from one view.
type viewInputs struct {
	name    string
	version uint64 // the view's definition at training; 0: not stated
	inputs  []int
	columns []string // parallel to inputs
}

// groupViews notes where each input comes from.
func (m *Model) groupViews() {
	for i, in := range m.Signature.Inputs {
		if in.View == "" {
			m.direct = append(m.direct, i)
			continue
		}
		at := slices.IndexFunc(m.views, func(v viewInputs) bool { return v.name == in.View })
		if at < 0 {
			at = len(m.views)
			m.views = append(m.views, viewInputs{name: in.View})
		}
		v := &m.views[at]
		v.version = max(v.version, in.ViewVersion)
		v.inputs, v.columns = append(v.inputs, i), append(v.columns, orElse(in.Feature, in.Name))
	}
}

// fetched is what came of a look-up beside the tensors.
type fetched struct {
	took  time.Duration
	times [][]event.NamedTime // per row: event time of each view's row; absent where there is none
	late  [][]bool            // per row, per view: the row was older than the view's ttl
	rows  []features.Rows     // per view
	keys  []features.Keys     // per view
	views []*features.View    // per view
	cols  []event.Column      // per input
	key   []byte
	part  [1]event.Column // of a key
}

// fetch fills req with one tensor per input of m: from the online tables by
// key, and from the caller's data. A value that is not there, is null, or is
// older than its view's ttl is missing, as it is in the point-in-time join.
func (f *Features) fetch(ctx context.Context, got *fetched, req *oip.Request, m *Model, rows []EntityRow, now time.Time) error {
	if len(m.views) > 0 {
		if f == nil {
			return fmt.Errorf("%w: this process has no online store: send tensors, or give it the role features", ErrFeatures)
		}
		if err := f.ready(); err != nil {
			return fmt.Errorf("%w: %w", ErrFeatures, err)
		}
		if err := f.agree(m); err != nil {
			return err
		}
	}
	got.reset(m, len(rows))
	if err := f.lookUp(ctx, got, m, rows, now.UnixMicro()); err != nil {
		return err
	}
	for _, i := range m.direct {
		if err := got.fromData(i, m, rows); err != nil {
			return err
		}
	}
	for i := range m.Signature.Inputs {
		t := req.Add(m.Signature.Inputs[i].Name, m.datatypes[i], len(rows))
		fill(t, &got.cols[i])
	}
	return nil
}

// fill gives a tensor a column's values, and says which of them are null.
func fill(t *oip.Tensor, c *event.Column) {
	for i := range c.Nulls {
		t.Nulls = append(t.Nulls, c.Nulls[i] != 0)
		switch c.Type.Elem {
		case event.Bool:
			t.Bools = append(t.Bools, c.Bools[i] != 0)
		case event.Int32:
			t.Ints = append(t.Ints, int64(c.Int32s[i]))
		case event.Int64, event.Timestamp:
			t.Ints = append(t.Ints, c.Int64s[i])
		case event.Float32:
			t.Floats = append(t.Floats, float64(c.Float32s[i]))
		case event.Float64:
			t.Floats = append(t.Floats, c.Float64s[i])
		default:
			t.Bytes = append(t.Bytes, c.Str(i))
		}
	}
}

// reset empties everything and keeps its memory.
func (got *fetched) reset(m *Model, rows int) {
	got.cols = resized(got.cols, len(m.types))
	for i, t := range m.types {
		c := &got.cols[i]
		if c.Type != t || c.Nulls == nil {
			*c = event.Column{Type: t, Nulls: make([]uint8, 0, rows)}
		}
		c.Truncate(0)
	}
	got.rows, got.keys, got.views = resized(got.rows, len(m.views)), resized(got.keys, len(m.views)), resized(got.views, len(m.views))
	got.times, got.late = resized(got.times, rows), resized(got.late, rows)
	for i := range rows {
		got.times[i], got.late[i] = got.times[i][:0], resized(got.late[i], len(m.views))
		clear(got.late[i])
	}
}

// resized is a slice of n elements, those that it had among them.
func resized[T any](s []T, n int) []T {
	return slices.Grow(s[:min(n, len(s))], n-min(n, len(s)))[:n]
}

// lookUp reads all views for all rows.
func (f *Features) lookUp(ctx context.Context, got *fetched, m *Model, rows []EntityRow, now int64) error {
	var round features.Round
	for i := range m.views {
		want := &m.views[i]
		v := f.online.View(f.namespace, want.name)
		if v == nil || v.Windows() {
			return fmt.Errorf("%w: view %s is not served online: define it with online: true", ErrFeatures, want.name)
		}
		got.views[i] = v
		if err := got.ask(v, i, rows); err != nil {
			return err
		}
		v.Look(&got.keys[i], now, &got.rows[i], &round)
	}
	if err := round.Do(ctx, now); err != nil {
		return fmt.Errorf("%w: %w", ErrFeatures, err)
	}
	for i := range m.views {
		got.take(got.views[i], i, m, rows, now)
	}
	return nil
}

// ask encodes the keys of one view.
func (got *fetched) ask(v *features.View, view int, rows []EntityRow) (err error) {
	got.keys[view].Reset()
	got.rows[view].Reset()
	for i := range rows {
		if err = got.entityKey(v.Schema.Keys(), rows[i].Key, v.Name); err != nil {
			return err
		}
		got.keys[view].Add(got.key)
	}
	return nil
}

// take fills the inputs that come from one view.
func (got *fetched) take(v *features.View, view int, m *Model, rows []EntityRow, now int64) {
	want, found := &m.views[view], &got.rows[view]
	for i := range rows {
		row := found.Row(i)
		if !row.Found() {
			continue
		}
		at := row.Version().EventTime
		got.late[i][view] = v.Expired(at, now)
		got.times[i] = append(got.times[i], event.NamedTime{Name: want.name, Time: at})
	}
	for k, input := range want.inputs {
		c := &got.cols[input]
		for i := range rows {
			row := found.Row(i)
			if got.late[i][view] {
				row = features.Row{}
			}
			row.AppendTo(c, row.Column(want.columns[k]))
		}
	}
}

// entityKey encodes the parts of a key that a view wants, in its order.
func (got *fetched) entityKey(fields []event.Field, key []event.NamedValue, view string) error {
	got.key = got.key[:0]
	for _, f := range fields {
		at := slices.IndexFunc(key, func(v event.NamedValue) bool { return v.Name == f.Name })
		if at < 0 {
			return fmt.Errorf("%w: key part %q is missing: view %s is looked up by it", ErrInput, f.Name, view)
		}
		c := &got.part[0]
		if c.Type != f.Type {
			*c = event.Column{Type: f.Type}
		}
		c.Truncate(0)
		if !appendValue(c, key[at].Value) {
			return fmt.Errorf("%w: key part %q is not a %s", ErrInput, f.Name, f.Type)
		}
		got.key = features.AppendKey(got.key, got.part[:], 0)
	}
	return nil
}

// appendValue adds a value of the column's type, or an integer to a float
// column; anything else is false.
func appendValue(c *event.Column, v event.Value) bool {
	from, to := v.Type.Elem, c.Type.Elem
	switch {
	case v.Type.List || c.Type.List:
		return false
	case to == event.Timestamp && from == event.String:
		at, err := event.ParseTime([]byte(v.Text))
		c.AppendInt64(at)
		return err == nil
	case to == event.Int32 && from == event.Int64:
		c.AppendInt32(int32(v.Int))
		return int64(int32(v.Int)) == v.Int
	case to == event.Int64 && from == event.Int64:
		c.AppendInt64(v.Int)
	case to == event.Bool && from == event.Bool:
		c.AppendBool(v.Int != 0)
	case (to == event.String || to == event.Bytes) && from == event.String:
		c.AppendBytes([]byte(v.Text))
	case to == event.Float32 || to == event.Float64:
		return appendNumber(c, v)
	default:
		return false
	}
	return true
}

func appendNumber(c *event.Column, v event.Value) bool {
	x := v.Float
	switch v.Type.Elem {
	case event.Int64:
		x = float64(v.Int)
	case event.Float64:
	default:
		return false
	}
	if c.Type.Elem == event.Float32 {
		c.AppendFloat32(float32(x))
	} else {
		c.AppendFloat64(x)
	}
	return true
}

// fromData takes input i of every row from what the caller sent.
func (got *fetched) fromData(i int, m *Model, rows []EntityRow) error {
	in := &m.Signature.Inputs[i]
	for r := range rows {
		at := slices.IndexFunc(rows[r].Data, func(v event.NamedValue) bool { return v.Name == in.Name })
		if at < 0 {
			return fmt.Errorf("%w: row %d has no data %q: no view has this input, send it", ErrInput, r, in.Name)
		}
		v := rows[r].Data[at].Value
		if v.IsNull() {
			got.cols[i].AppendNull()
			continue
		}
		if !appendValue(&got.cols[i], v) {
			return fmt.Errorf("%w: row %d: data %q is not a %s", ErrInput, r, in.Name, in.Type)
		}
	}
	return nil
}

// agree checks, once per change of the views, that every view that the
// signature names in a version still gives what it gave then.
func (f *Features) agree(m *Model) error {
	st := f.reg.State()
	at := st.Changed(event.FeatureViewKind) + 2
	if m.agreed.Load() == at {
		return nil
	}
	for i := range m.views {
		if err := f.agreeOn(st, m, &m.views[i]); err != nil {
			return err
		}
	}
	m.agreed.Store(at)
	return nil
}

func (f *Features) agreeOn(st *registry.State, m *Model, v *viewInputs) error {
	def, ok := st.Get(event.FeatureViewKind, f.namespace, v.name)
	if !ok {
		return fmt.Errorf("%w: view %s is not defined", ErrFeatures, v.name)
	}
	now, err := event.ParseView(def.Spec)
	if err != nil {
		return fmt.Errorf("%w: view %s: %w", ErrFeatures, v.name, err)
	}
	then, err := f.viewAt(v, def)
	if err != nil {
		return err
	}
	for k, column := range v.columns {
		is, was := columnOf(now, column), columnOf(then, column)
		switch {
		case is == nil:
			return fmt.Errorf("%w: view %s has no column %q, which model %s version %s takes as %q", ErrFeatures, v.name, column, m.Name, m.Version, m.Signature.Inputs[v.inputs[k]].Name)
		case was != nil && was.Type != is.Type && v.version != 0:
			return fmt.Errorf("%w: %s.%s is %s since version %d of the view, model %s version %s was trained on version %d, where it is %s: train it anew",
				ErrFeatures, v.name, column, is.Type, def.Version, m.Name, m.Version, v.version, was.Type)
		}
	}
	return nil
}

// viewAt is the view as of the version that the signature names.
func (f *Features) viewAt(v *viewInputs, now registry.Definition) (*event.ViewSpec, error) {
	if v.version == 0 || v.version == now.Version {
		return event.ParseView(now.Spec)
	}
	for _, d := range f.reg.History(event.FeatureViewKind, f.namespace, v.name) {
		if d.Version == v.version && !d.Deleted {
			return event.ParseView(d.Spec)
		}
	}
	return nil, fmt.Errorf("%w: view %s has no version %d, on which the model was trained", ErrFeatures, v.name, v.version)
}

func columnOf(v *event.ViewSpec, name string) *event.FieldSpec {
	for i := range v.Columns {
		if v.Columns[i].Name == name {
			return &v.Columns[i]
		}
	}
	return nil
}
