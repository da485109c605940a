package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// eventMapper builds one kind of event from a row.
type eventMapper struct {
	kind    event.Kind
	spec    Event
	when    *expression.Program
	del     *expression.Program
	without *expression.Program // withdrawn
	time    *clock
	created *clock
	knownAt *clock

	version, id, variant, threshold, weight *valueMapper
	score, class, value, vector             *valueMapper
	predictionID, label                     *valueMapper
	key, segments, scores                   []namedMapper
	columns                                 *selector
}

func (b *builder) event(e Event) *eventMapper {
	kind, _ := event.ParseKind(e.Kind)
	m := &eventMapper{
		kind: kind, spec: e, when: b.condition("when", e.When), del: b.condition("delete", e.Delete),
		without: b.condition("withdrawn", e.Withdrawn),
		time:    b.clock("time", e.Time), created: b.clock("created", e.Created), knownAt: b.clock("known_at", b.knownAt(e)),
		version: b.value("version", e.Version), id: b.value("id", e.ID), variant: b.value("variant", e.Variant),
		threshold: b.value("threshold", e.Threshold), weight: b.value("weight", e.Weight),
		score: b.value("output.score", e.Output.Score), class: b.value("output.class", e.Output.Class),
		value: b.value("output.value", e.Output.Value), vector: b.value("output.vector", e.Output.Vector),
		predictionID: b.value("prediction_id", e.PredictionID), label: b.value("label", e.Label),
		key: b.named("key", e.Key), segments: b.named("segments", e.Segments), scores: b.named("output.scores", e.Output.Scores),
	}
	m.columns = b.selector("values", e.Values)
	if kind == event.Predictions {
		m.columns = b.selector("inputs", e.Inputs)
	}
	return m
}

func (b *builder) knownAt(e Event) Time {
	switch b.options.KnownAt {
	case "":
		return e.KnownAt
	case "event_time":
		return Time{Same: true}
	}
	return Time{Field: b.options.KnownAt, Format: e.Time.Format, Unit: e.Time.Unit, Zone: e.Time.Zone}
}

// selector chooses a row's columns.
type selector struct {
	all    bool
	except map[string]bool
	only   []string
	rename map[string]string
	add    []namedMapper
	buf    []event.NamedValue
}

func (b *builder) selector(what string, s Select) *selector {
	return &selector{all: s.All, except: setOf(s.Except), only: s.Only, rename: s.Rename, add: b.named(what+".add", s.Add)}
}

