package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// panelKinds are the kinds that panels need beside those of one room.
func (a *App) panelKinds(k map[string]KindFunc) {
	k["lineage"] = a.answerLineage
	k["annotations"] = a.answerAnnotations
	k["deployments"] = a.answerDeployments
	k["rollbacks"] = a.answerRollbacks
	k["usage"] = a.answerUsage
	k["trace"] = a.answerTrace
	k["serving_errors"] = a.answerServingErrors
	if s := a.store; s != nil {
		k["drift_state"] = s.DriftState
		k["drift_share"] = s.DriftShare
		k["drift_heatmap"] = s.DriftHeatmap
		k["dead_letter_log"] = s.DeadLetterLog
		k["serving_latency"] = s.ServingLatency
		k["latency_heatmap"] = s.LatencyHeatmap
		k["serving_throughput"] = s.ServingThroughput
	}
}

// rollout is one step in the life of a model's deployment.
type rollout struct {
	at            time.Time
	model, what   string // what: deployment, rollback, retraining, withdrawal
	champion, was string
	who, why      string
	artifact      string // of the champion
	definition    uint64
}

// rollouts tells the history of the deployments of one model, or of all,
// oldest first: a step back to a version that was champion before is a
// rollback, an artefact never deployed before is a retraining.
func (a *App) rollouts(namespace, model string) []rollout {
	var out []rollout
	for _, d := range a.registry.State().List(serving.DeploymentKind, namespace) {
		if model != "" && d.Name != model {
			continue
		}
		out = append(out, rolloutsOf(a.registry.History(serving.DeploymentKind, d.Namespace, d.Name))...)
	}
	slices.SortStableFunc(out, func(a, b rollout) int { return a.at.Compare(b.at) })
	return out
}

func rolloutsOf(history []registry.Definition) []rollout {
	var out []rollout
	was := ""
	champions, artifacts := map[string]bool{}, map[string]bool{}
	for i, d := range history {
		r := rollout{at: time.UnixMicro(d.Time).UTC(), model: d.Name, what: "deployment", was: was, who: d.Who, why: d.Why, definition: d.Version}
		spec, err := serving.ParseDeployment(d.Spec)
		if d.Deleted || err != nil {
			r.what = "withdrawal"
			out = append(out, r)
			continue
		}
		r.champion = spec.Champion
		fresh := false
		for _, v := range spec.Versions {
			if v.Version == spec.Champion {
				r.artifact = v.Artifact
			}
			fresh = fresh || !artifacts[v.Artifact]
			artifacts[v.Artifact] = true
		}
		switch {
		case spec.Champion != was && champions[spec.Champion]:
			r.what = "rollback"
		case fresh && i > 0:
			r.what = "retraining"
		}
		champions[spec.Champion], was = true, spec.Champion
		out = append(out, r)
	}
	return out
}

func (r rollout) sentence() string {
	switch r.what {
	case "rollback":
		return fmt.Sprintf("%s went back from %s to %s", r.model, r.was, r.champion)
	case "retraining":
		return fmt.Sprintf("%s has a new artefact; %s answers", r.model, r.champion)
	case "withdrawal":
		return r.model + " is deployed no longer"
	}
	return fmt.Sprintf("%s: %s answers", r.model, r.champion)
}

