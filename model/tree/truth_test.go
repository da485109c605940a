package tree

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

type truthCase struct {
	Name      string
	Objective string
	Rows      int
	Features  int
	Gain      []float64
}

// trainTruth lets Python's xgboost train random models and predict with them.
func trainTruth(t *testing.T, seed int) (string, []truthCase) {
	t.Helper()
	python := testenv.Dep(t, "python/truth/bin/python")
	dir := t.TempDir()
	out, err := exec.Command(python, "testdata/truth.py", dir, fmt.Sprint(seed)).CombinedOutput()
	if err != nil {
		t.Fatalf("train with Python: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []truthCase
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	return dir, cases
}

func readFloats(t testing.TB, path string) []float32 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

func readModel(t testing.TB, path string) *Ensemble {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Read(text, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The whole promise: random models of every objective, trained in this very
// run, answer here as they do in XGBoost.
func TestAgainstXGBoost(t *testing.T) {
	seed := 1 + os.Getpid()%1000
	t.Logf("seed %d", seed)
	dir, cases := trainTruth(t, seed)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { checkCase(t, filepath.Join(dir, c.Name), c) })
	}
	for _, kind := range []string{"dart", "gblinear", "rank", "cox", "targets", "vector"} {
		t.Run("refused-"+kind, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "refused-"+kind+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = Read(text, DefaultLimits()); !errors.Is(err, ErrUnsupported) {
				t.Fatalf("got %v, want ErrUnsupported", err)
			}
			t.Log(err)
		})
	}
}

func checkCase(t *testing.T, dir string, c truthCase) {
	e := readModel(t, filepath.Join(dir, "model.json"))
	rows := readFloats(t, filepath.Join(dir, "rows.f32"))
	if e.Features() != c.Features || e.Objective() != c.Objective {
		t.Fatalf("read %d features of %s", e.Features(), e.Objective())
	}
	margin := make([]float32, c.Rows*e.Groups())
	e.Margins(margin, rows)
	// Sums are made in XGBoost's order; the logarithm of a base score is the C
	// library's, whose last bit may be another.
	closeTo(t, "margin", margin, readFloats(t, filepath.Join(dir, "margin.f32")), 1e-6)

	predict := make([]float32, c.Rows*e.Outputs())
	e.Predict(predict, rows)
	closeTo(t, "predict", predict, readFloats(t, filepath.Join(dir, "predict.f32")), 1e-6)

	one := make([]float32, len(predict))
	for i := range c.Rows {
		e.Predict(one[i*e.Outputs():], rows[i*c.Features:(i+1)*c.Features])
	}
	closeTo(t, "one row at a time", one, predict, 0)

	contribs := make([]float64, c.Rows*e.Groups()*(c.Features+1))
	e.Contributions(contribs, rows)
	narrow := make([]float32, len(contribs))
	for i, v := range contribs {
		narrow[i] = float32(v)
	}
	closeTo(t, "contributions", narrow, readFloats(t, filepath.Join(dir, "contribs.f32")), 1e-4)
	checkSums(t, contribs, margin, c.Features+1)
	checkGain(t, e, c)
}

// closeTo compares within tol, absolute and relative.
func closeTo(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst, at, differ := 0.0, 0, 0
	for i := range got {
		d := math.Abs(float64(got[i])-float64(want[i])) / max(1, math.Abs(float64(want[i])))
		if !(d <= worst) {
			worst, at = d, i
		}
		if got[i] != want[i] {
			differ++
		}
	}
	t.Logf("%s: largest difference %.2g, %d of %d differ", what, worst, differ, len(got))
	if !(worst <= tol) {
		t.Errorf("%s: value %d is %v, want %v (differs by %.3g, allowed %g)", what, at, got[at], want[at], worst, tol)
	}
}

func checkSums(t *testing.T, contribs []float64, margin []float32, width int) {
	t.Helper()
	for i, m := range margin {
		sum := 0.0
		for _, c := range contribs[i*width : (i+1)*width] {
			sum += c
		}
		if math.Abs(sum-float64(m)) > 1e-4*max(1, math.Abs(float64(m))) {
			t.Fatalf("contributions of margin %d sum to %v, want %v", i, sum, m)
		}
	}
}

func checkGain(t *testing.T, e *Ensemble, c truthCase) {
	t.Helper()
	gain, _ := e.Importance()
	for f, want := range c.Gain {
		if math.Abs(gain[f]-want) > 1e-4*max(1, want) {
			t.Errorf("gain of feature %d is %v, want %v", f, gain[f], want)
		}
	}
}
