package trainer

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// XGBoost trains gradient boosted trees with XGBoost's C library in a process
// of its own: an abort, a GPU out of memory or a kill costs one run.
//
// Extra parameters are XGBoost's, by its names; what it does not know is an
// error. The defaults are XGBoost's too, except tree_method=hist.
type XGBoost struct {
	Library string        // path of libxgboost; see [xgb.Find]
	Command []string      // what runs [WorkerMain]; default: this program with "train-worker"
	Grace   time.Duration // from asking a process to stop to killing it; default 10 s
	GPUs    []string      // UUIDs of those that the run may use; nil: all that there are
}

// Name is "xgboost".
func (*XGBoost) Name() string { return "xgboost" }

// reserved parameters are decided by Kedge from [Params].
func reserved() []string {
	return []string{"objective", "num_class", "eval_metric", "device", "nthread", "n_jobs", "seed", "seed_per_iteration",
		"validate_parameters", "monotone_constraints", "quantile_alpha", "verbosity", "tree_method", "process_type"}
}

// Fit trains in a child process.
func (x *XGBoost) Fit(ctx context.Context, data Data, p Params, watch Watch) (*Fitted, error) {
	job, err := x.job(data, p, watch.Resume)
	if err != nil {
		return nil, err
	}
	command := x.Command
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWorker, err)
		}
		command = []string{self, "train-worker"}
	}
	start := time.Now()
	usage := meter(ctx, x.GPUs)
	c, err := startChild(command, x.GPUs)
	if err != nil {
		usage()
		return nil, err
	}
	grace := x.Grace
	if grace == 0 {
		grace = 10 * time.Second
	}
	err = c.run(ctx, job, data, watch, grace)
	used := usage()
	if err != nil {
		return nil, fmt.Errorf("xgboost: %w", err)
	}
	out := c.result(job)
	out.Cost.Wall = time.Since(start).Seconds()
	if out.Device.Used != "cpu" {
		held(&out.Cost, used)
	}
	return out, nil
}

// held adds to a cost what a run did to its GPU.
func held(c *model.Cost, used gpu.Usage) {
	c.GPU, c.GPUIdle, c.EnergyKWh = used.Held.Seconds(), used.Idle.Seconds(), used.EnergyKWh
}

func (c *child) result(job workerJob) *Fitted {
	out := c.fitted
	out.Kind, out.Objective = model.XGBoost, job.Params["objective"]
	out.Outputs, out.Backend, out.Device = c.done.Outputs, c.done.Version, c.done.Device
	out.Rounds, out.Best, out.Cost.DataCPU = c.done.Rounds, c.done.Best, c.done.DataCPU
	if out.Device.Reason != "" {
		out.Warnings = append(out.Warnings, "trained on the CPU: "+out.Device.Reason)
	}
	return &out
}

// job writes down what the worker has to do.
func (x *XGBoost) job(data Data, p Params, resume *Checkpoint) (workerJob, error) {
	if x.Library == "" {
		return workerJob{}, fmt.Errorf("%w: no path given: use xgb.Find", xgb.ErrNoLibrary)
	}
	if p.Rounds <= 0 {
		return workerJob{}, fmt.Errorf("%w: %d rounds", ErrParam, p.Rounds)
	}
	params, err := xgboostParams(data.Train, p)
	if err != nil {
		return workerJob{}, err
	}
	j := workerJob{
		Library: x.Library, Device: p.Device, Params: params, Metric: params["eval_metric"],
		Rounds: p.Rounds, EarlyStop: p.EarlyStop, Checkpoint: p.Checkpoint, Threads: threads(p),
		Higher: HigherIsBetter(params["eval_metric"]), GoldenRows: len(data.Golden) / len(data.Train.Columns),
	}
	for i := range data.Train.Columns {
		c := &data.Train.Columns[i]
		j.Names = append(j.Names, safeName(c.Name))
		kind := "q"
		if c.Categorical() {
			kind = "c"
		}
		j.Types = append(j.Types, kind)
	}
	j.Sets = []workerSet{{Name: "train", Rows: data.Train.Rows(), Weight: data.Train.Weight != nil}}
	if data.Valid != nil && data.Valid.Rows() > 0 {
		j.Sets = append(j.Sets, workerSet{Name: "valid", Rows: data.Valid.Rows(), Weight: data.Valid.Weight != nil})
	}
	if resume != nil {
		j.Resume = &workerResume{Rounds: resume.Rounds, Best: resume.Best}
	}
	n, why := gpuFacts()
	if x.GPUs != nil && why == nil {
		if n = len(x.GPUs); n == 0 {
			why = errNoneGiven
		}
	}
	if j.GPUs = n; why != nil {
		j.NoGPU = why.Error()
	}
	return j, nil
}

