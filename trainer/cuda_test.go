package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebitengine/purego"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// cuda is XGBoost on this machine's GPU, and its inventory. Without a GPU, or
// with the CPU's library, the test is skipped: `make cuda` fetches the other
// one, KEDGE_LIBXGBOOST names it.
func cuda(t testing.TB) (*XGBoost, *gpu.Inventory) {
	t.Helper()
	inv, err := gpu.Open()
	if err == nil {
		t.Cleanup(func() { inv.Close() })
		_, err = inv.Devices()
	}
	if err != nil {
		testenv.Skip(t, testenv.NoGPU, "%v", err)
	}
	x := xgboost(t)
	l, err := xgb.Open(x.Library)
	if err != nil {
		t.Fatal(err)
	}
	info, err := l.BuildInfo()
	if err != nil {
		t.Fatal(err)
	}
	if !info.CUDA {
		testenv.Skip(t, testenv.NoGPU, "%s was built without CUDA: `make cuda`, then set %s", x.Library, xgb.Environment)
	}
	t.Logf("%s, built with CUDA %v", x.Library, info.CUDAVer)
	return x, inv
}

// usedBytes is how much of the first GPU is taken, by whomever.
func usedBytes(t testing.TB, inv *gpu.Inventory) uint64 {
	t.Helper()
	list, err := inv.Devices()
	if err != nil {
		t.Fatal(err)
	}
	return list[0].MemoryUsed
}

// steps is a training set whose inputs have few distinct values, so that both
// devices cut them at the same places. The last third of the rows validates.
func steps(rows int) Data {
	m := &Matrix{Label: make([]float32, rows), Classes: []string{"0", "1"}}
	rng := rand.New(rand.NewPCG(8, 8))
	for j := range 8 {
		c := Column{Field: Field{Name: fmt.Sprint("x", j), Type: "Float64"}, Values: make([]float32, rows)}
		for r := range c.Values {
			c.Values[r] = float32(rng.IntN(120))
			if rng.IntN(20) == 0 {
				c.Values[r] = float32(math.NaN())
			}
		}
		m.Columns = append(m.Columns, c)
	}
	for r := range rows {
		z := 0.0
		for j := range 3 {
			if v := float64(m.Columns[j].Values[r]); !math.IsNaN(v) {
				z += (v - 60) * []float64{0.02, -0.03, 0.01}[j]
			}
		}
		m.Label[r] = float32(b2i(z+rng.NormFloat64() > 0))
		m.Time = append(m.Time, int64(r))
	}
	all := m.all()
	cut := rows * 2 / 3
	train := m.Select(all[:cut])
	return Data{Train: train, Valid: m.Select(all[cut:]), Golden: goldenRows(train)}
}

// Both `cuda` and `auto` train on the GPU and say so, for every task; what
// serves in Go answers as the GPU did within 1e-6; and the model is as good as
// the CPU's, with about its answers.
func TestCUDATrainsAndSaysSo(t *testing.T) {
	x, _ := cuda(t)
	for _, c := range []struct {
		kind   string
		task   model.Task
		device Device
	}{{"binary", model.Binary, CUDA}, {"binary", model.Binary, Auto}, {"texts", model.MultiClass, CUDA}, {"real", model.Regression, CUDA}, {"real", model.Quantiles, CUDA}} {
		t.Run(fmt.Sprint(c.task, " ", c.device), func(t *testing.T) {
			p := fitParams(c.task)
			if p.Device = c.device; c.task == model.Quantiles {
				p.Quantiles = []float64{0.1, 0.5, 0.9}
			}
			data := prepared(t, 3000, c.kind, c.task)
			f, err := x.Fit(t.Context(), data, p, Watch{Log: func(line string) { t.Log(line) }})
			if err != nil {
				t.Fatal(err)
			}
			if f.Device != (model.Device{Requested: string(c.device), Used: "cuda:0"}) || len(f.Warnings) > 0 {
				t.Errorf("device %+v, warnings %q", f.Device, f.Warnings)
			}
			a, err := pack(f, data, p)
			if err != nil {
				t.Fatal(err)
			}
			worst, err := a.Golden.Replay(func(out, rows []float32) error {
				predictor, err := model.NewPredictor(&a.Signature, a.Model, model.DefaultLimits())
				if err == nil {
					predictor.Predict(out, rows)
				}
				return err
			})
			if err != nil || worst > 1e-6 {
				t.Errorf("golden rows differ by %g in Go: %v", worst, err)
			}
			t.Logf("golden rows differ by at most %.2g between GPU and Go", worst)
		})
	}
}