// answerDeployments is the history of deployments as a table, newest first.
func (a *App) answerDeployments(_ context.Context, r query.Request) ([]query.Frame, error) {
	var at []time.Time
	var model, what, champion, who, why, artifact []string
	var definition []uint64
	for _, x := range slices.Backward(a.rollouts(r.Namespace, r.Model)) {
		if !r.From.IsZero() && x.at.Before(r.From) && len(at) > 0 { // the one in force at the beginning is shown too
			break
		}
		at, definition = append(at, x.at), append(definition, x.definition)
		model, what, champion = append(model, x.model), append(what, x.what), append(champion, x.champion)
		who, why, artifact = append(who, x.who), append(why, x.why), append(artifact, x.artifact)
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return []query.Frame{{Name: "deployments", Type: query.Table, Columns: []query.Column{
		{Name: "time", Type: query.Time, Values: orNone(at)}, text("model", model), text("what", what), text("champion", champion),
		text("who", who), text("why", why), text("artifact", artifact), {Name: "definition", Type: query.Uint, Values: orNone(definition)},
	}}}, nil
}

// answerRollbacks counts them per model in the range; a model that never went
// back has 0, so that its silence is a value.
func (a *App) answerRollbacks(_ context.Context, r query.Request) ([]query.Frame, error) {
	var models []string
	var counts []float64
	for _, x := range a.rollouts(r.Namespace, r.Model) {
		i := slices.Index(models, x.model)
		if i < 0 {
			i, models, counts = len(models), append(models, x.model), append(counts, 0)
		}
		if x.what == "rollback" && !x.at.Before(r.From) && (r.To.IsZero() || x.at.Before(r.To)) {
			counts[i]++
		}
	}
	return []query.Frame{{Name: "rollbacks", Type: query.NumericLong, Columns: []query.Column{
		{Name: "model", Type: query.Text, Values: orNone(models)}, {Name: "rollbacks", Type: query.Float, Values: orNone(counts)},
	}}}, nil
}

// marks collects annotations.
type marks struct {
	at                          []time.Time
	title, text, tags, id, tint []string
}

func (m *marks) add(at time.Time, title, text, tags, id, tint string) {
	m.at, m.title, m.text = append(m.at, at), append(m.title, title), append(m.text, text)
	m.tags, m.id, m.tint = append(m.tags, tags), append(m.id, id), append(m.tint, tint)
}

// answerAnnotations marks when a deployment changed and when a drift incident
// opened, worsened or ended. The filter "type" names one sort of mark.
func (a *App) answerAnnotations(ctx context.Context, r query.Request) ([]query.Frame, error) {
	var m marks
	var notices []query.Notice
	for _, name := range slices.Sorted(maps.Keys(r.Filter)) {
		if name != "type" { // a dashboard's filter is for all of its panels
			notices = append(notices, query.Notice{Severity: "warning", Text: fmt.Sprintf("Annotations are not filtered by %.70q: they take type.", name)})
		}
	}
	wanted := func(what string) bool { return r.Filter["type"] == "" || r.Filter["type"] == what }
	tints := map[string]string{"rollback": "red", "retraining": "purple", "withdrawal": "dark-red", "deployment": "blue", "opened": "orange", "worsened": "red", "resolved": "green", "accepted": "green", "lapsed": "orange"}
	for _, x := range a.rollouts(r.Namespace, r.Model) {
		if r.View != "" || !wanted(x.what) || x.at.Before(r.From) || !r.To.IsZero() && !x.at.Before(r.To) {
			continue
		}
		text := x.sentence()
		if x.why != "" {
			text += ": " + x.why
		}
		m.add(x.at, x.what+" of "+x.model, text, x.what+","+x.model, fmt.Sprintf("deployment/%s/%d", x.model, x.definition), tints[x.what])
	}
	if a.store != nil && wanted("drift") {
		f, err := a.store.DriftMarks(ctx, r)
		if err != nil {
			return nil, err
		}
		text := func(c, i int) string { return f.Columns[c].Values.([]string)[i] }
		for i, at := range f.Columns[0].Values.([]time.Time) {
			m.add(at, "drift "+text(3, i)+": "+text(1, i)+"."+text(2, i), text(5, i), "drift,"+text(1, i)+","+text(4, i), fmt.Sprintf("drift/%s/%s/%d", text(1, i), text(2, i), at.UnixMicro()), tints[text(3, i)])
		}
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return []query.Frame{{Name: "annotations", Type: query.Table, Notices: notices, Columns: []query.Column{
		{Name: "time", Type: query.Time, Values: orNone(m.at)}, text("title", m.title), text("text", m.text), text("tags", m.tags), text("id", m.id), text("color", m.tint),
	}}}, nil
}

// graph is nodes and edges as a node graph panel takes them.
type graph struct {
	id, title, sub, detail, tint []string
	from, to                     []string
}

func (g *graph) node(id, title, sub, detail, tint string) {
	if slices.Contains(g.id, id) {
		return
	}
	g.id, g.title, g.sub, g.detail, g.tint = append(g.id, id), append(g.title, title), append(g.sub, sub), append(g.detail, detail), append(g.tint, tint)
}

func (g *graph) edge(from, to string) { g.from, g.to = append(g.from, from), append(g.to, to) }

// answerLineage draws what feeds what: topic → view or model, view → feature
// service, model → deployed version, and of registered models where they come
// from. With a view or model named: its part.
func (a *App) answerLineage(ctx context.Context, r query.Request) ([]query.Frame, error) {
	var g graph
	state := a.registry.State()
	for _, d := range state.List("", r.Namespace) {
		id := d.Kind + "/" + d.Name
		switch d.Kind {
		case event.FeatureViewKind:
			if r.Model == "" && (r.View == "" || r.View == d.Name) {
				a.stored(&g, d, id, event.Features, "green")
			}
		case event.ModelKind:
			if r.View == "" && (r.Model == "" || r.Model == d.Name) {
				a.stored(&g, d, id, event.Predictions, "blue")
			}
		case serving.DeploymentKind:
			if r.View == "" && (r.Model == "" || r.Model == d.Name) {
				deployed(&g, d)
			}
		case trainer.ModelKind:
			if r.View == "" && (r.Model == "" || r.Model == d.Name) {
				a.trained(ctx, &g, d)
			}
		}
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	ids := make([]string, len(g.from))
	for i := range ids {
		ids[i] = g.from[i] + "→" + g.to[i]
	}
	return []query.Frame{
		{Name: "nodes", Type: query.NodeGraph, Columns: []query.Column{text("id", g.id), text("title", g.title), text("subtitle", g.sub), text("detail__about", g.detail), text("color", g.tint)}},
		{Name: "edges", Type: query.NodeGraph, Columns: []query.Column{text("id", ids), text("source", g.from), text("target", g.to)}},
	}, nil
}

func (a *App) stored(g *graph, d registry.Definition, id string, kind event.Kind, tint string) {
	topic := TopicName(d.Namespace, kind)
	about := ""
	if s, err := subjectOf(d); err == nil {
		about = fmt.Sprintf("%d columns, %s", len(s.Columns), s.Origin)
	}
	g.node("topic/"+topic, topic, "topic", "", "gray")
	g.node(id, d.Name, map[event.Kind]string{event.Features: "feature view", event.Predictions: "model"}[kind], about, tint)
	g.edge("topic/"+topic, id)
}

func deployed(g *graph, d registry.Definition) {
	spec, err := serving.ParseDeployment(json.RawMessage(d.Spec))
	if err != nil {
		return // what cannot be read is told of by its deployment's health
	}
	model := event.ModelKind + "/" + d.Name
	g.node(model, d.Name, "model", "", "blue")
	for _, v := range spec.Versions {
		id := "version/" + d.Name + "/" + v.Version
		role := "loaded"
		if v.Version == spec.Champion {
			role = "champion"
		}
		g.node(id, v.Version, role, v.Artifact[:min(12, len(v.Artifact))], map[string]string{"champion": "purple", "loaded": "gray"}[role])
		g.edge(model, id)
	}
}
