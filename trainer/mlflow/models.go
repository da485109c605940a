package mlflow

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/trainer"
)

type modelRequest struct {
	Name        string `json:"name"`
	NewName     string `json:"new_name"`
	Description string `json:"description"`
	Tags        []pair `json:"tags"`
	Key         string `json:"key"`
	Value       string `json:"value"`
	Alias       string `json:"alias"`
	Version     string `json:"version"`
	Source      string `json:"source"`
	RunID       string `json:"run_id"`
	ModelID     string `json:"model_id"`
	Stage       string `json:"stage"`
	Archive     bool   `json:"archive_existing_versions"`
	Stages      texts  `json:"stages"`
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func createModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	if r.Name == "" || strings.ContainsAny(r.Name, "/:") {
		return nil, invalid("Registered model name %q: want one that is not empty and has neither / nor :", r.Name)
	}
	err := c.models.Create(ctx, c.namespace, r.Name, trainer.ModelSpec{Description: r.Description, Tags: toMap(r.Tags)}, who(ctx), fromClient)
	if errors.Is(err, registry.ErrStale) {
		return nil, exists("Registered Model (name=%s) already exists.", r.Name)
	}
	if err != nil {
		return nil, c.fault(r.Name, err)
	}
	return getModel(ctx, c, r)
}

func getModel(_ context.Context, c *catalog, r *modelRequest) (any, error) {
	m, err := c.find(r.Name)
	if err != nil {
		return nil, err
	}
	return object{"registered_model": modelOf(&m)}, nil
}

func updateModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	m, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		spec.Description = r.Description
		return nil
	})
	if err != nil {
		return nil, err
	}
	return object{"registered_model": modelOf(&m)}, nil
}

// renameModel makes the model anew under the other name and removes the old
// one: its history stays where it was.
func renameModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	m, err := c.find(r.Name)
	if err != nil {
		return nil, err
	}
	if _, err := c.find(r.NewName); err == nil || r.NewName == "" || strings.ContainsAny(r.NewName, "/:") {
		return nil, exists("Registered Model (name=%s) already exists, or is no name.", r.NewName)
	}
	created := m.Spec.Created
	for i := range m.Spec.Versions {
		m.Spec.Versions[i].Model = r.NewName
	}
	_, err = c.models.Edit(ctx, c.namespace, r.NewName, true, who(ctx), fromClient+", renamed from "+r.Name, func(spec *trainer.ModelSpec) error {
		*spec = *m.Spec
		spec.Created = created
		return nil
	})
	if err == nil {
		err = c.models.Delete(ctx, c.namespace, r.Name, who(ctx), fromClient+", renamed to "+r.NewName)
	}
	if err != nil {
		return nil, c.fault(r.NewName, err)
	}
	return getModel(ctx, c, &modelRequest{Name: r.NewName})
}

func deleteModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	return object{}, c.fault(r.Name, c.models.Delete(ctx, c.namespace, r.Name, who(ctx), fromClient))
}

func tagModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		spec.Tags = withTag(spec.Tags, r.Key, r.Value)
		return nil
	})
	return object{}, err
}

func untagModel(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		delete(spec.Tags, r.Key)
		return nil
	})
	return object{}, err
}

func setAlias(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	if r.Alias == "" || strings.EqualFold(r.Alias, "latest") {
		return nil, invalid("alias %q is not allowed", r.Alias)
	}
	_, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		if _, ok := spec.Find(r.Version); !ok {
			return missingVersion(r.Name, r.Version)
		}
		spec.Aliases[r.Alias] = r.Version
		return nil
	})
	return object{}, err
}

func deleteAlias(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		delete(spec.Aliases, r.Alias)
		return nil
	})
	return object{}, err
}

func getAlias(_ context.Context, c *catalog, r *modelRequest) (any, error) {
	m, err := c.find(r.Name)
	if err != nil {
		return nil, err
	}
	v, ok := m.Spec.Find(m.Spec.Aliases[r.Alias])
	if !ok {
		return nil, invalid("Registered model alias %s not found.", r.Alias)
	}
	return object{"model_version": viewOf(&m, v)}, nil
}

func searchModels(_ context.Context, c *catalog, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	found := []*registered{}
	for _, m := range c.models.List(c.namespace) {
		if x := modelOf(&m); f.match(&x) {
			found = append(found, &x)
		}
	}
	if err := sortBy(found, r.Order, "attribute"); err != nil {
		return nil, err
	}
	page, next, err := paged(found, r.Page, int(r.Max), 1000)
	return object{"registered_models": page, "next_page_token": next}, err
}

// promptTag tells MLflow's prompts from its models. Clients ask for models as
// "the tag is not true", which must also find those without it.
const promptTag = "mlflow.prompt.is_prompt"

func modelTag(tags []pair, key string) (any, bool) {
	v, ok := pairOf(tags, key)
	if !ok && key == promptTag {
		return "false", true
	}
	return v, ok
}

