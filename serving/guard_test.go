package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
)

func losses(n uint64, mean float64) Sums {
	return Sums{N: n, Sum: mean * float64(n), SumOfSqs: mean * float64(n)} // of zeros and ones
}

// TestJudge holds what each rule makes of evidence.
func TestJudge(t *testing.T) {
	now := time.Unix(10_000, 0)
	spread := func(scale float64) []float64 {
		out := make([]float64, 500)
		for i := range out {
			out[i] = scale * float64(i)
		}
		return out
	}
	arm := func(requests, failed uint64, p99, loss float64) ArmEvidence {
		return ArmEvidence{Requests: requests, Failed: failed, P99MS: p99, sums: losses(1000, loss), scores: spread(1)}
	}
	sound := Evidence{Since: now.Add(-time.Hour), Canary: arm(1000, 5, 2, 0.3), Champion: arm(1000, 5, 2, 0.3)}
	with := func(edit func(*Evidence)) Evidence { e := sound; edit(&e); return e }
	labels := &LabelRule{Loss: "error"}
	for name, c := range map[string]struct {
		g    Guardrails
		e    Evidence
		want Decision
		word string
	}{
		"no rule promotes":      {Guardrails{}, sound, Hold, "a person promotes"},
		"time":                  {Guardrails{After: event.Duration(time.Minute)}, sound, Promote, "no rule was broken"},
		"not yet":               {Guardrails{After: event.Duration(2 * time.Hour)}, sound, Hold, "stands for"},
		"few requests":          {Guardrails{After: event.Duration(time.Minute)}, with(func(e *Evidence) { e.Canary.Requests = 9 }), Hold, "9 requests"},
		"errors":                {Guardrails{Errors: &ErrorRule{0.01}}, with(func(e *Evidence) { e.Canary.Failed = 100 }), Rollback, "10.00%"},
		"errors of both":        {Guardrails{Errors: &ErrorRule{0.01}, After: 1}, with(func(e *Evidence) { e.Canary.Failed, e.Champion.Failed = 100, 100 }), Promote, ""},
		"few errors":            {Guardrails{Errors: &ErrorRule{0.01}, After: 1}, with(func(e *Evidence) { e.Canary.Failed = 25 }), Promote, ""},
		"slow":                  {Guardrails{Latency: &LatencyRule{P99MS: 1}}, sound, Rollback, "p99"},
		"slower":                {Guardrails{Latency: &LatencyRule{Ratio: 2}}, with(func(e *Evidence) { e.Canary.P99MS = 5 }), Rollback, "times"},
		"scores":                {Guardrails{Scores: &ScoreRule{0.25}}, with(func(e *Evidence) { e.Canary.scores = spread(0.5) }), Rollback, "PSI"},
		"drift holds":           {Guardrails{Drift: Hold, After: 1}, with(func(e *Evidence) { e.Drifted = []string{"x"} }), Hold, "about x"},
		"drift rolls back":      {Guardrails{Drift: Rollback}, with(func(e *Evidence) { e.Drifted = []string{"x"} }), Rollback, "about x"},
		"labels: worse":         {Guardrails{Labels: labels}, with(func(e *Evidence) { e.Canary.sums = losses(1000, 0.5) }), Rollback, "difference +0.2"},
		"labels: better":        {Guardrails{Labels: labels}, with(func(e *Evidence) { e.Canary.sums = losses(1000, 0.1) }), Promote, "difference -0.2"},
		"labels: alike":         {Guardrails{Labels: labels}, sound, Hold, "not decided"},
		"labels: not worse":     {Guardrails{Labels: &LabelRule{Loss: "error", Better: -0.15}}, sound, Promote, "difference"},
		"labels: few":           {Guardrails{Labels: labels}, with(func(e *Evidence) { e.Canary.sums = losses(9, 0.5) }), Hold, "9 labels"},
		"better, but too soon":  {Guardrails{Labels: labels, Cooldown: event.Duration(2 * time.Hour)}, with(func(e *Evidence) { e.Canary.sums = losses(1000, 0.1) }), Hold, "stands for"},
		"better, but slow":      {Guardrails{Labels: labels, Latency: &LatencyRule{P99MS: 1}}, with(func(e *Evidence) { e.Canary.sums = losses(1000, 0.1) }), Rollback, "p99"},
		"the store is away":     {Guardrails{Labels: labels}, with(func(e *Evidence) { e.Missing = "the store is away" }), Hold, "away"},
		"away, and many errors": {Guardrails{Labels: labels, Errors: &ErrorRule{0.01}}, with(func(e *Evidence) { e.Missing, e.Canary.Failed = "away", 500 }), Rollback, "50.00%"},
		"a person has to agree": {Guardrails{Labels: labels, Approval: true}, with(func(e *Evidence) { e.Canary.sums = losses(1000, 0.1) }), Promote, "difference"},
	} {
		j := c.g.Judge(c.e, now)
		if j.Decision != c.want || !strings.Contains(j.Sentence, c.word) || j.Awaits != c.g.Approval {
			t.Errorf("%s: %s (%s), want %s …%s…\n%+v", name, j.Decision, j.Sentence, c.want, c.word, j.Findings)
		}
		if _, err := json.Marshal(j); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuardrailFaults(t *testing.T) {
	_, err := ParseDeployment([]byte(`{"versions":[{"version":"1","artifact":"x"}],"champion":"1","guardrails":{"every":"-1s","errors":{"rate":2},"latency":{},"scores":{"psi":0},"drift":"maybe","labels":{"loss":"regret","worse":-1}}}`))
	for _, want := range []string{"every is negative", "errors.rate", "latency wants", "scores.psi", "drift is", "labels.loss", "worse is not negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in %v", want, err)
		}
	}
}

