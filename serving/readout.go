package serving

import (
	"context"
	"fmt"
	"math"
	"time"
)

// ArmReadout is one arm of an experiment, or of a canary, against its control.
type ArmReadout struct {
	Version  string  `json:"version"`
	Variant  string  `json:"variant"`
	Share    float64 `json:"share"` // intended
	Units    uint64  `json:"units"` // entities of an experiment, predictions of a canary
	Labelled uint64  `json:"labelled"`
	Loss     float64 `json:"loss"`
	Effect   float64 `json:"effect"` // loss minus the control's; 0 for the control
	Low      float64 `json:"low"`    // bounds that hold at every look at once
	High     float64 `json:"high"`
	Control  bool    `json:"control"`
}

// Readout says how the arms of a model do, since its routing is what it is.
type Readout struct {
	Model    string       `json:"model"`
	Name     string       `json:"name"` // of the experiment; canary
	Since    time.Time    `json:"since"`
	Loss     string       `json:"loss"`
	Arms     []ArmReadout `json:"arms"`
	Mismatch bool         `json:"sample_ratio_mismatch"` // the arms did not get their shares: believe nothing of the rest
	Evidence float64      `json:"sample_ratio_evidence"` // against the intended shares, as a factor
}

// readoutAlpha is the error that a readout's bounds allow where no guard-rail
// says another.
const readoutAlpha = 0.05

// Readout compares the arms of a model's experiment, first arm as control, or
// its canary with its champion.
func (g *Guard) Readout(ctx context.Context, model, loss string) (Readout, error) {
	h := g.rollouts.History(model)
	if len(h) == 0 || h[len(h)-1].Action == "deleted" {
		return Readout{}, fmt.Errorf("%w: %q has no deployment", ErrUnknownModel, model)
	}
	spec := &h[len(h)-1].Spec
	out := Readout{Model: model, Name: "canary", Loss: loss}
	arms := spec.arms()
	if arms == nil {
		return out, fmt.Errorf("read %s out: %w: neither a canary nor an experiment", model, ErrRollout)
	}
	if spec.Experiment != nil {
		out.Name = spec.Experiment.Name
	}
	for i := len(h) - 1; i >= 0 && h[i].Action != "deleted" && sameArms(h[i].Spec.arms(), arms); i-- {
		out.Since = h[i].At
	}
	alpha := readoutAlpha
	if r := spec.Guardrails; r != nil && r.Labels != nil {
		alpha = r.withDefaults().Labels.Alpha
		out.Loss = orElse(loss, r.Labels.Loss)
	}
	if g.facts.Outcomes == nil {
		return out, errNobodyKnows
	}
	got, err := g.facts.Outcomes(ctx, Asked{Model: model, Loss: out.Loss, Since: out.Since, ByEntity: spec.Experiment != nil})
	if err != nil {
		return out, err
	}
	out.compare(arms, got, alpha/math.Max(1, float64(len(arms)-1))) // Bonferroni over the arms
	return out, nil
}

func sameArms(a, b []Split) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// arms are what traffic is divided among, the control first.
func (r *Routing) arms() []Split {
	switch {
	case r.Experiment != nil:
		return r.Experiment.Arms
	case r.Canary != nil:
		return []Split{
			{Version: r.Champion, Variant: VariantChampion, Weight: 1 - r.Canary.Weight},
			{Version: r.Canary.Version, Variant: orElse(r.Canary.Variant, VariantCanary), Weight: r.Canary.Weight},
		}
	}
	return nil
}

func (out *Readout) compare(arms []Split, got []Outcome, alpha float64) {
	counts, shares, total := make([]uint64, len(arms)), make([]float64, len(arms)), 0.0
	sums := make([]Sums, len(arms))
	for i, a := range arms {
		shares[i] = a.Weight
		total += a.Weight
		for _, o := range got {
			if o.Version == a.Version && o.Variant == a.Variant {
				counts[i], sums[i] = o.Units, o.Loss
			}
		}
	}
	for i, a := range arms {
		r := ArmReadout{Version: a.Version, Variant: a.Variant, Share: a.Weight / total, Units: counts[i], Labelled: sums[i].N, Control: i == 0}
		if sums[i].N > 0 {
			r.Loss = sums[i].Mean()
		}
		if d := Difference(sums[i], sums[0], alpha); i > 0 && !math.IsInf(d.Low, 0) {
			r.Effect, r.Low, r.High = d.Effect, d.Low, d.High
		} else if i > 0 {
			r.Low, r.High = -math.MaxFloat64, math.MaxFloat64
		}
		out.Arms = append(out.Arms, r)
	}
	log := Mismatch(counts, shares)
	out.Evidence, out.Mismatch = math.Exp(math.Min(log, 700)), log > mismatched
}
