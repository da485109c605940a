package source

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
)

// Mapping says how rows become events.
type Mapping struct {
	Description string `yaml:"description,omitempty"`
	// Format says how a file is read; most of it follows from the file's name.
	Format Format `yaml:"format,omitempty"`
	// Explode names a field that holds an array: each element becomes a row of
	// its own, with the element's members as fields under that name. "." means
	// that the record itself is the array; its elements' members have their own
	// names.
	Explode string `yaml:"explode,omitempty"`
	// Filter is an expression; rows for which it is not true give no events.
	Filter string `yaml:"filter,omitempty"`
	// Drop names fields that no event may carry, Hash fields that are replaced
	// by a keyed SHA-256 of their text before anything else sees them.
	Drop []string `yaml:"drop,omitempty"`
	Hash []string `yaml:"hash,omitempty"`
	// Events lists the events that each row gives, in order.
	Events []Event `yaml:"events"`
}

// Format says how to read a file.
type Format struct {
	// Type is csv, jsonl or parquet of a file (empty: by its name); json
	// (also when empty), avro, protobuf, cloudevents or debezium of a topic.
	Type    string                      `yaml:"type,omitempty"`
	Comma   string                      `yaml:"comma,omitempty"`   // CSV; empty: a comma
	Header  []string                    `yaml:"header,omitempty"`  // CSV: column names of a file without a header line
	Nulls   []string                    `yaml:"nulls,omitempty"`   // CSV: texts that mean null, beside the empty one
	Columns map[string]event.ColumnType `yaml:"columns,omitempty"` // types that inference should not decide

	Schema      string `yaml:"schema,omitempty"`      // avro: the schema of bare records; empty: each names its own in the schema registry
	Descriptors string `yaml:"descriptors,omitempty"` // protobuf: a FileDescriptorSet with its imports, in base64
	Message     string `yaml:"message,omitempty"`     // protobuf: the full name of the records' message
}

// Event maps a row to one event.
type Event struct {
	Kind    string `yaml:"kind"`              // features, predictions or labels
	View    string `yaml:"view,omitempty"`    // features
	Model   string `yaml:"model,omitempty"`   // predictions, labels
	Version Value  `yaml:"version,omitempty"` // predictions
	// When is an expression; the row gives this event only where it is true.
	When string `yaml:"when,omitempty"`

	Key     map[string]Value `yaml:"key,omitempty"`
	ID      Value            `yaml:"id,omitempty"`
	Time    Time             `yaml:"time"`
	Created Time             `yaml:"created,omitempty"`
	KnownAt Time             `yaml:"known_at,omitempty"`

	Values Select `yaml:"values,omitempty"` // features
	Delete string `yaml:"delete,omitempty"` // features: an expression

	Inputs    Select           `yaml:"inputs,omitempty"` // predictions
	Output    Output           `yaml:"output,omitempty"`
	Segments  map[string]Value `yaml:"segments,omitempty"`
	Variant   Value            `yaml:"variant,omitempty"`
	Threshold Value            `yaml:"threshold,omitempty"`

	PredictionID Value `yaml:"prediction_id,omitempty"` // labels
	Label        Value `yaml:"label,omitempty"`         // a row where it is null gives no event
	// Withdrawn is an expression; where it is true the event withdraws the
	// label that was sent before.
	Withdrawn string `yaml:"withdrawn,omitempty"`
	Weight    Value  `yaml:"weight,omitempty"` // predictions, labels
}

// Output maps what a model said.
type Output struct {
	Score  Value            `yaml:"score,omitempty"`
	Class  Value            `yaml:"class,omitempty"`
	Value  Value            `yaml:"value,omitempty"`
	Scores map[string]Value `yaml:"scores,omitempty"`
	Vector Value            `yaml:"vector,omitempty"`
}

// Select chooses the fields that become columns. A plain list of names is the
// same as {only: […]}.
type Select struct {
	All    bool              `yaml:"all,omitempty"`    // every field of the row
	Except []string          `yaml:"except,omitempty"` // with all: but these
	Only   []string          `yaml:"only,omitempty"`   // just these, in this order
	Rename map[string]string `yaml:"rename,omitempty"` // field → column
	Add    map[string]Value  `yaml:"add,omitempty"`    // columns that are computed or constant
}

// Value is a field's name (a plain text), {const: …} or {expr: …}.
type Value struct {
	Field string `yaml:"field,omitempty"`
	Const any    `yaml:"const,omitempty"` // text, number or boolean
	Expr  string `yaml:"expr,omitempty"`
}

// IsZero reports whether nothing is stated.
func (v Value) IsZero() bool { return v.Field == "" && v.Const == nil && v.Expr == "" }

// UnmarshalYAML reads the short form or the object.
func (v *Value) UnmarshalYAML(decode func(any) error) error {
	if err := decode(&v.Field); err == nil {
		return nil
	}
	type plain Value
	return decode((*plain)(v))
}

