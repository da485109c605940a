package perf

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// golden holds NannyML's and numpy's answers; testdata/golden.py wrote them.
type golden struct {
	Ref, Cur     [][]any
	Value        [][]float64 `json:"value_matrix"`
	Want         map[string]float64
	Permutations [][]int
	Calibrated   []bool
}

func loadGolden(t *testing.T) golden {
	t.Helper()
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func classifiedOf(rows [][]any) Classified {
	c := Classified{Classes: []string{"a", "b", "c"}}
	for _, r := range rows {
		c.Truth = append(c.Truth, slices.Index(c.Classes, r[0].(string)))
		c.Predicted = append(c.Predicted, slices.Index(c.Classes, r[1].(string)))
		c.Proba = append(c.Proba, []float64{r[2].(float64), r[3].(float64), r[4].(float64)})
	}
	return c
}

func TestMultiClassCBPEIsNannyMLs(t *testing.T) {
	g := loadGolden(t)
	model, err := FitMultiCBPE(classifiedOf(g.Ref), g.Value)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range model.Calibrators {
		if (f != nil) != g.Calibrated[i] {
			t.Errorf("class %d calibrated: %v, want %v", i, f != nil, g.Calibrated[i])
		}
	}
	got, err := model.Estimate(classifiedOf(g.Cur))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for key, want := range g.Want {
		metric, member, _ := strings.Cut(key, "/")
		e, ok := got.Metrics[Metric(metric)]
		if i, j, cell := cellOf(metric); cell {
			e, ok = got.Confusion[i][j], true
		}
		if !ok {
			t.Errorf("no %s", metric)
			continue
		}
		seen++
		v := map[string]float64{"value": e.Value, "sampling_error": e.StdErr, "upper_confidence_boundary": e.Upper, "lower_confidence_boundary": e.Lower}[member]
		rtol := 1e-6
		switch {
		case metric == "average_precision" && member != "value":
			rtol = 0.5 // NannyML's bootstrap has no seed
		case metric == "roc_auc" || metric == "average_precision":
			rtol = 1e-3 // numpy's sort leaves ties in the processor's order
		}
		if math.Abs(v-want) > rtol*math.Abs(want)+1e-12 {
			t.Errorf("%s = %v, want %v", key, v, want)
		}
	}
	if seen < 60 {
		t.Errorf("only %d golden members", seen)
	}
}

// cellOf parses true_a_pred_b.
func cellOf(metric string) (i, j int, ok bool) {
	parts := strings.Split(metric, "_")
	if len(parts) != 4 || parts[0] != "true" || parts[2] != "pred" {
		return 0, 0, false
	}
	return int(parts[1][0] - 'a'), int(parts[3][0] - 'a'), true
}

func TestShuffleIsNumpys(t *testing.T) {
	r := newNumpyRandom(42)
	for _, want := range loadGolden(t).Permutations {
		if got := r.permutation(len(want)); !slices.Equal(got, want) {
			t.Fatalf("permutation %v, want %v", got, want)
		}
	}
}