// safeName replaces what XGBoost refuses in names of features.
func safeName(s string) string { return strings.NewReplacer("[", "_", "]", "_", "<", "_").Replace(s) }

// threads is what the job may use: the process's share of the machine, which
// Go takes from the cgroup.
func threads(p Params) int {
	if p.Threads > 0 {
		return p.Threads
	}
	return runtime.GOMAXPROCS(0)
}

// xgboostParams maps a job onto XGBoost's parameters.
func xgboostParams(m *Matrix, p Params) (map[string]string, error) {
	out := map[string]string{
		"objective": p.Objective, "eval_metric": p.Metric, "tree_method": "hist",
		"nthread": strconv.Itoa(threads(p)), "seed": strconv.FormatUint(p.Seed, 10),
	}
	if p.Checkpoint > 0 {
		out["seed_per_iteration"] = "1" // rounds draw from their own number, so a resumed one draws the same
	}
	if err := objectiveParams(out, m, p); err != nil {
		return nil, err
	}
	if mono := monotone(m); mono != "" {
		out["monotone_constraints"] = mono
	}
	if b := p.Extra["booster"]; b != "" {
		return nil, fmt.Errorf("%w: booster %s: only gbtree is supported yet", ErrParam, b)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extra)) {
		if slices.Contains(reserved(), name) {
			return nil, fmt.Errorf("%w: %s is set by the job itself (task, metric, device, threads, seed), not among the extra parameters", ErrParam, name)
		}
		out[name] = p.Extra[name]
	}
	return out, nil
}

func objectiveParams(out map[string]string, m *Matrix, p Params) error {
	allowed := map[model.Task][]string{
		model.Binary:     {"binary:logistic"},
		model.MultiClass: {"multi:softprob"},
		model.Regression: {"reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:gamma", "reg:tweedie", "count:poisson"},
		model.Quantiles:  {"reg:quantileerror"},
	}[p.Task]
	switch {
	case allowed == nil:
		return fmt.Errorf("%w: task %q", ErrParam, p.Task)
	case p.Objective == "":
		out["objective"] = allowed[0]
	case strings.HasPrefix(p.Objective, "rank:"):
		return fmt.Errorf("%w: objective %s: ranking is not supported yet", ErrParam, p.Objective)
	case !slices.Contains(allowed, p.Objective):
		return fmt.Errorf("%w: objective %s for task %s: want one of %s", ErrParam, p.Objective, p.Task, strings.Join(allowed, ", "))
	}
	if p.Metric == "" {
		out["eval_metric"] = metricOf(p.Task)
	}
	switch p.Task {
	case model.MultiClass:
		out["num_class"] = strconv.Itoa(len(m.Classes))
	case model.Quantiles:
		if len(p.Quantiles) == 0 {
			return fmt.Errorf("%w: task quantiles without quantiles", ErrParam)
		}
		out["quantile_alpha"] = floatList(p.Quantiles, "[", "]")
		out["eval_metric"] = "quantile"
	}
	return nil
}

func floatList(v []float64, open, end string) string {
	parts := make([]string, len(v))
	for i, x := range v {
		parts[i] = strconv.FormatFloat(x, 'g', -1, 64)
	}
	return open + strings.Join(parts, ",") + end
}

// monotone writes the constraints, "" when there are none.
func monotone(m *Matrix) string {
	v := make([]float64, len(m.Columns))
	some := false
	for i := range m.Columns {
		v[i] = float64(m.Columns[i].Monotone)
		some = some || v[i] != 0
	}
	if !some {
		return ""
	}
	return floatList(v, "(", ")")
}
