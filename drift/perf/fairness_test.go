package perf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// fairScript is what fairlearn's MetricFrame does, in scikit-learn's words: a
// rate for every group, the largest difference, and its standard error.
const fairScript = `
import json, sys
import numpy as np
from sklearn.metrics import recall_score
d = json.load(sys.stdin)
g, y, p = np.array(d["group"]), np.array(d["truth"]), np.array(d["predicted"])
def rates(name, of, rate):
    v = {}
    for k in np.unique(g):
        rows = (g == k) & of
        r = rate(y[rows], p[rows])
        v[k] = (float(r), float(np.sqrt(r * (1 - r) / rows.sum())))
    high, low = max(v, key=lambda k: v[k][0]), min(v, key=lambda k: v[k][0])
    return {"high": high, "low": low, "gap": v[high][0] - v[low][0], "error": float(np.hypot(v[high][1], v[low][1])), "rates": {k: r for k, (r, _) in v.items()}}
every = np.ones(len(g), bool)
print(json.dumps({"selection": rates("selection", every, lambda y, p: p.mean()),
  "tpr": rates("tpr", y, lambda y, p: recall_score(y, p)),
  "fpr": rates("fpr", ~y, lambda y, p: 1 - recall_score(~y, ~p))}))
`

// Rates, gaps and their errors of four groups are those of scikit-learn.
func TestFairnessAsScikitLearn(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	in := struct {
		Group     []string `json:"group"`
		Truth     []bool   `json:"truth"`
		Predicted []bool   `json:"predicted"`
	}{}
	for range 4000 {
		g := rng.IntN(4)
		truth := rng.Float64() < 0.3+0.1*float64(g)
		in.Group, in.Truth = append(in.Group, fmt.Sprint("group ", g)), append(in.Truth, truth)
		chance := 0.2 + 0.05*float64(g)
		if truth {
			chance = 0.8 - 0.07*float64(g%3)
		}
		in.Predicted = append(in.Predicted, rng.Float64() < chance)
	}
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testenv.Dep(t, "python/truth/bin/python"), "-c", fairScript)
	cmd.Stdin = bytes.NewReader(body)
	said, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]struct {
		High, Low  string
		Gap, Error float64
		Rates      map[string]float64
	}
	if err := json.Unmarshal(said, &want); err != nil {
		t.Fatal(err)
	}
	got := CompareGroups(in.Group, in.Truth, in.Predicted)
	near := func(what string, a, b float64) {
		if math.Abs(a-b) > 1e-12 {
			t.Errorf("%s: %v, scikit-learn has %v", what, a, b)
		}
	}
	for name, one := range map[string]struct {
		gap  *Gap
		rate func(Group) *Value
	}{
		"selection": {got.Selection, func(g Group) *Value { return g.Selection }},
		"tpr":       {got.TruePos, func(g Group) *Value { return g.TruePos }},
		"fpr":       {got.FalsePos, func(g Group) *Value { return g.FalsePos }},
	} {
		w := want[name]
		if one.gap.High != w.High || one.gap.Low != w.Low {
			t.Errorf("%s: %s against %s, scikit-learn has %s against %s", name, one.gap.High, one.gap.Low, w.High, w.Low)
		}
		near(name+" gap", one.gap.Value.Value, w.Gap)
		near(name+" error", one.gap.Value.StdErr, w.Error)
		for _, g := range got.Groups {
			near(name+" of "+g.Name, one.rate(g).Value, w.Rates[g.Name])
		}
	}
}