func (s *selector) of(row Row, m *machine) ([]event.NamedValue, error) {
	s.buf = s.buf[:0]
	if s.all {
		for _, f := range row.Fields {
			if !s.except[f.Name] {
				s.buf = append(s.buf, event.NamedValue{Name: s.column(f.Name), Value: f.Value})
			}
		}
	}
	for _, name := range s.only {
		s.buf = append(s.buf, event.NamedValue{Name: s.column(name), Value: row.Field(name)})
	}
	for _, a := range s.add {
		v, err := a.value.of(row, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		s.buf = append(s.buf, event.NamedValue{Name: a.name, Value: v})
	}
	return s.buf, nil
}

func (s *selector) column(field string) string {
	if to, ok := s.rename[field]; ok {
		return to
	}
	return field
}

// append appends the envelope of the row's event and returns the event's time.
func (e *eventMapper) append(dst []byte, row Row, m *machine) (int64, []byte, error) {
	r := &reading{row: row, vm: m}
	at := r.micros("time", e.time, 0)
	created, knownAt := r.micros("created", e.created, at), r.micros("known_at", e.knownAt, at)
	columns, err := e.columns.of(row, m)
	r.fail("values", err)
	switch e.kind {
	case event.Features:
		f := event.FeatureRow{View: e.spec.View, Key: r.key(e.key), EventTime: at, Created: created, KnownAt: knownAt, ID: r.text("id", e.id), Values: columns}
		f.Delete = r.flag("delete", e.del)
		dst = event.AppendFeatureJSON(dst, f)
	case event.Predictions:
		dst = event.AppendPredictionJSON(dst, event.Prediction{
			Model: e.spec.Model, Version: r.text("version", e.version), ID: r.text("id", e.id), EventTime: at, Created: created, KnownAt: knownAt,
			Key: r.jsonKey(e.key), Inputs: columns, Output: r.output(e), Segments: r.texts(e.segments), Variant: r.text("variant", e.variant),
			Threshold: r.float("threshold", e.threshold), Weight: r.weight(e.weight),
		})
	case event.Labels:
		l := event.Label{Model: e.spec.Model, PredictionID: r.text("prediction_id", e.predictionID), Key: r.jsonKey(e.key), EventTime: at,
			Created: created, KnownAt: knownAt, ID: r.text("id", e.id), Weight: r.weight(e.weight)}
		if !r.flag("withdrawn", e.without) {
			r.label(e.label, &l)
		}
		dst = event.AppendLabelJSON(dst, l)
	}
	return at, dst, r.err
}

// absent reports whether a label event has nothing to say: no truth yet, and
// none to withdraw.
func (e *eventMapper) absent(row Row, m *machine) (bool, error) {
	if e.kind != event.Labels {
		return false, nil
	}
	v, err := e.label.of(row, m)
	if err != nil || !v.IsNull() {
		return false, err
	}
	if e.without == nil {
		return true, nil
	}
	withdrawn, err := m.truth(e.without, row)
	return !withdrawn, err
}

// reading reads one row's values and keeps the first fault.
type reading struct {
	row Row
	vm  *machine
	err error
}

func (r *reading) fail(what string, err error) {
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (r *reading) micros(what string, c *clock, same int64) int64 {
	if c == nil {
		return 0
	}
	t, err := c.micros(r.row, r.vm, same)
	r.fail(what, err)
	return t
}

func (r *reading) value(what string, v *valueMapper) event.Value {
	out, err := v.of(r.row, r.vm)
	r.fail(what, err)
	return out
}

func (r *reading) flag(what string, e *expression.Program) bool {
	if e == nil {
		return false
	}
	ok, err := r.vm.truth(e, r.row)
	r.fail(what, err)
	return ok
}

// text reads a value as text; numbers and booleans as JSON writes them.
func (r *reading) text(what string, v *valueMapper) string {
	x := r.value(what, v)
	if x.IsNull() {
		return ""
	}
	return scalarText(x)
}

// scalarText writes whole floats without a fraction: tools store ids as floats.
func scalarText(v event.Value) string {
	if i, ok := wholeNumber(v); ok {
		return string(event.AppendValue(nil, event.Int(i)))
	}
	return plainText(v)
}

var errNotNumber = errors.New("is not a number")

func (r *reading) float(what string, v *valueMapper) *float64 {
	x := r.value(what, v)
	switch x.Type.Elem {
	case event.Unknown:
		return nil
	case event.Float32, event.Float64:
		return &x.Float
	case event.Int32, event.Int64, event.Bool:
		f := float64(x.Int)
		return &f
	case event.String:
		if f, ok := notFinite(x.Text); ok {
			return &f
		}
	}
	r.fail(what, errNotNumber)
	return nil
}

// notFinite reads what JSON has no numbers for, as events write it.
func notFinite(text string) (float64, bool) {
	switch text {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	return 0, false
}

func (r *reading) weight(v *valueMapper) float64 {
	if w := r.float("weight", v); w != nil {
		return *w
	}
	return 1
}

func (r *reading) key(parts []namedMapper) []event.NamedValue {
	list := make([]event.NamedValue, 0, len(parts))
	for _, p := range parts {
		v := r.value("key."+p.name, p.value)
		if v.IsNull() {
			r.fail("key."+p.name, errors.New("is null"))
		}
		if i, ok := wholeNumber(v); ok {
			v = event.Int(i)
		}
		list = append(list, event.NamedValue{Name: p.name, Value: v})
	}
	return list
}

func (r *reading) jsonKey(parts []namedMapper) string {
	if len(parts) == 0 {
		return ""
	}
	var dst []byte
	sep := byte('{')
	for _, v := range r.key(parts) {
		dst = append(event.AppendString(append(dst, sep), v.Name), ':')
		dst = event.AppendValue(dst, v.Value)
		sep = ','
	}
	return string(append(dst, '}'))
}

func (r *reading) texts(parts []namedMapper) (list []event.NamedText) {
	for _, p := range parts {
		if v := r.value("segments."+p.name, p.value); !v.IsNull() {
			list = append(list, event.NamedText{Name: p.name, Value: scalarText(v)})
		}
	}
	return list
}

func (r *reading) output(e *eventMapper) event.Output {
	o := event.Output{Score: r.float("output.score", e.score), Value: r.float("output.value", e.value)}
	if c := r.value("output.class", e.class); !c.IsNull() {
		text := scalarText(c)
		o.Class = &text
	}
	for _, p := range e.scores {
		if f := r.float("output.scores."+p.name, p.value); f != nil {
			o.Scores = append(o.Scores, event.NamedFloat{Name: p.name, Value: *f})
		}
	}
	o.Vector = r.vector(e.vector)
	return o
}

func (r *reading) vector(v *valueMapper) []event.Value {
	x := r.value("output.vector", v)
	switch {
	case x.IsNull():
		return nil
	case x.Type.List:
		return slices.Clone(x.List)
	case x.Type.Elem == event.JSON:
		var list []*float64
		r.fail("output.vector", json.Unmarshal([]byte(x.Text), &list))
		return floats(list)
	}
	r.fail("output.vector", errors.New("is not an array"))
	return nil
}

func floats(list []*float64) []event.Value {
	out := make([]event.Value, len(list))
	for i, f := range list {
		if f != nil {
			out[i] = event.Float(*f)
		}
	}
	return out
}

func (r *reading) label(v *valueMapper, l *event.Label) {
	x := r.value("label", v)
	switch x.Type.Elem {
	case event.Unknown:
	case event.String:
		l.Class = &x.Text
	case event.Float32, event.Float64:
		l.Number = &x.Float
	case event.Int32, event.Int64, event.Bool:
		f := float64(x.Int)
		l.Number = &f
	default:
		r.fail("label", fmt.Errorf("is a %s: want a number, a text or null", x.Type))
	}
}
