package app

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// RunRequest asks for a training run.
type RunRequest struct {
	Name string          `json:"name" doc:"The job's definition or, with a spec, the name of this run's job"`
	Spec json.RawMessage `json:"spec,omitempty" doc:"A TrainingJob's spec; absent: that of the definition"`
	Why  string          `json:"why,omitempty" maxLength:"1000" doc:"Kept with the run and with the version that it makes"`
}

// RunAnswer is a run's record.
type RunAnswer struct {
	Run json.RawMessage `json:"run"`
}

// ModelChange approves a version or names it.
type ModelChange struct {
	Alias   string `json:"alias,omitempty" doc:"The alias to move; with no version, the alias to remove"`
	Stage   string `json:"stage,omitempty" doc:"candidate, staging, production or archived"`
	Version string `json:"version,omitempty" doc:"A version or an alias"`
	Why     string `json:"why,omitempty" maxLength:"1000"`
}

// trainerError gives the trainer's errors their place among HTTP's.
func trainerError(err error) error {
	switch {
	case errors.Is(err, trainer.ErrUnknownRun), errors.Is(err, trainer.ErrUnknownModel):
		return web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	case errors.Is(err, trainer.ErrState):
		return web.Errorf(http.StatusConflict, web.CodeConflict, "%w", err)
	case errors.Is(err, trainer.ErrParam), errors.Is(err, trainer.ErrNoRows), errors.Is(err, trainer.ErrType), errors.Is(err, trainer.ErrMemory), errors.Is(err, xgb.ErrNoLibrary):
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	}
	return webError(err)
}

// answerRun wraps a run as the API shows it.
func answerRun(r trainer.Run, err error) (*struct{ Body RunAnswer }, error) {
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(r)
	return &struct{ Body RunAnswer }{RunAnswer{text}}, err
}

// trainerRoutes start, show and end training runs, and approve models.
func (a *App) trainerRoutes(api *web.API) {
	s := a.trainer.scheduler
	tags := []string{"training"}
	type byID struct {
		ID string `path:"id"`
	}
	web.Handle(api, huma.Operation{OperationID: "train", Method: http.MethodPost, Path: "/v1/runs", Summary: "Queue a training run", Tags: tags, MaxBodyBytes: int64(a.cfg.HTTP.MaxBody)}, trainerError,
		func(ctx context.Context, in *struct{ Body RunRequest }) (*struct{ Body RunAnswer }, error) {
			q := trainer.Request{Namespace: auth.From(ctx).Namespace, Name: in.Body.Name, Who: auth.From(ctx).Subject, Why: in.Body.Why, Trigger: "api"}
			if len(in.Body.Spec) > 0 {
				spec, err := trainer.ParseJob(in.Body.Spec)
				if err != nil {
					return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
				}
				q.Spec = spec
			}
			return answerRun(s.Submit(ctx, q))
		})
	web.Handle(api, huma.Operation{OperationID: "run", Method: http.MethodGet, Path: "/v1/runs/{id}", Summary: "A training run's record", Tags: tags}, trainerError,
		func(ctx context.Context, in *byID) (*struct{ Body RunAnswer }, error) {
			return answerRun(s.Get(ctx, auth.From(ctx).Namespace, in.ID))
		})
	web.Handle(api, huma.Operation{OperationID: "cancel-run", Method: http.MethodPost, Path: "/v1/runs/{id}/cancel", Summary: "End a run between rounds, or take it out of the queue", Tags: tags}, trainerError,
		func(ctx context.Context, in *byID) (*struct{ Body RunAnswer }, error) {
			return answerRun(s.Cancel(ctx, auth.From(ctx).Namespace, in.ID, auth.From(ctx).Subject))
		})
	web.Handle(api, huma.Operation{OperationID: "resume-run", Method: http.MethodPost, Path: "/v1/runs/{id}/resume", Summary: "Queue a failed or cancelled run again, from its newest checkpoint", Tags: tags}, trainerError,
		func(ctx context.Context, in *byID) (*struct{ Body RunAnswer }, error) {
			return answerRun(s.Resume(ctx, auth.From(ctx).Namespace, in.ID))
		})
	web.Handle(api, huma.Operation{OperationID: "verify-run", Method: http.MethodPost, Path: "/v1/runs/{id}/verify", Summary: "Read a run's rows again and compare their digest", Tags: tags}, trainerError,
		func(ctx context.Context, in *byID) (*struct{ Body trainer.Verification }, error) {
			v, err := s.Verify(ctx, auth.From(ctx).Namespace, in.ID)
			return &struct{ Body trainer.Verification }{v}, err
		})
	web.Handle(api, huma.Operation{OperationID: "change-model", Method: http.MethodPost, Path: "/v1/registry/models/{model}", Summary: "Move a model's alias, or approve a version for a stage", Tags: tags}, trainerError,
		func(ctx context.Context, in *struct {
			Model string `path:"model"`
			Body  ModelChange
		}) (*struct{}, error) {
			c, b := auth.From(ctx), in.Body
			switch {
			case (b.Alias == "") == (b.Stage == ""):
				return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "want an alias or a stage")
			case b.Alias != "":
				return nil, a.trainer.models.SetAlias(ctx, c.Namespace, in.Model, b.Alias, b.Version, c.Subject, b.Why)
			}
			return nil, a.trainer.models.SetStage(ctx, c.Namespace, in.Model, b.Version, b.Stage, c.Subject, b.Why)
		})
}

