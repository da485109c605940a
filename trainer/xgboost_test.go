package trainer

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

func fitParams(task model.Task) Params {
	return Params{Task: task, Rounds: 30, Device: Auto, Threads: 1, Seed: 7, Extra: map[string]string{"max_depth": "4"}}
}

// prepared cuts a sample in two and prepares it.
func prepared(t testing.TB, n int, kind string, task model.Task) Data {
	t.Helper()
	m := sample(t, n, kind, 3)
	if err := Prepare(m, task); err != nil {
		t.Fatal(err)
	}
	s, err := SplitByShare(m, 0.7, 0.3)
	if err != nil {
		t.Fatal(err)
	}
	train, valid, _, err := s.Apply(m)
	if err != nil {
		t.Fatal(err)
	}
	return Data{Train: train, Valid: valid, Golden: goldenRows(train)}
}

// Every task trains in a process, and what comes back predicts in Go as it did
// there: Files replays the golden rows.
func TestXGBoostTasks(t *testing.T) {
	x := xgboost(t)
	for _, c := range []struct {
		kind   string
		task   model.Task
		change func(*Params)
	}{
		{"binary", model.Binary, nil},
		{"texts", model.MultiClass, nil},
		{"real", model.Regression, nil},
		{"real", model.Regression, func(p *Params) { p.Objective = "reg:absoluteerror"; p.Metric = "mae" }},
		{"real", model.Quantiles, func(p *Params) { p.Quantiles = []float64{0.1, 0.5, 0.9} }},
	} {
		t.Run(string(c.task), func(t *testing.T) {
			p := fitParams(c.task)
			if c.change != nil {
				c.change(&p)
			}
			data := prepared(t, 3000, c.kind, c.task)
			rounds := 0
			f, err := x.Fit(t.Context(), data, p, Watch{Round: func(round int, m map[string]map[string]float64) error {
				if round != rounds || len(m["train"]) != 1 || len(m["valid"]) != 1 {
					t.Errorf("round %d: %v", round, m)
				}
				rounds++
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			if rounds != 30 || f.Rounds != 30 || f.Device.Used != "cpu" || f.Device.Requested != "auto" || f.Device.Reason == "" {
				t.Errorf("%d rounds seen, %d kept, device %+v", rounds, f.Rounds, f.Device)
			}
			a, err := pack(f, data, p)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Files(); err != nil {
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
				t.Errorf("golden rows differ by %g: %v", worst, err)
			}
		})
	}
}

func TestMonotoneConstraintHolds(t *testing.T) {
	x := xgboost(t)
	data := prepared(t, 3000, "real", model.Regression)
	f, err := x.Fit(t.Context(), data, fitParams(model.Regression), Watch{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := pack(f, data, fitParams(model.Regression))
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Predictor(model.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	last := float32(math.Inf(-1))
	for amount := float32(-3); amount < 3; amount += 0.05 {
		out := make([]float32, 1)
		p.Predict(out, []float32{0.2, amount, 50, 1})
		if out[0] < last {
			t.Fatalf("the prediction falls at %v", amount)
		}
		last = out[0]
	}
}

func TestEarlyStoppingKeepsTheBestRound(t *testing.T) {
	x := xgboost(t)
	p := fitParams(model.Regression)
	p.Rounds, p.EarlyStop, p.Extra["eta"] = 500, 5, "0.6"
	var values []float64
	f, err := x.Fit(t.Context(), prepared(t, 1500, "real", model.Regression), p, Watch{
		Round: func(_ int, m map[string]map[string]float64) error {
			values = append(values, m["valid"]["rmse"])
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	best := 0
	for i, v := range values {
		if v < values[best] {
			best = i
		}
	}
	if len(values) == 500 || f.Rounds != best+1 || f.Best.Round != best || len(values) != best+6 {
		t.Errorf("%d rounds trained, %d kept, best is %d", len(values), f.Rounds, best)
	}
}

// A process killed after some rounds loses the run, not this process; and the
// run resumed from its checkpoint ends in the very model of an undisturbed one,
// also with sampling.
func TestKillAndResumeIsBitIdentical(t *testing.T) {
	x := xgboost(t)
	p := fitParams(model.Binary)
	p.Rounds, p.Checkpoint = 300, 25 // enough that a process running ahead of its pipe is not done when it dies
	p.Extra["subsample"], p.Extra["colsample_bytree"] = "0.7", "0.6"
	data := prepared(t, 3000, "binary", model.Binary)
	whole, err := x.Fit(t.Context(), data, p, Watch{})
	if err != nil {
		t.Fatal(err)
	}
	var last Checkpoint
	_, err = x.Fit(t.Context(), data, p, Watch{
		Checkpoint: func(c Checkpoint) error { last = c; return nil },
		Round: func(round int, _ map[string]map[string]float64) error {
			if round == 57 {
				killChildren(t)
			}
			return nil
		},
	})
	if !errors.Is(err, ErrWorker) || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("got %v, want ErrWorker: killed", err)
	}
	t.Log(err)
	if last.Rounds < 50 || last.Rounds >= 300 || last.Rounds%25 != 0 {
		t.Fatalf("the last checkpoint has %d rounds", last.Rounds)
	}
	resumed, err := x.Fit(t.Context(), data, p, Watch{Resume: &last})
	if err != nil {
		t.Fatal(err)
	}
	if string(whole.Model) != string(resumed.Model) {
		t.Fatal("the resumed model differs")
	}
}

// killChildren sends SIGKILL to the child processes of this one.
func killChildren(t *testing.T) {
	t.Helper()
	pids, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range pids {
		text, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(text)) {
			if kill(t, pid) {
				n++
			}
		}
	}
	if n != 1 {
		t.Errorf("killed %d processes", n)
	}
}

// A cancelled run ends between two rounds, soon.
func TestCancel(t *testing.T) {
	x := xgboost(t)
	p := fitParams(model.Regression)
	p.Rounds = 1_000_000
	ctx, cancel := context.WithCancelCause(t.Context())
	start := time.Now()
	_, err := x.Fit(ctx, prepared(t, 1500, "real", model.Regression), p, Watch{
		Round: func(round int, _ map[string]map[string]float64) error {
			if round == 3 {
				cancel(errors.New("somebody pressed stop"))
			}
			return nil
		},
	})
	if !errors.Is(err, ErrCancelled) || !strings.Contains(err.Error(), "pressed stop") {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > time.Minute { // all rounds take hours
		t.Errorf("took %v", took)
	}
}

// A process that does not listen is killed after the grace period.
func TestCancelOfDeafProcess(t *testing.T) {
	x := xgboost(t)
	x.Command, x.Grace = []string{"/bin/sh", "-c", "trap '' PIPE; exec sleep 600"}, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := x.Fit(ctx, prepared(t, 100, "real", model.Regression), fitParams(model.Regression), Watch{}); !errors.Is(err, ErrCancelled) {
		t.Fatalf("got %v", err)
	}
}

// XGBoost would answer "cuda" by training on the CPU without a word.
func TestDeviceHonesty(t *testing.T) {
	cuda, none := xgb.BuildInfo{CUDA: true}, errors.New("no driver")
	for name, c := range map[string]struct {
		facts deviceFacts
		asked Device
		tell  string
		err   error
		why   string
	}{
		"cpu":                        {deviceFacts{build: cuda, gpus: 1}, CPU, "cpu", nil, ""},
		"auto takes the GPU":         {deviceFacts{build: cuda, gpus: 1}, Auto, "cuda", nil, ""},
		"auto, no CUDA in library":   {deviceFacts{gpus: 1}, Auto, "cpu", nil, "without CUDA"},
		"auto, no driver":            {deviceFacts{build: cuda, gpu: none}, Auto, "cpu", nil, "no driver"},
		"auto, driver lists nothing": {deviceFacts{build: cuda}, "", "cpu", nil, "no GPU"},
		"cuda":                       {deviceFacts{build: cuda, gpus: 2}, CUDA, "cuda", nil, ""},
		"cuda, no CUDA in library":   {deviceFacts{gpus: 1}, CUDA, "", ErrDevice, ""},
		"cuda, no driver":            {deviceFacts{build: cuda, gpu: gpu.ErrNoGPU}, CUDA, "", gpu.ErrNoGPU, ""},
		"nonsense":                   {deviceFacts{}, "tpu", "", ErrParam, ""},
	} {
		tell, d, err := c.facts.choose(c.asked)
		if tell != c.tell || !errors.Is(err, c.err) || !strings.Contains(d.Reason, c.why) || (c.why == "") != (d.Reason == "") {
			t.Errorf("%s: told %q, %+v, %v", name, tell, d, err)
		}
	}
	asked := model.Device{Requested: "cuda"}
	if err := confirm(&asked, "cuda", "cpu"); !errors.Is(err, ErrDevice) {
		t.Errorf("a fall-back in the first round: %v", err)
	}
	auto := model.Device{Requested: "auto"}
	if err := confirm(&auto, "cuda", "cpu"); err != nil || auto.Used != "cpu" || auto.Reason == "" {
		t.Errorf("%+v, %v", auto, err)
	}
	if err := confirm(&auto, "cuda", "cuda:0"); err != nil || auto.Used != "cuda:0" {
		t.Errorf("%+v, %v", auto, err)
	}
}

// The whole path refuses cuda where there is none.
func TestCudaIsRefusedWithoutOne(t *testing.T) {
	x := xgboost(t)
	p := fitParams(model.Regression)
	p.Device = CUDA
	f, err := x.Fit(t.Context(), prepared(t, 200, "real", model.Regression), p, Watch{})
	if err == nil && strings.HasPrefix(f.Device.Used, "cuda") {
		return // a machine and a library that have it
	}
	if !errors.Is(err, ErrDevice) {
		t.Fatalf("got %+v, %v", f, err)
	}
	t.Log(err)
}

func TestXGBoostRefuses(t *testing.T) {
	x := xgboost(t)
	data := prepared(t, 300, "real", model.Regression)
	for name, c := range map[string]struct {
		x      *XGBoost
		change func(*Params)
		want   error
	}{
		"unknown parameter":  {x, func(p *Params) { p.Extra["max_dept"] = "3" }, ErrParam},
		"bad value":          {x, func(p *Params) { p.Extra["max_depth"] = "deep" }, ErrWorker},
		"reserved":           {x, func(p *Params) { p.Extra["nthread"] = "3" }, ErrParam},
		"dart":               {x, func(p *Params) { p.Extra["booster"] = "dart" }, ErrParam},
		"ranking":            {x, func(p *Params) { p.Objective = "rank:ndcg" }, ErrParam},
		"objective and task": {x, func(p *Params) { p.Objective = "binary:logistic" }, ErrParam},
		"no rounds":          {x, func(p *Params) { p.Rounds = 0 }, ErrParam},
		"missing library":    {&XGBoost{Library: "/nonexistent/libxgboost.so"}, nil, xgb.ErrNoLibrary},
		"not a library":      {&XGBoost{Library: "/etc/hostname"}, nil, xgb.ErrNoLibrary},
		"no library given":   {&XGBoost{}, nil, xgb.ErrNoLibrary},
		"no such program":    {&XGBoost{Library: x.Library, Command: []string{"/nonexistent"}}, nil, ErrWorker},
		"wrong program":      {&XGBoost{Library: x.Library, Command: []string{"/bin/echo", "hello"}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := fitParams(model.Regression)
			if c.change != nil {
				c.change(&p)
			}
			_, err := c.x.Fit(t.Context(), data, p, Watch{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
}
