package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// Definition is a definition as the API shows and takes it.
type Definition struct {
	Kind      string          `json:"kind" example:"FeatureView"`
	Namespace string          `json:"namespace,omitempty"`
	Name      string          `json:"name"`
	Version   uint64          `json:"version,omitempty" doc:"The version shown; when applying, the version to replace, 0 for a new definition"`
	Changed   time.Time       `json:"changed,omitzero"`
	Who       string          `json:"who,omitempty"`
	Why       string          `json:"why,omitempty"`
	Revision  string          `json:"revision,omitempty" doc:"The commit of the file it was applied from"`
	Deleted   bool            `json:"deleted,omitempty" readOnly:"true"`
	Spec      json.RawMessage `json:"spec"`
}

func shown(d registry.Definition) Definition {
	return Definition{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Version: d.Version, Changed: time.UnixMicro(d.Time).UTC(), Who: d.Who, Why: d.Why, Revision: d.Revision, Deleted: d.Deleted, Spec: d.Spec}
}

// DefinitionList is the answer of GET /v1/definitions.
type DefinitionList struct {
	Definitions []Definition `json:"definitions"`
}

func (a *App) definitionRoutes(api *web.API) {
	web.Handle(api, huma.Operation{OperationID: "definitions", Method: http.MethodGet, Path: "/v1/definitions", Summary: "Views and models as they are defined", Tags: []string{"definitions"}}, webError,
		func(ctx context.Context, in *struct {
			Kind string    `query:"kind"`
			Name string    `query:"name"`
			At   time.Time `query:"at" doc:"What was defined at a time; now when it is not given"`
		}) (*struct{ Body DefinitionList }, error) {
			out := DefinitionList{Definitions: []Definition{}}
			for _, d := range listed(a.asOf(in.At), auth.From(ctx), in.Kind) {
				if in.Name == "" || in.Name == d.Name {
					out.Definitions = append(out.Definitions, shown(d))
				}
			}
			return &struct{ Body DefinitionList }{out}, nil
		})
	web.Handle(api, huma.Operation{OperationID: "apply", Method: http.MethodPost, Path: "/v1/definitions", Summary: "Define or change a view or model", Tags: []string{"definitions"}, MaxBodyBytes: int64(a.cfg.HTTP.MaxBody)}, webError,
		func(ctx context.Context, in *struct{ Body Definition }) (*struct{ Body Definition }, error) {
			d, err := a.apply(ctx, auth.From(ctx), in.Body)
			if err != nil {
				return nil, err
			}
			return &struct{ Body Definition }{shown(d)}, nil
		})
}

// apply checks a definition's meaning and writes it to the registry.
func (a *App) apply(ctx context.Context, c auth.Caller, d Definition) (registry.Definition, error) {
	home := homeOf(c, d.Kind, d.Name)
	auth.Changed(ctx, fmt.Sprintf("%.100s %.100s", d.Kind, d.Name), nil, nil) // who is refused has tried this
	if d.Namespace != "" && d.Namespace != home {
		return registry.Definition{}, web.Errorf(http.StatusForbidden, "forbidden", "namespace %q: this caller defines in %q", d.Namespace, home)
	}
	if err := a.mayDefine(c, d); err != nil {
		return registry.Definition{}, err
	}
	if err := a.checkDefinition(ctx, c, d); err != nil {
		return registry.Definition{}, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%s %s: %w", d.Kind, d.Name, err)
	}
	if d.Kind == event.NamespaceKind {
		if err := a.ensureNamespace(ctx, d.Name); err != nil {
			return registry.Definition{}, err
		}
	}
	live, _ := a.registry.State().Get(d.Kind, home, d.Name)
	out, err := a.registry.Apply(ctx, registry.Entry{
		Kind: d.Kind, Namespace: home, Name: d.Name, Op: registry.Put, Expect: d.Version, Spec: d.Spec, Who: c.Subject, Why: d.Why, Revision: d.Revision,
	})
	if err == nil {
		auth.Changed(ctx, d.Kind+" "+d.Name, live.Spec, d.Spec)
	}
	return out, err
}

