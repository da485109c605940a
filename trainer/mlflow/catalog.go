package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/trainer"
)

// catalog is Kedge's registry of models as MLflow's clients see it: there is
// no other one behind the endpoint.
type catalog struct {
	models    *trainer.Models
	namespace string
	// logged answers where the files of a logged model are.
	logged func(id string) (uri string, ok bool)
}

// kedgeArtifacts is the folder below which clients read Kedge's own artefacts.
const kedgeArtifacts = "kedge"

func sourceOf(digest string) string { return "mlflow-artifacts:/" + kedgeArtifacts + "/" + digest }

// fromClient is why an entry of the registry was written.
const fromClient = "by an MLflow client"

func who(ctx context.Context) string { return auth.From(ctx).Subject }

// edit changes a model; faults come back as MLflow's.
func (c *catalog) edit(ctx context.Context, name string, change func(*trainer.ModelSpec) error) (trainer.Model, error) {
	m, err := c.models.Edit(ctx, c.namespace, name, false, who(ctx), fromClient, change)
	return m, c.fault(name, err)
}

// editVersion changes one version of a model.
func (c *catalog) editVersion(ctx context.Context, name, number string, change func(*trainer.ModelSpec, *trainer.ModelVersion)) (any, error) {
	m, err := c.edit(ctx, name, func(spec *trainer.ModelSpec) error {
		v, ok := spec.Find(number)
		if !ok {
			return missingVersion(name, number)
		}
		change(spec, v)
		v.Updated = now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	v, _ := m.Spec.Find(number)
	return object{"model_version": viewOf(&m, v)}, nil
}

func (c *catalog) find(name string) (trainer.Model, error) {
	m, err := c.models.Find(c.namespace, name)
	return m, c.fault(name, err)
}

func (c *catalog) version(name, number string) (trainer.Model, *trainer.ModelVersion, error) {
	m, err := c.find(name)
	if err != nil {
		return m, nil, err
	}
	v, ok := m.Spec.Find(number)
	if !ok {
		return m, nil, missingVersion(name, number)
	}
	return m, v, nil
}

func missingVersion(name, number string) error {
	return missing("Model Version (name=%s, version=%s) not found", name, number)
}

func (c *catalog) fault(name string, err error) error {
	switch {
	case errors.Is(err, trainer.ErrUnknownModel):
		return missing("Registered Model with name=%s not found", name)
	case errors.Is(err, registry.ErrInvalid):
		return invalid("%v", err)
	}
	return err
}

// stageFrom is the stage of approval that stands for one of MLflow's; "" for none.
func stageFrom(stage string) string {
	switch stage {
	case "None":
		return trainer.StageCandidate
	case "Staging":
		return trainer.StageStaging
	case "Production":
		return trainer.StageProduction
	case "Archived":
		return trainer.StageArchived
	}
	return ""
}

func stageTo(stage string) string {
	for _, s := range wireStages() {
		if stageFrom(s) == stage {
			return s
		}
	}
	return "None"
}

func wireStages() []string { return []string{"None", "Staging", "Production", "Archived"} }

// viewOf is a version as clients read it.
func viewOf(m *trainer.Model, v *trainer.ModelVersion) version {
	out := version{
		Name: m.Name, Version: v.Version, Created: integer(v.Created.UnixMilli()), Updated: integer(max(v.Created.UnixMilli(), v.Updated.UnixMilli())),
		User: v.Who, Stage: stageTo(v.Stage), Description: v.Description, Source: v.Source, RunID: v.Run, ModelID: v.Logged, Status: "READY", Tags: pairs(v.Tags),
	}
	if out.Source == "" {
		out.Source = sourceOf(v.Artifact)
	}
	for _, alias := range slices.Sorted(maps.Keys(m.Spec.Aliases)) {
		if m.Spec.Aliases[alias] == v.Version {
			out.Aliases = append(out.Aliases, alias)
		}
	}
	return out
}

// modelOf is a registered model as clients read it.
func modelOf(m *trainer.Model) registered {
	out := registered{
		Name: m.Name, Created: integer(m.Spec.Created.UnixMilli()), Updated: integer(m.Updated.UnixMilli()),
		Description: m.Spec.Description, Tags: pairs(m.Spec.Tags), Latest: latestOf(m, nil),
	}
	for _, p := range pairs(m.Spec.Aliases) {
		out.Aliases = append(out.Aliases, aliasOf{p.Key, p.Value})
	}
	return out
}

// latestOf is the newest version of every stage.
func latestOf(m *trainer.Model, stages []string) []version {
	newest := make(map[string]*trainer.ModelVersion)
	for i := range m.Spec.Versions {
		newest[stageTo(m.Spec.Versions[i].Stage)] = &m.Spec.Versions[i]
	}
	var out []version
	for _, stage := range wireStages() {
		if v := newest[stage]; v != nil && (len(stages) == 0 || slices.Contains(stages, stage)) {
			out = append(out, viewOf(m, v))
		}
	}
	return out
}

// origin follows the source of a new version: a version that is copied, or one
// of Kedge's own artefacts, is registered with its artefact.
func (c *catalog) origin(source string) (trainer.ModelVersion, error) {
	if digest, ok := strings.CutPrefix(source, sourceOf("")); ok && digest != "" {
		return trainer.ModelVersion{Artifact: digest}, nil
	}
	ref, ok := strings.CutPrefix(source, "models:/")
	name, number, versioned := strings.Cut(ref, "/")
	if !versioned {
		name, number, versioned = strings.Cut(ref, "@")
	}
	if !ok || !versioned {
		return trainer.ModelVersion{Source: source}, nil
	}
	m, err := c.find(name)
	if err != nil {
		return trainer.ModelVersion{}, err
	}
	v, err := m.Spec.Resolve(number)
	if err != nil {
		return trainer.ModelVersion{}, missingVersion(name, number)
	}
	return trainer.ModelVersion{Artifact: v.Artifact, Source: v.Source, Logged: v.Logged, Run: v.Run, Digest: v.Digest, Metrics: v.Metrics}, nil
}

// adopt does again the changes to models that an older build kept in the
// journal. What is there already stays as it is.
func (c *catalog) adopt(ctx context.Context, ops map[string]operation, old []change) error {
	var errs []error
	for _, ch := range old {
		_, err := ops[ch.Op].catalog(ctx, c, ch.Body)
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// catalogued is an operation that changes the registry of models. It is kept in the
// registry's log, not in the journal.
func catalogued[T any](run func(ctx context.Context, c *catalog, r *T) (any, error)) operation {
	return operation{changes: true, catalog: func(ctx context.Context, c *catalog, body json.RawMessage) (any, error) {
		req := new(T)
		if len(body) > 0 {
			if err := json.Unmarshal(body, req); err != nil {
				return nil, invalid("request: %v", err)
			}
		}
		return run(ctx, c, req)
	}}
}

// asking marks an operation as one that changes nothing: whoever may read may
// call it.
func asking(op operation) operation {
	op.changes = false
	return op
}

func toMap(list []pair) map[string]string {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]string, len(list))
	for _, p := range list {
		out[p.Key] = p.Value
	}
	return out
}

func withTag(tags map[string]string, key, value string) map[string]string {
	if tags == nil {
		tags = map[string]string{}
	}
	tags[key] = value
	return tags
}