// trialHouse is a server that follows deployments, with a guard whose facts a
// test states.
type trialHouse struct {
	*rig
	reg      *registry.Registry
	guard    *Guard
	rollouts *Rollouts
	outcomes []Outcome
	failing  error
	digests  [3]string
	dir      string // of the artefacts
}

func newTrialHouse(t *testing.T) *trialHouse {
	h := &trialHouse{rig: newRig(t), reg: openRegistry(t), dir: t.TempDir()}
	root, err := os.OpenRoot(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	for i := range h.digests {
		h.digests[i] = artifact(t, root, float64(i+1))
	}
	f := NewFollower(h.s, h.reg, model.NewLibrary(root, nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	h.rollouts = NewRollouts(h.reg, "default")
	h.guard = NewGuard(h.s, h.reg, Facts{
		Outcomes: func(context.Context, Asked) ([]Outcome, error) { return h.outcomes, h.failing },
		Drifted:  func(context.Context, string, time.Time) ([]string, error) { return nil, nil },
	})
	return h
}

// apply writes a deployment as a person would.
func (h *trialHouse) apply(spec string) {
	h.t.Helper()
	for i, d := range h.digests {
		spec = strings.ReplaceAll(spec, fmt.Sprintf("$%d", i+1), d)
	}
	if _, err := ParseDeployment([]byte(spec)); err != nil {
		h.t.Fatal(err)
	}
	expect := uint64(0)
	if d, ok := h.reg.State().Get(DeploymentKind, "default", "m"); ok {
		expect = d.Version
	}
	if _, err := h.reg.Apply(h.t.Context(), registry.Entry{Kind: DeploymentKind, Namespace: "default", Name: "m", Op: registry.Put, Expect: expect, Spec: []byte(spec), Who: "ann", Why: "test"}); err != nil {
		h.t.Fatal(err)
	}
}

// live waits until requests meet a champion and a canary ("" for none).
func (h *trialHouse) live(champion, canary string) {
	h.t.Helper()
	testenv.Eventually(h.t, 10*time.Second, func() error {
		for _, m := range h.s.Models() {
			c := ""
			if m.Routing.Canary != nil {
				c = m.Routing.Canary.Version
			}
			if m.Routing.Champion == champion && c == canary {
				return nil
			}
		}
		return fmt.Errorf("live is %+v, want champion %s and canary %q", h.s.Models(), champion, canary)
	})
}

const trialSpec = `{"versions":[{"version":"1","artifact":"$1"},{"version":"2","artifact":"$2"},{"version":"3","artifact":"$3"}],"champion":"%s","canary":{"version":"%s","weight":0.5},
	"guardrails":{"every":"1ms","errors":{"rate":0.05},"labels":{"loss":"error"}%s}}`

// TestGuardrailsAct walks from a worse canary that goes, over a better one that
// comes, to a rollback by hand: each change is in the log with its evidence.
func TestGuardrailsAct(t *testing.T) {
	h := newTrialHouse(t)
	at := time.Now()
	tick := func() { at = at.Add(time.Second); h.guard.Tick(t.Context(), at) }
	h.apply(fmt.Sprintf(trialSpec, "1", "2", ""))
	h.live("1", "2")
	h.outcomes = []Outcome{{"1", "champion", 900, losses(800, 0.3)}, {"2", "canary", 900, losses(800, 0.3)}}
	tick()
	if j, ok := h.guard.Last("m"); !ok || j.Decision != Hold {
		t.Fatalf("equal arms: %+v", j)
	}
	h.live("1", "2")
	h.failing = errors.New("no answer")
	tick()
	if j, _ := h.guard.Last("m"); j.Decision != Hold || !strings.Contains(j.Sentence, "no answer") {
		t.Fatalf("without a store: %+v", j)
	}
	h.failing = nil

	h.outcomes[1].Loss = losses(800, 0.5)
	tick()
	h.live("1", "")
	h.apply(fmt.Sprintf(trialSpec, "1", "3", ""))
	h.live("1", "3")
	h.outcomes = []Outcome{{"1", "champion", 900, losses(800, 0.3)}, {"3", "canary", 900, losses(800, 0.1)}}
	tick()
	h.live("3", "")
	began := time.Now()
	if _, err := h.rollouts.Rollback(t.Context(), "m", "ann", "second thoughts"); err != nil {
		t.Fatal(err)
	}
	h.live("1", "")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("rolling back took %v", took)
	}
	if _, err := h.rollouts.Promote(t.Context(), "m", "", "ann", ""); !errors.Is(err, ErrRollout) {
		t.Errorf("promoting no canary: %v", err)
	}
	var told []string
	history := h.rollouts.History("m")
	for _, m := range history {
		told = append(told, m.Action+" by "+m.Who)
	}
	want := "[deployed by ann rolled back by guard-rail canary began by ann promoted by guard-rail rolled back by ann]"
	if fmt.Sprint(told) != want {
		t.Errorf("history\n got %v\nwant %v", told, want)
	}
	_, evidence, _ := strings.Cut(history[1].Why, "\n")
	var e Evidence
	if err := json.Unmarshal([]byte(evidence), &e); err != nil || e.Canary.Labelled != 800 || e.Canary.Loss != 0.5 || !strings.Contains(history[1].Why, "difference +0.2") {
		t.Errorf("why the canary went: %s (%v)", history[1].Why, err)
	}
	if m, err := h.rollouts.At("m", history[3].At.Add(time.Microsecond)); err != nil || m.Spec.Champion != "3" {
		t.Errorf("what was live after the promotion: %+v %v", m, err)
	}
	if _, err := h.rollouts.At("m", history[0].At.Add(-time.Second)); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("what was live before anything: %v", err)
	}
}

// TestGuardrailsSeeErrors lets a canary refuse what the champion takes.
func TestGuardrailsSeeErrors(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(fmt.Sprintf(trialSpec, "1", "2", `,"min_samples":20`))
	h.live("1", "2")
	h.guard.Tick(t.Context(), time.Now())
	st := h.s.find("m").state.Load()
	for range 60 { // half of the canary's requests fail
		h.post("/v2/models/m/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP64","data":[1]}]}`, versionHeader, "1")
		h.post("/v2/models/m/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP64","data":[1]}]}`, versionHeader, "2")
		h.s.find("m").failed(st.versions["2"], ErrInput)
	}
	h.guard.Tick(t.Context(), time.Now().Add(time.Second))
	h.live("1", "")
	if m, _ := h.rollouts.At("m", time.Now()); !strings.Contains(m.Why, "unanswered") || m.Who != GuardName {
		t.Errorf("why: %+v", m)
	}
}

