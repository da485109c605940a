package serving

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Guardrails say when a canary becomes the champion and when it goes.
type Guardrails struct {
	Every      event.Duration `json:"every,omitempty"`       // how often it is judged; default 30s
	MinSamples uint64         `json:"min_samples,omitempty"` // requests of the canary, and of the champion, before rules speak; default 200
	Cooldown   event.Duration `json:"cooldown,omitempty"`    // no promotion sooner than this after a change of the deployment
	Approval   bool           `json:"approval,omitempty"`    // a person promotes; rolling back never waits
	After      event.Duration `json:"promote_after,omitempty"`
	Errors     *ErrorRule     `json:"errors,omitempty"`
	Latency    *LatencyRule   `json:"latency,omitempty"`
	Scores     *ScoreRule     `json:"scores,omitempty"`
	Drift      Decision       `json:"drift,omitempty"` // on a drift verdict about the model's inputs or scores: hold or rollback
	Labels     *LabelRule     `json:"labels,omitempty"`
}

// ErrorRule rolls back when the canary leaves more requests unanswered.
type ErrorRule struct {
	Rate float64 `json:"rate"` // share above the champion's own
}

// LatencyRule rolls back when the canary is slow: features, queue and compute
// together.
type LatencyRule struct {
	P99MS float64 `json:"p99_ms,omitempty"` // at most
	Ratio float64 `json:"ratio,omitempty"`  // at most this many times the champion's p99
}

// ScoreRule rolls back when the canary's scores are distributed otherwise than
// the champion's over the same traffic.
type ScoreRule struct {
	PSI float64 `json:"psi"`
}

// LabelRule compares mean losses over predictions whose label has come, by a
// sequential test: promote when the canary is surely better than the champion
// by at least Better (negative: when it is surely not worse than −Better),
// roll back when it is surely worse by more than Worse.
type LabelRule struct {
	Loss      string  `json:"loss"`                 // error, brier, log_loss, absolute_error or squared_error
	MinLabels uint64  `json:"min_labels,omitempty"` // per arm; default 200
	Alpha     float64 `json:"alpha,omitempty"`      // chance of a wrong decision over all looks; default 0.05
	Better    float64 `json:"better,omitempty"`
	Worse     float64 `json:"worse,omitempty"`
}

// Losses are the names that [LabelRule.Loss] can have.
func Losses() []string {
	return []string{"error", "brier", "log_loss", "absolute_error", "squared_error"}
}

// Decision is what a rule, or all of them together, say.
type Decision string

// Decisions.
const (
	Hold     Decision = "hold"
	Promote  Decision = "promote"
	Rollback Decision = "rollback"
)

// withDefaults fills what was left out.
func (g Guardrails) withDefaults() Guardrails {
	if g.Every == 0 {
		g.Every = event.Duration(30 * time.Second)
	}
	if g.MinSamples == 0 {
		g.MinSamples = 200
	}
	if g.Labels != nil {
		l := *g.Labels
		if l.MinLabels == 0 {
			l.MinLabels = 200
		}
		if l.Alpha == 0 {
			l.Alpha = 0.05
		}
		g.Labels = &l
	}
	return g
}

// Validate joins all faults.
func (g *Guardrails) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("guardrails: "+format, args...)) }
	for name, d := range map[string]event.Duration{"every": g.Every, "cooldown": g.Cooldown, "promote_after": g.After} {
		if d < 0 {
			fault("%s is negative", name)
		}
	}
	if e := g.Errors; e != nil && !(e.Rate >= 0 && e.Rate < 1) {
		fault("errors.rate is %v: want a share from 0 to 1", e.Rate)
	}
	if l := g.Latency; l != nil && (!(l.P99MS >= 0) || !(l.Ratio >= 0) || l.P99MS == 0 && l.Ratio == 0) {
		fault("latency wants p99_ms, ratio or both, above 0")
	}
	if s := g.Scores; s != nil && !(s.PSI > 0) {
		fault("scores.psi is %v: want more than 0 (0.25 is a large shift)", s.PSI)
	}
	if g.Drift != "" && g.Drift != Hold && g.Drift != Rollback {
		fault("drift is %q: want hold or rollback", g.Drift)
	}
	if l := g.Labels; l != nil {
		if !slices.Contains(Losses(), l.Loss) {
			fault("labels.loss is %q: want %s", l.Loss, strings.Join(Losses(), ", "))
		}
		if !(l.Alpha >= 0 && l.Alpha < 1) || math.IsNaN(l.Better) || !(l.Worse >= 0) {
			fault("labels: alpha is a probability, worse is not negative")
		}
	}
	return errors.Join(faults...)
}