// MarshalYAML writes the short form where it says all.
func (v Value) MarshalYAML() (any, error) {
	if v.Field != "" {
		return v.Field, nil
	}
	type plain Value
	return plain(v), nil
}

// UnmarshalYAML reads a list of names or the object.
func (s *Select) UnmarshalYAML(decode func(any) error) error {
	var only []string
	if err := decode(&only); err == nil {
		s.Only = only
		return nil
	}
	type plain Select
	return decode((*plain)(s))
}

// Time says where a time comes from: a field (a plain text names an RFC 3339
// one), the row's number (start + i·step, or spread evenly), or the event's
// own time.
type Time struct {
	Field  string         `yaml:"field,omitempty"`
	Expr   string         `yaml:"expr,omitempty"`
	Format string         `yaml:"format,omitempty"` // rfc3339 (default), a Go layout, or strftime with %
	Unit   string         `yaml:"unit,omitempty"`   // of a number: s, ms, us, ns or day
	Zone   string         `yaml:"zone,omitempty"`   // of times without one; an IANA name
	Start  *Instant       `yaml:"start,omitempty"`  // row i is at start + i·step
	Step   event.Duration `yaml:"step,omitempty"`
	Spread *Spread        `yaml:"spread,omitempty"`
	Shift  event.Duration `yaml:"shift,omitempty"` // added to whatever else gives
	Same   bool           `yaml:"same,omitempty"`  // created, known_at: the event's own time
}

// Instant is a point in time, in µs since the Unix epoch. Mappings write it as
// RFC 3339, or as a day, which begins at midnight UTC.
type Instant int64

// UnmarshalText reads an instant.
func (i *Instant) UnmarshalText(b []byte) error {
	if len(b) == len("2006-01-02") {
		b = append(slices.Clone(b), "T00:00:00Z"...)
	}
	t, err := event.ParseTime(b)
	*i = Instant(t)
	return err
}

// MarshalText writes RFC 3339.
func (i Instant) MarshalText() ([]byte, error) { return event.AppendTime(nil, int64(i)), nil }

// Spread places rows evenly over a span: all of the file's from Start to End,
// or, with Year, those of each calendar year over that year.
type Spread struct {
	Start *Instant `yaml:"start,omitempty"`
	End   *Instant `yaml:"end,omitempty"`
	Year  string   `yaml:"year,omitempty"` // field that holds the year
}

// IsZero reports whether nothing is stated.
func (t Time) IsZero() bool { return t == Time{} }

// UnmarshalYAML reads the short form or the object.
func (t *Time) UnmarshalYAML(decode func(any) error) error {
	if err := decode(&t.Field); err == nil {
		return nil
	}
	type plain Time
	return decode((*plain)(t))
}

// Parse reads a mapping from YAML (or JSON, which is YAML too). Unknown
// members are errors; so is whatever [Mapping.Validate] finds.
func Parse(text []byte) (*Mapping, error) {
	m := &Mapping{}
	if err := event.DecodeYAML(text, m); err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	return m, m.Validate()
}

// YAML writes the mapping as [Parse] reads it.
func (m *Mapping) YAML() ([]byte, error) { return yaml.Marshal(m) }

// Validate joins all faults that can be seen without data.
func (m *Mapping) Validate() error {
	errs := []error{m.Format.validate()}
	if len(m.Events) == 0 {
		errs = append(errs, errors.New("events: a mapping needs at least one"))
	}
	for i, e := range m.Events {
		if err := e.validate(); err != nil {
			errs = append(errs, fmt.Errorf("events[%d] (%s): %w", i, e.Kind, err))
		}
		if s := e.Time.Spread; s != nil && s.Year == "" && m.Explode != "" {
			errs = append(errs, fmt.Errorf("events[%d] (%s): time: an exploded file's rows cannot be spread from start to end", i, e.Kind))
		}
	}
	return errors.Join(errs...)
}

func (f Format) validate() error {
	var errs []error
	if known := append([]string{"", "csv", "jsonl", "parquet"}, topicFormats()...); !slices.Contains(known, f.Type) {
		errs = append(errs, fmt.Errorf("format: type %q: want csv, jsonl or parquet for a file, one of %v for a topic", f.Type, topicFormats()))
	}
	wants := map[string][]string{formatAvro: {"schema"}, formatProtobuf: {"descriptors", "message"}}[f.Type]
	for _, name := range f.stated() {
		if !slices.Contains(wants, name) {
			errs = append(errs, fmt.Errorf("format: %s does not go with the type %q", name, f.Type))
		}
	}
	if n := len([]rune(f.Comma)); n > 1 {
		errs = append(errs, fmt.Errorf("format: comma %q must be one character", f.Comma))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Columns)) {
		switch t := f.Columns[name]; {
		case t.List, t.Elem == event.Unknown, t.Elem >= event.Bytes:
			errs = append(errs, fmt.Errorf("format: columns: %s cannot be read as %s", name, t))
		}
	}
	return errors.Join(errs...)
}

