package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// deployedRoles says, by "model/artefact", what a deployed version does:
// champion, canary, shadow, or loaded.
func deployedRoles(state *registry.State, namespace string) map[string]string {
	out := map[string]string{}
	for _, d := range state.List(serving.DeploymentKind, namespace) {
		spec, err := serving.ParseDeployment(d.Spec)
		if err != nil {
			continue
		}
		for _, v := range spec.Versions {
			role := "loaded"
			switch {
			case v.Version == spec.Champion:
				role = "champion"
			case spec.Canary != nil && spec.Canary.Version == v.Version:
				role = "canary"
			case slices.Contains(spec.Shadows, v.Version):
				role = "shadow"
			}
			out[d.Name+"/"+v.Artifact] = role
		}
	}
	return out
}

// trained draws where a registered model's versions come from: offsets → view
// versions → training set → run → version → deployed version.
func (a *App) trained(ctx context.Context, g *graph, d registry.Definition) {
	spec, err := trainer.ParseModel(d.Spec)
	if err != nil {
		return
	}
	roles := deployedRoles(a.registry.State(), d.Namespace)
	for _, v := range spec.Versions {
		version := "registered/" + d.Name + "/" + v.Version
		g.node(version, d.Name+" "+v.Version, "version, "+v.Stage, v.Artifact[:min(12, len(v.Artifact))], "purple")
		if role := roles[d.Name+"/"+v.Artifact]; role != "" {
			deployment := "version/" + d.Name + "/" + v.Version
			g.node(deployment, v.Version, role, v.Artifact[:min(12, len(v.Artifact))], map[bool]string{true: "purple", false: "gray"}[role == "champion"])
			g.edge(version, deployment)
		}
		if v.Run == "" || a.trainer == nil {
			continue
		}
		r, err := a.trainer.scheduler.Get(ctx, d.Namespace, v.Run)
		if err != nil {
			continue // the run's record is gone; the version still says which it was
		}
		run := "run/" + r.ID
		g.node(run, r.Job, "run", fmt.Sprintf("%s, %s", r.ID[:min(12, len(r.ID))], r.Backend), "orange")
		g.edge(run, version)
		a.trainingSet(g, r, run)
	}
}

// trainingSet draws what a run learnt from.
func (a *App) trainingSet(g *graph, r trainer.Run, run string) {
	set := "set/" + r.Data.Digest
	rows := 0
	for _, n := range r.Data.Rows {
		rows += n
	}
	g.node(set, plural(rows, "row"), "training set", r.Data.Digest[:min(12, len(r.Data.Digest))], "yellow")
	g.edge(set, run)
	from := []string{}
	for _, id := range slices.Sorted(maps.Keys(r.Data.Definitions)) {
		kind, name, _ := strings.Cut(id, "/")
		node := fmt.Sprintf("%s/%s@%v", kind, name, r.Data.Definitions[id])
		g.node(node, name, fmt.Sprintf("%s, version %v", kind, r.Data.Definitions[id]), "", "green")
		g.edge(node, set)
		if kind == event.FeatureViewKind {
			from = append(from, node)
		}
	}
	var asked trainer.DataSpec
	if json.Unmarshal([]byte(r.Data.Query), &asked) == nil && asked.Predictions != "" {
		node := event.ModelKind + "/" + asked.Predictions
		g.node(node, asked.Predictions, "model", "its predictions and labels", "blue")
		g.edge(node, set)
		from = append(from, node)
	}
	for _, id := range slices.Sorted(maps.Keys(r.Data.Offsets)) {
		topic, partition, _ := cutLast(id, "/")
		node := "offset/" + id + "/" + fmt.Sprint(r.Data.Offsets[id])
		g.node(node, topic, "partition "+partition, fmt.Sprintf("below offset %d", r.Data.Offsets[id]), "gray")
		for _, to := range from {
			if feeds(topic, to) {
				g.edge(node, to)
			}
		}
	}
}

// feeds reports whether a topic of Kedge's own can feed a node; a foreign one, or
// one of pairs, can feed any.
func feeds(topic, node string) bool {
	ours := strings.HasPrefix(topic, "kedge.") && !source.IsPairsTopic(topic)
	view := strings.HasPrefix(node, event.FeatureViewKind+"/")
	return !ours || strings.HasSuffix(topic, ".features") == view
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