// TestReadout compares an experiment's arms, and notices one that lost units.
func TestReadout(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(`{"versions":[{"version":"1","artifact":"$1"},{"version":"2","artifact":"$2"}],"champion":"1","experiment":{"name":"x","arms":[{"version":"1","variant":"a","weight":1},{"version":"1","variant":"aa","weight":1},{"version":"2","variant":"b","weight":2}]}}`)
	h.outcomes = []Outcome{{"1", "a", 2500, losses(2000, 0.3)}, {"1", "aa", 2500, losses(2000, 0.3)}, {"2", "b", 5000, losses(4000, 0.2)}}
	r, err := h.guard.Readout(t.Context(), "m", "error")
	if err != nil {
		t.Fatal(err)
	}
	if r.Mismatch || len(r.Arms) != 3 || !r.Arms[0].Control || r.Arms[1].Low > 0 || r.Arms[1].High < 0 || r.Arms[2].High >= 0 || r.Arms[2].Share != 0.5 {
		t.Errorf("%+v", r)
	}
	h.outcomes[2].Units = 4500
	if r, _ = h.guard.Readout(t.Context(), "m", "error"); !r.Mismatch {
		t.Errorf("a tenth of an arm is gone: evidence %v", r.Evidence)
	}
	if _, err := h.guard.Readout(t.Context(), "nope", ""); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("unknown model: %v", err)
	}
}
