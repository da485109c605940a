package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/registry"
)

// ErrRollout is behind every change of a rollout that makes no sense now.
var ErrRollout = errors.New("nothing to change")

// Rollouts changes deployments and tells what they were. Every change is an
// entry of the registry's log, with who, when, why and the evidence.
type Rollouts struct {
	reg       *registry.Registry
	namespace string
}

// NewRollouts works on the deployments of one namespace.
func NewRollouts(reg *registry.Registry, namespace string) *Rollouts {
	return &Rollouts{reg, namespace}
}

// actionRollback is the action of a rollback, whoever made it.
const actionRollback = "rolled back"

// Moment is one state of a deployment: what was live from At on.
type Moment struct {
	At         time.Time      `json:"at"`
	Definition uint64         `json:"definition_version"`
	Action     string         `json:"action"` // deployed, canary began, experiment began, promoted, rolled back, champion replaced, changed, deleted
	Spec       DeploymentSpec `json:"spec"`
	Who        string         `json:"who"`
	Why        string         `json:"why,omitempty"`
}

// History is every state of a model's deployment, oldest first.
func (r *Rollouts) History(model string) []Moment {
	var out []Moment
	for _, d := range r.reg.History(DeploymentKind, r.namespace, model) {
		m := Moment{At: time.UnixMicro(d.Time).UTC(), Definition: d.Version, Who: d.Who, Why: d.Why, Action: "deleted"}
		if !d.Deleted {
			m.Spec, _ = ParseDeployment(d.Spec) // what is in the log was checked when it came
			m.Action = "deployed"
			if len(out) > 0 {
				m.Action = actionOf(out, &m.Spec)
			}
		}
		out = append(out, m)
	}
	return out
}

// actionOf names a change by what it did to what was before.
func actionOf(before []Moment, now *DeploymentSpec) string {
	old := &before[len(before)-1].Spec
	switch {
	case old.Champion != now.Champion && old.challenges(now.Champion):
		return "promoted"
	case old.Champion != now.Champion && slices.ContainsFunc(before, func(m Moment) bool { return m.Spec.Champion == now.Champion }):
		return actionRollback
	case old.Champion != now.Champion:
		return "champion replaced"
	case now.Canary != nil && (old.Canary == nil || old.Canary.Version != now.Canary.Version):
		return "canary began"
	case now.Experiment != nil && (old.Experiment == nil || old.Experiment.Name != now.Experiment.Name):
		return "experiment began"
	case old.Canary != nil && now.Canary == nil, old.Experiment != nil && now.Experiment == nil:
		return actionRollback
	}
	return "changed"
}

// challenges reports whether a version was on trial.
func (r *Routing) challenges(version string) bool {
	if r.Canary != nil && r.Canary.Version == version {
		return true
	}
	return r.Experiment != nil && slices.ContainsFunc(r.Experiment.Arms, func(a Split) bool { return a.Version == version })
}

// At is the state of a deployment at a time.
func (r *Rollouts) At(model string, at time.Time) (Moment, error) {
	h := r.History(model)
	for _, m := range slices.Backward(h) {
		if !m.At.After(at) {
			return m, nil
		}
	}
	return Moment{}, fmt.Errorf("%w: no deployment of %q at %s", ErrUnknownModel, model, at.Format(time.RFC3339))
}

// Promote makes the version on trial the champion: the canary, or the arm of
// the experiment that is named. Its predecessor stays loaded.
func (r *Rollouts) Promote(ctx context.Context, model, version, who, why string) (Moment, error) {
	return r.change(ctx, model, who, why, func(spec *DeploymentSpec) error {
		switch {
		case version == "" && spec.Canary != nil:
			version = spec.Canary.Version
		case version == "":
			return fmt.Errorf("promote %s: %w: it has no canary; name a version", model, ErrRollout)
		case !slices.ContainsFunc(spec.Versions, func(v DeployedVersion) bool { return v.Version == version }):
			return fmt.Errorf("promote %s: %w: version %s is not among the deployment's", model, ErrUnknownVersion, version)
		case version == spec.Champion && spec.Canary == nil && spec.Experiment == nil:
			return fmt.Errorf("promote %s: %w: version %s is the champion", model, ErrRollout, version)
		}
		spec.Routing = Routing{Champion: version, Shadows: without(spec.Shadows, version)}
		return nil
	})
}

// Rollback ends what is on trial or, when nothing is, gives the place back to
// the champion before this one; called again, to the one before that. All of them
// are loaded, so nothing is read.
func (r *Rollouts) Rollback(ctx context.Context, model, who, why string) (Moment, error) {
	return r.change(ctx, model, who, why, func(spec *DeploymentSpec) error {
		if spec.Canary != nil || spec.Experiment != nil {
			spec.Routing = Routing{Champion: spec.Champion, Shadows: spec.Shadows}
			return nil
		}
		for _, before := range slices.Backward(champions(r.History(model))) {
			if before != spec.Champion && slices.ContainsFunc(spec.Versions, func(v DeployedVersion) bool { return v.Version == before }) {
				spec.Routing = Routing{Champion: before, Shadows: without(spec.Shadows, before)}
				return nil
			}
		}
		return fmt.Errorf("roll back %s: %w: nothing is on trial and no earlier champion is among the versions", model, ErrRollout)
	})
}

// champions are the present champion, last, and those whose place it took, without
// what was rolled back: the way that rollbacks go, backwards.
func champions(history []Moment) []string {
	var way []string
	for _, m := range history {
		c := m.Spec.Champion
		at := len(way) - 1
		for m.Action == actionRollback && at >= 0 && way[at] != c {
			at--
		}
		switch {
		case c == "": // deleted
		case at >= 0 && way[at] == c:
			way = way[:at+1]
		default:
			way = append(way, c)
		}
	}
	return way
}

func without(list []string, v string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == v })
}

// change reads, edits and writes the deployment, unless somebody else wrote it
// meanwhile.
func (r *Rollouts) change(ctx context.Context, model, who, why string, edit func(*DeploymentSpec) error) (Moment, error) {
	def, ok := r.reg.State().Get(DeploymentKind, r.namespace, model)
	if !ok {
		return Moment{}, fmt.Errorf("%w: %q has no deployment", ErrUnknownModel, model)
	}
	spec, err := ParseDeployment(def.Spec)
	if err != nil {
		return Moment{}, err
	}
	if err := edit(&spec); err != nil {
		return Moment{}, err
	}
	return r.write(ctx, def, spec, who, why)
}

func (r *Rollouts) write(ctx context.Context, def registry.Definition, spec DeploymentSpec, who, why string) (Moment, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return Moment{}, err
	}
	if _, err := ParseDeployment(raw); err != nil {
		return Moment{}, err
	}
	if len(why) > registry.MaxWhy {
		why = strings.ToValidUTF8(why[:registry.MaxWhy], "")
	}
	if _, err := r.reg.Apply(ctx, registry.Entry{Kind: def.Kind, Namespace: def.Namespace, Name: def.Name, Op: registry.Put, Expect: def.Version, Spec: raw, Who: who, Why: why}); err != nil {
		return Moment{}, err
	}
	h := r.History(def.Name)
	return h[len(h)-1], nil
}
