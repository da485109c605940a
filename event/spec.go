package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

// Origin says who stated a definition. Inferred definitions grow with what
// arrives; declared ones only by an edit.
type Origin string

// Origins.
const (
	Inferred Origin = "inferred"
	Declared Origin = "declared"
)

// Limits on what inference may build. The decoder refuses what would break
// them and [Merge] stops at them, so that the two always agree.
const (
	MaxColumns    = 1000 // value columns of a view or of one model signature
	MaxKeys       = 16   // parts of an entity key
	MaxNameBytes  = 200  // a view's, model's, version's or column's name
	MaxSignatures = 999  // of one model; see [PredictionTableID]
	MaxVersions   = 5000 // of one model
	MaxSubjects   = 5000 // views and models of a namespace
)

// Ownership is the part of a definition that tools show and nothing rebuilds
// for.
type Ownership struct {
	Description string            `json:"description,omitempty" yaml:"description,omitempty"`
	Owner       string            `json:"owner,omitempty" yaml:"owner,omitempty"`
	Team        string            `json:"team,omitempty" yaml:"team,omitempty"`
	Tier        string            `json:"tier,omitempty" yaml:"tier,omitempty"`
	Runbook     string            `json:"runbook,omitempty" yaml:"runbook,omitempty"`
	Contact     string            `json:"contact,omitempty" yaml:"contact,omitempty"`
	Tags        map[string]string `json:"tags,omitempty" yaml:"tags,omitempty"`
}

// FieldSpec defines one key part or value column.
type FieldSpec struct {
	Name        string     `json:"name" yaml:"name"`
	Type        ColumnType `json:"type" yaml:"type"`                           // Unknown while only null was seen
	Aliases     []string   `json:"aliases,omitempty" yaml:"aliases,omitempty"` // other names that events may use
	Fixed       bool       `json:"fixed,omitempty" yaml:"fixed,omitempty"`     // an inferred type that must not widen any more
	Retired     bool       `json:"retired,omitempty" yaml:"retired,omitempty"` // events that carry it become dead letters
	Description string     `json:"description,omitempty" yaml:"description,omitempty"`
}

// ViewSpec defines a feature view.
type ViewSpec struct {
	Ownership `yaml:",inline"`
	Origin    Origin      `json:"origin" yaml:"origin"`
	Keys      []FieldSpec `json:"keys" yaml:"keys"`
	Columns   []FieldSpec `json:"columns" yaml:"columns"`
	TTL       Duration    `json:"ttl,omitempty" yaml:"ttl,omitempty"` // 0: values never expire
	Online    bool        `json:"online,omitempty" yaml:"online,omitempty"`
	Retired   bool        `json:"retired,omitempty" yaml:"retired,omitempty"`
	Retention Retention   `json:"retention,omitzero" yaml:"retention,omitempty"`
	// Version counts what rows look like, from 1. Events say which they are of by
	// their member version; those that say nothing are of the oldest listed here.
	Version int          `json:"version,omitempty" yaml:"version,omitempty"`
	Former  []FormerSpec `json:"former,omitempty" yaml:"former,omitempty"` // oldest first
	// From: the rows are an outside table's, and no event is taken.
	From *FromSpec `json:"from,omitempty" yaml:"from,omitempty"`
}

// SignatureSpec is one shape of a model's inputs and the versions that have
// it. The version "*" stands for every version not listed elsewhere.
type SignatureSpec struct {
	ID       int         `json:"id" yaml:"id"`
	Columns  []FieldSpec `json:"columns" yaml:"columns"`
	Versions []string    `json:"versions" yaml:"versions"`
}

// LabelSpec says what is known of a model's truth.
type LabelSpec struct {
	Delay       Duration `json:"delay,omitempty" yaml:"delay,omitempty"`         // by when most labels have come
	By          string   `json:"by,omitempty" yaml:"by,omitempty"`               // how they find their predictions: id (default), key or view
	Tolerance   Duration `json:"tolerance,omitempty" yaml:"tolerance,omitempty"` // by key and view: how long after the prediction
	View        string   `json:"view,omitempty" yaml:"view,omitempty"`           // by view: whose column states the truth
	Column      string   `json:"column,omitempty" yaml:"column,omitempty"`
	Silence     string   `json:"silence,omitempty" yaml:"silence,omitempty"` // the label of a prediction that has none after Delay
	Description string   `json:"description,omitempty" yaml:"description,omitempty"`
}

