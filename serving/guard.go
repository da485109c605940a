package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/registry"
)

// GuardName is who the registry's log names for a guard-rail's changes.
const GuardName = "guard-rail"

// Outcome is what the predictions of one arm turned out to be.
type Outcome struct {
	Version, Variant string
	Units            uint64 // predictions, or entities of an experiment
	Loss             Sums   // of those whose label has come
}

// Asked says which outcomes are wanted.
type Asked struct {
	Model    string
	Loss     string // one of [Losses]; empty: counts only
	Since    time.Time
	ByEntity bool // a unit is an entity, not a prediction
}

// Facts are where a guard learns what it cannot see itself. A nil function
// means that nobody in this process knows.
type Facts struct {
	Outcomes func(context.Context, Asked) ([]Outcome, error)
	Drifted  func(ctx context.Context, model string, since time.Time) ([]string, error)
}

// Guard judges canaries and carries out what was decided.
type Guard struct {
	s        *Server
	reg      *registry.Registry
	rollouts *Rollouts
	facts    Facts

	mu     sync.Mutex
	trials map[string]*trial
}

// trial is one canary under watch.
type trial struct {
	definition uint64 // version of the deployment that the baseline belongs to
	began      time.Time
	base       map[string]reading // per version
	judged     time.Time
	last       Judgement
}

// NewGuard returns a guard over the deployments that s follows.
func NewGuard(s *Server, reg *registry.Registry, facts Facts) *Guard {
	return &Guard{s: s, reg: reg, rollouts: NewRollouts(reg, s.cfg.Namespace), facts: facts, trials: map[string]*trial{}}
}

// guardTick is how often the guard looks whether a judgement is due.
const guardTick = 500 * time.Millisecond

// Run judges until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(guardTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.Tick(ctx, g.s.now())
		}
	}
}

// Tick judges every canary whose turn has come and carries the decisions out.
func (g *Guard) Tick(ctx context.Context, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := map[string]bool{}
	for _, def := range g.reg.State().List(DeploymentKind, g.s.cfg.Namespace) {
		spec, err := ParseDeployment(def.Spec)
		if err != nil || spec.Guardrails == nil || spec.Canary == nil {
			continue
		}
		seen[def.Name] = true
		t := g.trial(def, &spec)
		if t == nil || now.Sub(t.judged) < time.Duration(spec.Guardrails.withDefaults().Every) {
			continue
		}
		t.judged = now
		t.last = spec.Guardrails.Judge(g.evidence(ctx, def.Name, &spec, t), now)
		g.carryOut(ctx, def, t.last)
	}
	for name := range g.trials {
		if !seen[name] {
			delete(g.trials, name)
		}
	}
}

// trial finds or begins the watch of a deployment's canary; nil until the
// routing is in force here.
func (g *Guard) trial(def registry.Definition, spec *DeploymentSpec) *trial {
	d := g.s.find(def.Name)
	if d == nil {
		return nil
	}
	st := d.state.Load()
	if st.routing.Canary == nil || *st.routing.Canary != *spec.Canary || st.routing.Champion != spec.Champion {
		return nil
	}
	t := g.trials[def.Name]
	if t != nil && t.definition == def.Version {
		return t
	}
	t = &trial{definition: def.Version, began: g.began(def.Name, spec), base: map[string]reading{}}
	for _, v := range []string{spec.Champion, spec.Canary.Version} {
		t.base[v] = st.versions[v].live.read()
	}
	g.trials[def.Name] = t
	return t
}

// began is when the canary met its first request: the oldest entry of the log
// since which champion, canary and weight are what they are now. A restart
// forgets no labels by it.
func (g *Guard) began(model string, spec *DeploymentSpec) (at time.Time) {
	for _, m := range slices.Backward(g.rollouts.History(model)) {
		if m.Action == "deleted" || m.Spec.Champion != spec.Champion || m.Spec.Canary == nil || *m.Spec.Canary != *spec.Canary {
			break
		}
		at = m.At
	}
	return at
}

