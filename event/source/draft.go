package source

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
)

// Draft proposes a mapping for a sample of rows. name becomes the view's or
// the model's. It goes by names and values that are common in the field; its
// description says what it could not find and a person must state.
func Draft(name string, rows []Row) (*Mapping, error) {
	if len(rows) == 0 {
		return nil, errors.New("draft a mapping: the sample has no rows")
	}
	d := &drafter{rows: rows, taken: map[string]bool{}}
	d.survey()
	m := &Mapping{Description: "drafted from a sample; read it before use"}
	at := d.time()
	id := d.first(idNames, d.unique)
	key := d.keyField(id)
	score, class, truth := d.first(scoreNames, d.numeric), d.first(classNames, d.any), d.first(truthNames, d.any)
	if score == "" && class == "" {
		m.Events = append(m.Events, d.features(name, at, id, key))
	} else {
		m.Events = append(m.Events, d.prediction(name, at, id, key, score, class))
		if truth != "" {
			m.Events = append(m.Events, Event{Kind: "labels", Model: name, PredictionID: m.Events[0].ID, Label: Value{Field: truth}, Time: at})
		}
	}
	if len(d.notes) > 0 {
		m.Description += ": " + strings.Join(d.notes, "; ")
	}
	return m, m.Validate()
}

var (
	timeNames  = []string{"event_time", "event_timestamp", "timestamp", "ts", "time", "datetime", "occurred_at", "created_at", "date", "at"}
	idNames    = []string{"id", "event_id", "prediction_id", "request_id", "uuid", "row_id"}
	keyNames   = []string{"key", "entity", "entity_id", "user_id", "user", "customer_id", "customer", "account_id", "account", "item_id", "device_id"}
	scoreNames = []string{"score", "probability", "predicted_probability", "proba", "prob", "y_score", "y_pred_proba", "y_prob"}
	classNames = []string{"prediction", "predicted", "predicted_class", "predicted_label", "y_pred", "pred"}
	truthNames = []string{"label", "target", "truth", "ground_truth", "y_true", "actual", "outcome"}
)

type drafter struct {
	rows   []Row
	fields []string
	taken  map[string]bool
	notes  []string
}

func (d *drafter) survey() {
	seen := map[string]bool{}
	for _, r := range d.rows {
		for _, f := range r.Fields {
			if !seen[f.Name] {
				seen[f.Name] = true
				d.fields = append(d.fields, f.Name)
			}
		}
	}
}

// first takes the first field, in the order of names, that fits. Names are
// compared without regard to case, and by the last part of a path.
func (d *drafter) first(names []string, fits func(field string) bool) string {
	for _, want := range names {
		for _, f := range d.fields {
			last := strings.ToLower(f[strings.LastIndexByte(f, '.')+1:])
			if last == want && !d.taken[f] && fits(f) {
				d.taken[f] = true
				return f
			}
		}
	}
	return ""
}

func (d *drafter) any(string) bool { return true }

// every reports whether the field is never null and its values all fit.
func (d *drafter) every(field string, fits func(event.Value) bool) bool {
	for _, r := range d.rows {
		if v := r.Field(field); v.IsNull() || !fits(v) {
			return false
		}
	}
	return true
}

func (d *drafter) unique(field string) bool {
	seen := map[string]bool{}
	return d.every(field, func(v event.Value) bool {
		text := plainText(v)
		known := seen[text]
		seen[text] = true
		return !known
	})
}

func (d *drafter) numeric(field string) bool {
	return d.every(field, func(v event.Value) bool { return v.Type.Elem >= event.Int32 && v.Type.Elem <= event.Float64 })
}

