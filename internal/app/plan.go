package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
)

// PlanRequest asks what applying definitions would do.
type PlanRequest struct {
	Definitions []Definition `json:"definitions"`
	Prune       bool         `json:"prune,omitempty" doc:"Whether what was applied from files before and is not listed would be deleted"`
}

// Actions of a [PlannedChange].
const (
	actionCreate = "create"
	actionUpdate = "update"
	actionDelete = "delete"
	actionNone   = "unchanged"
)

// PlannedChange is what would become of one definition.
type PlannedChange struct {
	Kind    string       `json:"kind"`
	Name    string       `json:"name"`
	Action  string       `json:"action" enum:"create,update,delete,unchanged"`
	Version uint64       `json:"version" doc:"The live version, which an apply or delete then names; 0 when there is none"`
	Edits   []event.Edit `json:"edits,omitempty"`
	Refused string       `json:"refused,omitempty" doc:"Why it cannot be applied"`
	Cost    *drift.Cost  `json:"cost,omitempty" doc:"Of a Monitor: what it is expected to take a day"`
	Removes *Removal     `json:"removes,omitempty" doc:"Of a Namespace, FeatureView or Model: what its retention would remove now"`
	Moves   *Move        `json:"moves,omitempty" doc:"Of the same: what would move to another volume now"`
}

// Removal is what a retention would remove.
type Removal struct {
	Rows   int64     `json:"rows"`
	Before time.Time `json:"before" doc:"Rows that the broker appended before"`
}

// Move is what a retention would move to another volume. A part of a table moves as
// a whole, when its newest row has the age.
type Move struct {
	Rows   int64     `json:"rows"`
	Bytes  int64     `json:"bytes" doc:"Compressed"`
	Volume string    `json:"volume"`
	Before time.Time `json:"before" doc:"Rows that the broker appended before"`
}

// Plan is the answer of POST /v1/definitions/plan.
type Plan struct {
	Changes []PlannedChange `json:"changes"`
	Refused int             `json:"refused" doc:"How many of them cannot be applied"`
}

func (a *App) planRoutes(api *web.API) {
	web.Handle(api, huma.Operation{OperationID: "plan", Method: http.MethodPost, Path: "/v1/definitions/plan", Summary: "What applying definitions would do", Description: "Nothing is changed.", Tags: []string{"definitions"}, MaxBodyBytes: int64(a.cfg.HTTP.MaxBody)}, webError,
		func(ctx context.Context, in *struct{ Body PlanRequest }) (*struct{ Body Plan }, error) {
			return &struct{ Body Plan }{a.plan(ctx, auth.From(ctx), in.Body)}, nil
		})
	web.Handle(api, huma.Operation{OperationID: "delete-definition", Method: http.MethodDelete, Path: "/v1/definitions", Summary: "Delete a definition", Description: "Stored rows stay until their retention ends. A view that is deleted and met again in an event is a new one.", Tags: []string{"definitions"}}, webError,
		func(ctx context.Context, in *struct {
			Kind    string `query:"kind" required:"true"`
			Name    string `query:"name" required:"true"`
			Version uint64 `query:"version" doc:"The live version; 0 takes whatever it is"`
			Why     string `query:"why"`
		}) (*struct{ Body Definition }, error) {
			d, err := a.deleteDefinition(ctx, auth.From(ctx), in.Kind, in.Name, in.Version, in.Why)
			return &struct{ Body Definition }{shown(d)}, err
		})
	web.Handle(api, huma.Operation{OperationID: "definition-history", Method: http.MethodGet, Path: "/v1/definitions/history", Summary: "Every version of a definition, oldest first", Tags: []string{"definitions"}}, webError,
		func(ctx context.Context, in *struct {
			Kind string `query:"kind" required:"true"`
			Name string `query:"name" required:"true"`
		}) (*struct{ Body DefinitionList }, error) {
			out := DefinitionList{Definitions: []Definition{}}
			for _, d := range a.registry.History(in.Kind, homeOf(auth.From(ctx), in.Kind, in.Name), in.Name) {
				out.Definitions = append(out.Definitions, shown(d))
			}
			if len(out.Definitions) == 0 {
				return nil, web.Errorf(http.StatusNotFound, web.CodeNotFound, "no %s named %q was ever defined", in.Kind, in.Name)
			}
			return &struct{ Body DefinitionList }{out}, nil
		})
}

