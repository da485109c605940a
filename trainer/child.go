package trainer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// child is the parent's side of one training process.
type child struct {
	cmd    *exec.Cmd
	in     *bufio.Writer
	pipe   io.WriteCloser
	out    *bufio.Reader
	stderr tail
	fitted Fitted
	done   *workerDone
}

// tail keeps the end of what a process complains about.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 8 << 10
	t.b = append(t.b, p...)
	if len(t.b) > keep {
		t.b = append(t.b[:0], t.b[len(t.b)-keep:]...)
	}
	return len(p), nil
}

// environment is this process's without Kedge's settings, of which some may be
// secrets: neither the training process nor a program of a user's may see those.
// A variable of another name that a setting refers to (env:NAME) is not there any
// more: the command takes it out once it is read.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "KEDGE_") && !strings.HasPrefix(v, xgb.Environment+"=")
	})
}

// startChild runs the training process. Its threads sleep while they wait: on
// busy cores spinning ones made the same job six times slower.
func startChild(command []string, gpus []string) (*child, error) {
	c := &child{cmd: exec.Command(command[0], command[1:]...)}
	c.cmd.Env = append(append(environment(), "OMP_WAIT_POLICY=passive"), visible(gpus)...)
	c.cmd.Stderr = &c.stderr
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, c.cmd.Start()); err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", ErrWorker, command[0], err)
	}
	c.pipe, c.in, c.out = in, bufio.NewWriterSize(in, 1<<20), bufio.NewReaderSize(out, 1<<20)
	return c, nil
}

// send writes the job and its data.
func (c *child) send(job workerJob, data Data, resume *Checkpoint) error {
	w := &frameWriter{w: c.in}
	if err := w.json(frameJob, job); err != nil {
		return err
	}
	for i, m := range []*Matrix{data.Train, data.Valid} {
		if i < len(job.Sets) {
			if err := sendSet(w, m, job.Sets[i].Weight); err != nil {
				return err
			}
		}
	}
	if err := w.write(frameData, floatBytes(data.Golden)); err != nil {
		return err
	}
	if resume != nil {
		if err := w.write(frameResume, resume.State); err != nil {
			return err
		}
	}
	return c.in.Flush()
}

func sendSet(w *frameWriter, m *Matrix, weight bool) error {
	parts := make([][]byte, len(m.Columns))
	for i := range m.Columns {
		parts[i] = floatBytes(m.Columns[i].Values)
	}
	if err := w.write(frameData, parts...); err != nil {
		return err
	}
	if err := w.write(frameData, floatBytes(m.Label)); err != nil {
		return err
	}
	if !weight {
		return nil
	}
	return w.write(frameData, floatBytes(m.Weight))
}

// receive handles frames until the last one.
func (c *child) receive(watch Watch) error {
	for c.done == nil {
		kind, payload, err := readFrame(c.out)
		if err != nil {
			return err
		}
		if err := c.handle(kind, payload, watch); err != nil {
			return err
		}
	}
	return nil
}

func (c *child) handle(kind byte, payload []byte, watch Watch) error {
	switch kind {
	case frameRound:
		var r workerRound
		if err := json.Unmarshal(payload, &r); err != nil {
			return err
		}
		if watch.Round != nil {
			return watch.Round(r.Round, r.Metrics)
		}
	case frameLog:
		if watch.Log != nil {
			watch.Log(string(payload))
		}
	case frameCheckpoint:
		head, state, _ := bytes.Cut(payload, []byte{'\n'})
		var at workerResume
		if err := json.Unmarshal(head, &at); err != nil {
			return err
		}
		if watch.Checkpoint != nil {
			return watch.Checkpoint(Checkpoint{Rounds: at.Rounds, Best: at.Best, State: state})
		}
	case frameGolden:
		c.fitted.Golden = floatsOf(payload)
	case frameModel:
		c.fitted.Model = payload
	case frameDone:
		c.done = new(workerDone)
		return json.Unmarshal(payload, c.done)
	default:
		return fmt.Errorf("frame %q from the training process", kind)
	}
	return nil
}

// stop asks the process to end between rounds and kills it after grace. It is
// safe to call when the process is gone.
func (c *child) stop(grace time.Duration) *time.Timer {
	c.pipe.Close() // the worker takes the end of its input for a cancellation
	return time.AfterFunc(grace, func() { c.cmd.Process.Kill() })
}

// run has the whole conversation. When ctx ends, or a watcher answers an
// error, the process is stopped and the reason returned.
func (c *child) run(ctx context.Context, job workerJob, data Data, watch Watch, grace time.Duration) error {
	failed := make(chan error, 1)
	go func() {
		if err := c.send(job, data, watch.Resume); err != nil {
			failed <- err
			return
		}
		close(failed)
	}()
	stopping := context.AfterFunc(ctx, func() { c.stop(grace) })
	err := c.receive(watch)
	if err != nil && ctx.Err() == nil {
		timer := c.stop(grace)
		defer timer.Stop()
	}
	io.Copy(io.Discard, c.out)
	c.pipe.Close()
	sendErr := <-failed
	waitErr := c.cmd.Wait()
	stopping()
	c.fitted.Cost.CPU = cpuSeconds(c.cmd.ProcessState)
	return c.verdict(ctx, err, sendErr, waitErr)
}

func cpuSeconds(s *os.ProcessState) float64 {
	if s == nil {
		return 0
	}
	return (s.UserTime() + s.SystemTime()).Seconds()
}

// verdict names what went wrong, most telling first.
func (c *child) verdict(ctx context.Context, receiveErr, sendErr, waitErr error) error {
	if c.done != nil && c.done.Error == "" && receiveErr == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
	}
	if c.done != nil && c.done.Error != "" {
		return remoteError(c.done)
	}
	if receiveErr != nil && !errors.Is(receiveErr, io.EOF) && !errors.Is(receiveErr, io.ErrUnexpectedEOF) {
		return receiveErr // a watcher's own, or a frame that made no sense
	}
	complaint := bytes.TrimSpace(c.stderr.b)
	return fmt.Errorf("%w: it ended before its model was complete: %w\n%s", ErrWorker, errors.Join(receiveErr, waitErr, sendErr), complaint)
}

// remoteError makes sentinels of the kinds that crossed the pipe.
func remoteError(d *workerDone) error {
	sentinel := ErrWorker
	switch d.Kind {
	case kindNoLibrary:
		sentinel = xgb.ErrNoLibrary
	case kindDevice:
		sentinel = ErrDevice
	case kindParam:
		sentinel = ErrParam
	case kindCancelled:
		sentinel = ErrCancelled
	}
	return &childError{sentinel: sentinel, text: d.Error}
}

// childError is an error of the other process: its text is complete already.
type childError struct {
	sentinel error
	text     string
}

func (e *childError) Error() string { return e.text }
func (e *childError) Unwrap() error { return e.sentinel }

// visible is the environment in which a program sees the GPUs that it was
// given and no others. Nil: nobody gives any, and it sees what this process does.
func visible(gpus []string) []string {
	if gpus == nil {
		return nil
	}
	return []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=" + strings.Join(gpus, ",")}
}

// meter reads the energy of a run's GPUs while it is under way.
func meter(ctx context.Context, gpus []string) func() gpu.Usage {
	const every = 250 * time.Millisecond
	inv, err := gpu.Open()
	if err != nil {
		return func() gpu.Usage { return gpu.Usage{} }
	}
	usage := gpu.Watch(ctx, inv, gpus, every)
	return func() gpu.Usage { defer inv.Close(); return usage() }
}
