package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/registry"
)

// ModelKind is the registry's kind of [ModelSpec]; the definition's name is the
// model's. (The kind Model holds the columns of its predictions.)
const ModelKind = "RegisteredModel"

// ErrUnknownModel says that no model, version or alias has the name.
var ErrUnknownModel = errors.New("unknown model, version or alias")

// ModelSpec is a model's versions and what they are called. As a definition
// its history says who changed what, when and why.
type ModelSpec struct {
	Versions []ModelVersion    `json:"versions"`
	Aliases  map[string]string `json:"aliases,omitempty"` // champion, challenger, … → version
}

// ModelVersion is one model that passed its gate.
type ModelVersion struct {
	Model    string             `json:"model,omitempty"`
	Version  string             `json:"version"`
	Artifact string             `json:"artifact"`         // digest
	Run      string             `json:"run,omitempty"`    // that made it
	Digest   string             `json:"digest,omitempty"` // of the rows it learnt from
	From     string             `json:"from,omitempty"`   // installation that it was promoted from
	Created  time.Time          `json:"created"`
	Stage    string             `json:"stage"`
	Metrics  map[string]float64 `json:"metrics,omitempty"` // on the test
}

// Stages that a version goes through. Each change names who and why.
const (
	StageCandidate  = "candidate"
	StageStaging    = "staging"
	StageProduction = "production"
	StageArchived   = "archived"
)

func stages() []string {
	return []string{StageCandidate, StageStaging, StageProduction, StageArchived}
}

// ParseModel reads a spec strictly and joins its faults.
func ParseModel(spec json.RawMessage) (*ModelSpec, error) {
	m := &ModelSpec{}
	if err := event.DecodeStrict(spec, m); err != nil {
		return nil, fmt.Errorf("registered model: %w", err)
	}
	var faults []error
	for i, v := range m.Versions {
		if v.Version == "" || v.Artifact == "" || !slices.Contains(stages(), v.Stage) {
			faults = append(faults, fmt.Errorf("registered model: version %d needs a version, an artifact and a stage of %v", i, stages()))
		}
		if slices.ContainsFunc(m.Versions[:i], func(o ModelVersion) bool { return o.Version == v.Version }) {
			faults = append(faults, fmt.Errorf("registered model: version %s stands twice", v.Version))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Aliases)) {
		if _, ok := m.find(m.Aliases[name]); !ok {
			faults = append(faults, fmt.Errorf("registered model: alias %s names version %s, which is not there", name, m.Aliases[name]))
		}
	}
	return m, errors.Join(faults...)
}

func (m *ModelSpec) find(version string) (*ModelVersion, bool) {
	i := slices.IndexFunc(m.Versions, func(v ModelVersion) bool { return v.Version == version })
	if i < 0 {
		return nil, false
	}
	return &m.Versions[i], true
}

// Resolve finds a version by its name or one of its aliases.
func (m *ModelSpec) Resolve(ref string) (ModelVersion, error) {
	if v, ok := m.Aliases[ref]; ok {
		ref = v
	}
	v, ok := m.find(ref)
	if !ok {
		return ModelVersion{}, fmt.Errorf("%w: %q: the model has %d versions and the aliases %v", ErrUnknownModel, ref, len(m.Versions), slices.Sorted(maps.Keys(m.Aliases)))
	}
	return *v, nil
}

// Models is the registry of models, kept in the registry's log.
type Models struct{ reg *registry.Registry }

// NewModels returns the models of a registry.
func NewModels(reg *registry.Registry) *Models { return &Models{reg} }

// Get reads a model as of a registry state.
func (m *Models) Get(state *registry.State, namespace, name string) (*ModelSpec, registry.Definition, error) {
	d, ok := state.Get(ModelKind, namespace, name)
	if !ok {
		return nil, d, fmt.Errorf("%w: %q", ErrUnknownModel, name)
	}
	spec, err := ParseModel(d.Spec)
	return spec, d, err
}

// Register adds a version, numbered one above the newest, and moves an alias to
// it where one is given.
func (m *Models) Register(ctx context.Context, namespace, name string, v ModelVersion, alias, who, why string) (ModelVersion, error) {
	err := m.edit(ctx, namespace, name, true, who, why, func(spec *ModelSpec) error {
		newest := 0
		for _, o := range spec.Versions {
			if n, err := strconv.Atoi(o.Version); err == nil {
				newest = max(newest, n)
			}
		}
		v.Model, v.Version, v.Stage, v.Created = name, strconv.Itoa(newest+1), StageCandidate, time.Now().UTC().Truncate(time.Microsecond)
		spec.Versions = append(spec.Versions, v)
		if alias != "" {
			spec.Aliases[alias] = v.Version
		}
		return nil
	})
	return v, err
}

// SetAlias points an alias to a version; an empty version removes the alias.
func (m *Models) SetAlias(ctx context.Context, namespace, name, alias, version, who, why string) error {
	return m.edit(ctx, namespace, name, false, who, why, func(spec *ModelSpec) error {
		if version == "" {
			delete(spec.Aliases, alias)
			return nil
		}
		v, err := spec.Resolve(version)
		spec.Aliases[alias] = v.Version
		return err
	})
}

// SetStage moves a version to a stage: an approval that says who and why.
func (m *Models) SetStage(ctx context.Context, namespace, name, version, stage, who, why string) error {
	if !slices.Contains(stages(), stage) {
		return fmt.Errorf("%w: stage %q: want one of %v", ErrParam, stage, stages())
	}
	if why == "" {
		return fmt.Errorf("%w: a change of stage says why", ErrParam)
	}
	return m.edit(ctx, namespace, name, false, who, why, func(spec *ModelSpec) error {
		v, err := spec.Resolve(version)
		if err != nil {
			return err
		}
		found, _ := spec.find(v.Version)
		found.Stage = stage
		return nil
	})
}

// edit changes a model, again when somebody else was faster.
func (m *Models) edit(ctx context.Context, namespace, name string, create bool, who, why string, change func(*ModelSpec) error) error {
	for {
		spec, d, err := m.Get(m.reg.State(), namespace, name)
		if errors.Is(err, ErrUnknownModel) && create {
			spec, err = &ModelSpec{}, nil
			d.Version = 0
		}
		if err != nil {
			return err
		}
		if spec.Aliases == nil {
			spec.Aliases = map[string]string{}
		}
		if err := change(spec); err != nil {
			return err
		}
		raw, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		_, err = m.reg.Apply(ctx, registry.Entry{Kind: ModelKind, Namespace: namespace, Name: name, Op: registry.Put, Expect: d.Version, Spec: raw, Who: who, Why: why})
		if !errors.Is(err, registry.ErrStale) || ctx.Err() != nil {
			return err
		}
	}
}
