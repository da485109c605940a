package mlflow

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
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
	RunLink     string `json:"run_link"`
	ModelID     string `json:"model_id"`
	Stage       string `json:"stage"`
	Archive     bool   `json:"archive_existing_versions"`
	Stages      texts  `json:"stages"`
}

func (s *Store) model(name string) (*registered, error) {
	if m := s.models[name]; m != nil {
		return m, nil
	}
	return nil, missing("Registered Model with name=%s not found", name)
}

func (s *Store) version(name, number string) (*registered, *version, error) {
	m, err := s.model(name)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range m.versions {
		if v.Version == number {
			return m, v, nil
		}
	}
	return nil, nil, missing("Model Version (name=%s, version=%s) not found", name, number)
}

// wire is a registered model as clients read it.
func (m *registered) wire() object {
	type alias struct {
		Alias   string `json:"alias"`
		Version string `json:"version"`
	}
	var aliases []alias
	for _, p := range pairs(m.aliases) {
		aliases = append(aliases, alias{p.Key, p.Value})
	}
	return object{
		"name": m.Name, "creation_timestamp": m.Created, "last_updated_timestamp": m.Updated, "description": m.Description,
		"tags": m.Tags, "aliases": aliases, "latest_versions": m.latest(nil),
	}
}

// view is a version with its aliases.
func (m *registered) view(v *version) version {
	out := *v
	out.Aliases = nil
	for _, p := range pairs(m.aliases) {
		if p.Value == v.Version {
			out.Aliases = append(out.Aliases, p.Key)
		}
	}
	return out
}

// latest is the newest version of every stage.
func (m *registered) latest(stages []string) []version {
	newest := make(map[string]*version)
	for _, v := range m.versions {
		newest[v.Stage] = v
	}
	var out []version
	for _, stage := range []string{"None", "Staging", "Production", "Archived"} {
		if v := newest[stage]; v != nil && (len(stages) == 0 || slices.Contains(stages, stage)) {
			out = append(out, m.view(v))
		}
	}
	return out
}

func createModel(s *Store, c *change, r *modelRequest) (any, error) {
	if r.Name == "" {
		return nil, invalid("Registered model name cannot be empty.")
	}
	if s.models[r.Name] != nil {
		return nil, exists("Registered Model (name=%s) already exists.", r.Name)
	}
	m := &registered{Name: r.Name, Created: integer(c.At), Updated: integer(c.At), Description: r.Description, Tags: r.Tags, aliases: make(map[string]string)}
	s.models[r.Name] = m
	return object{"registered_model": m.wire()}, nil
}

func updateModel(s *Store, c *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	m.Description, m.Updated = r.Description, integer(c.At)
	return object{"registered_model": m.wire()}, nil
}

func renameModel(s *Store, c *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	if s.models[r.NewName] != nil || r.NewName == "" {
		return nil, exists("Registered Model (name=%s) already exists.", r.NewName)
	}
	delete(s.models, r.Name)
	m.Name, m.Updated = r.NewName, integer(c.At)
	for _, v := range m.versions {
		v.Name = r.NewName
	}
	s.models[r.NewName] = m
	return object{"registered_model": m.wire()}, nil
}

func deleteModel(s *Store, _ *change, r *modelRequest) (any, error) {
	_, err := s.model(r.Name)
	delete(s.models, r.Name)
	return object{}, err
}

func tagModel(s *Store, _ *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err == nil {
		m.Tags = setPair(m.Tags, pair{r.Key, r.Value})
	}
	return object{}, err
}

func setAlias(s *Store, _ *change, r *modelRequest) (any, error) {
	m, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	if r.Alias == "" || strings.EqualFold(r.Alias, "latest") {
		return nil, invalid("alias %q is not allowed", r.Alias)
	}
	m.aliases[r.Alias] = v.Version
	return object{}, nil
}