// ModelSpec defines a model.
type ModelSpec struct {
	Ownership  `yaml:",inline"`
	Origin     Origin          `json:"origin" yaml:"origin"`
	Task       string          `json:"task,omitempty" yaml:"task,omitempty"` // binary, multiclass, regression, ranking, …
	Signatures []SignatureSpec `json:"signatures" yaml:"signatures"`
	Labels     LabelSpec       `json:"labels,omitzero" yaml:"labels,omitempty"`
	Retired    bool            `json:"retired,omitempty" yaml:"retired,omitempty"`
	Retention  Retention       `json:"retention,omitzero" yaml:"retention,omitempty"`
}

// Duration is a time span that definitions write as "36h" or "7d".
type Duration time.Duration

// MarshalText writes whole days as "7d" and anything else as Go does.
func (d Duration) MarshalText() ([]byte, error) {
	if day := 24 * time.Hour; d != 0 && time.Duration(d)%day == 0 {
		return fmt.Appendf(nil, "%dd", time.Duration(d)/day), nil
	}
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads "36h", "90s" or a number of days, "7d".
func (d *Duration) UnmarshalText(b []byte) error {
	var days int64
	if n, err := fmt.Sscanf(string(b), "%dd", &days); err == nil && n == 1 && fmt.Sprintf("%dd", days) == string(b) {
		const limit = int64(1<<63-1) / int64(24*time.Hour)
		if days > limit || days < -limit {
			return fmt.Errorf("duration %q is out of range", b)
		}
		*d = Duration(days) * Duration(24*time.Hour)
		return nil
	}
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: want 90s, 36h or 7d", b)
	}
	*d = Duration(v)
	return nil
}

// DecodeStrict reads JSON into v and refuses unknown members and trailing
// bytes, in JSON's words and not Go's.
func DecodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return jsonError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the JSON value")
	}
	return nil
}

// jsonError is a decoding error without the names of Go's types.
func jsonError(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	want := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	case reflect.Slice, reflect.Array:
		want = "an array"
	case reflect.Int, reflect.Int32, reflect.Int64:
		want = "an integer"
	case reflect.Float64:
		want = "a number"
	}
	what := wrong.Field
	if what == "" {
		what = "it"
	}
	return fmt.Errorf("%s is a JSON %s and not %s", what, wrong.Value, want)
}

// ParseView reads a view's definition from JSON or, where the bytes do not
// start with a brace, YAML. Unknown members are errors; so is whatever
// [ViewSpec.Validate] finds.
func ParseView(b []byte) (*ViewSpec, error) {
	s := &ViewSpec{}
	if err := decodeSpec(b, s); err != nil {
		return nil, fmt.Errorf("feature view: %w", err)
	}
	return s, s.Validate()
}

// ParseModel reads a model's definition; see [ParseView].
func ParseModel(b []byte) (*ModelSpec, error) {
	s := &ModelSpec{}
	if err := decodeSpec(b, s); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return s, s.Validate()
}

func decodeSpec(b []byte, v any) error {
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		return DecodeStrict(b, v)
	}
	return DecodeYAML(b, v)
}

// DecodeYAML reads YAML into v and refuses unknown members and members that
// stand twice. The YAML library panics on some malformed texts; that is an
// error here.
func DecodeYAML(b []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not YAML: %v", r)
		}
	}()
	return yaml.UnmarshalWithOptions(b, v, yaml.Strict())
}