// plan compares definitions with the live ones.
func (a *App) plan(ctx context.Context, c auth.Caller, in PlanRequest) Plan {
	state := a.registry.State()
	out := Plan{Changes: []PlannedChange{}}
	listed := map[[2]string]bool{}
	for _, d := range in.Definitions {
		listed[[2]string{d.Kind, d.Name}] = true
		ch := a.planOne(ctx, c, state, d)
		if ch.Refused != "" {
			out.Refused++
		}
		out.Changes = append(out.Changes, ch)
	}
	if !in.Prune {
		return out
	}
	for _, d := range state.List("", c.Namespace) {
		if d.Kind != event.NamespaceKind && !listed[[2]string{d.Kind, d.Name}] && a.fromFiles(d) {
			out.Changes = append(out.Changes, PlannedChange{Kind: d.Kind, Name: d.Name, Action: actionDelete, Version: d.Version})
		}
	}
	return out
}

// fromFiles reports whether some version of a definition was applied from
// files: only such are pruned, never what events or other parts defined.
func (a *App) fromFiles(d registry.Definition) bool {
	if _, ok := specParsers()[d.Kind]; !ok {
		return false
	}
	return committed(a.registry.History(d.Kind, d.Namespace, d.Name)) != nil
}

// committed is the newest version of a history that came from files, since the
// definition was last created.
func committed(history []registry.Definition) *registry.Definition {
	for i := len(history) - 1; i >= 0 && !history[i].Deleted; i-- {
		if history[i].Revision != "" {
			return &history[i]
		}
	}
	return nil
}

func (a *App) planOne(ctx context.Context, c auth.Caller, state *registry.State, d Definition) PlannedChange {
	out := PlannedChange{Kind: d.Kind, Name: d.Name, Action: actionCreate}
	live, ok := state.Get(d.Kind, homeOf(c, d.Kind, d.Name), d.Name)
	if ok {
		out.Version, out.Action = live.Version, actionUpdate
	}
	if err := a.checkDefinition(ctx, c, d); err != nil {
		out.Refused = err.Error()
		return out
	}
	out.Cost = a.costOf(ctx, c, d)
	out.Removes, out.Moves = a.removesOf(ctx, c, d)
	if !ok {
		return out
	}
	edits, err := event.CompareSpecs(d.Kind, live.Spec, d.Spec)
	if err != nil {
		out.Refused = err.Error()
		return out
	}
	if out.Edits = edits; len(edits) == 0 {
		out.Action = actionNone
	}
	return out
}

// costOf estimates what a Monitor takes. What it cannot find out it leaves out:
// a plan says what would change, whatever the store can answer now.
func (a *App) costOf(ctx context.Context, c auth.Caller, d Definition) *drift.Cost {
	if d.Kind != drift.MonitorKind || a.store == nil {
		return nil
	}
	spec, err := drift.ParseMonitor(d.Spec)
	if err != nil {
		return nil
	}
	cost, err := drift.CostOf(ctx, a.store, c.Namespace, spec)
	if err != nil {
		a.tel.Scope("drift").Log.WarnContext(ctx, "the cost of a monitor is not known", "monitor", d.Name, "error", err)
		return nil
	}
	return cost
}

// checkDefinition finds what is wrong with a definition by itself, and beside
// what is live.
func (a *App) checkDefinition(ctx context.Context, c auth.Caller, d Definition) error {
	if err := checkSpec(d); err != nil {
		return err
	}
	if d.Kind == source.Kind {
		if err := a.checkNewSource(c, d); err != nil {
			return err
		}
	}
	if err := errors.Join(a.checkFrom(ctx, c, d), a.checkVolume(ctx, d)); err != nil {
		return err
	}
	if d.Kind == event.NamespaceKind {
		if err := event.CheckNamespace(d.Name); err != nil {
			return err
		}
	}
	live, ok := a.registry.State().Get(d.Kind, homeOf(c, d.Kind, d.Name), d.Name)
	if !ok {
		return nil
	}
	edits, err := event.CompareSpecs(d.Kind, live.Spec, d.Spec)
	if err != nil {
		return err
	}
	for _, e := range edits {
		if e.Effect == event.EffectRefused {
			return fmt.Errorf("%s: %q to %q: %s", e.Path, e.Was, e.Now, e.Remedy)
		}
	}
	if slices.ContainsFunc(edits, func(e event.Edit) bool { return e.Effect == event.EffectVersion }) {
		return a.checkConversion(ctx, live, d)
	}
	return nil
}

