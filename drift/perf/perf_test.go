package perf

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/drift/stat"
	"pgregory.net/rapid"
)

func drawScored(t *rapid.T) Scored {
	n := rapid.IntRange(2, 60).Draw(t, "n")
	s := Scored{}
	for range n {
		s.Score = append(s.Score, float64(rapid.IntRange(0, 20).Draw(t, "score"))/20)
		s.Truth = append(s.Truth, rapid.Bool().Draw(t, "truth"))
	}
	return s
}

// bruteAUC compares every positive with every negative.
func bruteAUC(s Scored) (auc float64, ok bool) {
	wins, pairs := 0.0, 0.0
	for i, y := range s.Truth {
		for j, z := range s.Truth {
			if !y || z {
				continue
			}
			pairs++
			switch {
			case s.Score[i] > s.Score[j]:
				wins++
			case s.Score[i] == s.Score[j]:
				wins += 0.5
			}
		}
	}
	return wins / pairs, pairs > 0
}

func TestAUCCountsPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScored(t)
		want, ok := bruteAUC(s)
		got, err := s.ROCAUC()
		if ok != (err == nil) || ok && math.Abs(got.Value-want) > 1e-12 {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
	})
}

// Standard errors against the spread of the metric over many samples of the
// same world.
func TestStandardErrorsAreTheSpreadOfRepeatedSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	sample := func() Scored {
		s := Scored{}
		for range 400 {
			z := rng.NormFloat64()
			p := 1 / (1 + math.Exp(-z))
			s.Score = append(s.Score, p)
			s.Truth = append(s.Truth, rng.Float64() < p)
		}
		return s
	}
	metrics := map[string]func(Scored) (Value, error){
		"roc_auc":  Scored.ROCAUC,
		"log_loss": Scored.LogLoss,
		"brier":    Scored.Brier,
		"f1":       func(s Scored) (Value, error) { return Count(s.Truth, s.Predict(0.5)).F1() },
		"recall":   func(s Scored) (Value, error) { return Count(s.Truth, s.Predict(0.5)).Recall() },
		"accuracy": func(s Scored) (Value, error) { return Count(s.Truth, s.Predict(0.5)).Accuracy() },
		"value": func(s Scored) (Value, error) {
			return Count(s.Truth, s.Predict(0.5)).Business(ValueMatrix{{0, -1}, {-5, 10}}), nil
		},
		"balanced": func(s Scored) (Value, error) { return Count(s.Truth, s.Predict(0.5)).BalancedAccuracy() },
	}
	values, errs := map[string][]float64{}, map[string]float64{}
	const runs = 600
	for range runs {
		s := sample()
		for name, f := range metrics {
			v, err := f(s)
			if err != nil {
				t.Fatal(err)
			}
			values[name] = append(values[name], v.Value)
			errs[name] += v.StdErr / runs
		}
	}
	for name, vs := range values {
		want := math.Sqrt(stat.MomentsOf(vs).Variance)
		if got := errs[name]; got < 0.85*want || got > 1.15*want {
			t.Errorf("%s: standard error %v, spread %v", name, got, want)
		}
	}
}

func TestRegressionErrorsAreTheSpreadOfRepeatedSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 11))
	metrics := map[string]func(Regression) (Value, error){"mae": Regression.MAE, "rmse": Regression.RMSE, "r2": Regression.R2, "mape": Regression.MAPE}
	values, errs := map[string][]float64{}, map[string]float64{}
	const runs = 600
	for range runs {
		var r Regression
		for range 300 {
			y := 10 + rng.NormFloat64()
			r.Truth = append(r.Truth, y)
			r.Predicted = append(r.Predicted, 10+0.9*(y-10)+0.4*rng.NormFloat64())
		}
		for name, f := range metrics {
			v, _ := f(r)
			values[name] = append(values[name], v.Value)
			errs[name] += v.StdErr / runs
		}
	}
	for name, vs := range values {
		want := math.Sqrt(stat.MomentsOf(vs).Variance)
		if got := errs[name]; got < 0.8*want || got > 1.3*want {
			t.Errorf("%s: standard error %v, spread %v", name, got, want)
		}
	}
}