// The tolerance: on inputs that both cut alike, the devices' models differ by no
// more than 0.01 in the probability of a row that neither saw, on average, and
// by no more than 0.5 % in the logloss of those rows.
func TestCUDAAgreesWithCPU(t *testing.T) {
	x, _ := cuda(t)
	data := steps(30_000)
	answers, loss := map[Device][]float32{}, map[Device]float64{}
	for _, device := range []Device{CPU, CUDA} {
		p := fitParams(model.Binary)
		p.Device, p.Threads = device, 0
		f, err := x.Fit(t.Context(), data, p, Watch{Round: func(_ int, m map[string]map[string]float64) error {
			loss[device] = m["valid"]["logloss"]
			return nil
		}})
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
		answers[device] = PredictAll(predictor, data.Valid)
	}
	var sum, worst float64
	for i, v := range answers[CPU] {
		d := math.Abs(float64(v - answers[CUDA][i]))
		sum, worst = sum+d, max(worst, d)
	}
	mean := sum / float64(len(answers[CPU]))
	t.Logf("logloss %.6f on the CPU, %.6f on the GPU; probabilities differ by %.2g on average, %.2g at most", loss[CPU], loss[CUDA], mean, worst)
	if mean > 0.01 || math.Abs(loss[CUDA]/loss[CPU]-1) > 0.005 {
		t.Error("the GPU's model is another one")
	}
}

// A run on the GPU is metered: seconds held and idle, energy; and the readings
// of the device move while it trains.
func TestCUDAIsMetered(t *testing.T) {
	x, inv := cuda(t)
	before := usedBytes(t, inv)
	p := Params{Task: model.Binary, Rounds: 1_000_000, Device: CUDA, Extra: map[string]string{"max_depth": "8"}}
	m := numbers(1_000_000, 30)
	var most gpu.Device
	told := time.Now()
	ready := errors.New("seen enough")
	// The run is stopped by its watcher, so its own meter is read in the shorter
	// run below; here the inventory is looked at.
	_, err := x.Fit(t.Context(), Data{Train: m, Golden: goldenRows(m)}, p, Watch{Round: func(round int, _ map[string]map[string]float64) error {
		if time.Since(told) < 500*time.Millisecond {
			return nil
		}
		told = time.Now()
		list, err := inv.Devices()
		if err != nil {
			return err
		}
		most.Utilization, most.Power, most.MemoryUsed = max(most.Utilization, list[0].Utilization), max(most.Power, list[0].Power), max(most.MemoryUsed, list[0].MemoryUsed)
		most.Energy = list[0].Energy
		if round > 50 && most.Utilization > 0.05 && most.Power > 0 && most.MemoryUsed > before {
			return ready
		}
		if round > 5000 {
			return fmt.Errorf("after %d rounds: %+v", round, most)
		}
		return nil
	}})
	if !errors.Is(err, ready) {
		t.Fatal(err)
	}
	t.Logf("while training: utilisation %.2f, %.0f W, %d MB beyond the %d MB before; energy counter %.0f J", most.Utilization, most.Power, (most.MemoryUsed-before)>>20, before>>20, most.Energy)
	testenv.Eventually(t, 20*time.Second, func() error { // the last run's work has left the readings
		if list, err := inv.Devices(); err != nil || list[0].Utilization > 0 {
			return fmt.Errorf("still working: %+v, %v", list, err)
		}
		return nil
	})
	p.Rounds = 300
	f, err := x.Fit(t.Context(), Data{Train: m, Golden: goldenRows(m)}, p, Watch{})
	if err != nil {
		t.Fatal(err)
	}
	if c := f.Cost; c.GPU <= 0 || c.GPUIdle <= 0 || c.GPUIdle > c.GPU || c.GPU > c.Wall+1 || c.EnergyKWh <= 0 {
		t.Errorf("cost %+v: want a GPU held, idle while the rows went to it, and energy", c)
	}
	t.Logf("300 rounds of 1,000,000 × 30, depth 8: %.2f s, GPU held %.2f s and idle %.2f s of them, %.3g kWh (%.0f W on average), CPU %.1f s",
		f.Cost.Wall, f.Cost.GPU, f.Cost.GPUIdle, f.Cost.EnergyKWh, f.Cost.EnergyKWh*3.6e6/f.Cost.GPU, f.Cost.CPU)
}

// Nothing is given to a run: `cuda` is refused, `auto` falls back and says why.
func TestCUDAInvisible(t *testing.T) {
	x, _ := cuda(t)
	data := prepared(t, 500, "real", model.Regression)
	for name, c := range map[string]struct {
		gpus []string
		env  string
	}{"by the environment": {nil, ""}, "by the scheduler": {[]string{}, "0"}} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CUDA_VISIBLE_DEVICES", c.env)
			x := *x
			x.GPUs = c.gpus
			p := fitParams(model.Regression)
			p.Device = CUDA
			_, err := x.Fit(t.Context(), data, p, Watch{})
			if !errors.Is(err, ErrDevice) {
				t.Errorf("cuda: %v", err)
			}
			t.Log(err)
			p.Device = Auto
			f, err := x.Fit(t.Context(), data, p, Watch{})
			if err != nil || f.Device.Used != "cpu" || f.Device.Requested != "auto" || f.Device.Reason == "" || len(f.Warnings) == 0 {
				t.Fatalf("auto: %+v, %v", f, err)
			}
			t.Logf("auto: %+v", f.Device)
		})
	}
}