func (m *registered) field(kind, key string) (any, bool) {
	if kind == "tag" {
		return modelTag(m.Tags, key)
	}
	switch key {
	case "name":
		return m.Name, true
	case "creation_timestamp":
		return float64(m.Created), true
	case "last_updated_timestamp":
		return float64(m.Updated), true
	}
	return nil, false
}

func latestVersions(_ context.Context, c *catalog, r *modelRequest) (any, error) {
	m, err := c.find(r.Name)
	if err != nil {
		return nil, err
	}
	return object{"model_versions": latestOf(&m, r.Stages)}, nil
}

func createVersion(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	if r.Source == "" {
		return nil, invalid("a model version needs a source")
	}
	v, err := c.origin(r.Source)
	if err != nil {
		return nil, err
	}
	v.Model, v.Description, v.Tags, v.Who = r.Name, r.Description, toMap(r.Tags), who(ctx)
	v.Run, v.Logged = cmp.Or(r.RunID, v.Run), cmp.Or(r.ModelID, v.Logged)
	m, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		fresh := v
		fresh.Version, fresh.Stage = "", ""
		v = spec.Add(fresh, time.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return object{"model_version": viewOf(&m, &v)}, nil
}

func updateVersion(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	return c.editVersion(ctx, r.Name, r.Version, func(_ *trainer.ModelSpec, v *trainer.ModelVersion) { v.Description = r.Description })
}

func deleteVersion(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.edit(ctx, r.Name, func(spec *trainer.ModelSpec) error {
		if _, ok := spec.Find(r.Version); !ok {
			return missingVersion(r.Name, r.Version)
		}
		n, err := strconv.Atoi(r.Version)
		if err == nil {
			spec.Newest = max(spec.Newest, n)
		}
		spec.Versions = slices.DeleteFunc(spec.Versions, func(v trainer.ModelVersion) bool { return v.Version == r.Version })
		for alias, number := range spec.Aliases {
			if number == r.Version {
				delete(spec.Aliases, alias)
			}
		}
		return nil
	})
	return object{}, err
}

func tagVersion(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.editVersion(ctx, r.Name, r.Version, func(_ *trainer.ModelSpec, v *trainer.ModelVersion) { v.Tags = withTag(v.Tags, r.Key, r.Value) })
	return object{}, err
}

func untagVersion(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	_, err := c.editVersion(ctx, r.Name, r.Version, func(_ *trainer.ModelSpec, v *trainer.ModelVersion) { delete(v.Tags, r.Key) })
	return object{}, err
}

func transitionStage(ctx context.Context, c *catalog, r *modelRequest) (any, error) {
	stage := stageFrom(r.Stage)
	if stage == "" {
		return nil, invalid("Invalid Model Version stage: %s", r.Stage)
	}
	return c.editVersion(ctx, r.Name, r.Version, func(spec *trainer.ModelSpec, v *trainer.ModelVersion) {
		for i := range spec.Versions {
			if other := &spec.Versions[i]; r.Archive && other.Version != v.Version && other.Stage == stage {
				other.Stage = trainer.StageArchived
			}
		}
		v.Stage = stage
	})
}

func getVersion(_ context.Context, c *catalog, r *modelRequest) (any, error) {
	m, v, err := c.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	return object{"model_version": viewOf(&m, v)}, nil
}

func searchVersions(_ context.Context, c *catalog, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	found := []*version{}
	for _, m := range c.models.List(c.namespace) {
		for i := range m.Spec.Versions {
			if seen := viewOf(&m, &m.Spec.Versions[i]); f.match(&seen) {
				found = append(found, &seen)
			}
		}
	}
	slices.SortFunc(found, func(a, b *version) int {
		return cmp.Or(cmp.Compare(b.Updated, a.Updated), cmp.Compare(a.Name, b.Name), cmp.Compare(len(b.Version), len(a.Version)), cmp.Compare(b.Version, a.Version))
	})
	if err := sortBy(found, r.Order, "attribute"); err != nil {
		return nil, err
	}
	page, next, err := paged(found, r.Page, int(r.Max), 200_000)
	return object{"model_versions": page, "next_page_token": next}, err
}

func (v *version) field(kind, key string) (any, bool) {
	if kind == "tag" {
		return modelTag(v.Tags, key)
	}
	switch key {
	case "name":
		return v.Name, true
	case "version", "version_number":
		n, err := strconv.ParseFloat(v.Version, 64)
		return n, err == nil
	case "run_id":
		return v.RunID, true
	case "source_path":
		return v.Source, true
	case "creation_timestamp":
		return float64(v.Created), true
	case "last_updated_timestamp":
		return float64(v.Updated), true
	}
	return nil, false
}

// downloadURI follows a version that was registered from a logged model.
func downloadURI(_ context.Context, c *catalog, r *modelRequest) (any, error) {
	m, v, err := c.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	source := viewOf(&m, v).Source
	if id, ok := strings.CutPrefix(source, "models:/"); ok {
		if uri, ok := c.logged(id); ok {
			source = uri
		}
	}
	return object{"artifact_uri": source}, nil
}