// ArmEvidence is what is known of one arm since the routing began.
type ArmEvidence struct {
	Version  string  `json:"version"`
	Variant  string  `json:"variant"`
	Requests uint64  `json:"requests"` // of this process
	Failed   uint64  `json:"failed"`
	P99MS    float64 `json:"p99_ms"`
	Labelled uint64  `json:"labelled"` // units with a label, everywhere
	Loss     float64 `json:"loss"`     // mean over them

	scores []float64
	sums   Sums
}

// Evidence is all that a judgement rests on.
type Evidence struct {
	Since    time.Time   `json:"since"`
	Canary   ArmEvidence `json:"canary"`
	Champion ArmEvidence `json:"champion"`
	Drifted  []string    `json:"drifted,omitempty"` // columns with a drift verdict
	Missing  string      `json:"missing,omitempty"` // what could not be asked, and why
}

// Finding is what one rule says.
type Finding struct {
	Rule     string   `json:"rule"`
	Decision Decision `json:"decision"`
	Sentence string   `json:"sentence"`
}

// Judgement is what all rules together say.
type Judgement struct {
	Decision Decision  `json:"decision"`
	Sentence string    `json:"sentence"`
	Findings []Finding `json:"findings"`
	Evidence Evidence  `json:"evidence"`
	At       time.Time `json:"at"`
	Awaits   bool      `json:"awaits_approval,omitempty"`
}

// Judge decides from the evidence alone: any rule can roll back; promoting
// takes the label rule's word, or without one a canary that stood its time,
// and no rule that holds.
func (g Guardrails) Judge(e Evidence, now time.Time) Judgement {
	g = g.withDefaults()
	j := Judgement{Decision: Promote, Evidence: e, At: now}
	for _, rule := range []func(Evidence, time.Time) (Finding, bool){g.judgeSamples, g.judgeErrors, g.judgeLatency, g.judgeScores, g.judgeDrift, g.judgeLabels, g.judgeTime} {
		if f, spoke := rule(e, now); spoke {
			j.Findings = append(j.Findings, f)
		}
	}
	for _, want := range []Decision{Rollback, Hold, Promote} {
		at := slices.IndexFunc(j.Findings, func(f Finding) bool { return f.Decision == want })
		if at < 0 {
			continue
		}
		j.Decision, j.Sentence = want, j.Findings[at].Rule+": "+j.Findings[at].Sentence
		if want == Promote { // the last word is the one that took longest to come
			last := j.Findings[len(j.Findings)-1]
			j.Sentence = last.Rule + ": " + last.Sentence
		}
		break
	}
	j.Awaits = j.Decision == Promote && g.Approval
	return j
}

func finding(rule string, d Decision, format string, args ...any) (Finding, bool) {
	return Finding{rule, d, fmt.Sprintf(format, args...)}, true
}

func (g Guardrails) enough(e Evidence) bool {
	return e.Canary.Requests >= g.MinSamples && e.Champion.Requests >= g.MinSamples
}

func (g Guardrails) judgeSamples(e Evidence, _ time.Time) (Finding, bool) {
	if e.Missing != "" {
		return finding("evidence", Hold, "%s", e.Missing)
	}
	if !g.enough(e) && g.Labels == nil {
		return finding("samples", Hold, "%d requests of the canary and %d of the champion: want %d of each", e.Canary.Requests, e.Champion.Requests, g.MinSamples)
	}
	return Finding{}, false
}