// answerModels lists the versions of registered models as of the end of the
// range: what had which alias, in which stage, was deployed as what, and who
// decided that.
func (a *App) answerModels(_ context.Context, r query.Request) ([]query.Frame, error) {
	state := a.asOf(r.To)
	roles := deployedRoles(state, r.Namespace)
	var name, version, aliases, stage, live, who, why, run, artifact []string
	var created, changed []time.Time
	for _, d := range state.List(trainer.ModelKind, r.Namespace) {
		spec, err := trainer.ParseModel(d.Spec)
		if err != nil || r.Model != "" && r.Model != d.Name {
			continue
		}
		for _, v := range slices.Backward(spec.Versions) {
			by := a.decided(state, d, v.Version)
			name, version, aliases, stage = append(name, d.Name), append(version, v.Version), append(aliases, aliasesOf(spec, v.Version)), append(stage, v.Stage)
			live, run, artifact = append(live, roles[d.Name+"/"+v.Artifact]), append(run, v.Run), append(artifact, v.Artifact)
			created, changed = append(created, v.Created.UTC()), append(changed, time.UnixMicro(by.Time).UTC())
			who, why = append(who, by.Who), append(why, by.Why)
		}
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return []query.Frame{{Name: "models", Type: query.Table, Columns: []query.Column{
		text("model", name), text("version", version), text("aliases", aliases), text("stage", stage), text("live", live),
		{Name: "created", Type: query.Time, Values: orNone(created)}, {Name: "changed", Type: query.Time, Values: orNone(changed)},
		text("who", who), text("why", why), text("run", run), text("artifact", artifact),
	}}}, nil
}

func aliasesOf(spec *trainer.ModelSpec, version string) string {
	var out []string
	for alias, v := range spec.Aliases {
		if v == version {
			out = append(out, alias)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// decided is the newest change of a model, up to a definition, that touched a
// version's stage or aliases, or made it.
func (a *App) decided(state *registry.State, d registry.Definition, version string) registry.Definition {
	was := func(x registry.Definition) string {
		spec, err := trainer.ParseModel(x.Spec)
		if x.Deleted || err != nil {
			return ""
		}
		v, err := spec.Resolve(version)
		if err != nil {
			return ""
		}
		return v.Stage + "/" + aliasesOf(spec, version)
	}
	out, last := d, ""
	for _, x := range a.registry.History(d.Kind, d.Namespace, d.Name) {
		if x.Version > d.Version {
			break
		}
		if now := was(x); now != last {
			out, last = x, now
		}
	}
	return out
}
