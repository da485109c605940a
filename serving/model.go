package serving

import (
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/serving/oip"
)

// ErrInput is behind every error that a caller's tensors caused.
var ErrInput = errors.New("the inputs do not fit the model")

// Input is one feature of a model, in the order in which it was trained.
type Input struct {
	Name       string
	Datatype   oip.Datatype // FP32, FP64, INT32, INT64, BOOL, or BYTES for a categorical
	Categories []string     // of a categorical input: its code is its position
}

// Output is one result of a model.
type Output struct {
	Name string
	// Classes names the columns of a probability output; empty for one value a row.
	Classes []string
}

// predictor computes rows of float32 features, NaN for missing, into out;
// trees and linear models are the two.
type predictor interface {
	Predict(out, rows []float32)
}

// Model is one version of a model, ready to compute. It is immutable.
type Model struct {
	Name      string
	Version   string
	Platform  string // e.g. "kedge_trees"
	Inputs    []Input
	Output    Output
	Width     int // values a row in Predict's out
	Predictor predictor

	codes []map[string]float32 // parallel to Inputs: category → code
}

// prepare builds what requests look up and joins the faults of a model.
func (m *Model) prepare() error {
	if m.Name == "" || m.Version == "" || m.Predictor == nil || m.Width < 1 || len(m.Inputs) == 0 {
		return fmt.Errorf("model %q version %q: name, version, inputs, predictor and output width are required", m.Name, m.Version)
	}
	m.codes = make([]map[string]float32, len(m.Inputs))
	for i, in := range m.Inputs {
		if in.Datatype != oip.BYTES {
			continue
		}
		if len(in.Categories) == 0 {
			return fmt.Errorf("model %q version %q: input %q is categorical and has no categories", m.Name, m.Version, in.Name)
		}
		m.codes[i] = make(map[string]float32, len(in.Categories))
		for code, c := range in.Categories {
			m.codes[i][c] = float32(code)
		}
	}
	return nil
}

// matrixName is what a model's inputs are called when they come as one tensor.
const matrixName = "input"

// numeric reports whether every input is a number, so that one matrix can
// carry them.
func (m *Model) numeric() bool {
	for _, in := range m.Inputs {
		if in.Datatype == oip.BYTES {
			return false
		}
	}
	return true
}

// rows reads a request's tensors into row-major features, appended to dst. A
// request carries either one tensor of shape [n, inputs] or one tensor of
// shape [n] or [n, 1] per input, by name.
func (m *Model) rows(dst []float32, req *oip.Request) (out []float32, n int, err error) {
	if len(req.Inputs) == 1 && (len(m.Inputs) > 1 || req.Inputs[0].Name != m.Inputs[0].Name) {
		return m.matrix(dst, &req.Inputs[0])
	}
	if err := m.matchNames(req); err != nil {
		return nil, 0, err
	}
	n = -1
	for i := range req.Inputs {
		rows, err := columnRows(&req.Inputs[i])
		if err != nil {
			return nil, 0, err
		}
		if n >= 0 && rows != n {
			return nil, 0, fmt.Errorf("%w: input %q has %d rows and %q has %d", ErrInput, req.Inputs[i].Name, rows, req.Inputs[0].Name, n)
		}
		n = rows
	}
	out = grow(dst, n*len(m.Inputs))
	for i := range m.Inputs {
		if err := m.column(out, i, n, req); err != nil {
			return nil, 0, err
		}
	}
	return out, n, nil
}

// matchNames says which inputs are missing and which are too many.
func (m *Model) matchNames(req *oip.Request) error {
	for i := range req.Inputs {
		if m.index(req.Inputs[i].Name) < 0 {
			return fmt.Errorf("%w: unexpected input %q: model %s takes %s", ErrInput, req.Inputs[i].Name, m.Name, m.inputNames())
		}
	}
	for _, in := range m.Inputs {
		if find(req, in.Name) == nil {
			return fmt.Errorf("%w: input %q is missing: model %s takes %s", ErrInput, in.Name, m.Name, m.inputNames())
		}
	}
	return nil
}

// listed bounds the names in an error.
const listed = 8

func (m *Model) inputNames() string {
	s := ""
	for i, in := range m.Inputs {
		if i == listed {
			return fmt.Sprintf("%s and %d more", s, len(m.Inputs)-listed)
		}
		if i > 0 {
			s += ", "
		}
		s += in.Name
	}
	return s
}

func (m *Model) index(name string) int {
	for i := range m.Inputs {
		if m.Inputs[i].Name == name {
			return i
		}
	}
	return -1
}

func find(req *oip.Request, name string) *oip.Tensor {
	for i := range req.Inputs {
		if req.Inputs[i].Name == name {
			return &req.Inputs[i]
		}
	}
	return nil
}

func columnRows(t *oip.Tensor) (int, error) {
	if len(t.Shape) == 1 || len(t.Shape) == 2 && t.Shape[1] == 1 {
		return int(t.Shape[0]), nil
	}
	return 0, fmt.Errorf("%w: input %q has shape %v: want [rows] or [rows, 1]", ErrInput, t.Name, t.Shape)
}

func (m *Model) matrix(dst []float32, t *oip.Tensor) ([]float32, int, error) {
	if !m.numeric() {
		return nil, 0, fmt.Errorf("%w: model %s has categorical inputs: send one tensor per input (%s)", ErrInput, m.Name, m.inputNames())
	}
	if t.Datatype != oip.FP32 && t.Datatype != oip.FP64 {
		return nil, 0, fmt.Errorf("%w: input %q is %s: a matrix is FP32 or FP64", ErrInput, t.Name, t.Datatype)
	}
	k := int64(len(m.Inputs))
	if len(t.Shape) != 2 || t.Shape[1] != k {
		return nil, 0, fmt.Errorf("%w: input %q has shape %v: want [rows, %d]", ErrInput, t.Name, t.Shape, k)
	}
	out := grow(dst, len(t.Floats))
	for i, v := range t.Floats {
		out[i] = float32(v)
	}
	return out, int(t.Shape[0]), nil
}

// column writes input i of all rows.
func (m *Model) column(out []float32, i, n int, req *oip.Request) error {
	in, t := &m.Inputs[i], find(req, m.Inputs[i].Name)
	if t.Datatype != in.Datatype {
		return fmt.Errorf("%w: input %q is %s: the model takes %s", ErrInput, in.Name, t.Datatype, in.Datatype)
	}
	k := len(m.Inputs)
	for row := range n {
		v, err := m.value(t, i, row)
		if err != nil {
			return err
		}
		out[row*k+i] = v
	}
	return nil
}

func (m *Model) value(t *oip.Tensor, i, row int) (float32, error) {
	switch t.Datatype {
	case oip.FP32, oip.FP64:
		return float32(t.Floats[row]), nil
	case oip.BOOL:
		if t.Bools[row] {
			return 1, nil
		}
		return 0, nil
	case oip.BYTES:
		code, ok := m.codes[i][string(t.Bytes[row])]
		if !ok {
			return 0, fmt.Errorf("%w: input %q has a category that the model never met: %.64q", ErrInput, t.Name, t.Bytes[row])
		}
		return code, nil
	}
	return float32(t.Ints[row]), nil
}

// grow returns n values in dst's memory where it is large enough.
func grow(dst []float32, n int) []float32 {
	if cap(dst) < n {
		return make([]float32, n)
	}
	return dst[:n]
}