// time finds the event's time, by name first and then by value.
func (d *drafter) time() Time {
	for _, list := range [][]string{timeNames, d.fields} {
		for _, want := range list {
			for _, f := range d.fields {
				named := strings.EqualFold(f[strings.LastIndexByte(f, '.')+1:], want)
				if t, ok := d.timeOf(f); ok && (named || f == want && t.Unit == "") {
					d.taken[f] = true
					return t
				}
			}
		}
	}
	d.notes = append(d.notes, "no field looks like a time: state start and step, or spread")
	start := Instant(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	return Time{Start: &start, Step: event.Duration(time.Second)}
}

var draftForms = []Time{{}, {Zone: "UTC"}, {Format: "2006-01-02", Zone: "UTC"}, {Format: "2006-01-02 15:04:05", Zone: "UTC"},
	{Format: "2006-01-02 15:04", Zone: "UTC"}, {Format: "2006/01/02 15:04:05", Zone: "UTC"}, {Format: "02.01.2006 15:04:05", Zone: "UTC"},
	{Unit: "s"}, {Unit: "ms"}, {Unit: "us"}, {Unit: "ns"}}

// timeOf finds the form in which all of a field's values are times. Numbers
// count as times only between 2000 and 2100, where the units cannot be
// mistaken for each other.
func (d *drafter) timeOf(field string) (Time, bool) {
	from := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	to := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for _, form := range draftForms {
		form.Field = field
		c, err := newClock(form, 0, nil)
		if err != nil {
			continue
		}
		if d.every(field, func(v event.Value) bool {
			t, err := c.read(v, field)
			return err == nil && (form.Unit == "" || t >= from && t < to)
		}) {
			return form, true
		}
	}
	return Time{}, false
}

// keyField finds the entity: a known name, or any that ends in "id".
func (d *drafter) keyField(id string) string {
	if f := d.first(keyNames, d.keyLike); f != "" {
		return f
	}
	for _, f := range d.fields {
		if strings.HasSuffix(strings.ToLower(f), "_id") && !d.taken[f] && d.keyLike(f) {
			d.taken[f] = true
			return f
		}
	}
	return id
}

func (d *drafter) keyLike(field string) bool {
	return d.every(field, func(v event.Value) bool {
		_, whole := wholeNumber(v)
		return whole || v.Type.Elem == event.String || v.Type.Elem == event.Bool
	})
}

func (d *drafter) key(field string) map[string]Value {
	if field == "" {
		d.notes = append(d.notes, "no field looks like an entity's key: state one")
		return map[string]Value{"key": {Const: "all"}}
	}
	return map[string]Value{strings.ReplaceAll(field, ".", "_"): {Field: field}}
}

// rest selects the fields that nothing else took.
func (d *drafter) rest() Select {
	var except []string
	for _, f := range d.fields {
		if d.taken[f] {
			except = append(except, f)
		}
	}
	slices.Sort(except)
	return Select{All: true, Except: except}
}

func (d *drafter) features(name string, at Time, id, key string) Event {
	e := Event{Kind: "features", View: name, Key: d.key(key), Time: at}
	if id != "" && id != key {
		e.ID = Value{Field: id}
	}
	e.Values = d.rest()
	return e
}

func (d *drafter) prediction(name string, at Time, id, key, score, class string) Event {
	e := Event{Kind: "predictions", Model: name, Version: Value{Const: "1"}, ID: Value{Field: id}, Time: at}
	if f := d.first([]string{"version", "model_version"}, d.any); f != "" {
		e.Version = Value{Field: f}
	}
	if id == "" {
		d.notes = append(d.notes, "no field looks like a prediction's id: state one that labels will name")
		e.ID = Value{Expr: `""`}
	}
	if key != "" {
		e.Key = d.key(key)
	}
	e.Output.Score, e.Output.Class = Value{Field: score}, Value{Field: class}
	e.Inputs = d.rest()
	return e
}

// Guess says how a topic's records look, from a sample: their format, and
// whether each is an array.
func Guess(records []Record) Mapping {
	m := Mapping{}
	votes := map[string]int{}
	arrays := 0
	for _, r := range records {
		text := bytes.TrimSpace(r.Value)
		switch {
		case len(text) == 0:
			continue
		case text[0] == 0:
			votes[formatAvro]++
		case text[0] == '[':
			arrays++
			votes[formatJSON]++
		default:
			votes[guessObject(r)]++
		}
	}
	best := 0
	for _, format := range topicFormats() {
		if votes[format] > best {
			best, m.Format.Type = votes[format], format
		}
	}
	if arrays > 0 && m.Format.Type == formatJSON {
		m.Explode = wholeRecord
	}
	return m
}

func guessObject(r Record) string {
	if _, err := cloudEventText(r); err == nil {
		return formatCloudEvents
	}
	if text, err := debeziumText(r); err == nil && len(text) > 0 {
		return formatDebezium
	}
	return formatJSON
}

// DraftDefinition proposes a source for rows of a topic that were read by the
// shape that [Guess] gave.
func DraftDefinition(topic, name string, shape Mapping, rows []Row) (*Definition, error) {
	m, err := Draft(name, rows)
	if m == nil {
		return nil, fmt.Errorf("draft a source for %s: %w", topic, err)
	}
	m.Format, m.Explode = shape.Format, shape.Explode
	d := &Definition{Topic: topic, Mapping: *m}
	return d, nil
}

// YAML writes the definition as a document for `kedge apply`.
func (d *Definition) YAML() ([]byte, error) {
	spec, err := yaml.MarshalWithOptions(d, yaml.IndentSequence(true))
	if err != nil {
		return nil, err
	}
	out := fmt.Appendf(nil, "kind: %s\nname: %s\nspec:\n", Kind, event.AppendString(nil, d.Topic))
	for line := range strings.Lines(string(spec)) {
		out = append(append(out, "  "...), line...)
	}
	return out, nil
}
