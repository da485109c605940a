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
	Versions    []ModelVersion    `json:"versions"`
	Aliases     map[string]string `json:"aliases,omitempty"` // champion, challenger, … → version
	Newest      int               `json:"newest,omitempty"`  // largest number given so far: none is given twice
	Created     time.Time         `json:"created,omitzero"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

// ModelVersion is one model that passed its gate, or that an MLflow client
// registered.
type ModelVersion struct {
	Model       string             `json:"model,omitempty"`
	Version     string             `json:"version"`
	Artifact    string             `json:"artifact,omitempty"` // digest; empty: only what Source points to
	Source      string             `json:"source,omitempty"`   // MLflow's URI of what a client logged
	Logged      string             `json:"logged,omitempty"`   // id of MLflow's logged model
	Run         string             `json:"run,omitempty"`      // that made it
	Digest      string             `json:"digest,omitempty"`   // of the rows it learnt from
	From        string             `json:"from,omitempty"`     // installation that it was promoted from
	Created     time.Time          `json:"created"`
	Updated     time.Time          `json:"updated,omitzero"` // description, tags or stage
	Stage       string             `json:"stage"`
	Metrics     map[string]float64 `json:"metrics,omitempty"` // on the test
	Description string             `json:"description,omitempty"`
	Tags        map[string]string  `json:"tags,omitempty"`
	Who         string             `json:"who,omitempty"` // registered it
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
		if v.Version == "" || v.Artifact == "" && v.Source == "" || !slices.Contains(stages(), v.Stage) {
			faults = append(faults, fmt.Errorf("registered model: version %d needs a version, an artifact or a source, and a stage of %v", i, stages()))
		}
		if slices.ContainsFunc(m.Versions[:i], func(o ModelVersion) bool { return o.Version == v.Version }) {
			faults = append(faults, fmt.Errorf("registered model: version %s stands twice", v.Version))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Aliases)) {
		if _, ok := m.Find(m.Aliases[name]); !ok {
			faults = append(faults, fmt.Errorf("registered model: alias %s names version %s, which is not there", name, m.Aliases[name]))
		}
	}
	return m, errors.Join(faults...)
}

// Add appends a version under the next number and returns it.
func (m *ModelSpec) Add(v ModelVersion, now time.Time) ModelVersion {
	for _, o := range m.Versions {
		if n, err := strconv.Atoi(o.Version); err == nil {
			m.Newest = max(m.Newest, n)
		}
	}
	m.Newest++
	v.Version, v.Created = strconv.Itoa(m.Newest), now.UTC().Truncate(time.Microsecond)
	if v.Stage == "" {
		v.Stage = StageCandidate
	}
	m.Versions = append(m.Versions, v)
	return v
}

// Find returns a version by its name, to be changed within [Models.Edit].
func (m *ModelSpec) Find(version string) (*ModelVersion, bool) {
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
	v, ok := m.Find(ref)
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
	_, err := m.Edit(ctx, namespace, name, true, who, why, func(spec *ModelSpec) error {
		v.Model, v.Stage = name, StageCandidate
		v = spec.Add(v, time.Now())
		if alias != "" {
			spec.Aliases[alias] = v.Version
		}
		return nil
	})
	return v, err
}

// SetAlias points an alias to a version; an empty version removes the alias.
func (m *Models) SetAlias(ctx context.Context, namespace, name, alias, version, who, why string) error {
	_, err := m.Edit(ctx, namespace, name, false, who, why, func(spec *ModelSpec) error {
		if version == "" {
			delete(spec.Aliases, alias)
			return nil
		}
		v, err := spec.Resolve(version)
		spec.Aliases[alias] = v.Version
		return err
	})
	return err
}

// SetStage moves a version to a stage: an approval that says who and why.
func (m *Models) SetStage(ctx context.Context, namespace, name, version, stage, who, why string) error {
	if !slices.Contains(stages(), stage) {
		return fmt.Errorf("%w: stage %q: want one of %v", ErrParam, stage, stages())
	}
	if why == "" {
		return fmt.Errorf("%w: a change of stage says why", ErrParam)
	}
	_, err := m.Edit(ctx, namespace, name, false, who, why, func(spec *ModelSpec) error {
		v, err := spec.Resolve(version)
		if err != nil {
			return err
		}
		found, _ := spec.Find(v.Version)
		found.Stage, found.Updated = stage, time.Now().UTC().Truncate(time.Microsecond)
		return nil
	})
	return err
}

// Model is one registered model as of now.
type Model struct {
	Name    string
	Spec    *ModelSpec
	Updated time.Time // its newest change of any kind
}

// Find reads a model as of now.
func (m *Models) Find(namespace, name string) (Model, error) {
	spec, d, err := m.Get(m.reg.State(), namespace, name)
	return Model{name, spec, time.UnixMicro(d.Time).UTC()}, err
}

// List reads all models of a namespace as of now, by name. A definition that
// cannot be read is left out: whoever wrote it was told.
func (m *Models) List(namespace string) []Model {
	var out []Model
	for _, d := range m.reg.State().List(ModelKind, namespace) {
		if spec, err := ParseModel(d.Spec); err == nil {
			out = append(out, Model{d.Name, spec, time.UnixMicro(d.Time).UTC()})
		}
	}
	return out
}

// Create makes a model without versions. One that is there already is
// [registry.ErrStale].
func (m *Models) Create(ctx context.Context, namespace, name string, spec ModelSpec, who, why string) error {
	spec.Created = time.Now().UTC().Truncate(time.Microsecond)
	if spec.Versions == nil {
		spec.Versions = []ModelVersion{}
	}
	_, err := m.put(ctx, namespace, name, 0, &spec, who, why)
	return err
}

// Delete removes a model with all its versions; artefacts and history stay.
func (m *Models) Delete(ctx context.Context, namespace, name, who, why string) error {
	for {
		_, d, err := m.Get(m.reg.State(), namespace, name)
		if err != nil {
			return err
		}
		_, err = m.reg.Apply(ctx, registry.Entry{Kind: ModelKind, Namespace: namespace, Name: name, Op: registry.Delete, Expect: d.Version, Who: who, Why: why})
		if !errors.Is(err, registry.ErrStale) || ctx.Err() != nil {
			return err
		}
	}
}

// Edit changes a model, again when somebody else was faster: change may be
// called several times, each time with what is there then. It returns what was
// stored.
func (m *Models) Edit(ctx context.Context, namespace, name string, create bool, who, why string, change func(*ModelSpec) error) (Model, error) {
	for {
		spec, d, err := m.Get(m.reg.State(), namespace, name)
		if errors.Is(err, ErrUnknownModel) && create {
			spec, err = &ModelSpec{Created: time.Now().UTC().Truncate(time.Microsecond)}, nil
			d.Version = 0
		}
		if err != nil {
			return Model{}, err
		}
		if spec.Aliases == nil {
			spec.Aliases = map[string]string{}
		}
		if err := change(spec); err != nil {
			return Model{}, err
		}
		d, err = m.put(ctx, namespace, name, d.Version, spec, who, why)
		if !errors.Is(err, registry.ErrStale) || ctx.Err() != nil {
			return Model{name, spec, time.UnixMicro(d.Time).UTC()}, err
		}
	}
}

func (m *Models) put(ctx context.Context, namespace, name string, expect uint64, spec *ModelSpec, who, why string) (registry.Definition, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return registry.Definition{}, err
	}
	return m.reg.Apply(ctx, registry.Entry{Kind: ModelKind, Namespace: namespace, Name: name, Op: registry.Put, Expect: expect, Spec: raw, Who: who, Why: why})
}
