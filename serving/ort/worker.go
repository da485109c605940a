package ort

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// WorkerMain is the child process: it reads a model from stdin, answers rows
// until stdin ends, and returns the exit code when something fails. It limits its own memory before
// it opens the library, and may write no file. When the parent goes away in
// the middle of a computation, it ends at once.
func WorkerMain(stdin io.Reader, stdout io.Writer) int {
	w := &worker{out: bufio.NewWriterSize(stdout, 1<<16)}
	err := w.run(bufio.NewReaderSize(stdin, 1<<16))
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

type worker struct {
	out     *bufio.Writer
	session *session
	rows    []float32
	values  []float32
}

// frame is one request on its way from the reading goroutine.
type frame struct {
	kind    byte
	payload []byte
}

func (w *worker) run(in *bufio.Reader) error {
	kind, payload, err := readFrame(in, nil)
	if err != nil {
		return err
	}
	if kind != frameModel {
		return fmt.Errorf("the first frame is %q", kind)
	}
	if err := w.open(payload); err != nil {
		return w.answer(frameError, []byte(err.Error()))
	}
	if err := w.answer(frameReady, nil); err != nil {
		return err
	}
	requests, free := make(chan frame), make(chan []byte, 2)
	free <- nil
	free <- nil
	go listen(in, requests, free)
	for f := range requests {
		if f.kind != frameRows {
			return fmt.Errorf("frame %q where rows were expected", f.kind)
		}
		if err := w.serve(f.payload); err != nil {
			return err
		}
		free <- f.payload
	}
	return nil
}

// listen reads beside the computation, so that the end of the pipe ends a
// process whose library does not come back.
func listen(in io.Reader, requests chan<- frame, free <-chan []byte) {
	for buf := range free {
		kind, payload, err := readFrame(in, buf)
		if err != nil {
			os.Exit(0)
		}
		requests <- frame{kind, payload}
	}
}

func (w *worker) open(payload []byte) error {
	head, file, _ := bytes.Cut(payload, []byte{'\n'})
	var job workerJob
	if err := json.Unmarshal(head, &job); err != nil {
		return err
	}
	job.Model.File = file
	if job.Model.Inputs < 1 || job.Model.Width < 1 {
		return errors.New("a model without inputs or outputs")
	}
	if err := confine(job.Memory); err != nil {
		return err
	}
	l, err := open(job.Library)
	if err != nil {
		return err
	}
	w.session, err = l.load(job.Model, job.Threads)
	return err
}

// serve answers one batch. An error of the library is the batch's alone.
func (w *worker) serve(payload []byte) error {
	m := &w.session.job
	if len(payload)%(4*m.Inputs) != 0 {
		return fmt.Errorf("%d bytes are no rows of %d values", len(payload), m.Inputs)
	}
	w.rows = sized(w.rows, len(payload)/4)
	copy(floatBytes(w.rows), payload)
	w.values = sized(w.values, len(w.rows)/m.Inputs*m.Width)
	if err := w.session.predict(w.values, w.rows); err != nil {
		return w.answer(frameError, []byte(err.Error()))
	}
	return w.answer(frameValues, floatBytes(w.values))
}

func sized(v []float32, n int) []float32 {
	if cap(v) < n {
		return make([]float32, n)
	}
	return v[:n]
}

func (w *worker) answer(kind byte, payload []byte) error {
	if err := writeFrame(w.out, kind, payload); err != nil {
		return err
	}
	return w.out.Flush()
}