// bruteIsotonic is the max-min formula of isotonic regression.
func bruteIsotonic(xs, ys []float64, x float64) float64 {
	best := math.Inf(-1)
	for a := range xs {
		if xs[a] > x {
			continue
		}
		low := math.Inf(1)
		for b := range xs {
			if xs[b] < x {
				continue
			}
			sum, n := 0.0, 0.0
			for i := range xs {
				if xs[i] >= xs[a] && xs[i] <= xs[b] {
					sum, n = sum+ys[i], n+1
				}
			}
			if n > 0 {
				low = min(low, sum/n)
			}
		}
		best = max(best, low)
	}
	return best
}

func TestIsotonicIsTheMaxMinFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScored(t)
		ys := numbers(s.Truth)
		f := FitIsotonic(s.Score, ys)
		for _, x := range s.Score {
			if got, want := f.At(x), bruteIsotonic(s.Score, ys, x); math.Abs(got-want) > 1e-9 {
				t.Fatalf("at %v: %v, want %v", x, got, want)
			}
		}
		if f.At(-1) != f.Y[0] || f.At(2) != f.Y[len(f.Y)-1] {
			t.Fatal("not constant beyond its ends")
		}
	})
}

// Nothing panics and nothing answers NaN on degenerate rows.
func TestDegenerateRowsAnswerAReason(t *testing.T) {
	empty := Scored{}
	allYes := Scored{Score: []float64{0.5, 0.7}, Truth: []bool{true, true}}
	for _, f := range []func() (Value, error){empty.ROCAUC, empty.AveragePrecision, empty.LogLoss, empty.Brier, empty.KS,
		allYes.ROCAUC, allYes.KS, Confusion{}.Accuracy, Confusion{}.F1, Confusion{}.Precision, Confusion{}.MCC,
		Regression{}.MAE, Regression{}.RMSE, Regression{}.R2, Regression{}.MedAE, Classified{}.Accuracy, Classified{}.Kappa, Classified{}.LogLoss,
		Regression{Truth: []float64{1, 1}, Predicted: []float64{1, 2}}.R2} {
		var none *stat.NotComputable
		if v, err := f(); !errors.As(err, &none) {
			t.Errorf("answered %v (%v)", v, err)
		}
	}
}

func TestMultiClassAveragesOfTwoClassesAreTheBinaryOnes(t *testing.T) {
	c := Classified{Classes: []string{"n", "y"}, Truth: []int{1, 1, 0, 0, 1, 0}, Predicted: []int{1, 0, 0, 1, 1, 0}}
	m := c.OneVsRest(1)
	want, _ := m.F1()
	other, _ := c.OneVsRest(0).F1()
	got, _ := c.F1(Macro)
	if math.Abs(got.Value-(want.Value+other.Value)/2) > 1e-12 {
		t.Errorf("macro F1 %v", got)
	}
	acc, _ := c.Accuracy()
	micro, _ := c.F1(Micro)
	if math.Abs(micro.Value-acc.Value) > 1e-12 {
		t.Errorf("micro F1 %v is not accuracy %v", micro, acc)
	}
}

func TestFairnessFindsTheWidestGap(t *testing.T) {
	var groups []string
	var truth, predicted []bool
	add := func(g string, n int, y, h bool) {
		for range n {
			groups, truth, predicted = append(groups, g), append(truth, y), append(predicted, h)
		}
	}
	add("a", 80, true, true)
	add("a", 20, true, false)
	add("b", 50, true, true)
	add("b", 50, true, false)
	add("b", 100, false, false)
	add("c", 10, false, true)
	f := CompareGroups(groups, truth, predicted)
	if f.TruePos.High != "a" || f.TruePos.Low != "b" || math.Abs(f.TruePos.Value.Value-0.3) > 1e-12 {
		t.Errorf("true positive gap %+v", f.TruePos)
	}
	if want := math.Hypot(math.Sqrt(0.8*0.2/100), math.Sqrt(0.25/100)); math.Abs(f.TruePos.Value.StdErr-want) > 1e-12 {
		t.Errorf("error of the gap %v, want %v", f.TruePos.Value.StdErr, want)
	}
	if f.Selection.High != "c" || f.Groups[2].TruePos != nil {
		t.Errorf("selection gap %+v, group c %+v", f.Selection, f.Groups[2])
	}
	if one := CompareGroups([]string{"a"}, []bool{true}, []bool{true}); one.Selection != nil {
		t.Error("one group has a gap")
	}
}
