package app

import (
	"context"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// champion is the version that answers for a model and since when: by its
// deployment or, where it has none, by the alias of its registered model.
func (a *App) champion(name string) (drift.Champion, bool) {
	var out drift.Champion
	take := func(version, artifact string, at time.Time) {
		if version != out.Version || artifact != out.Artifact {
			out = drift.Champion{Version: version, Artifact: artifact, Since: at}
		}
	}
	if _, ok := a.registry.State().Get(serving.DeploymentKind, a.cfg.Namespace, name); ok {
		for _, m := range serving.NewRollouts(a.registry, a.cfg.Namespace).History(name) {
			digest := ""
			for _, v := range m.Spec.Versions {
				if v.Version == m.Spec.Champion {
					digest = v.Artifact
				}
			}
			take(m.Spec.Champion, digest, m.At)
		}
	} else {
		for _, d := range a.registry.History(trainer.ModelKind, a.cfg.Namespace, name) {
			if spec, err := trainer.ParseModel(d.Spec); err == nil {
				v, _ := spec.Resolve("champion") // none is none
				take(v.Version, v.Artifact, time.UnixMicro(d.Time).UTC())
			}
		}
	}
	artifact := out.Artifact
	out.Training = func() (map[string]*drift.Baseline, error) { return a.trainingOf(artifact) }
	return out, out.Version != ""
}

// trainingOf reads from an artefact what its training rows looked like, by
// column of the predictions.
func (a *App) trainingOf(digest string) (map[string]*drift.Baseline, error) {
	if digest == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	art, err := a.artifacts.Load(ctx, digest, model.DefaultLimits()) // from the bucket where this machine has none
	if err != nil {
		return nil, err
	}
	out := map[string]*drift.Baseline{}
	put := func(column string, r *model.Reference) {
		if r != nil && r.Grid != nil && r.Summary != nil {
			out[column] = &drift.Baseline{Grid: r.Grid, Reference: r.Summary}
		}
	}
	for _, in := range art.Signature.Inputs {
		put(in.Name, in.Reference)
	}
	column := map[model.Task]string{model.Binary: "score", model.Regression: "value", model.MultiClass: "class"}[art.Signature.Task]
	if column != "" && len(art.Signature.Outputs) > 0 {
		put(column, art.Signature.Outputs[0].Reference)
	}
	return out, nil
}
