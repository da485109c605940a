// Package oip is the wire of the Open Inference Protocol, version 2: tensors
// as JSON and in Triton's binary extension.
//
// Promises: what a client sends is either understood exactly or refused with a
// sentence that names the tensor; nothing is cast silently. Parsing keeps no
// reference to the body and, in the steady state, allocates nothing but what
// a tensor's own values need.
//
// May not: know models, routing or HTTP.
package oip

import (
	"errors"
	"fmt"
)

// ErrInvalid is behind every error that the client caused.
var ErrInvalid = errors.New("invalid inference request")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Datatype is the protocol's name for an element type.
type Datatype string

// The protocol's datatypes. FP16 and BF16 exist in binary form only.
const (
	BOOL   Datatype = "BOOL"
	UINT8  Datatype = "UINT8"
	UINT16 Datatype = "UINT16"
	UINT32 Datatype = "UINT32"
	UINT64 Datatype = "UINT64"
	INT8   Datatype = "INT8"
	INT16  Datatype = "INT16"
	INT32  Datatype = "INT32"
	INT64  Datatype = "INT64"
	FP16   Datatype = "FP16"
	BF16   Datatype = "BF16"
	FP32   Datatype = "FP32"
	FP64   Datatype = "FP64"
	BYTES  Datatype = "BYTES"
)

// family says which slice of a Tensor holds its values.
type family uint8

const (
	noFamily family = iota
	boolFamily
	uintFamily
	intFamily
	floatFamily
	bytesFamily
)

// layout returns the value family and the width in bytes of one element in
// binary form (0 for BYTES, whose elements carry their own length).
func (d Datatype) layout() (family, int) {
	switch d {
	case BOOL:
		return boolFamily, 1
	case UINT8:
		return uintFamily, 1
	case UINT16:
		return uintFamily, 2
	case UINT32:
		return uintFamily, 4
	case UINT64:
		return uintFamily, 8
	case INT8:
		return intFamily, 1
	case INT16:
		return intFamily, 2
	case INT32:
		return intFamily, 4
	case INT64:
		return intFamily, 8
	case FP16, BF16:
		return floatFamily, 2
	case FP32:
		return floatFamily, 4
	case FP64:
		return floatFamily, 8
	case BYTES:
		return bytesFamily, 0
	}
	return noFamily, 0
}

// Tensor is one named array in row-major order. Exactly one of the value
// slices is in use, by the datatype's family: Bools for BOOL, Uints for
// UINT*, Ints for INT*, Floats for FP* (and BF16), Bytes for BYTES.
type Tensor struct {
	Name     string
	Datatype Datatype
	Shape    []int64
	Bools    []bool
	Uints    []uint64
	Ints     []int64
	Floats   []float64
	Bytes    [][]byte
	Nulls    []bool // values that are not there; nil when all are. The wire has none: it is for callers within the process

	binarySize int64 // of the request's binary part; -1 when the data is JSON
	data       span  // of the JSON array, until the datatype is known
}

// Elements is the number of values that the shape promises.
func (t *Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

func (t *Tensor) reset() {
	*t = Tensor{
		Shape: t.Shape[:0], Bools: t.Bools[:0], Uints: t.Uints[:0], Ints: t.Ints[:0],
		Floats: t.Floats[:0], Bytes: t.Bytes[:0], Nulls: t.Nulls[:0], binarySize: -1,
	}
}

// length is the number of values held.
func (t *Tensor) length() int {
	switch f, _ := t.Datatype.layout(); f {
	case boolFamily:
		return len(t.Bools)
	case uintFamily:
		return len(t.Uints)
	case intFamily:
		return len(t.Ints)
	case floatFamily:
		return len(t.Floats)
	case bytesFamily:
		return len(t.Bytes)
	}
	return 0
}

// Output names one tensor that the caller wants, and how.
type Output struct {
	Name           string
	Binary         bool
	Classification int64 // Triton's top-k form; 0 for the plain tensor
}

// Request is one inference request. Reuse it with Parse: its memory is kept.
type Request struct {
	ID        string
	Inputs    []Tensor
	Outputs   []Output
	BinaryAll bool              // parameters.binary_data_output
	Timeout   int64             // parameters.timeout, µs; 0 for none
	Params    map[string]string // other scalar parameters, as text
}

// Reset empties the request and keeps its memory.
func (r *Request) Reset() {
	for i := range r.Inputs {
		r.Inputs[i].reset()
	}
	*r = Request{Inputs: r.Inputs[:0], Outputs: r.Outputs[:0], Params: r.Params}
	clear(r.Params)
}

// Add appends an empty input tensor of shape [rows] and returns it.
func (r *Request) Add(name string, d Datatype, rows int) *Tensor {
	t := r.addInput()
	t.Name, t.Datatype, t.Shape = name, d, append(t.Shape, int64(rows))
	return t
}

func (r *Request) addInput() *Tensor {
	if len(r.Inputs) < cap(r.Inputs) {
		r.Inputs = r.Inputs[:len(r.Inputs)+1]
	} else {
		r.Inputs = append(r.Inputs, Tensor{})
	}
	t := &r.Inputs[len(r.Inputs)-1]
	t.reset()
	return t
}

// Response is one inference response.
type Response struct {
	Model   string
	Version string
	ID      string
	Params  []Param // in order; values are written as JSON strings
	Outputs []Tensor
	Binary  []bool // parallel to Outputs; nil means all JSON
}

// Param is one response parameter.
type Param struct{ Name, Value string }

// Limits bound what a request may ask for.
type Limits struct {
	Inputs   int   // tensors a request
	Elements int64 // values a tensor
	Rank     int   // dimensions a tensor
	Depth    int   // nesting of ignored JSON
}

// DefaultLimits fit tabular models.
func DefaultLimits() Limits {
	return Limits{Inputs: 4096, Elements: 16 << 20, Rank: 8, Depth: 64}
}
