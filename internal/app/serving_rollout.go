package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/store"
)

// Rollout is where a model's deployment stands.
type Rollout struct {
	Model     string             `json:"model"`
	Now       serving.Moment     `json:"now"`
	Judgement *serving.Judgement `json:"judgement,omitempty" doc:"What the guard-rails of this process said last about the canary"`
	Readout   *serving.Readout   `json:"readout,omitempty" doc:"The arms beside each other, where there is a store to ask"`
}

// RolloutChange asks for a change of a deployment.
type RolloutChange struct {
	Action  string `json:"action" enum:"promote,rollback"`
	Version string `json:"version,omitempty" doc:"The version to promote; default: the canary"`
	Why     string `json:"why,omitempty" maxLength:"1000" doc:"Kept with the change"`
}

// RolloutHistory is every state of a model's deployment, or the one at a time.
type RolloutHistory struct {
	Moments []serving.Moment `json:"moments"`
}

// facts are what this process's store knows for the guard-rails.
func (a *App) facts() serving.Facts {
	if a.store == nil {
		return serving.Facts{}
	}
	return serving.Facts{
		Outcomes: func(ctx context.Context, q serving.Asked) ([]serving.Outcome, error) {
			labels, err := a.labelJoin(a.cfg.Namespace, q.Model)
			if err != nil {
				return nil, err
			}
			found, err := a.store.Arms(ctx, store.ArmQuery{Namespace: a.cfg.Namespace, Model: q.Model, Loss: q.Loss, Since: q.Since, ByEntity: q.ByEntity, Labels: labels})
			out := make([]serving.Outcome, len(found))
			for i, o := range found {
				out[i] = serving.Outcome{Version: o.Version, Variant: o.Variant, Units: o.Units, Loss: serving.Sums{N: o.Labelled, Sum: o.Loss, SumOfSqs: o.LossSquared}}
			}
			return out, err
		},
		Drifted: func(ctx context.Context, model string, since time.Time) ([]string, error) {
			return a.store.Drifted(ctx, a.cfg.Namespace, model, since)
		},
	}
}

// rolloutError gives the serving room's errors their place among HTTP's.
func rolloutError(err error) error {
	switch {
	case errors.Is(err, serving.ErrUnknownModel), errors.Is(err, serving.ErrUnknownVersion):
		return web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	case errors.Is(err, serving.ErrRollout), errors.Is(err, registry.ErrStale):
		return web.Errorf(http.StatusConflict, web.CodeConflict, "%w", err)
	}
	return webError(err)
}

// rolloutRoutes show and change what is live.
func (a *App) rolloutRoutes(api *web.API) {
	r := serving.NewRollouts(a.registry, a.cfg.Namespace)
	web.Handle(api, huma.Operation{OperationID: "rollout", Method: http.MethodGet, Path: "/v1/rollouts/{model}", Summary: "What is live, how the canary or experiment does, and what the guard-rails say", Tags: []string{"rollouts"}}, rolloutError,
		func(ctx context.Context, in *struct {
			Model string `path:"model" example:"elec"`
			Loss  string `query:"loss" doc:"error, brier, log_loss, absolute_error or squared_error; default: the guard-rail's"`
		}) (*struct{ Body Rollout }, error) {
			out, err := a.rollout(ctx, r, in.Model, in.Loss)
			return &struct{ Body Rollout }{out}, err
		})
	web.Handle(api, huma.Operation{OperationID: "rollout-history", Method: http.MethodGet, Path: "/v1/rollouts/{model}/history", Summary: "Every change of what was live, with who, when, why and the evidence", Tags: []string{"rollouts"}}, rolloutError,
		func(_ context.Context, in *struct {
			Model string    `path:"model" example:"elec"`
			At    time.Time `query:"at" doc:"Answer with the state at this time alone"`
		}) (*struct{ Body RolloutHistory }, error) {
			out := RolloutHistory{Moments: r.History(in.Model)}
			var err error
			switch {
			case !in.At.IsZero():
				out.Moments = make([]serving.Moment, 1)
				out.Moments[0], err = r.At(in.Model, in.At)
			case len(out.Moments) == 0:
				err = web.Errorf(http.StatusNotFound, web.CodeNotFound, "%q has no deployment", in.Model)
			}
			return &struct{ Body RolloutHistory }{out}, err
		})
	web.Handle(api, huma.Operation{OperationID: "rollout-change", Method: http.MethodPost, Path: "/v1/rollouts/{model}", Summary: "Promote or roll back", Tags: []string{"rollouts"}}, rolloutError,
		func(ctx context.Context, in *struct {
			Model string `path:"model" example:"elec"`
			Body  RolloutChange
		}) (*struct{ Body serving.Moment }, error) {
			who := auth.From(ctx).Subject
			var m serving.Moment
			var err error
			if in.Body.Action == "promote" {
				m, err = r.Promote(ctx, in.Model, in.Body.Version, who, in.Body.Why)
			} else {
				m, err = r.Rollback(ctx, in.Model, who, in.Body.Why)
			}
			auth.Changed(ctx, "rollout "+in.Model, nil, in.Body)
			return &struct{ Body serving.Moment }{m}, err
		})
}