// mayDefine refuses the kinds that take more than the route does: those that
// are about the installation, about what is live, or about foreign topics.
func (a *App) mayDefine(c auth.Caller, d Definition) error {
	need := map[string]auth.Permission{event.ErasureKind: auth.Erase, event.NamespaceKind: auth.SystemWrite, serving.DeploymentKind: auth.RolloutWrite, source.Kind: auth.SourceRead, event.ColumnPolicyKind: auth.PersonalRead}[d.Kind]
	if !a.mayRetain(c, d) {
		return auth.Forbidden(c, auth.Erase)
	}
	if need == auth.Undeclared || c.May(need) || d.Kind == event.NamespaceKind && a.administers(c, d) {
		return nil
	}
	return auth.Forbidden(c, need)
}

// administers reports whether a caller is an owner of its namespace and the edit
// is one that owners make: everything but what the namespace may have of the
// installation. A definition without a spec is to be deleted.
func (a *App) administers(c auth.Caller, d Definition) bool {
	live, ok := a.registry.State().Get(event.NamespaceKind, d.Name, d.Name)
	if !ok || d.Name != c.Namespace || d.Spec == nil {
		return false
	}
	was, err := event.ParseNamespace(live.Spec)
	if err != nil || c.Subject == "" || !slices.Contains(was.Owners, c.Subject) {
		return false
	}
	now, err := event.ParseNamespace(d.Spec)
	return err == nil && now.Weight == was.Weight && now.Quotas == was.Quotas && now.Retention == was.Retention
}

func checkSpec(d Definition) error {
	if err := event.CheckName(d.Name); err != nil {
		return err
	}
	parsers := specParsers()
	parse, ok := parsers[d.Kind]
	if !ok {
		kinds := slices.Sorted(maps.Keys(parsers))
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind %q: want one of %s", d.Kind, strings.Join(kinds, ", "))
	}
	return parse(d.Spec)
}

// specParsers has, for every kind that can be applied, what checks its spec:
// the registry itself knows no kind's meaning.
func specParsers() map[string]func(json.RawMessage) error {
	return map[string]func(json.RawMessage) error{
		event.FeatureViewKind:       func(b json.RawMessage) error { _, err := event.ParseView(b); return err },
		event.ErasureKind:           func(b json.RawMessage) error { _, err := event.ParseErasure(b); return err },
		event.NamespaceKind:         func(b json.RawMessage) error { _, err := event.ParseNamespace(b); return err },
		event.ColumnPolicyKind:      checkPolicy,
		event.ModelKind:             func(b json.RawMessage) error { _, err := event.ParseModel(b); return err },
		features.FeatureServiceKind: func(b json.RawMessage) error { _, err := features.ParseService(b); return err },
		features.EntityKind:         func(b json.RawMessage) error { _, err := features.ParseEntity(b); return err },
		features.PushSourceKind:     func(b json.RawMessage) error { _, err := features.ParsePushSource(b); return err },
		features.WindowViewKind:     func(b json.RawMessage) error { _, err := features.ParseWindow(b); return err },
		features.OnDemandViewKind:   func(b json.RawMessage) error { _, err := features.ParseOnDemand(b); return err },
		drift.MonitorKind:           func(b json.RawMessage) error { _, err := drift.ParseMonitor(b); return err },
		drift.ActionKind:            func(b json.RawMessage) error { _, err := drift.ParseAction(b); return err },
		source.Kind:                 func(b json.RawMessage) error { _, err := source.ParseDefinition(b); return err },
		trainer.JobKind:             func(b json.RawMessage) error { _, err := trainer.ParseJob(b); return err },
		trainer.ModelKind:           func(b json.RawMessage) error { _, err := trainer.ParseModel(b); return err },
		serving.DeploymentKind:      func(b json.RawMessage) error { _, err := serving.ParseDeployment(b); return err },
	}
}
