package drift

import (
	"fmt"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Sentence says in plain words what a judgement found: what moved, by how much,
// and where.
func Sentence(c Column, j Judgement) string {
	if c.Segment != "" {
		j.Column += " of " + c.Segment
	}
	switch {
	case j.Reason != "":
		return fmt.Sprintf("%s: no answer, %s (%s)", j.Column, j.Reason, j.Detail)
	case c.Baseline == nil: // about all rows, or about the model
		return j.Detail
	case j.Detector == freshness || j.Detector == cadence || j.Detector == "volume":
		return j.Detail
	case j.Detector == unseen && j.Drifted:
		return fmt.Sprintf("%.1f %% of %s are values that the reference never had, %.1f %% would be chance", 100*j.Effect, j.Column, 100*j.Floor)
	case j.Detector == constraint && j.Drifted:
		return fmt.Sprintf("%s breaks its constraint: %s", j.Column, j.Detail)
	case j.Detector == domain && j.Drifted:
		return fmt.Sprintf("%s leaves its domain: %s", j.Column, j.Detail)
	case j.Drifted && (j.Detector == missingSlowly || j.Detector == meanSlowly):
		what := map[string]string{missingSlowly: "the missing rate", meanSlowly: "the mean"}[j.Detector]
		return fmt.Sprintf("%s of %s has left its range for good: %s", what, j.Column, j.Detail)
	case j.Detector == "psi":
		return fmt.Sprintf("%s: population stability index %.3g beyond chance", j.Column, j.Effect)
	case !j.Drifted && j.Effect > j.Floor:
		return fmt.Sprintf("%s may be as the reference has it: distance %.3g is beyond the floor %.3g, and chance explains it (p %.2g)", j.Column, j.Effect, j.Floor, j.Adjusted)
	case !j.Drifted:
		return fmt.Sprintf("%s is as the reference has it: distance %.3g, floor %.3g", j.Column, j.Effect, j.Floor)
	case j.Detector == "missing_rate":
		was, _ := c.Baseline.Reference.MissingRate()
		is, _ := c.Window.MissingRate()
		return fmt.Sprintf("%s is without a usable value in %.1f %% of rows, %.1f %% in the reference%s", j.Column, 100*is, 100*was, weight(c))
	}
	return fmt.Sprintf("%s moved: distance %.3g, %s%s%s%s", j.Column, j.Effect, against(j), still(c)+means(c), where(c), weight(c))
}

// still says that a column has stopped varying, or that it never varied before.
func still(c Column) string {
	is, stopped := onlyValue(c.Baseline.Grid, c.Window)
	was, never := onlyValue(c.Baseline.Grid, c.Baseline.Reference)
	if c.Names {
		is, was = "one", "one value"
	}
	switch {
	case stopped && !never:
		return fmt.Sprintf("; all %s values are %s", thousands(c.Window.Count), is)
	case never && !stopped:
		return fmt.Sprintf("; it was always %s in the reference", was)
	}
	return ""
}

// onlyValue is the one value that a window has, where it has but one.
func onlyValue(g *dist.Grid, s *dist.Summary) (string, bool) {
	if s.Count < 2 {
		return "", false
	}
	if !g.Categorical() {
		return fmt.Sprintf("%.6g", s.Min), s.Min == s.Max
	}
	for _, cell := range s.Cells {
		if i := int(cell.Index); cell.Count == s.Count && i != g.Other() && i != g.Unseen() {
			return g.Label(i), true
		}
	}
	return "", false
}

// weight says how much the column matters, where that is known.
func weight(c Column) string {
	switch {
	case c.Importance > 0.5:
		return "; it matters much to the model"
	case c.Importance < 0.5 && c.Baseline != nil:
		return "; it matters little to the model"
	}
	return ""
}

func against(j Judgement) string {
	if j.Learnt {
		return fmt.Sprintf("where the reference's own windows reach %.3g", j.Floor)
	}
	return fmt.Sprintf("above %.3g", j.Floor)
}

func means(c Column) string {
	if c.Names {
		return ""
	}
	was, ok := c.Baseline.Reference.Mean()
	is, okNow := c.Window.Mean()
	if !ok || !okNow || c.Baseline.Grid.Categorical() {
		return ""
	}
	return fmt.Sprintf("; mean %.4g, was %.4g", is, was)
}

// where names the bin or category that makes the largest part of the change.
func where(c Column) string {
	cmp, err := Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
	if err != nil {
		return ""
	}
	parts, err := cmp.Contributions(stat.TVD)
	if err != nil {
		return ""
	}
	var most Contribution
	for _, p := range parts {
		if p.Part > most.Part {
			most = p
		}
	}
	if most.Part == 0 {
		return ""
	}
	if c.Names {
		most.Label = "one value"
	}
	return fmt.Sprintf("; most at %s: %.1f %% of rows, was %.1f %%", most.Label, 100*most.Cur, 100*most.Ref)
}
