package serving

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/serving/ort"
)

// Batching bounds what a native runtime computes in one call. Go's trees gain
// nothing from it and are not batched.
type Batching struct {
	MaxRows  int            `json:"max_rows,omitempty" yaml:"max_rows,omitempty"`   // default 64; a larger request goes alone
	MaxDelay event.Duration `json:"max_delay,omitempty" yaml:"max_delay,omitempty"` // for company, default 200µs; a request that is alone never waits
}

// Defaults and bounds of batching.
const (
	defaultBatchRows  = 64
	defaultBatchDelay = 200 * time.Microsecond
	longestBatchDelay = time.Millisecond
	largestBatch      = 1 << 16
)

// Validate joins the faults of the bounds.
func (b Batching) Validate() error {
	var faults []error
	if b.MaxRows < 0 || b.MaxRows > largestBatch {
		faults = append(faults, fmt.Errorf("batching: max_rows %d: want 1 to %d", b.MaxRows, largestBatch))
	}
	if d := time.Duration(b.MaxDelay); d < 0 || d > longestBatchDelay {
		faults = append(faults, fmt.Errorf("batching: max_delay %v: want at most %v", d, longestBatchDelay))
	}
	return errors.Join(faults...)
}

// native is a version that a library computes in a process of its own.
// Requests that are there together are computed together.
type native struct {
	proc    *ort.Process
	rows    int // of a batch
	delay   time.Duration
	width   int // values of an answer
	jobs    chan *job
	users   atomic.Int64  // requests inside, and one more while it is loaded
	batches atomic.Uint64 // computed
	stop    chan struct{}
}

// job is one request's rows on their way through a batch. From the moment that
// the batcher has it until done, its memory is the batcher's.
type job struct {
	ctx      context.Context
	deadline time.Time
	rows     []float32
	out      []float32
	began    time.Time // when its batch began to compute
	err      error
	done     chan struct{}
}

// FromONNX makes a version ready that ONNX Runtime computes: it starts the
// process and replays the golden rows there. A version that is never given to
// [Server.Load] must be closed.
func FromONNX(name, version string, a *model.Artifact, cfg ort.Config, b Batching) (Model, error) {
	o := a.Signature.Outputs[0]
	proc, err := ort.Start(cfg, ort.Model{File: a.Model, Inputs: len(a.Signature.Inputs), Tensor: o.Tensor, Column: o.Column, Width: a.Signature.Width()})
	if err != nil {
		return Model{}, fmt.Errorf("model %s version %s: %w", name, version, err)
	}
	if _, err := a.Golden.Replay(proc.Predict); err != nil {
		proc.Close()
		return Model{}, fmt.Errorf("model %s version %s: %w", name, version, err)
	}
	return Model{Name: name, Version: version, Signature: &a.Signature, native: newNative(proc, a.Signature.Width(), b)}, nil
}

func newNative(proc *ort.Process, width int, b Batching) *native {
	n := &native{proc: proc, width: width, rows: b.MaxRows, delay: time.Duration(b.MaxDelay), jobs: make(chan *job), stop: make(chan struct{})}
	if n.rows == 0 {
		n.rows = defaultBatchRows
	}
	if b.MaxDelay == 0 {
		n.delay = defaultBatchDelay
	}
	n.users.Store(1)
	go n.run()
	return n
}

// acquire holds the process for one request; false when it was let go.
func (n *native) acquire() bool {
	for {
		u := n.users.Load()
		if u == 0 {
			return false
		}
		if n.users.CompareAndSwap(u, u+1) {
			return true
		}
	}
}

// release lets go; the last one ends the process.
func (n *native) release() {
	if n.users.Add(-1) == 0 {
		close(n.stop)
	}
}

// company is how many requests like this one a batch has room for.
func (n *native) company(req *oip.Request) int {
	rows := 1
	if len(req.Inputs) > 0 && len(req.Inputs[0].Shape) > 0 {
		rows = int(min(max(1, req.Inputs[0].Shape[0]), int64(n.rows)))
	}
	return n.rows / rows
}

// predict computes rows together with whoever else is there, and says how long
// they waited for it.
func (n *native) predict(ctx context.Context, deadline time.Time, out, rows []float32) (queue time.Duration, err error) {
	j := &job{ctx: ctx, deadline: deadline, rows: rows, out: out, done: make(chan struct{})}
	began := time.Now()
	select {
	case n.jobs <- j:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	<-j.done
	return j.began.Sub(began), j.err
}

// run computes batches until the version is let go.
func (n *native) run() {
	b := &batch{n: n, timer: time.NewTimer(time.Hour)}
	for {
		select {
		case j := <-n.jobs:
			b.gather(j)
			b.compute()
		case <-n.stop:
			n.proc.Close()
			return
		}
	}
}

// batch is the memory of one computation.
type batch struct {
	n     *native
	jobs  []*job
	rows  []float32
	out   []float32
	timer *time.Timer
}

// gather takes what is waiting, and waits for what is on its way while there
// is room.
func (b *batch) gather(first *job) {
	b.jobs = append(b.jobs[:0], first)
	size := len(first.out) / b.n.width
	waited := false
	for size < b.n.rows {
		select {
		case j := <-b.n.jobs:
			b.jobs, size = append(b.jobs, j), size+len(j.out)/b.n.width
			continue
		default:
		}
		if waited || int(b.n.users.Load())-1 <= len(b.jobs) {
			return // nobody else is inside
		}
		b.timer.Reset(b.n.delay)
		select {
		case j := <-b.n.jobs:
			b.jobs, size = append(b.jobs, j), size+len(j.out)/b.n.width
		case <-b.timer.C:
			waited = true
		}
	}
}

// compute answers every job. Rows that the library refuses may be one job's
// only: the others must not suffer for it.
func (b *batch) compute() {
	now := time.Now()
	b.rows = b.rows[:0]
	size := 0
	for _, j := range b.jobs {
		if j.began = now; passed(j.deadline, now) || j.ctx.Err() != nil {
			j.err = ErrDeadline
			continue
		}
		b.rows, size = append(b.rows, j.rows...), size+len(j.out)
	}
	b.out = grow(b.out, size)
	var err error
	if size > 0 {
		b.n.batches.Add(1)
		err = b.n.proc.Predict(b.out, b.rows)
	}
	alone := errors.Is(err, ort.ErrModel) && len(b.jobs) > 1
	at := 0
	for _, j := range b.jobs {
		switch {
		case j.err != nil:
		case alone:
			j.err = refused(b.n.proc.Predict(j.out, j.rows))
		case err != nil:
			j.err = refused(err)
		default:
			at += copy(j.out, b.out[at:])
		}
		close(j.done)
	}
}

// refused says whose fault an error of the runtime is.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ort.ErrModel):
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	return fmt.Errorf("%w: %w", ErrRuntime, err)
}
