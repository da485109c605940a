package trainer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// A real scikit-learn script trains on the rows, reports, and leaves an ONNX
// model that answers its golden rows in ONNX Runtime, read back from the
// artefact.
func TestCommandWithSklearn(t *testing.T) {
	python := testenv.Dep(t, "python/truth/bin/python")
	var b book
	var logged []string
	rec := b.record()
	rec.Log = func(_, line string) { logged = append(logged, line) }
	j := jobOn(sample(t, 2000, "binary", 9), &Command{Argv: []string{python, "testdata/sklearn_train.py"}, Dir: t.TempDir()}, Params{Device: CPU})
	res, err := Train(t.Context(), "me", j, rec)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.metrics) != 1 || b.metrics[0].Key != "valid-logloss" || !strings.Contains(strings.Join(logged, "\n"), "trained on 1400 rows") {
		t.Errorf("metrics %v, log %q", b.metrics, logged)
	}
	if res.Run.Device.Used != "cpu" || !strings.HasPrefix(res.Run.Backend, "scikit-learn") {
		t.Errorf("run %+v", res.Run)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := model.Write(root, res.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.Load(root, digest, model.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Predictor(model.DefaultLimits()); !errors.Is(err, model.ErrNoPredictor) {
		t.Errorf("a Go predictor for ONNX: %v", err)
	}
	replayInORT(t, python, a)
}

func replayInORT(t *testing.T, python string, a *model.Artifact) {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	o := a.Signature.Outputs[0]
	worst, err := a.Golden.Replay(func(out, rows []float32) error {
		if err := errors.Join(os.WriteFile(path("m.onnx"), a.Model, 0o644), os.WriteFile(path("rows"), floatBytes(rows), 0o644)); err != nil {
			return err
		}
		if text, err := exec.Command(python, "testdata/ort_replay.py", path("m.onnx"), path("rows"), path("out"), o.Tensor, strconv.Itoa(o.Column), strconv.Itoa(o.Width)).CombinedOutput(); err != nil {
			t.Logf("%s", text)
			return err
		}
		raw, err := os.ReadFile(path("out"))
		copy(out, floatsOf(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("golden rows differ by %.2g in ONNX Runtime", worst)
}

// Any program that does not keep its side of the bargain fails the run with a
// reason, and leaves no folder behind.
func TestCommandRefuses(t *testing.T) {
	data := prepared(t, 200, "real", model.Regression)
	for name, c := range map[string]struct {
		script string
		device Device
		want   error
		text   string
	}{
		"fails":          {"echo no memory >&2; exit 3", CPU, ErrWorker, "no memory"},
		"leaves nothing": {"true", CPU, ErrWorker, "neither"},
		"no golden":      {"echo x > $KEDGE_OUT/model.onnx", CPU, ErrWorker, "golden.f32"},
		"not a model":    {"echo {} > $KEDGE_OUT/model.json", CPU, nil, "XGBoost JSON"},
		"link out":       {"ln -s /etc/passwd $KEDGE_OUT/model.json", CPU, ErrWorker, "neither"},
		"no cuda":        {"echo x > $KEDGE_OUT/model.onnx", CUDA, ErrDevice, "cuda was asked for"},
		"bad report":     {"echo x > $KEDGE_OUT/report.json", CPU, ErrWorker, "report.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := Params{Task: model.Regression, Device: c.device}
			_, err := (&Command{Argv: []string{"/bin/sh", "-c", c.script}, Dir: dir}).Fit(t.Context(), data, p, Watch{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := (&Command{}).Fit(t.Context(), data, Params{}, Watch{}); !errors.Is(err, ErrParam) {
		t.Errorf("no program: %v", err)
	}
}

// A program sees the GPUs that its run was given, whatever this process sees,
// and none where the job asks for the CPU.
func TestCommandSeesItsGPUs(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "7")
	data := prepared(t, 200, "real", model.Regression)
	for _, c := range []struct {
		gpus   []string
		device Device
		want   string
	}{{nil, Auto, "7"}, {nil, CPU, ""}, {[]string{}, Auto, ""}, {[]string{"GPU-b", "GPU-c"}, Auto, "GPU-b,GPU-c"}, {[]string{"GPU-b"}, CPU, ""}} {
		var line string
		cmd := &Command{Argv: []string{"/bin/sh", "-c", "echo seen=$CUDA_VISIBLE_DEVICES"}, Dir: t.TempDir(), GPUs: c.gpus}
		cmd.Fit(t.Context(), data, Params{Task: model.Regression, Device: c.device}, Watch{Log: func(s string) { line = s }})
		if line != "seen="+c.want {
			t.Errorf("%q on %s: %q, want %q", c.gpus, c.device, line, c.want)
		}
	}
}

// Neither a program nor the training process sees Kedge's settings, in which
// secrets may stand; where the library lies it does.
func TestChildrenSeeNoSettings(t *testing.T) {
	t.Setenv("KEDGE_CLICKHOUSE_PASSWORD", "canary")
	t.Setenv(xgb.Environment, "/lib/libxgboost.so")
	t.Setenv("OTHER", "plain")
	var seen []string
	cmd := &Command{Argv: []string{"/bin/sh", "-c", "env"}, Dir: t.TempDir()}
	cmd.Fit(t.Context(), prepared(t, 200, "real", model.Regression), Params{Task: model.Regression}, Watch{Log: func(s string) { seen = append(seen, s) }})
	for _, env := range [][]string{environment(), seen} {
		if all := strings.Join(env, "\n"); strings.Contains(all, "canary") || !strings.Contains(all, xgb.Environment+"=/lib/libxgboost.so") || !strings.Contains(all, "OTHER=plain") {
			t.Errorf("a child sees %s", all)
		}
	}
}

// Cancelling ends the program and what it started.
func TestCommandCancel(t *testing.T) {
	data := prepared(t, 200, "real", model.Regression)
	mark := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	script := "sleep 300 & echo $! > " + mark + "; echo started; wait"
	start := time.Now()
	_, err := (&Command{Argv: []string{"/bin/sh", "-c", script}, Dir: t.TempDir(), Wait: time.Second}).Fit(ctx, data, Params{Task: model.Regression}, Watch{
		Log: func(string) { cancel() },
	})
	if !errors.Is(err, ErrCancelled) || time.Since(start) > 20*time.Second {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 5*time.Second, func() error {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return nil
		}
		return errors.New("what the program started is still running")
	})
}