// Last is the newest judgement about a model's canary, if there is one.
func (g *Guard) Last(model string) (Judgement, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.trials[model]
	if t == nil || t.judged.IsZero() {
		return Judgement{}, false
	}
	return t.last, true
}

func (g *Guard) evidence(ctx context.Context, model string, spec *DeploymentSpec, t *trial) Evidence {
	e := Evidence{Since: t.began}
	st := g.s.find(model).state.Load()
	arm := func(version, variant string) ArmEvidence {
		m := st.versions[version]
		if m == nil {
			return ArmEvidence{Version: version, Variant: variant}
		}
		r := m.live.read().since(t.base[version])
		return ArmEvidence{Version: version, Variant: variant, Requests: r.requests, Failed: r.failed,
			P99MS: ms(r.quantile(0.99)), scores: m.live.newest(r.scored)}
	}
	e.Champion = arm(spec.Champion, VariantChampion)
	e.Canary = arm(spec.Canary.Version, orElse(spec.Canary.Variant, VariantCanary))
	if err := g.ask(ctx, model, spec, &e); err != nil {
		e.Missing = err.Error()
	}
	return e
}

var errNobodyKnows = errors.New("this process has no store to ask: give the role serving a process that has one")

// ask adds what the store knows, as far as the rules want it.
func (g *Guard) ask(ctx context.Context, model string, spec *DeploymentSpec, e *Evidence) error {
	if spec.Guardrails.Drift != "" {
		if g.facts.Drifted == nil {
			return fmt.Errorf("drift verdicts: %w", errNobodyKnows)
		}
		var err error
		if e.Drifted, err = g.facts.Drifted(ctx, model, e.Since); err != nil {
			return fmt.Errorf("drift verdicts: %w", err)
		}
	}
	if spec.Guardrails.Labels == nil {
		return nil
	}
	if g.facts.Outcomes == nil {
		return fmt.Errorf("labels: %w", errNobodyKnows)
	}
	outcomes, err := g.facts.Outcomes(ctx, Asked{Model: model, Loss: spec.Guardrails.Labels.Loss, Since: e.Since})
	if err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	for _, o := range outcomes {
		for _, arm := range []*ArmEvidence{&e.Canary, &e.Champion} {
			if o.Version == arm.Version && o.Variant == arm.Variant {
				arm.sums, arm.Labelled = o.Loss, o.Loss.N
				if o.Loss.N > 0 {
					arm.Loss = o.Loss.Mean()
				}
			}
		}
	}
	return nil
}

// carryOut writes the decision into the log. Whoever wrote first wins: a stale
// entry means that another process, or a person, was faster.
func (g *Guard) carryOut(ctx context.Context, def registry.Definition, j Judgement) {
	var do func(context.Context) (Moment, error)
	why := g.reason(j)
	switch {
	case j.Decision == Rollback:
		do = func(ctx context.Context) (Moment, error) { return g.rollouts.Rollback(ctx, def.Name, GuardName, why) }
	case j.Decision == Promote && !j.Awaits:
		do = func(ctx context.Context) (Moment, error) {
			return g.rollouts.Promote(ctx, def.Name, j.Evidence.Canary.Version, GuardName, why)
		}
	default:
		return
	}
	m, err := do(ctx)
	switch {
	case errors.Is(err, registry.ErrStale), errors.Is(err, ErrRollout):
	case err != nil:
		g.s.log.Error("a guard-rail's decision was not carried out; the next judgement tries again", "model", def.Name, "decision", j.Decision, "error", err)
	default:
		g.s.log.Warn("guard-rail", "model", def.Name, "decision", j.Decision, "why", j.Sentence, "definition_version", m.Definition)
	}
}

// reason is the sentence and, behind it, the evidence as JSON.
func (g *Guard) reason(j Judgement) string {
	b, err := json.Marshal(j.Evidence)
	if err != nil || len(j.Sentence)+len(b)+1 > registry.MaxWhy {
		return j.Sentence
	}
	return j.Sentence + "\n" + string(b)
}