func (g Guardrails) judgeErrors(e Evidence, _ time.Time) (Finding, bool) {
	if g.Errors == nil || !g.enough(e) {
		return Finding{}, false
	}
	low := wilsonLow(e.Canary.Failed, e.Canary.Requests)
	own := float64(e.Champion.Failed) / float64(e.Champion.Requests)
	share := float64(e.Canary.Failed) / float64(e.Canary.Requests)
	if low > own+g.Errors.Rate {
		return finding("errors", Rollback, "the canary left %.2f%% of %d requests unanswered, the champion %.2f%%", 100*share, e.Canary.Requests, 100*own)
	}
	return finding("errors", Promote, "%.2f%% of the canary's requests unanswered, %.2f%% of the champion's", 100*share, 100*own)
}

// wilsonLow is the lower end of Wilson's interval at 99.9 %, one-sided.
func wilsonLow(k, n uint64) float64 {
	const z = 3.0902
	p, m := float64(k)/float64(n), float64(n)
	return (p + z*z/(2*m) - z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))) / (1 + z*z/m)
}

func (g Guardrails) judgeLatency(e Evidence, _ time.Time) (Finding, bool) {
	l := g.Latency
	if l == nil || !g.enough(e) {
		return Finding{}, false
	}
	switch own := e.Champion.P99MS; {
	case l.P99MS > 0 && e.Canary.P99MS > l.P99MS:
		return finding("latency", Rollback, "p99 of the canary is %.3g ms, more than %.3g ms", e.Canary.P99MS, l.P99MS)
	case l.Ratio > 0 && own > 0 && e.Canary.P99MS > l.Ratio*own:
		return finding("latency", Rollback, "p99 of the canary is %.3g ms, more than %.3g times the champion's %.3g ms", e.Canary.P99MS, l.Ratio, own)
	}
	return finding("latency", Promote, "p99 of the canary is %.3g ms, of the champion %.3g ms", e.Canary.P99MS, e.Champion.P99MS)
}

func (g Guardrails) judgeScores(e Evidence, _ time.Time) (Finding, bool) {
	if g.Scores == nil || !g.enough(e) {
		return Finding{}, false
	}
	d, shift := Promote, psi(e.Canary.scores, e.Champion.scores)
	if shift > g.Scores.PSI {
		d = Rollback
	}
	return finding("scores", d, "PSI of the canary's scores against the champion's is %.3g, allowed %.3g", shift, g.Scores.PSI)
}

func (g Guardrails) judgeDrift(e Evidence, _ time.Time) (Finding, bool) {
	if g.Drift == "" || len(e.Drifted) == 0 {
		return Finding{}, false
	}
	return finding("drift", g.Drift, "drift verdicts about %s", strings.Join(e.Drifted, ", "))
}

func (g Guardrails) judgeLabels(e Evidence, _ time.Time) (Finding, bool) {
	l := g.Labels
	if l == nil {
		return Finding{}, false
	}
	arm, control := e.Canary.sums, e.Champion.sums
	if arm.N < l.MinLabels || control.N < l.MinLabels {
		return finding("labels", Hold, "%d labels of the canary and %d of the champion: want %d of each", arm.N, control.N, l.MinLabels)
	}
	d := Difference(arm, control, l.Alpha)
	text := fmt.Sprintf("%s of the canary is %.4g, of the champion %.4g: difference %+.4g [%+.4g, %+.4g] on %d and %d labels",
		l.Loss, arm.Mean(), control.Mean(), d.Effect, d.Low, d.High, arm.N, control.N)
	switch {
	case d.Low > l.Worse:
		return finding("labels", Rollback, "%s", text)
	case d.High < -l.Better:
		return finding("labels", Promote, "%s", text)
	}
	return finding("labels", Hold, "not decided yet: %s", text)
}

func (g Guardrails) judgeTime(e Evidence, now time.Time) (Finding, bool) {
	wait := time.Duration(max(g.Cooldown, g.After))
	stood := now.Sub(e.Since)
	switch {
	case g.Labels == nil && g.After == 0:
		return finding("time", Hold, "neither labels nor promote_after: a person promotes")
	case stood < wait:
		return finding("time", Hold, "the canary stands for %s, want %s", stood.Round(time.Second), wait)
	case g.Labels == nil:
		return finding("time", Promote, "no rule was broken for %s", stood.Round(time.Second))
	}
	return Finding{}, false
}
