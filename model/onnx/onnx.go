// Package onnx writes tree and linear models as ONNX, so that other runtimes
// can serve what was trained here.
//
// Promises: the written model takes one float tensor "rows" [N, inputs] (NaN
// is missing, categories are codes) and answers one float tensor "output"
// [N, outputs] with the numbers the Go predictors give, up to float32
// rounding. Writes opset 13 and ai.onnx.ml 3, which runtimes have had since
// 2021; the messages are put together by hand, so no generated code is needed.
// May not: run models.
package onnx

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Versions that the written file claims.
const (
	irVersion = 8
	opset     = 13
	mlOpset   = 3
	mlDomain  = "ai.onnx.ml"
)

// Element types of tensors (TensorProto.DataType).
const (
	typeFloat = 1
	typeInt64 = 7
)

// Attribute types (AttributeProto.AttributeType).
const (
	attrInt     = 2
	attrString  = 3
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
)

// message is a Protobuf message under construction.
type message []byte

func (m message) varint(field protowire.Number, v int64) message {
	m = protowire.AppendTag(m, field, protowire.VarintType)
	return protowire.AppendVarint(m, uint64(v))
}

func (m message) bytes(field protowire.Number, v []byte) message {
	m = protowire.AppendTag(m, field, protowire.BytesType)
	return protowire.AppendBytes(m, v)
}

func (m message) text(field protowire.Number, v string) message { return m.bytes(field, []byte(v)) }

func (m message) float(field protowire.Number, v float32) message {
	m = protowire.AppendTag(m, field, protowire.Fixed32Type)
	return protowire.AppendFixed32(m, math.Float32bits(v))
}

// graph collects nodes and constants of the model being written.
type graph struct {
	nodes   []message
	tensors []message
}

// node adds an operator; attributes are ready AttributeProto messages.
func (g *graph) node(domain, op string, inputs []string, output string, attributes ...message) {
	var m message
	for _, in := range inputs {
		m = m.text(1, in)
	}
	m = m.text(2, output).text(3, output).text(4, op)
	for _, a := range attributes {
		m = m.bytes(5, a)
	}
	if domain != "" {
		m = m.text(7, domain)
	}
	g.nodes = append(g.nodes, m)
}

// op adds an operator of the standard domain.
func (g *graph) op(op, output string, inputs ...string) string {
	g.node("", op, inputs, output)
	return output
}

// floats adds a constant tensor and returns its name.
func (g *graph) floats(name string, dims []int, v []float32) string {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return g.tensor(name, typeFloat, dims, raw)
}

// ints adds a constant tensor of int64 and returns its name.
func (g *graph) ints(name string, v []int) string {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
	}
	return g.tensor(name, typeInt64, []int{len(v)}, raw)
}

func (g *graph) tensor(name string, kind int64, dims []int, raw []byte) string {
	var m message
	for _, d := range dims {
		m = m.varint(1, int64(d))
	}
	g.tensors = append(g.tensors, m.varint(2, kind).text(8, name).bytes(9, raw))
	return name
}

// model writes the whole file.
func (g *graph) model(inputs, outputs int) []byte {
	var m message
	for _, n := range g.nodes {
		m = m.bytes(1, n)
	}
	m = m.text(2, "kedge")
	for _, t := range g.tensors {
		m = m.bytes(5, t)
	}
	m = m.bytes(11, valueInfo("rows", inputs)).bytes(12, valueInfo("output", outputs))
	standard := message{}.text(1, "").varint(2, opset)
	ml := message{}.text(1, mlDomain).varint(2, mlOpset)
	return message{}.varint(1, irVersion).text(2, "kedge").bytes(7, m).bytes(8, standard).bytes(8, ml)
}

// valueInfo describes a float tensor [N, width].
func valueInfo(name string, width int) message {
	rows := message{}.text(2, "N")
	cols := message{}.varint(1, int64(width))
	shape := message{}.bytes(1, rows).bytes(1, cols)
	tensor := message{}.varint(1, typeFloat).bytes(2, shape)
	return message{}.text(1, name).bytes(2, message{}.bytes(1, tensor))
}

func attribute(name string, kind int64) message { return message{}.text(1, name).varint(20, kind) }

func intAttr(name string, v int64) message { return attribute(name, attrInt).varint(3, v) }
func stringAttr(name, v string) message    { return attribute(name, attrString).text(4, v) }

func intsAttr(name string, v []int64) message {
	m := attribute(name, attrInts)
	for _, x := range v {
		m = m.varint(8, x)
	}
	return m
}

func floatsAttr(name string, v []float32) message {
	m := attribute(name, attrFloats)
	for _, x := range v {
		m = m.float(7, x)
	}
	return m
}

func stringsAttr(name string, v []string) message {
	m := attribute(name, attrStrings)
	for _, x := range v {
		m = m.text(9, x)
	}
	return m
}
