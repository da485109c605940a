package serving

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/onnx"
	"github.com/kedge-ml/kedge/serving/ort"
)

// The test binary is its own ONNX process, as kedge is, and a broker or a server
// apart.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "server" {
		os.Exit(serverMain(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "broker" {
		os.Exit(brokerMain())
	}
	if len(os.Args) > 1 && os.Args[1] == "onnx-worker" {
		os.Exit(ort.WorkerMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func onnxConfig(t testing.TB) ort.Config {
	t.Helper()
	cfg := ort.DefaultConfig()
	cfg.Command = []string{os.Args[0], "onnx-worker"}
	var err error
	if cfg.Library, err = ort.Find("", testenv.Root(t)); err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	return cfg
}

// onnxArtifact is the artefact of one of the models that scikit-learn and
// NumPy made, with their own answers as golden rows.
func onnxArtifact(t testing.TB, dir, name string, inputs int, out model.Output) *model.Artifact {
	t.Helper()
	a := &model.Artifact{
		Signature: model.Signature{Format: model.FormatVersion, Kind: model.ONNX, Task: model.Binary, Outputs: []model.Output{out}},
		Golden:    model.Golden{Features: inputs, Outputs: 1},
		Card:      model.Card{Name: name, Created: time.Unix(1, 0).UTC()},
	}
	for i := range inputs {
		a.Signature.Inputs = append(a.Signature.Inputs, model.Input{Name: fmt.Sprintf("f%d", i), Type: "Float32"})
	}
	read := func(ext string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name+ext))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a.Model = read(".onnx")
	for ext, dst := range map[string]*[]float32{".rows": &a.Golden.Inputs, ".want": &a.Golden.Expected} {
		for b := read(ext); len(b) > 0; b = b[4:] {
			*dst = append(*dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	}
	return a
}

// onnxDir has the models made once for all tests.
var onnxDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kedge-onnx-*")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(os.Getenv("KEDGE_TEST_PYTHON"), "ort/testdata/models.py", dir).CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return dir, err
})

func onnxModels(t testing.TB) (dir string) {
	t.Helper()
	t.Setenv("KEDGE_TEST_PYTHON", testenv.Dep(t, "python/truth/bin/python"))
	dir, err := onnxDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func ask30(values []float32) string {
	b, _ := json.Marshal(values)
	return fmt.Sprintf(`{"inputs":[{"name":"input","shape":[%d,%d],"datatype":"FP32","data":%s}]}`, len(values)/30, 30, b)
}

func answers(t testing.TB, body string) []float64 {
	t.Helper()
	var res struct{ Outputs []struct{ Data []float64 } }
	if err := json.Unmarshal([]byte(body), &res); err != nil || len(res.Outputs) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	return res.Outputs[0].Data
}

// A scikit-learn pipeline and a small net are served from their artefacts and
// answer as their makers did; requests that come together are computed
// together; kill -9 of the process and swaps under load fail no request; what was let go of leaves no process.
func TestONNXServing(t *testing.T) {
	cfg, dir := onnxConfig(t), onnxModels(t)
	mlp := onnxArtifact(t, dir, "mlp", 30, model.Output{Name: "score", Width: 1})
	pipe := onnxArtifact(t, dir, "pipeline", 5, model.Output{Name: "score", Width: 1, Tensor: "probabilities", Column: 1})
	r := newRig(t)
	load := func(version string, a *model.Artifact) *native {
		t.Helper()
		m, err := FromONNX("fraud", version, a, cfg, Batching{MaxDelay: event.Duration(time.Millisecond)})
		if err == nil {
			err = r.s.Load(m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.native
	}
	n := load("1", mlp)
	load("sk", pipe)
	body, _ := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": "input", "shape": []int{1, 5}, "datatype": "FP32", "data": []float32{0.1, 0.2, 0.3, 0.4, 0.5}}}})
	status, text, _ := r.post("/v2/models/fraud/versions/sk/infer", string(body))
	if status != 200 || len(answers(t, text)) != 1 {
		t.Fatalf("pipeline: %d %s", status, text)
	}
	status, text, _ = r.post("/v2/models/fraud/infer", ask30(mlp.Golden.Inputs))
	for i, v := range answers(t, text) {
		if math.Abs(v-float64(mlp.Golden.Expected[i])) > 1e-5 {
			t.Fatalf("row %d: %v, its maker says %v", i, v, mlp.Golden.Expected[i])
		}
	}
	if status != 200 || n.batches.Load() != 1 {
		t.Errorf("%d, %d batches of one request", status, n.batches.Load())
	}
	if status, text, _ = r.post("/v1/predict/fraud", `{"data":{"f0":1},"explain":2}`); status == 200 {
		t.Errorf("explained: %s", text)
	}
	togetherAndSwapped(t, r, n, mlp, load)
	if err := r.s.Unload("fraud", ""); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if kids := children(t); len(kids) > 0 {
			return fmt.Errorf("processes are left: %v", kids)
		}
		return nil
	})
}

func togetherAndSwapped(t *testing.T, r *rig, n *native, a *model.Artifact, load func(string, *model.Artifact) *native) {
	t.Helper()
	var stop atomic.Bool
	var asked, failed atomic.Uint64
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			row := a.Golden.Inputs[30*c : 30*c+30]
			for !stop.Load() {
				status, text, _ := r.post("/v2/models/fraud/infer", ask30(row))
				asked.Add(1)
				if status != 200 || math.Abs(answers(t, text)[0]-float64(a.Golden.Expected[c])) > 1e-5 {
					failed.Add(1)
					t.Errorf("%d %s", status, text)
					return
				}
			}
		})
	}
	testenv.Eventually(t, time.Minute, func() error {
		if n.batches.Load() >= n.proc.Restarts()+asked.Load() || asked.Load() < 500 {
			return fmt.Errorf("%d requests in %d batches", asked.Load(), n.batches.Load())
		}
		return nil
	})
	t.Logf("%d requests in %d batches", asked.Load(), n.batches.Load())
	for range 3 {
		before := n.proc.Restarts()
		if pid := n.proc.Pid(); pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		testenv.Eventually(t, time.Minute, func() error {
			if n.proc.Restarts() == before {
				return errors.New("the process was not replaced")
			}
			return nil
		})
	}
	for range 5 {
		load("1", a)
	}
	at := asked.Load()
	testenv.Eventually(t, time.Minute, func() error {
		if asked.Load() < at+50 {
			return errors.New("waiting for answers after the swaps")
		}
		return nil
	})
	stop.Store(true)
	wg.Wait()
	t.Logf("%d requests, %d failed", asked.Load(), failed.Load())
}

// children are the onnx processes of this one that are there, zombies included.
func children(t testing.TB) []string {
	t.Helper()
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid()))
	if err == nil && len(out) == 0 {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			out = append(out, b...)
		}
	}
	return strings.Fields(string(out))
}