func deleteAlias(s *Store, _ *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err == nil {
		delete(m.aliases, r.Alias)
	}
	return object{}, err
}

func getAlias(s *Store, _ *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	number, ok := m.aliases[r.Alias]
	if !ok {
		return nil, invalid("Registered model alias %s not found.", r.Alias)
	}
	_, v, err := s.version(r.Name, number)
	if err != nil {
		return nil, err
	}
	return object{"model_version": m.view(v)}, nil
}

func getModel(s *Store, _ *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	return object{"registered_model": m.wire()}, nil
}

func searchModels(s *Store, _ *change, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	var found []*registered
	for _, m := range s.models {
		if f.match(m) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b *registered) int { return cmp.Compare(a.Name, b.Name) })
	if err := sortBy(found, r.Order, "attribute"); err != nil {
		return nil, err
	}
	page, next, err := paged(found, r.Page, int(r.Max), 1000)
	out := make([]object, len(page))
	for i, m := range page {
		out[i] = m.wire()
	}
	return object{"registered_models": out, "next_page_token": next}, err
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

func latestVersions(s *Store, _ *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	return object{"model_versions": m.latest(r.Stages)}, nil
}

func createVersion(s *Store, c *change, r *modelRequest) (any, error) {
	m, err := s.model(r.Name)
	if err != nil {
		return nil, err
	}
	if r.Source == "" {
		return nil, invalid("a model version needs a source")
	}
	m.next++
	v := &version{
		Name: r.Name, Version: strconv.Itoa(m.next), Created: integer(c.At), Updated: integer(c.At), Stage: "None",
		Description: r.Description, Source: r.Source, RunID: r.RunID, RunLink: r.RunLink, ModelID: r.ModelID, Status: "READY", Tags: r.Tags,
	}
	m.versions = append(m.versions, v)
	m.Updated = integer(c.At)
	return object{"model_version": m.view(v)}, nil
}

func updateVersion(s *Store, c *change, r *modelRequest) (any, error) {
	m, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	v.Description, v.Updated = r.Description, integer(c.At)
	return object{"model_version": m.view(v)}, nil
}

func deleteVersion(s *Store, _ *change, r *modelRequest) (any, error) {
	m, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	m.versions = slices.DeleteFunc(m.versions, func(x *version) bool { return x == v })
	for alias, number := range m.aliases {
		if number == v.Version {
			delete(m.aliases, alias)
		}
	}
	return object{}, nil
}

func tagVersion(s *Store, _ *change, r *modelRequest) (any, error) {
	_, v, err := s.version(r.Name, r.Version)
	if err == nil {
		v.Tags = setPair(v.Tags, pair{r.Key, r.Value})
	}
	return object{}, err
}

func transitionStage(s *Store, c *change, r *modelRequest) (any, error) {
	m, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"None", "Staging", "Production", "Archived"}, r.Stage) {
		return nil, invalid("Invalid Model Version stage: %s", r.Stage)
	}
	for _, other := range m.versions {
		if r.Archive && other != v && other.Stage == r.Stage {
			other.Stage = "Archived"
		}
	}
	v.Stage, v.Updated = r.Stage, integer(c.At)
	return object{"model_version": m.view(v)}, nil
}

func getVersion(s *Store, _ *change, r *modelRequest) (any, error) {
	m, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	return object{"model_version": m.view(v)}, nil
}

func searchVersions(s *Store, _ *change, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	found := []*version{}
	for _, m := range s.models {
		for _, v := range m.versions {
			if seen := m.view(v); f.match(&seen) {
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
func downloadURI(s *Store, _ *change, r *modelRequest) (any, error) {
	_, v, err := s.version(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	if id, ok := strings.CutPrefix(v.Source, "models:/"); ok {
		if l := s.logged[id]; l != nil {
			return object{"artifact_uri": l.Artifacts}, nil
		}
	}
	return object{"artifact_uri": v.Source}, nil
}
