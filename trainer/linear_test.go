package trainer

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
)

// The linear back-end finds scikit-learn's optimum, and every metric is
// scikit-learn's, with weights, missing values and categories.
func TestLinearAndMetricsAgainstSklearn(t *testing.T) {
	python := testenv.Dep(t, "python/truth/bin/python")
	dir := t.TempDir()
	kinds := map[string]model.Task{"binary": model.Binary, "texts": model.MultiClass, "real": model.Regression}
	data := make(map[string]*Matrix)
	width := 0
	for kind, task := range kinds {
		m := weighted(t, kind)
		if err := Prepare(m, task); err != nil {
			t.Fatal(err)
		}
		data[kind] = m
		width = writeDesign(t, dir, kind, m)
	}
	shape, _ := json.Marshal(map[string]any{"width": width, "l2": 0.01})
	if err := os.WriteFile(filepath.Join(dir, "shape.json"), shape, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, "testdata/sklearn_truth.py", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "metrics.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]float64
	var curve struct {
		Calibration struct {
			Said, Happened     []float64
			Brier, Uncertainty float64
		}
	}
	if err := errors.Join(json.Unmarshal(text, &curve), json.Unmarshal(regexp.MustCompile(`"calibration": \{[^}]*\}, `).ReplaceAll(text, nil), &want)); err != nil {
		t.Fatal(err)
	}
	t.Run("calibration", func(t *testing.T) {
		c := compareCalibration(t, readFloat64s(t, filepath.Join(dir, "binary.predict")), data["binary"], curve.Calibration.Said, curve.Calibration.Happened)
		if math.Abs(c.Brier-curve.Calibration.Brier) > 1e-9 || math.Abs(c.Uncertainty-curve.Calibration.Uncertainty) > 1e-9 {
			t.Errorf("Brier score %v and uncertainty %v, scikit-learn says %v and %v", c.Brier, c.Uncertainty, curve.Calibration.Brier, curve.Calibration.Uncertainty)
		}
	})
	for kind, task := range kinds {
		t.Run(kind, func(t *testing.T) { compareLinear(t, dir, kind, task, data[kind], want) })
	}
}

// compareCalibration holds bins against scikit-learn's calibration_curve, and the
// decomposition against its parts computed from those.
func compareCalibration(t *testing.T, p []float64, m *Matrix, said, happened []float64) *model.Calibration {
	t.Helper()
	w := make([]float64, len(p))
	for i := range w {
		w[i] = 1
	}
	c := Calibrate(p, widen(m.Label), w)
	if len(c.Bins) != len(said) || len(said) < 5 {
		t.Fatalf("%d bins, scikit-learn has %d", len(c.Bins), len(said))
	}
	base, ece, reliability, resolution, n := mean(widen(m.Label)), 0.0, 0.0, 0.0, float64(len(p))
	for i, b := range c.Bins {
		if math.Abs(b.Said-said[i]) > 1e-9 || math.Abs(b.Happened-happened[i]) > 1e-9 {
			t.Errorf("bin %d: said %v, happened %v; scikit-learn says %v and %v", i, b.Said, b.Happened, said[i], happened[i])
		}
		ece += b.Weight / n * math.Abs(said[i]-happened[i])
		reliability += b.Weight / n * math.Pow(said[i]-happened[i], 2)
		resolution += b.Weight / n * math.Pow(happened[i]-base, 2)
	}
	for name, v := range map[string][2]float64{"ece": {c.ECE, ece}, "reliability": {c.Reliability, reliability}, "resolution": {c.Resolution, resolution}, "the sum": {c.Reliability - c.Resolution + c.Uncertainty + c.Within, c.Brier}} {
		if math.Abs(v[0]-v[1]) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, v[0], v[1])
		}
	}
	if math.Abs(c.Within) > 0.01 {
		t.Errorf("%v of the Brier score is within bins", c.Within)
	}
	return c
}

func mean(v []float64) (sum float64) {
	for _, x := range v {
		sum += x / float64(len(v))
	}
	return sum
}

// readFloat64s reads float64 as numpy writes them.
func readFloat64s(t *testing.T, path string) []float64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, len(raw)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return out
}

