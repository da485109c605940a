package ort

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that callers branch on.
var (
	ErrModel  = errors.New("ONNX Runtime refuses the model") // or the rows
	ErrWorker = errors.New("the model's process is not there")
	ErrClosed = errors.New("the model's process is closed")
)

// Config says how a model's process is run.
type Config struct {
	Command []string      // what runs [WorkerMain]
	Library string        // path of libonnxruntime
	Memory  int64         // bytes of data that it may have; 0 for no limit
	Threads int           // of one computation
	Loading time.Duration // how long reading a model may take
	Timeout time.Duration // how long one computation may take
}

// DefaultConfig allows a model 2 GiB, one thread, a minute to load and ten
// seconds to compute.
func DefaultConfig() Config {
	return Config{Memory: 2 << 30, Threads: 1, Loading: time.Minute, Timeout: 10 * time.Second}
}

// Model is a model file and which of its numbers are the answer.
type Model struct {
	File   []byte `json:"-"`
	Inputs int    `json:"inputs"` // values of a row
	Tensor string `json:"tensor"` // the output to read; "output", or the only one, when empty
	Column int    `json:"column"` // its first column to read
	Width  int    `json:"width"`  // and how many
}

// Process is one model in a child process. It is safe for concurrent use; one
// computation runs at a time. A child that crashes, hangs or eats its memory
// is replaced: the rows that met it are tried once more on the next one.
type Process struct {
	cfg      Config
	model    Model
	job      []byte
	restarts atomic.Uint64

	mu     sync.Mutex
	child  *child // nil: to be started
	closed bool
	wait   time.Duration // before another start, while starts fail
	notYet time.Time
}

// Bounds of the wait between starts that fail.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 10 * time.Second
)

// Start runs a process and has it read the model.
func Start(cfg Config, m Model) (*Process, error) {
	job, err := json.Marshal(workerJob{Library: cfg.Library, Memory: cfg.Memory, Threads: cfg.Threads, Model: m})
	if err != nil {
		return nil, err
	}
	p := &Process{cfg: cfg, model: m, job: append(job, '\n')}
	if p.child, err = p.start(); err != nil {
		return nil, err
	}
	return p, nil
}

// Restarts is how many children were replaced.
func (p *Process) Restarts() uint64 { return p.restarts.Load() }

// Predict scores row-major rows into out.
func (p *Process) Predict(out, rows []float32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.once(out, rows)
	if errors.Is(err, ErrWorker) && !p.closed && time.Now().After(p.notYet) {
		err = p.once(out, rows)
	}
	return err
}

// once asks the child; a child that did not answer is gone afterwards.
func (p *Process) once(out, rows []float32) error {
	if p.closed {
		return ErrClosed
	}
	if p.child == nil {
		if err := p.revive(); err != nil {
			return err
		}
	}
	err := p.child.predict(out, rows, p.cfg.Timeout)
	if errors.Is(err, ErrWorker) {
		p.child.end()
		p.child = nil
	}
	return err
}

// revive starts another child, not too often while that fails.
func (p *Process) revive() error {
	if now := time.Now(); now.Before(p.notYet) {
		return fmt.Errorf("%w: it is started again in %v", ErrWorker, p.notYet.Sub(now).Round(time.Millisecond))
	}
	p.restarts.Add(1)
	c, err := p.start()
	if err != nil {
		p.wait = min(max(2*p.wait, firstWait), longestWait)
		p.notYet = time.Now().Add(p.wait)
		return fmt.Errorf("%w: %w", ErrWorker, err)
	}
	p.child, p.wait = c, 0
	return nil
}

// Close ends the process, after the computation that is under way.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.child != nil {
		p.child.end()
		p.child = nil
	}
}

// Pid is the child's process id; 0 while there is none.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return 0
	}
	return p.child.cmd.Process.Pid
}

// start runs a child and waits until it has the model.
func (p *Process) start() (*child, error) {
	c := &child{cmd: exec.Command(p.cfg.Command[0], p.cfg.Command[1:]...)}
	// The child needs nothing of this environment, and must not see its secrets.
	c.cmd.Env = []string{"OMP_WAIT_POLICY=passive", "GOMAXPROCS=2", "GOTRACEBACK=none"}
	c.cmd.Dir = "/"
	c.cmd.Stderr = &c.stderr
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, c.cmd.Start()); err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", ErrWorker, p.cfg.Command[0], err)
	}
	c.pipe, c.in, c.out = in, bufio.NewWriterSize(in, 1<<16), bufio.NewReaderSize(out, 1<<16)
	kind, payload, err := c.exchange(p.cfg.Loading, frameModel, p.job, p.model.File)
	if err == nil && kind == frameReady {
		return c, nil
	}
	c.end()
	if err != nil {
		return nil, fmt.Errorf("%w: it ended while it loaded: %w%s", ErrModel, err, c.complaint())
	}
	return nil, fmt.Errorf("%w: %s", ErrModel, payload)
}

// child is the parent's side of one process.
type child struct {
	cmd     *exec.Cmd
	pipe    io.Closer
	in      *bufio.Writer
	out     *bufio.Reader
	payload []byte
	stderr  tail
}

// exchange sends a frame and reads its answer; a process that takes longer is
// killed.
func (c *child) exchange(limit time.Duration, kind byte, parts ...[]byte) (byte, []byte, error) {
	timer := time.AfterFunc(limit, func() { c.cmd.Process.Kill() })
	err := writeFrame(c.in, kind, parts...)
	if err == nil {
		err = c.in.Flush()
	}
	var answer byte
	if err == nil {
		answer, c.payload, err = readFrame(c.out, c.payload)
	}
	if !timer.Stop() && err != nil {
		err = fmt.Errorf("no answer within %v", limit)
	}
	return answer, c.payload, err
}

func (c *child) predict(out, rows []float32, limit time.Duration) error {
	kind, payload, err := c.exchange(limit, frameRows, floatBytes(rows))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w%s", ErrWorker, err, c.complaint())
	case kind == frameError:
		return fmt.Errorf("%w: %s", ErrModel, payload)
	case kind != frameValues || len(payload) != 4*len(out):
		return fmt.Errorf("%w: it answered frame %q of %d bytes", ErrWorker, kind, len(payload))
	}
	copy(floatBytes(out), payload)
	return nil
}

// end kills the process and waits for it.
func (c *child) end() {
	c.pipe.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait() //nolint:errcheck // it was killed
}

// complaint is the last thing that the process said, on a line of its own.
func (c *child) complaint() string {
	if b := bytes.TrimSpace(c.stderr.copy()); len(b) > 0 {
		return "\n" + string(b)
	}
	return ""
}

// tail keeps the end of what a process complains about.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const keep = 2 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > keep {
		t.b = append(t.b[:0], t.b[len(t.b)-keep:]...)
	}
	return len(p), nil
}

func (t *tail) copy() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.b)
}