// Validate joins all faults of the definition.
func (s *ViewSpec) Validate() error {
	var errs []error
	errs = append(errs, checkOrigin(s.Origin))
	if len(s.Keys) == 0 {
		errs = append(errs, errors.New("keys: a view needs at least one key"))
	}
	if len(s.Keys) > MaxKeys {
		errs = append(errs, fmt.Errorf("keys: %d parts, at most %d", len(s.Keys), MaxKeys))
	}
	if s.TTL < 0 {
		errs = append(errs, errors.New("ttl: must not be negative"))
	}
	errs = append(errs, checkFields("keys", s.Keys, s.Origin), checkFields("columns", s.Columns, s.Origin), s.validateVersions(), s.validateFrom(), s.Retention.validate())
	for _, k := range s.Keys {
		if !keyType(k.Type) {
			errs = append(errs, fmt.Errorf("keys: %q has type %s: want Bool, Int32, Int64, String, Timestamp or Bytes", k.Name, k.Type))
		}
	}
	return errors.Join(errs...)
}

// Validate joins all faults of the definition.
func (s *ModelSpec) Validate() error {
	errs := []error{checkOrigin(s.Origin), s.Labels.validate(), s.Retention.validate()}
	ids, versions := map[int]bool{}, map[string]bool{}
	for _, sig := range s.Signatures {
		where := fmt.Sprintf("signatures: %d", sig.ID)
		if sig.ID < 1 || sig.ID > MaxSignatures || ids[sig.ID] {
			errs = append(errs, fmt.Errorf("%s: ids are distinct, from 1 to %d", where, MaxSignatures))
		}
		ids[sig.ID] = true
		for _, v := range sig.Versions {
			if versions[v] {
				errs = append(errs, fmt.Errorf("%s: version %q is listed twice", where, v))
			}
			versions[v] = true
			if err := CheckName(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: version: %w", where, err))
			}
		}
		errs = append(errs, checkFields(where, sig.Columns, s.Origin))
	}
	return errors.Join(errs...)
}

func (l LabelSpec) validate() error {
	switch {
	case l.By != "" && l.By != "id" && l.By != "key" && l.By != "view":
		return fmt.Errorf("labels: by %q: want id, key or view", l.By)
	case (l.By == "key" || l.By == "view") && l.Tolerance <= 0:
		return fmt.Errorf("labels: by %s needs a tolerance: how long after the prediction a label may be true", l.By)
	case l.By == "view" && (l.View == "" || l.Column == ""):
		return errors.New("labels: by view needs a view and a column")
	case l.Silence != "" && l.Delay <= 0:
		return errors.New("labels: silence needs a delay: after how long it means something")
	}
	return nil
}

func checkOrigin(o Origin) error {
	if o != Inferred && o != Declared {
		return fmt.Errorf("origin %q: want inferred or declared", o)
	}
	return nil
}

func checkFields(where string, fields []FieldSpec, o Origin) error {
	var errs []error
	if len(fields) > MaxColumns {
		errs = append(errs, fmt.Errorf("%s: %d columns, at most %d", where, len(fields), MaxColumns))
	}
	names := map[string]bool{}
	for _, f := range fields {
		for _, n := range append([]string{f.Name}, f.Aliases...) {
			if err := CheckName(n); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", where, err))
			}
			if names[n] {
				errs = append(errs, fmt.Errorf("%s: the name %q stands for two columns", where, n))
			}
			names[n] = true
		}
		if err := checkFieldType(f, o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q: %w", where, f.Name, err))
		}
	}
	return errors.Join(errs...)
}

func checkFieldType(f FieldSpec, o Origin) error {
	switch f.Type.Elem {
	case FloatMap, StringMap, TimeMap:
		return fmt.Errorf("type %s is for the envelope's own columns; use Json", f.Type)
	case Unknown:
		if o == Declared {
			return errors.New("has no type: state one")
		}
	}
	return nil
}

func keyType(t ColumnType) bool {
	switch t.Elem {
	case Bool, Int32, Int64, String, Timestamp, Bytes:
		return !t.List
	}
	return false
}

// CheckName says whether a view, model, version or column may have the name:
// 1 to [MaxNameBytes] bytes of UTF-8 without control characters.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("name %.40q… has %d bytes, at most %d", name, len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return fmt.Errorf("name %q has a control character", name)
		}
	}
	return nil
}