// weighted is a sample whose rows weigh differently.
func weighted(t *testing.T, kind string) *Matrix {
	m := sample(t, 2000, kind, 5)
	rng := rand.New(rand.NewPCG(8, 8))
	for range m.Rows() {
		m.Weight = append(m.Weight, 0.2+2*rng.Float32())
	}
	return m
}

// writeDesign writes standardised columns for scikit-learn.
func writeDesign(t *testing.T, dir, kind string, m *Matrix) int {
	t.Helper()
	d := newDesign(m)
	x := make([]float64, m.Rows()*d.width)
	for j := range m.Columns {
		d.each(j, func(row, coefficient int, v float64) { x[row*d.width+coefficient] = v })
	}
	for part, v := range map[string][]float64{"x": x, "y": widen(m.Label), "w": widen(m.Weight)} {
		var raw []byte
		for _, f := range v {
			raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(f))
		}
		if err := os.WriteFile(filepath.Join(dir, kind+"."+part), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d.width
}

func compareLinear(t *testing.T, dir, kind string, task model.Task, m *Matrix, want map[string]map[string]float64) {
	p := Params{Task: task, Extra: map[string]string{"l2": "0.01"}}
	data := Data{Train: m, Golden: goldenRows(m)}
	f, err := Linear{}.Fit(t.Context(), data, p, Watch{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := pack(f, data, p)
	if err != nil {
		t.Fatal(err)
	}
	predictor, err := a.Predictor(model.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	got := PredictAll(predictor, m)
	raw, err := os.ReadFile(filepath.Join(dir, kind+".predict"))
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	truth := make([]float32, len(got))
	for i := range got {
		v := math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
		truth[i] = float32(v)
		worst = max(worst, math.Abs(float64(got[i])-v)/max(1, math.Abs(v)))
	}
	t.Logf("%d steps, predictions differ by %.2g", f.Rounds, worst)
	if !(worst < 1e-4) {
		t.Errorf("predictions differ by %g", worst)
	}
	metrics, err := Measure(m, task, truth, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range want[kind] {
		if math.Abs(metrics[name]-v) > 1e-6*max(1, math.Abs(v)) {
			t.Errorf("%s is %v, scikit-learn says %v", name, metrics[name], v)
		}
	}
	if kind == "binary" {
		rounded := make([]float64, len(truth))
		for i, v := range truth {
			rounded[i] = math.RoundToEven(float64(v)*10) / 10
		}
		if auc := AUC(rounded, widen(m.Label), widen(m.Weight)); math.Abs(auc-want["ties"]["auc"]) > 1e-6 {
			t.Errorf("AUC with ties is %v, scikit-learn says %v", auc, want["ties"]["auc"])
		}
	}
}

func TestLinearRefusesAndStops(t *testing.T) {
	m := sample(t, 500, "binary", 1)
	if err := Prepare(m, model.Binary); err != nil {
		t.Fatal(err)
	}
	data := Data{Train: m, Golden: goldenRows(m)}
	for name, p := range map[string]Params{
		"unknown": {Task: model.Binary, Extra: map[string]string{"eta": "1"}},
		"range":   {Task: model.Binary, Extra: map[string]string{"l2": "-1"}},
		"task":    {Task: model.Quantiles},
	} {
		if _, err := (Linear{}).Fit(t.Context(), data, p, Watch{}); !errors.Is(err, ErrParam) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Linear{}).Fit(t.Context(), data, Params{Task: model.Binary, Device: CUDA}, Watch{}); !errors.Is(err, ErrDevice) {
		t.Errorf("cuda: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Linear{}).Fit(ctx, data, Params{Task: model.Binary}, Watch{}); !errors.Is(err, ErrCancelled) {
		t.Errorf("cancelled: %v", err)
	}
	halt := errors.New("halt")
	if _, err := (Linear{}).Fit(t.Context(), data, Params{Task: model.Binary}, Watch{
		Round: func(int, map[string]map[string]float64) error { return halt },
	}); !errors.Is(err, halt) {
		t.Errorf("watcher: %v", err)
	}
}
