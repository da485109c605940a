package features

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
)

// Kinds of definitions that this room gives a meaning to, next to
// event.FeatureViewKind.
const (
	FeatureServiceKind = "FeatureService"
	PushSourceKind     = "PushSource"
	EntityKind         = "Entity"
	OnDemandViewKind   = "OnDemandView"
)

// ServiceSpec defines a feature service: the features that one model reads.
type ServiceSpec struct {
	event.Ownership `yaml:",inline"`
	Features        []string `json:"features" yaml:"features"` // "view:feature", or "view" for all of its features
}

// PushSourceSpec defines a name under which clients push rows. Without one, a
// view is pushed to under its own name.
type PushSourceSpec struct {
	event.Ownership `yaml:",inline"`
	Views           []string `json:"views" yaml:"views"`
	TimestampField  string   `json:"timestamp_field,omitempty" yaml:"timestamp_field,omitempty"` // default: event_timestamp
	CreatedField    string   `json:"created_field,omitempty" yaml:"created_field,omitempty"`     // a column that every push must then have
}

// EntitySpec names a join key; requests may use the entity's name for it.
type EntitySpec struct {
	event.Ownership `yaml:",inline"`
	JoinKey         string           `json:"join_key" yaml:"join_key"`
	Type            event.ColumnType `json:"type,omitzero" yaml:"type,omitempty"`
}

// OnDemandSpec defines features that are computed when they are asked for.
type OnDemandSpec struct {
	event.Ownership `yaml:",inline"`
	Request         []event.FieldSpec `json:"request,omitempty" yaml:"request,omitempty"` // values that the caller sends
	Features        []OnDemandFeature `json:"features" yaml:"features"`
}

// OnDemandFeature is one expression. It sees each source view under its name
// ("driver.rating") and the request's values under theirs.
type OnDemandFeature struct {
	Name string           `json:"name" yaml:"name"`
	Type event.ColumnType `json:"type" yaml:"type"`
	Expr string           `json:"expr" yaml:"expr"`
}

// ParseService reads a feature service from JSON or YAML, strictly.
func ParseService(b []byte) (*ServiceSpec, error) {
	s := &ServiceSpec{}
	if err := decodeStrict(b, s); err != nil {
		return nil, fmt.Errorf("feature service: %w", err)
	}
	if len(s.Features) == 0 {
		return nil, errors.New("feature service: features: name at least one, as view:feature")
	}
	return s, nil
}

// ParsePushSource reads a push source from JSON or YAML, strictly.
func ParsePushSource(b []byte) (*PushSourceSpec, error) {
	s := &PushSourceSpec{}
	if err := decodeStrict(b, s); err != nil {
		return nil, fmt.Errorf("push source: %w", err)
	}
	if len(s.Views) == 0 {
		return nil, errors.New("push source: views: name at least one")
	}
	return s, nil
}

// ParseEntity reads an entity from JSON or YAML, strictly.
func ParseEntity(b []byte) (*EntitySpec, error) {
	s := &EntitySpec{}
	if err := decodeStrict(b, s); err != nil {
		return nil, fmt.Errorf("entity: %w", err)
	}
	if s.JoinKey == "" {
		return nil, errors.New("entity: join_key is missing")
	}
	return s, nil
}

// ParseOnDemand reads an on-demand view from JSON or YAML, strictly.
func ParseOnDemand(b []byte) (*OnDemandSpec, error) {
	s := &OnDemandSpec{}
	if err := decodeStrict(b, s); err != nil {
		return nil, fmt.Errorf("on-demand view: %w", err)
	}
	if len(s.Features) == 0 {
		return nil, errors.New("on-demand view: features: define at least one")
	}
	return s, nil
}

func decodeStrict(b []byte, v any) error {
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		return event.DecodeStrict(b, v)
	}
	return yaml.UnmarshalWithOptions(b, v, yaml.Strict())
}

// featureRef is a parsed "view:feature", "view@v2:feature" or "view@latest:feature".
type featureRef struct {
	view    string
	version string // "" or "latest" for the current one
	feature string
}

// parseRef reads a reference as Feast does: an @ that no version follows is
// part of the name.
func parseRef(s string) (r featureRef, ok bool) {
	view, feature, ok := strings.Cut(s, ":")
	r = featureRef{view: view, feature: feature}
	name, version, at := strings.Cut(view, "@")
	if !at {
		return r, ok
	}
	if version == "" || strings.EqualFold(version, "latest") {
		r.view = name
		return r, ok
	}
	if len(version) > 1 && (version[0] == 'v' || version[0] == 'V') && strings.Trim(version[1:], "0123456789") == "" {
		r.view, r.version = name, "v"+strings.TrimLeft(version[1:len(version)-1], "0")+version[len(version)-1:]
	}
	return r, ok
}
