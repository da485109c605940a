package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model/linear"
	"github.com/kedge-ml/kedge/model/tree"
)

type predictor interface {
	Features() int
	Outputs() int
	Predict(out, rows []float32)
}

// ONNX's own checker accepts what is written, and ONNX Runtime answers as the
// Go predictors do, on models trained in this run.
func TestAgainstONNXRuntime(t *testing.T) {
	python := testenv.Dep(t, "python/truth/bin/python")
	dir := t.TempDir()
	seed := 1 + os.Getpid()%1000
	t.Logf("seed %d", seed)
	script(t, python, "testdata/train.py", dir, fmt.Sprint(seed))
	want := make(map[string][]float32)
	paths, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		e, err := tree.Read(text, tree.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		file, err := Trees(e)
		want[name] = stage(t, dir, name, file, err, e)
	}
	for _, link := range []linear.Link{linear.Identity, linear.Logistic, linear.Softmax} {
		m := randomLinear(t, link)
		file, err := Linear(m)
		name := "linear-" + string(link)
		want[name] = stage(t, dir, name, file, err, m)
	}
	script(t, python, "testdata/check.py", dir)
	if len(want) != 12 {
		t.Fatalf("%d models", len(want))
	}
	for name, w := range want {
		got := readFloats(t, filepath.Join(dir, name+".out"))
		compare(t, name, got, w)
	}
}

// stage writes model and rows for ONNX Runtime and returns what it must answer.
func stage(t *testing.T, dir, name string, file []byte, err error, p predictor) []float32 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]float32, 300*p.Features())
	for i := range rows {
		switch i % p.Features() {
		case 4:
			rows[i] = float32(rng.IntN(45)) // some were never met in training
		case 5:
			rows[i] = float32(rng.IntN(6))
		default:
			rows[i] = float32(rng.NormFloat64())
		}
		if rng.IntN(8) == 0 {
			rows[i] = float32(math.NaN())
		}
	}
	out := make([]float32, 300*p.Outputs())
	p.Predict(out, rows)
	var raw []byte
	for _, v := range rows {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	if err := os.WriteFile(filepath.Join(dir, name+".onnx"), file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".rows"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

func randomLinear(t *testing.T, link linear.Link) *linear.Model {
	rng := rand.New(rand.NewPCG(3, 4))
	k := 1
	if link == linear.Softmax {
		k = 3
	}
	vector := func() []float64 {
		v := make([]float64, k)
		for i := range v {
			v[i] = rng.NormFloat64()
		}
		return v
	}
	m := &linear.Model{Version: linear.Format, Link: link, Intercept: vector()}
	for j := range 6 {
		term := linear.Term{Missing: vector(), Average: make([]float64, k)}
		if j >= 4 {
			for range 5 + 10*(5-j) {
				term.Categories = append(term.Categories, vector())
			}
		} else {
			term.Mean, term.Scale, term.Weights = rng.NormFloat64(), 0.5+rng.Float64(), vector()
		}
		m.Terms = append(m.Terms, term)
	}
	m, err := linear.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func script(t *testing.T, python string, args ...string) {
	t.Helper()
	if out, err := exec.Command(python, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func readFloats(t *testing.T, path string) []float32 {
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

func compare(t *testing.T, name string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		worst = max(worst, math.Abs(float64(got[i]-want[i]))/max(1, math.Abs(float64(want[i]))))
	}
	t.Logf("%s: largest difference %.2g", name, worst)
	if !(worst <= 2e-6) {
		t.Errorf("%s differs by %g", name, worst)
	}
}