func (a *App) rollout(ctx context.Context, r *serving.Rollouts, model, loss string) (Rollout, error) {
	now, err := r.At(model, time.Now())
	if err != nil || now.Action == "deleted" {
		return Rollout{}, errors.Join(err, web.Errorf(http.StatusNotFound, web.CodeNotFound, "%q has no deployment", model))
	}
	out := Rollout{Model: model, Now: now}
	if j, ok := a.serving.guard.Last(model); ok {
		out.Judgement = &j
	}
	read, err := a.serving.guard.Readout(ctx, model, loss)
	if err == nil {
		out.Readout = &read
	} else if loss != "" { // it was asked for
		return out, err
	}
	return out, nil
}

// answerRollouts answers the kind "rollouts": the changes of what was live
// within a range, newest first, and the state that the range began with.
func (a *App) answerRollouts(_ context.Context, q query.Request) ([]query.Frame, error) {
	r := serving.NewRollouts(a.registry, q.Namespace)
	var models []string
	if q.Model != "" {
		models = []string{q.Model}
	} else {
		for _, d := range a.registry.State().List(serving.DeploymentKind, q.Namespace) {
			models = append(models, d.Name)
		}
	}
	var f rolloutFrame
	for _, model := range models {
		f.addAll(model, r.History(model), q.From, q.To)
	}
	return []query.Frame{f.frame()}, nil
}

// rolloutFrame collects moments as columns.
type rolloutFrame struct {
	at                                                []time.Time
	model, action, champion, trial, shadows, who, why []string
	weight                                            []float64
	definition                                        []uint64
}

func (f *rolloutFrame) addAll(model string, h []serving.Moment, from, to time.Time) {
	for i := len(h) - 1; i >= 0; i-- {
		if !to.IsZero() && !h[i].At.Before(to) {
			continue
		}
		f.add(model, &h[i])
		if !from.IsZero() && h[i].At.Before(from) {
			return // what was live when the range began
		}
	}
}

func (f *rolloutFrame) add(model string, m *serving.Moment) {
	trial, weight := "", 0.0
	switch s := &m.Spec; {
	case s.Canary != nil:
		trial, weight = s.Canary.Version, s.Canary.Weight
	case s.Experiment != nil:
		trial = s.Experiment.Name
	}
	shadows := ""
	for i, v := range m.Spec.Shadows {
		if i > 0 {
			shadows += ", "
		}
		shadows += v
	}
	f.at, f.model, f.action = append(f.at, m.At), append(f.model, model), append(f.action, m.Action)
	f.champion, f.trial, f.weight = append(f.champion, m.Spec.Champion), append(f.trial, trial), append(f.weight, weight)
	f.shadows, f.who, f.why, f.definition = append(f.shadows, shadows), append(f.who, m.Who), append(f.why, m.Why), append(f.definition, m.Definition)
}

func (f *rolloutFrame) frame() query.Frame {
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return query.Frame{Name: "rollouts", Type: query.Table, Columns: []query.Column{
		{Name: "time", Type: query.Time, Values: orNone(f.at)}, text("model", f.model), text("action", f.action), text("champion", f.champion), text("trial", f.trial),
		{Name: "weight", Type: query.Float, Values: orNone(f.weight)}, text("shadows", f.shadows), text("who", f.who), text("why", f.why),
		{Name: "definition_version", Type: query.Uint, Values: orNone(f.definition)},
	}}
}
