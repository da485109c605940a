package ort

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// The test binary is its own worker, as kedge is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "onnx-worker" {
		os.Exit(WorkerMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func config(t testing.TB) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Command = []string{os.Args[0], "onnx-worker"}
	var err error
	if cfg.Library, err = Find("", testenv.Root(t)); err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	return cfg
}

// models has testdata/models.py write its models, once for all tests.
var models = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kedge-onnx-*")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(python, "testdata/models.py", dir).CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return dir, err
})

var python string

func modelFile(t testing.TB, name string) []byte {
	t.Helper()
	python = testenv.Dep(t, "python/truth/bin/python")
	dir, err := models()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// known are the models that answer, with the numbers to read.
func known() map[string]Model {
	return map[string]Model{
		"pipeline": {Inputs: 5, Tensor: "probabilities", Column: 1, Width: 1},
		"mlp":      {Inputs: 30, Width: 1},
		"doubles":  {Inputs: 30, Width: 1},
		"one":      {Inputs: 30, Width: 1},
	}
}

func start(t testing.TB, cfg Config, name string) *Process {
	t.Helper()
	m, ok := known()[name]
	if !ok {
		m = Model{Inputs: 1, Width: 1}
	}
	m.File = modelFile(t, name+".onnx")
	p, err := Start(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// scikit-learn's and NumPy's own answers are the reference.
func TestAnswersAsTheMakerDid(t *testing.T) {
	for name := range known() {
		t.Run(name, func(t *testing.T) {
			p := start(t, config(t), name)
			agree(t, p, name)
		})
	}
}

func agree(t testing.TB, p *Process, name string) {
	t.Helper()
	rows, want := floats(modelFile(t, name+".rows")), floats(modelFile(t, name+".want"))
	got := make([]float32, len(want))
	if err := p.Predict(got, rows); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d < 1e-5) {
			t.Fatalf("row %d: %v, its maker says %v", i, got[i], want[i])
		}
	}
}

// kill -9 at any moment costs no answer: the rows are tried on the next child.
func TestKilledChildIsReplaced(t *testing.T) {
	p := start(t, config(t), "mlp")
	for i := range 3 {
		if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		agree(t, p, "mlp")
		if n := p.Restarts(); n != uint64(i+1) {
			t.Fatalf("%d restarts after %d kills", n, i+1)
		}
	}
}

// A model that never comes back ends as an error, and its child with it.
func TestEndlessLoopIsEnded(t *testing.T) {
	cfg := config(t)
	cfg.Timeout = time.Second
	p := start(t, cfg, "loop")
	pid := p.Pid()
	if err := p.Predict(make([]float32, 1), []float32{1}); !errors.Is(err, ErrWorker) || !strings.Contains(err.Error(), "no answer within") {
		t.Fatalf("got %v", err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("the child is there: %v", err)
		}
		return nil
	})
}

// A terabyte asked for at run time is an error of that batch, or the end of
// the child; when asked for at load time the model is refused. With the limit
// far below what the library itself needs, nothing starts: the limit bites.
func TestMemoryIsLimited(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the worker's limits are Linux's")
	}
	cfg := config(t)
	p := start(t, cfg, "memory")
	err := p.Predict(make([]float32, 1), []float32{1})
	if !errors.Is(err, ErrModel) && !errors.Is(err, ErrWorker) {
		t.Fatalf("a terabyte: %v", err)
	}
	if _, err := Start(cfg, Model{File: modelFile(t, "folded.onnx"), Inputs: 1, Width: 1}); err == nil {
		t.Log("folding was left to the run: refused there")
	}
	cfg.Memory = 8 << 20
	if _, err := Start(cfg, Model{File: modelFile(t, "mlp.onnx"), Inputs: 30, Width: 1}); !errors.Is(err, ErrModel) {
		t.Fatalf("8 MiB: %v", err)
	}
}

func TestModelsThatDoNotFit(t *testing.T) {
	cfg := config(t)
	for name, c := range map[string]struct {
		file  []byte
		model Model
		says  string
	}{
		"another width": {modelFile(t, "mlp.onnx"), Model{Inputs: 29, Width: 1}, "want [rows, 29]"},
		"no output":     {modelFile(t, "mlp.onnx"), Model{Inputs: 30, Width: 1, Tensor: "probabilities"}, `no output "probabilities"`},
		"no column":     {modelFile(t, "pipeline.onnx"), Model{Inputs: 5, Width: 1, Tensor: "probabilities", Column: 2}, "no columns 2 to 3"},
		"several":       {modelFile(t, "pipeline.onnx"), Model{Inputs: 5, Width: 1}, `no output "output"`},
		"cut off":       {modelFile(t, "mlp.onnx")[:500], Model{Inputs: 30, Width: 1}, "onnxruntime"},
		"text":          {[]byte("#!/bin/sh\n"), Model{Inputs: 30, Width: 1}, "onnxruntime"},
		"nothing":       {nil, Model{Inputs: 30, Width: 1}, "empty"},
	} {
		c.model.File = c.file
		p, err := Start(cfg, c.model)
		if !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			p.Close()
		}
	}
	cfg.Library = "/nonexistent/libonnxruntime.so"
	if _, err := Start(cfg, Model{File: []byte{1}, Inputs: 1, Width: 1}); err == nil || !strings.Contains(err.Error(), "no ONNX Runtime library") {
		t.Errorf("no library: %v", err)
	}
	cfg.Command = []string{"/nonexistent/kedge"}
	if _, err := Start(cfg, Model{File: []byte{1}, Inputs: 1, Width: 1}); !errors.Is(err, ErrWorker) {
		t.Errorf("no program: %v", err)
	}
}

// The child sees none of the parent's environment and ends with its parent's
// pipe.
func TestChildKnowsNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	t.Setenv("KEDGE_SECRET_CANARY", "swordfish")
	p := start(t, config(t), "mlp")
	env, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/environ")
	if err != nil || strings.Contains(string(env), "swordfish") {
		t.Fatalf("%v: %q", err, env)
	}
	p.Close()
	if err := p.Predict(make([]float32, 1), make([]float32, 30)); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// BenchmarkMLP: pipe, library and back, for one row and a batch.
func BenchmarkMLP(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(map[int]string{1: "1", 64: "64"}[n], func(b *testing.B) {
			p := start(b, config(b), "mlp")
			rows, out := floats(modelFile(b, "mlp.rows"))[:30*n], make([]float32, n)
			for b.Loop() {
				if err := p.Predict(out, rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