// What TestKillAndResumeIsBitIdentical says of the CPU holds on the GPU: the
// killed process's memory comes back, and the resumed run ends in the same
// bytes. A state from the GPU goes on on the CPU, visibly, and the other way.
func TestCUDAKillAndResume(t *testing.T) {
	x, inv := cuda(t)
	p := fitParams(model.Binary)
	p.Device, p.Rounds, p.Checkpoint = CUDA, 300, 25
	p.Extra["subsample"], p.Extra["colsample_bytree"] = "0.7", "0.6"
	data := prepared(t, 60_000, "binary", model.Binary)
	free := usedBytes(t, inv)
	whole, err := x.Fit(t.Context(), data, p, Watch{})
	if err != nil {
		t.Fatal(err)
	}
	var last Checkpoint
	var during uint64
	_, err = x.Fit(t.Context(), data, p, Watch{
		Checkpoint: func(c Checkpoint) error { last = c; return nil },
		Round: func(round int, _ map[string]map[string]float64) error {
			if round == 57 {
				during = usedBytes(t, inv)
				killChildren(t)
			}
			return nil
		},
	})
	if !errors.Is(err, ErrWorker) || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("got %v, want ErrWorker: killed", err)
	}
	if during < free+64<<20 {
		t.Errorf("%d MB before, %d MB while it trained: this shows nothing", free>>20, during>>20)
	}
	testenv.Eventually(t, 20*time.Second, func() error {
		if used := usedBytes(t, inv); used > free+16<<20 {
			return fmt.Errorf("%d MB before, %d MB held after the kill", free>>20, used>>20)
		}
		return nil
	})
	t.Logf("GPU memory: %d MB before, %d MB at the kill, %d MB after it", free>>20, during>>20, usedBytes(t, inv)>>20)
	resumed, err := x.Fit(t.Context(), data, p, Watch{Resume: &last})
	if err != nil {
		t.Fatal(err)
	}
	if string(whole.Model) != string(resumed.Model) {
		t.Error("the resumed model differs")
	}
	for _, device := range []Device{CPU, CUDA} {
		p.Device = device
		f, err := x.Fit(t.Context(), data, p, Watch{Resume: &last, Checkpoint: func(c Checkpoint) error { last = c; return nil }})
		want := map[Device]string{CPU: "cpu", CUDA: "cuda:0"}[device]
		if err != nil || f.Device.Used != want || f.Rounds != 300 {
			t.Errorf("resumed on %s: %+v, %v", device, f, err)
		}
	}
}

// A GPU without room fails one run with a sentence; this process and the next
// run go on.
func TestCUDAOutOfMemory(t *testing.T) {
	x, inv := cuda(t)
	const rows, columns = 1_000_000, 100
	m := numbers(rows, columns)
	big := Data{Train: m, Golden: goldenRows(m)}
	p := Params{Task: model.Binary, Rounds: 3, Device: CUDA, Extra: map[string]string{"max_depth": "12", "max_bin": "1024"}}
	for _, left := range []uint64{700 << 20, 16 << 20} {
		t.Run(fmt.Sprintf("%d MB left", left>>20), func(t *testing.T) {
			release := occupy(t, left)
			defer release()
			t.Logf("%d MB of the GPU are taken", usedBytes(t, inv)>>20)
			_, err := x.Fit(t.Context(), big, p, Watch{})
			if err == nil || !strings.Contains(err.Error(), "memory") && !errors.Is(err, ErrDevice) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
		})
	}
	f, err := x.Fit(t.Context(), prepared(t, 500, "binary", model.Binary), fitParams(model.Binary), Watch{})
	if err != nil || f.Device.Used != "cuda:0" {
		t.Errorf("afterwards: %+v, %v", f, err)
	}
}

