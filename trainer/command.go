package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/tree"
)

// Command trains with any program. The program finds in its environment
//
//	KEDGE_TRAIN, KEDGE_VALID  Parquet files of rows ([WriteParquet] with codes);
//	                          KEDGE_VALID is unset without validation rows
//	KEDGE_PARAMS              JSON: task, classes, inputs with their categories,
//	                          and the job's parameters
//	KEDGE_GOLDEN              float32 rows, row-major, little-endian
//	KEDGE_OUT                 the folder for what it makes
//	CUDA_VISIBLE_DEVICES      the UUIDs of the GPUs that the run was given; ""
//	                          where it was given none or asks for the CPU
//
// and leaves in KEDGE_OUT model.json (XGBoost) or model.onnx (one float input
// [N, inputs]), golden.f32 (its answers to KEDGE_GOLDEN, float32), and may
// leave report.json ({"device", "framework", "output", "column", "width"}).
// Lines of the form {"round": 3, "metrics": {"valid": {"logloss": 0.4}}} on its
// standard output are recorded as metrics; other lines are the run's log.
type Command struct {
	Argv []string
	Env  []string      // added to this process's, which it sees without the settings of Kedge (KEDGE_…)
	Dir  string        // where temporary folders go; default: the system's
	Wait time.Duration // from asking the program to stop to killing it; default 10 s
	GPUs []string      // UUIDs of those that the run may use; nil: all that there are
}

// Name is "command" and the program's.
func (c *Command) Name() string {
	if len(c.Argv) == 0 {
		return "command"
	}
	return "command " + filepath.Base(c.Argv[0])
}

// Fit runs the program to its end.
func (c *Command) Fit(ctx context.Context, data Data, p Params, watch Watch) (*Fitted, error) {
	if len(c.Argv) == 0 {
		return nil, fmt.Errorf("%w: back-end command without a program", ErrParam)
	}
	dir, err := os.MkdirTemp(c.Dir, "kedge-train-")
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	defer os.RemoveAll(dir)
	env, err := c.prepare(dir, data, p)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	start := time.Now()
	usage := func() gpu.Usage { return gpu.Usage{} }
	if p.Device != CPU {
		usage = meter(ctx, c.GPUs)
	}
	state, err := c.run(ctx, dir, env, watch)
	used := usage()
	if err != nil {
		return nil, err
	}
	f, err := collect(filepath.Join(dir, "out"), data, p)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if f.Backend == "" {
		f.Backend = c.Name()
	}
	f.Cost = model.Cost{Wall: time.Since(start).Seconds(), CPU: cpuSeconds(state)}
	held(&f.Cost, used)
	return f, nil
}

// prepare writes the program's input and returns its environment.
func (c *Command) prepare(dir string, data Data, p Params) ([]string, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	env := append(environment(), c.Env...)
	env = append(env, "KEDGE_TRAIN="+path("train.parquet"), "KEDGE_PARAMS="+path("params.json"),
		"KEDGE_GOLDEN="+path("golden.f32"), "KEDGE_OUT="+path("out"))
	if env = append(env, visible(c.GPUs)...); p.Device == CPU {
		env = append(env, visible([]string{})...)
	}
	parts := map[string]*Matrix{"train.parquet": data.Train}
	if data.Valid != nil && data.Valid.Rows() > 0 {
		parts["valid.parquet"] = data.Valid
		env = append(env, "KEDGE_VALID="+path("valid.parquet"))
	}
	for name, m := range parts {
		if err := writeFile(path(name), func(w io.Writer) error { return WriteParquet(w, m, true) }); err != nil {
			return nil, err
		}
	}
	params, err := json.Marshal(commandParams(data.Train, p))
	return env, errors.Join(err, os.Mkdir(path("out"), 0o750),
		os.WriteFile(path("params.json"), params, 0o600),
		os.WriteFile(path("golden.f32"), floatBytes(data.Golden), 0o600))
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func commandParams(m *Matrix, p Params) map[string]any {
	type input struct {
		Name       string   `json:"name"`
		Categories []string `json:"categories,omitempty"`
	}
	inputs := make([]input, len(m.Columns))
	for i, c := range m.Columns {
		inputs[i] = input{c.Name, c.Categories}
	}
	return map[string]any{"task": p.Task, "classes": m.Classes, "inputs": inputs, "params": p}
}

// run starts the program in a group of its own, so that what it starts ends
// with it, and reads its output line by line.
func (c *Command) run(ctx context.Context, dir string, env []string, watch Watch) (*os.ProcessState, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.WaitDelay = env, c.Wait
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 10 * time.Second
	}
	ownGroup(cmd)
	var complaints tail
	lines := &lineWriter{handle: func(line string) {
		if err := commandLine(line, watch); err != nil {
			cancel(err)
		}
	}}
	cmd.Stdout, cmd.Stderr = lines, io.MultiWriter(&complaints, &lineWriter{handle: func(line string) {
		if watch.Log != nil {
			watch.Log(line)
		}
	}})
	err := cmd.Run()
	lines.flush()
	endGroup(cmd)
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
			return nil, fmt.Errorf("command: %w: %w", ErrCancelled, cause)
		}
		return nil, cause
	}
	if err != nil {
		return nil, fmt.Errorf("command %s: %w: %w\n%s", c.Argv[0], ErrWorker, err, bytes.TrimSpace(complaints.b))
	}
	return cmd.ProcessState, nil
}

