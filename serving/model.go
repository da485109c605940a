package serving

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/oip"
)

// ErrInput is behind every error that a caller's tensors caused.
var ErrInput = errors.New("the inputs do not fit the model")

// Model is one version of a model, ready to compute. What it
// answers never changes.
type Model struct {
	Name      string
	Version   string
	Signature *model.Signature
	Predictor model.Predictor // nil: a native runtime computes

	native    *native
	packer    event.Packer // of its records
	recorded  int          // values of a row that they keep
	encoder   *model.Encoder
	datatypes []oip.Datatype     // parallel to the signature's inputs
	types     []event.ColumnType // parallel to the signature's inputs
	views     []viewInputs       // where inputs come from when a caller sends keys
	direct    []int              // inputs that no view has
	live      *live
	measured  *sync.Map     // variant → attributes of its measurements
	agreed    *atomic.Int64 // 2 + registry offset at which the views were found to fit
}

// FromArtifact makes a version ready whose artefact was loaded, its golden
// rows replayed.
func FromArtifact(name, version string, a *model.Artifact) (Model, error) {
	p, err := a.Predictor(model.DefaultLimits())
	if err != nil {
		return Model{}, fmt.Errorf("model %s version %s: %w", name, version, err)
	}
	return Model{Name: name, Version: version, Signature: &a.Signature, Predictor: p}, nil
}

// prepare builds what requests look up and joins the faults of a model.
func (m *Model) prepare() error {
	if m.Name == "" || m.Version == "" || m.Predictor == nil && m.native == nil || m.Signature == nil {
		return fmt.Errorf("model %q version %q: name, version, signature and predictor are required", m.Name, m.Version)
	}
	if err := m.Signature.Validate(); err != nil {
		return fmt.Errorf("model %s version %s: %w", m.Name, m.Version, err)
	}
	if p := m.Predictor; p != nil && (p.Features() != len(m.Signature.Inputs) || p.Outputs() != m.width()) {
		return fmt.Errorf("model %s version %s: the predictor takes %d values and gives %d, the signature says %d and %d",
			m.Name, m.Version, m.Predictor.Features(), m.Predictor.Outputs(), len(m.Signature.Inputs), m.width())
	}
	m.encoder, m.agreed, m.live, m.measured = model.NewEncoder(m.Signature), new(atomic.Int64), new(live), new(sync.Map)
	for _, in := range m.Signature.Inputs {
		m.datatypes = append(m.datatypes, datatypeOf(in.Type))
		t, err := event.ParseType(in.Type)
		if err != nil {
			return fmt.Errorf("model %s version %s: input %q: %w", m.Name, m.Version, in.Name, err)
		}
		m.types = append(m.types, t)
	}
	m.packing()
	m.groupViews()
	return nil
}

// acquire holds what computes for one request; false when the version was let
// go of meanwhile. Go's predictors are the garbage collector's.
func (m *Model) acquire() bool { return m.native == nil || m.native.acquire() }

func (m *Model) release() {
	if m.native != nil {
		m.native.release()
	}
}

// predict scores row-major rows into out and returns how long they waited for
// company in a batch.
func (m *Model) predict(ctx context.Context, deadline time.Time, out, rows []float32) (queue time.Duration, err error) {
	if m.native != nil {
		return m.native.predict(ctx, deadline, out, rows)
	}
	m.Predictor.Predict(out, rows)
	return 0, nil
}

// width is the number of values in the answer to one row.
func (m *Model) width() int { return m.Signature.Width() }

// platform names the runtime as metadata shows it.
func (m *Model) platform() string { return "kedge_" + string(m.Signature.Kind) }

// datatypeOf is the protocol's name for a column type of a definition.
func datatypeOf(columnType string) oip.Datatype {
	switch columnType {
	case "Bool":
		return oip.BOOL
	case "Int32":
		return oip.INT32
	case "Int64", "Timestamp":
		return oip.INT64
	case "Float32":
		return oip.FP32
	case "Float64":
		return oip.FP64
	}
	return oip.BYTES
}