func (e Event) validate() error {
	errs := []error{e.Time.validate("time"), e.Created.validate("created"), e.KnownAt.validate("known_at")}
	kind, err := event.ParseKind(e.Kind)
	errs = append(errs, err)
	if e.Time.IsZero() || e.Time.Same {
		errs = append(errs, errors.New("time: state a field, start and step, or spread"))
	}
	for what, names := range map[string][2]bool{
		"view":          {kind == event.Features, e.View != ""},
		"model":         {kind != event.Features, e.Model != ""},
		"version":       {kind == event.Predictions, !e.Version.IsZero()},
		"label":         {kind == event.Labels, !e.Label.IsZero()},
		"values":        {kind == event.Features && e.Delete == "", !e.Values.isZero()},
		"inputs":        {kind == event.Predictions, !e.Inputs.isZero()},
		"output":        {kind == event.Predictions, !e.Output.isZero()},
		"prediction_id": {kind == event.Labels && len(e.Key) == 0, !e.PredictionID.IsZero()},
		"key":           {kind == event.Features, len(e.Key) > 0},
	} {
		if kind != 0 && names[0] && !names[1] {
			errs = append(errs, fmt.Errorf("%s: %s need it", what, kind))
		}
	}
	if kind == event.Predictions && e.ID.IsZero() {
		errs = append(errs, errors.New("id: predictions need it, and labels will name it"))
	}
	errs = append(errs, e.foreign(kind)...)
	errs = append(errs, e.Values.validate("values"), e.Inputs.validate("inputs"))
	slices.SortFunc(errs, func(a, b error) int { return bytes.Compare(errText(a), errText(b)) })
	return errors.Join(errs...)
}

func errText(err error) []byte {
	if err == nil {
		return nil
	}
	return []byte(err.Error())
}

// foreign finds members that the kind does not have.
func (e Event) foreign(kind event.Kind) (errs []error) {
	for what, stated := range map[string]bool{"view": e.View != "", "values": !e.Values.isZero(), "delete": e.Delete != ""} {
		if stated && kind > event.Features {
			errs = append(errs, fmt.Errorf("%s: %s have none", what, kind))
		}
	}
	for what, stated := range map[string]bool{"version": !e.Version.IsZero(), "inputs": !e.Inputs.isZero(), "output": !e.Output.isZero(),
		"segments": len(e.Segments) > 0, "variant": !e.Variant.IsZero(), "threshold": !e.Threshold.IsZero()} {
		if stated && kind != event.Predictions && kind != 0 {
			errs = append(errs, fmt.Errorf("%s: %s have none", what, kind))
		}
	}
	for what, stated := range map[string]bool{"withdrawn": e.Withdrawn != "", "label": !e.Label.IsZero(), "prediction_id": !e.PredictionID.IsZero()} {
		if stated && kind != event.Labels && kind != 0 {
			errs = append(errs, fmt.Errorf("%s: %s have none", what, kind))
		}
	}
	return errs
}

func (s Select) isZero() bool {
	return !s.All && len(s.Except) == 0 && len(s.Only) == 0 && len(s.Rename) == 0 && len(s.Add) == 0
}

func (s Select) validate(what string) error {
	switch {
	case s.All && len(s.Only) > 0:
		return fmt.Errorf("%s: all and only exclude each other", what)
	case !s.All && len(s.Except) > 0:
		return fmt.Errorf("%s: except goes with all", what)
	case !s.isZero() && !s.All && len(s.Only) == 0 && len(s.Add) == 0:
		return fmt.Errorf("%s: state all, only or add", what)
	}
	return nil
}

func (o Output) isZero() bool {
	return o.Score.IsZero() && o.Class.IsZero() && o.Value.IsZero() && len(o.Scores) == 0 && o.Vector.IsZero()
}

func (t Time) validate(what string) error {
	ways := 0
	for _, stated := range []bool{t.Field != "", t.Expr != "", t.Start != nil, t.Spread != nil, t.Same} {
		if stated {
			ways++
		}
	}
	switch {
	case t.IsZero():
		return nil
	case ways != 1:
		return fmt.Errorf("%s: state one of field, expr, start, spread and same", what)
	case t.Start != nil && t.Step <= 0:
		return fmt.Errorf("%s: start needs a positive step", what)
	case t.Format != "" && t.Unit != "":
		return fmt.Errorf("%s: format is for texts, unit for numbers; state one", what)
	case t.Unit != "" && unitMicros(t.Unit) == 0 && t.Unit != "ns":
		return fmt.Errorf("%s: unit %q: want s, ms, us, ns or day", what, t.Unit)
	case t.Spread != nil && (t.Spread.Year == "") != (t.Spread.Start != nil && t.Spread.End != nil && *t.Spread.End > *t.Spread.Start):
		return fmt.Errorf("%s: spread needs year, or start and a later end", what)
	}
	if _, err := time.LoadLocation(t.Zone); err != nil {
		return fmt.Errorf("%s: zone %q is not known", what, t.Zone)
	}
	return nil
}