// An artefact whose golden rows its own model does not answer is refused when
// it is loaded, and one that reaches outside itself is never stored.
func TestONNXRefusals(t *testing.T) {
	cfg, dir := onnxConfig(t), onnxModels(t)
	a := onnxArtifact(t, dir, "mlp", 30, model.Output{Name: "score", Width: 1})
	a.Golden.Expected[7] += 0.01
	if _, err := FromONNX("fraud", "1", a, cfg, Batching{}); !errors.Is(err, model.ErrGolden) {
		t.Errorf("wrong golden rows: %v", err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	a.Model, err = os.ReadFile(filepath.Join(dir, "external.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := model.Write(root, a); !errors.Is(err, onnx.ErrRefused) || !strings.Contains(err.Error(), "outside the model") {
		t.Errorf("external data: %v", err)
	}
	a.Model = bytes.Repeat([]byte{0x3a}, 100)
	if _, err := model.Write(root, a); !errors.Is(err, onnx.ErrRefused) {
		t.Errorf("no model: %v", err)
	}
	for _, b := range []Batching{{MaxRows: -1}, {MaxRows: 1 << 20}, {MaxDelay: event.Duration(2 * time.Millisecond)}} {
		if b.Validate() == nil {
			t.Errorf("%+v is accepted", b)
		}
	}
}