// matrixName is what a model's inputs are called when they come as one tensor.
const matrixName = "input"

// numeric reports whether every input is a number, so that one matrix can
// carry them.
func (m *Model) numeric() bool {
	for i, d := range m.datatypes {
		if d == oip.BYTES || m.encoder.Categorical(i) {
			return false
		}
	}
	return true
}

// isMatrix reports whether a request carries all inputs as one tensor.
func (m *Model) isMatrix(req *oip.Request) bool {
	if len(req.Inputs) != 1 || req.Inputs[0].Name != matrixName {
		return false
	}
	return len(m.Signature.Inputs) > 1 || m.Signature.Inputs[0].Name != matrixName
}

// rows reads a request's tensors into row-major features, appended to dst. A
// request carries either one tensor of shape [n, inputs] or one tensor of
// shape [n] or [n, 1] per input, by name.
func (m *Model) rows(dst []float32, req *oip.Request) (out []float32, n int, err error) {
	if m.isMatrix(req) {
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
	out = grow(dst, n*len(m.Signature.Inputs))
	for i := range m.Signature.Inputs {
		if err := m.column(out, i, n, req); err != nil {
			return nil, 0, err
		}
	}
	return out, n, nil
}

// matchNames says which inputs are missing and which are too many.
func (m *Model) matchNames(req *oip.Request) error {
	for i := range req.Inputs {
		if _, known := m.encoder.Index(req.Inputs[i].Name); !known {
			return fmt.Errorf("%w: unexpected input %q: model %s takes %s", ErrInput, req.Inputs[i].Name, m.Name, m.inputNames())
		}
	}
	for _, in := range m.Signature.Inputs {
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
	for i, in := range m.Signature.Inputs {
		if i == listed {
			return fmt.Sprintf("%s and %d more", s, len(m.Signature.Inputs)-listed)
		}
		if i > 0 {
			s += ", "
		}
		s += in.Name
	}
	return s
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
	k := int64(len(m.Signature.Inputs))
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
	in := &m.Signature.Inputs[i]
	t := find(req, in.Name)
	if t.Datatype != m.datatypes[i] {
		return fmt.Errorf("%w: input %q is %s: the model takes %s", ErrInput, in.Name, t.Datatype, m.datatypes[i])
	}
	k := len(m.Signature.Inputs)
	for row := range n {
		if len(t.Nulls) > row && t.Nulls[row] {
			out[row*k+i] = model.Missing()
			continue
		}
		v, known := m.value(t, i, row)
		if !known {
			return fmt.Errorf("%w: input %q has a value that the model never met: %.64s", ErrInput, in.Name, printed(t, row))
		}
		out[row*k+i] = v
	}
	return nil
}

// value encodes one value; known is false for one that is none of a
// categorical input's, unless the model was trained with a place for others.
func (m *Model) value(t *oip.Tensor, i, row int) (v float32, known bool) {
	switch t.Datatype {
	case oip.FP32, oip.FP64:
		v, known = m.encoder.Number(i, t.Floats[row])
	case oip.BOOL:
		v, known = m.encoder.Number(i, flag(t.Bools[row]))
	case oip.BYTES:
		v, known = m.encoder.Text(i, t.Bytes[row])
	default:
		v, known = m.encoder.Number(i, float64(t.Ints[row]))
	}
	return v, known || m.Signature.Inputs[i].Other
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func printed(t *oip.Tensor, row int) string {
	switch t.Datatype {
	case oip.BYTES:
		return fmt.Sprintf("%q", t.Bytes[row])
	case oip.BOOL:
		return fmt.Sprint(t.Bools[row])
	case oip.FP32, oip.FP64:
		return fmt.Sprint(t.Floats[row])
	}
	return fmt.Sprint(t.Ints[row])
}

// grow returns n values in dst's memory where it is large enough.
func grow(dst []float32, n int) []float32 {
	if cap(dst) < n {
		return make([]float32, n)
	}
	return dst[:n]
}