// commandLine takes a line of the program's output for metrics or for a log.
func commandLine(line string, watch Watch) error {
	if strings.HasPrefix(line, "{") {
		var r workerRound
		if err := json.Unmarshal([]byte(line), &r); err == nil && r.Metrics != nil {
			if watch.Round == nil {
				return nil
			}
			return watch.Round(r.Round, r.Metrics)
		}
	}
	if watch.Log != nil {
		watch.Log(line)
	}
	return nil
}

// lineWriter hands over whole lines, of bounded length.
type lineWriter struct {
	buf    []byte
	handle func(string)
}

func (l *lineWriter) Write(p []byte) (int, error) {
	const longest = 64 << 10
	n := len(p)
	for {
		line, rest, ok := bytes.Cut(p, []byte{'\n'})
		l.buf = append(l.buf, line[:min(len(line), longest-min(longest, len(l.buf)))]...)
		if !ok {
			return n, nil
		}
		l.flush()
		p = rest
	}
}

func (l *lineWriter) flush() {
	if len(l.buf) > 0 {
		l.handle(string(l.buf))
		l.buf = l.buf[:0]
	}
}

// commandReport is what a program may say about itself.
type commandReport struct {
	Device    string `json:"device"`
	Framework string `json:"framework"`
	Output    string `json:"output"`
	Column    int    `json:"column"`
}

// maxCommandModel bounds the model file that a program may leave.
const maxCommandModel = 2 << 30

// collect reads what the program left.
func collect(out string, data Data, p Params) (*Fitted, error) {
	root, err := os.OpenRoot(out)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f := &Fitted{Device: model.Device{Requested: string(p.Device), Used: "unknown", Reason: "the program did not say which device it used (report.json)"}}
	var report commandReport
	if text, err := readLeft(root, "report.json", 1<<20); err == nil {
		if err := json.Unmarshal(text, &report); err != nil {
			return nil, fmt.Errorf("%w: report.json: %w", ErrWorker, err)
		}
	}
	f.Backend, f.OutputTensor, f.OutputColumn = report.Framework, report.Output, report.Column
	if report.Device != "" {
		f.Device.Used, f.Device.Reason = report.Device, ""
	}
	if p.Device == CUDA && !strings.HasPrefix(report.Device, "cuda") {
		return nil, fmt.Errorf("%w: cuda was asked for, the program reports %q in report.json", ErrDevice, report.Device)
	}
	return f, f.collectModel(root, data, p)
}

func (f *Fitted) collectModel(root *os.Root, data Data, p Params) (err error) {
	rows := len(data.Golden) / len(data.Train.Columns)
	golden, goldenErr := readLeft(root, "golden.f32", int64(rows)*4*4096)
	if f.Model, err = readLeft(root, "model.onnx", maxCommandModel); err == nil {
		f.Kind = model.ONNX
		if goldenErr != nil || len(golden) == 0 || len(golden)%(4*rows) != 0 {
			return fmt.Errorf("%w: an ONNX model without golden.f32 (answers to KEDGE_GOLDEN, float32): %v", ErrWorker, goldenErr)
		}
	} else if f.Model, err = readLeft(root, "model.json", maxCommandModel); err == nil {
		f.Kind = model.XGBoost
	} else {
		return fmt.Errorf("%w: the program left neither model.onnx nor model.json in KEDGE_OUT", ErrWorker)
	}
	f.Golden = floatsOf(golden)
	f.Outputs = len(f.Golden) / rows
	if f.Kind == model.ONNX {
		f.Objective = string(p.Task)
		return nil
	}
	return f.collectTrees(data)
}

// collectTrees checks an XGBoost file, and answers the golden rows itself
// where the program did not.
func (f *Fitted) collectTrees(data Data) error {
	e, err := tree.Read(f.Model, tree.DefaultLimits())
	if err != nil {
		return err
	}
	if e.Features() != len(data.Train.Columns) {
		return fmt.Errorf("%w: the model has %d inputs, the rows %d", ErrWorker, e.Features(), len(data.Train.Columns))
	}
	f.Objective = e.Objective()
	if len(f.Golden) == 0 {
		f.Outputs = e.Outputs()
		f.Golden = make([]float32, len(data.Golden)/e.Features()*e.Outputs())
		e.Predict(f.Golden, data.Golden)
		f.Warnings = append(f.Warnings, "the program left no golden.f32: the golden answers are Kedge's own")
	}
	return nil
}

func readLeft(root *os.Root, name string, limit int64) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no regular file, or has more than %d bytes", name, limit)
	}
	return root.ReadFile(name)
}