// triedRows is how many stored rows of each older version a conversion is tried
// on before it is accepted.
const triedRows = 10_000

// checkConversion refuses a version to which stored rows cannot be converted.
func (a *App) checkConversion(ctx context.Context, live registry.Definition, d Definition) error {
	if a.consumer == nil {
		return nil
	}
	return a.consumer.CheckConversion(ctx, event.CatalogEntry{Kind: live.Kind, Namespace: live.Namespace, Name: live.Name, UID: live.UID, Spec: d.Spec}, triedRows)
}

func (a *App) deleteDefinition(ctx context.Context, c auth.Caller, kind, name string, version uint64, why string) (registry.Definition, error) {
	if err := a.mayDefine(c, Definition{Kind: kind, Name: name}); err != nil {
		return registry.Definition{}, err
	}
	home := homeOf(c, kind, name)
	live, ok := a.registry.State().Get(kind, home, name)
	if !ok {
		return live, web.Errorf(http.StatusNotFound, web.CodeNotFound, "no %s named %q", kind, name)
	}
	if _, ok := specParsers()[kind]; !ok {
		return live, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind %q is kept by Kedge itself and cannot be deleted by hand", kind)
	}
	if version == 0 {
		version = live.Version
	}
	auth.Changed(ctx, kind+" "+name, live.Spec, nil)
	return a.registry.Apply(ctx, registry.Entry{Kind: kind, Namespace: home, Name: name, Op: registry.Delete, Expect: version, Who: c.Subject, Why: why})
}

// asOf is the definitions now, or as they were at a time.
func (a *App) asOf(at time.Time) *registry.State {
	if at.IsZero() {
		return a.registry.State()
	}
	return a.registry.AtTime(at.UnixMicro())
}

// How a live definition stands to the files it was applied from.
const (
	standsInferred  = "inferred"  // events made it
	standsCommitted = "committed" // as the files had it
	standsEdited    = "edited"    // changed since, by another way
	standsOther     = "other"     // never in files
)

func stands(history []registry.Definition) string {
	if len(history) == 0 || history[len(history)-1].Deleted {
		return ""
	}
	live := history[len(history)-1]
	file := committed(history)
	switch {
	case file == nil && live.Who == "ingest":
		return standsInferred
	case file == nil:
		return standsOther
	case string(file.Spec) == string(live.Spec):
		return standsCommitted
	}
	return standsEdited
}

// definitionMetrics publishes how many definitions are as the files have them:
// an edit by hand of something that Git holds shows here.
func (a *App) definitionMetrics() (stop func(), err error) {
	m := a.tel.Scope("app").Meter
	gauge, err := m.Int64ObservableGauge(telemetry.MetricDefinitions, metric.WithUnit("{definition}"),
		metric.WithDescription("Live definitions by how they stand to the files they were applied from"))
	if err != nil {
		return nil, fmt.Errorf("definition metrics: %w", err)
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		counts := map[string]int64{standsInferred: 0, standsCommitted: 0, standsEdited: 0, standsOther: 0}
		for _, d := range a.registry.State().List("", "") {
			if _, ok := specParsers()[d.Kind]; ok {
				counts[stands(a.registry.History(d.Kind, d.Namespace, d.Name))]++
			}
		}
		for state, n := range counts {
			o.ObserveInt64(gauge, n, metric.WithAttributes(attribute.String("state", state)))
		}
		return nil
	}, gauge)
	if err != nil {
		return nil, fmt.Errorf("definition metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}
