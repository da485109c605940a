package trainer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/kedge-ml/kedge/trainer/xgb"
)

// WorkerMain is the training process: it reads one job from stdin, trains with
// XGBoost, and writes rounds, checkpoints and the model to stdout. It returns
// when the job is over, was cancelled, or stdin closes because the parent is
// gone; then the process should end with the returned exit code.
//
// It stays on one thread: XGBoost's random generator belongs to it.
func WorkerMain(stdin io.Reader, stdout io.Writer) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &worker{in: bufio.NewReaderSize(stdin, 1<<20), out: &frameWriter{w: stdout}}
	err := w.run()
	done := w.done
	if err != nil {
		done.Error, done.Kind = err.Error(), errorKind(err)
	}
	if err := w.out.json(frameDone, done); err != nil || done.Error != "" {
		return 1
	}
	return 0
}

func errorKind(err error) string {
	switch {
	case errors.Is(err, xgb.ErrNoLibrary):
		return kindNoLibrary
	case errors.Is(err, ErrDevice):
		return kindDevice
	case errors.Is(err, ErrParam):
		return kindParam
	case errors.Is(err, ErrCancelled):
		return kindCancelled
	}
	return ""
}

// worker is one job in progress.
type worker struct {
	in      *bufio.Reader
	out     *frameWriter
	job     workerJob
	lib     *xgb.Library
	told    string // device that XGBoost was told
	sets    []*xgb.Matrix
	golden  []float32
	resume  []byte
	unknown atomic.Pointer[string]
	cancel  chan struct{}
	done    workerDone
}

func (w *worker) run() error {
	if err := w.readJob(); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	if err := w.open(); err != nil {
		return err
	}
	if err := w.readData(); err != nil {
		return fmt.Errorf("read data: %w", err)
	}
	w.done.DataCPU = ownCPU()
	w.cancel = make(chan struct{})
	go w.listen()
	b, err := w.train()
	if err == nil {
		err = w.deliver(b)
	}
	return w.fullGPU(err)
}

// fullGPU says what can be done where a GPU had no room.
func (w *worker) fullGPU(err error) error {
	if err == nil || w.told != "cuda" || !strings.Contains(err.Error(), "out of memory") && !strings.Contains(err.Error(), "cudaErrorMemoryAllocation") {
		return err
	}
	return fmt.Errorf("%w: the GPU's memory is full: train fewer rows or inputs, with a smaller max_depth or max_bin, when nobody else holds it, or with device cpu: %w", ErrDevice, err)
}

func (w *worker) readJob() error {
	kind, text, err := readFrame(w.in)
	if err != nil {
		return err
	}
	if kind != frameJob {
		return fmt.Errorf("the first frame is %q", kind)
	}
	return json.Unmarshal(text, &w.job)
}

// open loads the library and settles the device.
func (w *worker) open() (err error) {
	if w.lib, err = xgb.Open(w.job.Library); err != nil {
		return err
	}
	major, minor, patch := w.lib.Version()
	w.done.Version = fmt.Sprintf("xgboost %d.%d.%d", major, minor, patch)
	if err := w.lib.OnLog(w.log); err != nil {
		return err
	}
	facts := deviceFacts{gpus: w.job.GPUs}
	if w.job.NoGPU != "" {
		facts.gpu = errors.New(w.job.NoGPU)
	}
	if facts.build, err = w.lib.BuildInfo(); err != nil {
		return err
	}
	w.told, w.done.Device, err = facts.choose(w.job.Device)
	return err
}

// log forwards a line. XGBoost only warns of parameters it does not know; that
// is remembered, to become an error.
func (w *worker) log(line string) {
	w.out.write(frameLog, []byte(line))
	if strings.Contains(line, "are not used") {
		w.unknown.Store(&line)
	}
}

