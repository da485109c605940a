package ort

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// predict scores row-major rows into out. A model that was exported for one
// row takes them one at a time.
func (s *session) predict(out, rows []float32) error {
	n := len(rows) / s.job.Inputs
	step := max(n, 1)
	if s.input.dims[0] == 1 {
		step = 1
	}
	for at := 0; at < n; at += step {
		if err := s.batch(out[at*s.job.Width:(at+step)*s.job.Width], rows[at*s.job.Inputs:(at+step)*s.job.Inputs], step); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) batch(out, rows []float32, n int) error {
	in, err := s.tensor(rows, n)
	if err != nil {
		return err
	}
	defer s.l.releaseValue(in)
	var answer handle
	err = s.l.check("Run", s.l.run(s.h, 0, &s.names[0], &in, 1, &s.names[1], 1, &answer))
	runtime.KeepAlive(rows)
	runtime.KeepAlive(s.doubles)
	if err != nil {
		return err
	}
	defer s.l.releaseValue(answer)
	return s.read(out, answer, n)
}

// tensor wraps rows, or their copy in the element type that the model takes.
func (s *session) tensor(rows []float32, n int) (handle, error) {
	data, size := unsafe.Pointer(unsafe.SliceData(rows)), 4*len(rows)
	if s.input.element == elementDouble {
		s.doubles = s.doubles[:0]
		for _, v := range rows {
			s.doubles = append(s.doubles, float64(v))
		}
		data, size = unsafe.Pointer(unsafe.SliceData(s.doubles)), 8*len(rows)
	}
	shape := [2]int64{int64(n), int64(s.job.Inputs)}
	var t handle
	err := s.l.check("CreateTensor", s.l.createTensor(s.l.memory, data, uintptr(size), &shape[0], 2, s.input.element, &t))
	return t, err
}

// read copies the wanted columns of the answer.
func (s *session) read(out []float32, answer handle, n int) error {
	var info handle
	if err := s.l.check("GetTensorTypeAndShape", s.l.tensorShape(answer, &info)); err != nil {
		return err
	}
	element, dims, err := s.l.shape(info)
	s.l.releaseShape(info)
	if err != nil {
		return err
	}
	width := 1
	if len(dims) == 2 {
		width = int(dims[1])
	}
	if len(dims) < 1 || len(dims) > 2 || dims[0] != int64(n) || s.job.Column+s.job.Width > width {
		return fmt.Errorf("output %q has shape %v for %d rows: want [rows, %d] or more columns", s.output.name, dims, n, s.job.Column+s.job.Width)
	}
	var data unsafe.Pointer
	if err := s.l.check("GetTensorMutableData", s.l.tensorData(answer, &data)); err != nil {
		return err
	}
	if data == nil {
		return errors.New("onnxruntime returned no data")
	}
	copyColumns(out, data, element, n, width, s.job.Column)
	return nil
}

// copyColumns reads len(out)/n columns from the given one on.
func copyColumns(out []float32, data unsafe.Pointer, element int32, n, width, column int) {
	switch element {
	case elementFloat:
		pick(out, unsafe.Slice((*float32)(data), n*width), n, width, column)
	case elementDouble:
		pick(out, unsafe.Slice((*float64)(data), n*width), n, width, column)
	case elementInt32:
		pick(out, unsafe.Slice((*int32)(data), n*width), n, width, column)
	case elementInt64:
		pick(out, unsafe.Slice((*int64)(data), n*width), n, width, column)
	}
}

func pick[T float32 | float64 | int32 | int64](out []float32, values []T, n, width, column int) {
	k := len(out) / n
	for row := range n {
		for c := range k {
			out[row*k+c] = float32(values[row*width+column+c])
		}
	}
}