// occupy takes the first GPU's memory but for so many bytes, in this process,
// until the returned function is called.
func occupy(t *testing.T, left uint64) (release func()) {
	t.Helper()
	driver, err := purego.Dlopen("libcuda.so.1", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		t.Fatal(err)
	}
	var start func(flags uint32) int32
	var retain func(ctx *uintptr, device int32) int32
	var giveUp func(device int32) int32
	var enter func(ctx uintptr) int32
	var info func(free, total *uint64) int32
	var alloc func(at *uint64, n uint64) int32
	for name, fn := range map[string]any{"cuInit": &start, "cuDevicePrimaryCtxRetain": &retain, "cuDevicePrimaryCtxRelease_v2": &giveUp,
		"cuCtxSetCurrent": &enter, "cuMemGetInfo_v2": &info, "cuMemAlloc_v2": &alloc} {
		purego.RegisterLibFunc(fn, driver, name)
	}
	done, ready := make(chan struct{}), make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() { // on one thread: the current context is the thread's
		var ctx uintptr
		var free, total, at uint64
		if rc := max(start(0), retain(&ctx, 0), enter(ctx), info(&free, &total)); rc != 0 {
			ready <- fmt.Errorf("the driver answers %d", rc)
			return
		}
		for chunk := uint64(1 << 30); chunk >= 4<<20; {
			if info(&free, &total); free < left+chunk || alloc(&at, chunk) != 0 {
				chunk /= 2
			}
		}
		ready <- nil
		<-done
		giveUp(0) // frees what the context holds
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return func() { close(done); wg.Wait() }
}

// A real PyTorch script gets the GPU that it was given by its environment,
// trains on it and says so; without one it is refused.
func TestCUDACommand(t *testing.T) {
	_, inv := cuda(t)
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(python, "-c", "import torch, pyarrow, onnx; assert torch.cuda.is_available()").Run()
	}
	if err != nil {
		testenv.Skip(t, testenv.NoGPU, "no python3 with torch, pyarrow and onnx that sees the GPU: %v", err)
	}
	list, err := inv.Devices()
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/torch_train.py")
	if err != nil {
		t.Fatal(err)
	}
	for name, gpus := range map[string][]string{"given": {list[0].UUID}, "none given": {}} {
		t.Run(name, func(t *testing.T) {
			var logged []string
			rec := Record{Log: func(_, line string) { logged = append(logged, line) }}
			j := jobOn(sample(t, 4000, "binary", 9), &Command{Argv: []string{python, script}, Dir: t.TempDir(), GPUs: gpus}, Params{Device: CUDA})
			res, err := Train(t.Context(), "me", j, rec)

			if !slices.Contains(logged, "visible: "+strings.Join(gpus, ",")) {
				t.Errorf("log %q", logged)
			}
			if len(gpus) == 0 {
				if !errors.Is(err, ErrDevice) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Run.Device.Used != "cuda:0" || res.Run.Cost.GPU <= 0 || res.Run.Cost.EnergyKWh <= 0 {
				t.Errorf("device %+v, cost %+v", res.Run.Device, res.Run.Cost)
			}
			t.Logf("%s on %s: %+v", res.Run.Backend, res.Run.Device.Used, res.Run.Cost)
			replayWhereThereIsORT(t, python, res.Artifact)
		})
	}
}

func replayWhereThereIsORT(t *testing.T, python string, a *model.Artifact) {
	t.Helper()
	if exec.Command(python, "-c", "import onnxruntime").Run() == nil {
		replayInORT(t, python, a)
	}
}

// BenchmarkCUDA trains 100 rounds of depth 6 on the CPU and on the GPU in turn.
// Wall is a whole run, with what comes through the pipe; rounds are the rounds
// after the first one alone.
func BenchmarkCUDA(b *testing.B) {
	x, _ := cuda(b)
	for _, rows := range []int{200_000, 5_000_000} {
		m := numbers(rows, 30)
		data := Data{Train: m, Golden: goldenRows(m)}
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			for b.Loop() {
				for _, device := range []Device{CPU, CUDA} {
					wall, rounds, f := timed(b, x, data, device)
					name := string(device)
					b.ReportMetric(wall, name+"-wall-s")
					b.ReportMetric(rounds, name+"-rounds-s")
					b.ReportMetric(f.Cost.CPU, name+"-cpu-s")
					b.Logf("%d × 30 on %s: %.2f s, rounds 2 to 100 in %.2f s, CPU %.1f s, GPU held %.1f s, idle %.1f s, %.3g kWh",
						rows, f.Device.Used, wall, rounds, f.Cost.CPU, f.Cost.GPU, f.Cost.GPUIdle, f.Cost.EnergyKWh)
				}
			}
		})
	}
}

func timed(b *testing.B, x *XGBoost, data Data, device Device) (wall, rounds float64, f *Fitted) {
	b.Helper()
	var first, last time.Time
	p := Params{Task: model.Binary, Rounds: 100, Device: device, Extra: map[string]string{"max_depth": "6"}}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	f, err := x.Fit(ctx, data, p, Watch{Round: func(int, map[string]map[string]float64) error {
		if last = time.Now(); first.IsZero() {
			first = last
		}
		return nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	if fmt.Fprintln(os.Stderr, "trained on", f.Device.Used); device == CUDA && f.Device.Used != "cuda:0" {
		b.Fatalf("trained on %+v", f.Device)
	}
	return f.Cost.Wall, last.Sub(first).Seconds(), f
}