func (w *worker) readData() error {
	for _, s := range w.job.Sets {
		if err := w.readSet(s); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	w.golden = make([]float32, w.job.GoldenRows*len(w.job.Names))
	if err := readFloats(w.in, w.golden); err != nil {
		return fmt.Errorf("golden rows: %w", err)
	}
	if w.job.Resume == nil {
		return nil
	}
	kind, state, err := readFrame(w.in)
	if err == nil && kind != frameResume {
		err = fmt.Errorf("frame %q where a state was announced", kind)
	}
	w.resume = state
	return err
}

func (w *worker) readSet(s workerSet) error {
	d := xgb.Data{Rows: s.Rows, Columns: len(w.job.Names), Names: w.job.Names, Types: w.job.Types, Threads: w.job.Threads}
	d.Values = make([]float32, d.Rows*d.Columns)
	d.Label = make([]float32, d.Rows)
	parts := [][]float32{d.Values, d.Label}
	if s.Weight {
		d.Weight = make([]float32, d.Rows)
		parts = append(parts, d.Weight)
	}
	for _, p := range parts {
		if err := readFloats(w.in, p); err != nil {
			return err
		}
	}
	m, err := w.lib.NewMatrix(d)
	if err != nil {
		return err
	}
	w.sets = append(w.sets, m)
	return nil
}

// listen waits for the parent to cancel or to disappear.
func (w *worker) listen() {
	readFrame(w.in) // whatever comes now, or the end of the pipe, means stop
	close(w.cancel)
}

func (w *worker) params() []xgb.Param {
	out := []xgb.Param{{Name: "validate_parameters", Value: "1"}, {Name: "device", Value: w.told}}
	for k, v := range w.job.Params {
		out = append(out, xgb.Param{Name: k, Value: v})
	}
	return out
}

func (w *worker) newBooster(state []byte) (*xgb.Booster, error) {
	if state == nil {
		return w.lib.NewBooster(w.params(), w.sets...)
	}
	b, err := w.lib.NewBooster(nil, w.sets...)
	if err != nil {
		return nil, err
	}
	return b, errors.Join(b.Restore(state), b.Set(xgb.Param{Name: "device", Value: w.told})) // the state may come from another machine
}

// train runs the rounds.
func (w *worker) train() (*xgb.Booster, error) {
	round := 0
	if r := w.job.Resume; r != nil {
		round, w.done.Best = r.Rounds, r.Best
	}
	b, err := w.newBooster(w.resume)
	if err != nil {
		return nil, err
	}
	for ; round < w.job.Rounds; round++ {
		select {
		case <-w.cancel:
			return nil, fmt.Errorf("%w before round %d", ErrCancelled, round)
		default:
		}
		stop, err := w.round(b, round)
		if err != nil {
			return nil, err
		}
		if stop {
			break
		}
		if k := w.job.Checkpoint; k > 0 && (round+1)%k == 0 && round+1 < w.job.Rounds {
			if b, err = w.checkpoint(b, round+1); err != nil {
				return nil, err
			}
		}
	}
	return w.best(b)
}

// round trains one round and reports it.
func (w *worker) round(b *xgb.Booster, round int) (stop bool, err error) {
	if err := b.Update(round, w.sets[0]); err != nil {
		return false, err
	}
	if line := w.unknown.Load(); line != nil {
		return false, fmt.Errorf("%w: %s", ErrParam, unusedNames(*line))
	}
	if w.done.Device.Used == "" {
		inForce, err := b.Device()
		if err != nil {
			return false, err
		}
		if err := confirm(&w.done.Device, w.told, inForce); err != nil {
			return false, err
		}
	}
	names := make([]string, len(w.job.Sets))
	for i, s := range w.job.Sets {
		names[i] = s.Name
	}
	metrics, err := b.Eval(round, w.sets, names)
	if err != nil {
		return false, err
	}
	if err := w.out.json(frameRound, workerRound{Round: round, Metrics: metrics}); err != nil {
		return false, fmt.Errorf("%w: the parent is gone: %w", ErrCancelled, err)
	}
	return w.judge(metrics, round)
}

// unusedNames shortens "…WARNING: file:1: \nParameters: { "x" } are not used."
func unusedNames(line string) string {
	if _, after, ok := strings.Cut(line, "Parameters: "); ok {
		return "XGBoost has no use for " + strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(after), "are not used."))
	}
	return line
}

// judge is early stopping: it watches the last set.
func (w *worker) judge(metrics map[string]map[string]float64, round int) (stop bool, err error) {
	if len(w.job.Sets) < 2 {
		return false, nil
	}
	v, ok := metrics[w.job.Sets[len(w.job.Sets)-1].Name][w.job.Metric]
	if !ok {
		return false, fmt.Errorf("%w: XGBoost does not report metric %q", ErrParam, w.job.Metric)
	}
	best := &w.done.Best
	if !best.Set || w.job.Higher && v > best.Value || !w.job.Higher && v < best.Value {
		*best = Best{Round: round, Value: v, Set: true}
	}
	return w.job.EarlyStop > 0 && round-best.Round >= w.job.EarlyStop, nil
}

// checkpoint hands the state over and goes on from it. An uninterrupted run
// thus passes through the very state that a resumed one begins with, which
// makes them end in the same bits also where rounds draw random numbers.
func (w *worker) checkpoint(b *xgb.Booster, rounds int) (*xgb.Booster, error) {
	state, err := b.Serialize()
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(workerResume{Rounds: rounds, Best: w.done.Best})
	if err != nil {
		return nil, err
	}
	if err := w.out.write(frameCheckpoint, append(head, '\n'), state); err != nil {
		return nil, fmt.Errorf("%w: the parent is gone: %w", ErrCancelled, err)
	}
	if err := b.Free(); err != nil {
		return nil, err
	}
	return w.newBooster(state)
}

// best cuts the model after its best round.
func (w *worker) best(b *xgb.Booster) (*xgb.Booster, error) {
	rounds, err := b.Rounds()
	if err != nil {
		return nil, err
	}
	w.done.Rounds = rounds
	if w.job.EarlyStop == 0 || !w.done.Best.Set || w.done.Best.Round+1 >= rounds {
		return b, nil
	}
	w.done.Rounds = w.done.Best.Round + 1
	return b.Slice(0, w.done.Rounds)
}

// deliver sends the golden answers and the model.
func (w *worker) deliver(b *xgb.Booster) error {
	if err := b.Describe(w.job.Names, w.job.Types); err != nil {
		return err
	}
	if w.job.GoldenRows > 0 {
		values, err := w.predictGolden(b)
		if err != nil {
			return err
		}
		w.done.Outputs = len(values) / w.job.GoldenRows
		if err := w.out.write(frameGolden, floatBytes(values)); err != nil {
			return err
		}
	}
	text, err := b.Save("json")
	if err != nil {
		return err
	}
	return w.out.write(frameModel, text)
}

// predictGolden predicts as a server would, from a matrix of its own.
func (w *worker) predictGolden(b *xgb.Booster) ([]float32, error) {
	n, f := w.job.GoldenRows, len(w.job.Names)
	columns := make([]float32, len(w.golden))
	for r := range n {
		for c := range f {
			columns[c*n+r] = w.golden[r*f+c]
		}
	}
	m, err := w.lib.NewMatrix(xgb.Data{Rows: n, Columns: f, Values: columns, Names: w.job.Names, Types: w.job.Types, Threads: w.job.Threads})
	if err != nil {
		return nil, err
	}
	defer m.Free()
	values, _, err := b.Predict(m, xgb.Value)
	return values, err
}
