package onnx

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrRefused means that a model file is not given to a runtime: it is no ONNX
// model, reaches outside itself, or claims more than its limits allow.
var ErrRefused = errors.New("the ONNX model is refused")

// Limits bound what a model file may claim before a runtime reads it.
type Limits struct {
	Nodes     int   // operators, those of inner graphs and of called functions included
	Functions int   // operators that the model defines itself
	Elements  int64 // elements of any one constant or stated shape
	Depth     int   // graphs within graphs
}

// DefaultLimits fit models of tables with room to spare.
func DefaultLimits() Limits {
	return Limits{Nodes: 100_000, Functions: 10_000, Elements: 1 << 28, Depth: 8}
}

// Inspect reads a model file as far as its claims go, without a runtime: it
// must be whole, hold all its constants itself (external data is a path that
// somebody else chose), and keep to the limits. Protobuf's own nesting is
// followed no deeper than Depth. The error is [ErrRefused].
func Inspect(file []byte, lim Limits) error {
	in := inspection{lim: lim, functions: map[string]*function{}}
	if err := in.model(file); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// inspection counts while it reads.
type inspection struct {
	lim       Limits
	functions map[string]*function // "domain/name"
}

// function is a model's own operator. What a call of it amounts to is the sum
// of its body, so that functions that call functions cannot multiply unseen.
type function struct {
	body    []byte
	nodes   int // 0: not counted yet
	pending bool
}

// field is one member of a message.
type field struct {
	num   protowire.Number
	kind  protowire.Type
	value uint64
	bytes []byte
}

// each calls f for every member; anything else than whole members is an error.
func each(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("not an ONNX model: %w", protowire.ParseError(n))
		}
		b = b[n:]
		m := field{num: num, kind: kind}
		switch kind {
		case protowire.VarintType:
			m.value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			m.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("not an ONNX model: cut off or damaged: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(m); err != nil {
			return err
		}
	}
	return nil
}

// Members of ModelProto, FunctionProto, GraphProto, NodeProto, AttributeProto,
// TensorProto and SparseTensorProto, by onnx.proto.
const (
	modelGraph, modelFunctions                        = 7, 25
	functionName, functionNode, functionDomain        = 1, 7, 10
	graphNode, graphInitializer, graphSparse          = 1, 5, 15
	graphInput, graphOutput, graphValue               = 11, 12, 13
	nodeOp, nodeAttribute, nodeDomain                 = 4, 5, 7
	attrTensor, attrGraph, attrTensors                = 5, 6, 10
	attrGraphs, attrSparse, attrSparses               = 11, 22, 23
	tensorDims, tensorName                            = 1, 8
	tensorExternal, tensorLocation                    = 13, 14
	sparseValues, sparseIndices, sparseDims           = 1, 2, 3
	valueType, typeTensor, typeShape, shapeDim        = 2, 1, 2, 1
	dimValue                                          = 1
	locationExternal                           uint64 = 1
)

func (in *inspection) model(file []byte) error {
	var graphs [][]byte
	err := each(file, func(m field) error {
		switch {
		case m.num == modelGraph && m.kind == protowire.BytesType:
			graphs = append(graphs, m.bytes)
		case m.num == modelFunctions && m.kind == protowire.BytesType:
			return in.define(m.bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(graphs) != 1 {
		return fmt.Errorf("not an ONNX model: %d graphs", len(graphs))
	}
	nodes := 0
	return in.graph(graphs[0], 0, &nodes)
}

func (in *inspection) define(b []byte) error {
	var name, domain string
	err := each(b, func(m field) error {
		switch m.num {
		case functionName:
			name = string(m.bytes)
		case functionDomain:
			domain = string(m.bytes)
		}
		return nil
	})
	if in.functions[domain+"/"+name] = (&function{body: b}); len(in.functions) > in.lim.Functions {
		return fmt.Errorf("it has more than %d functions", in.lim.Functions)
	}
	return err
}

func (in *inspection) graph(b []byte, depth int, nodes *int) error {
	if depth > in.lim.Depth {
		return fmt.Errorf("graphs lie more than %d deep in one another", in.lim.Depth)
	}
	return each(b, func(m field) error {
		switch m.num {
		case graphNode:
			return in.node(m.bytes, depth, nodes)
		case graphInitializer:
			return in.tensor(m.bytes)
		case graphSparse:
			return in.sparse(m.bytes)
		case graphInput, graphOutput, graphValue:
			return in.stated(m.bytes)
		}
		return nil
	})
}

// node counts one operator, or all that a call of a function stands for.
func (in *inspection) node(b []byte, depth int, nodes *int) error {
	var op, domain string
	err := each(b, func(m field) error {
		switch m.num {
		case nodeOp:
			op = string(m.bytes)
		case nodeDomain:
			domain = string(m.bytes)
		case nodeAttribute:
			return in.attribute(m.bytes, depth, nodes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n := 1
	if f := in.functions[domain+"/"+op]; f != nil {
		if n, err = in.called(domain+"/"+op, f, depth); err != nil {
			return err
		}
	}
	if *nodes += n; *nodes > in.lim.Nodes || *nodes < 0 {
		return fmt.Errorf("it has more than %d operators", in.lim.Nodes)
	}
	return nil
}

// called counts a function's body once.
func (in *inspection) called(name string, f *function, depth int) (int, error) {
	if f.pending {
		return 0, fmt.Errorf("function %q calls itself", name)
	}
	if f.nodes > 0 {
		return f.nodes, nil
	}
	f.pending = true
	nodes := 0
	err := each(f.body, func(m field) error {
		if m.num == functionNode {
			return in.node(m.bytes, depth, &nodes)
		}
		return nil
	})
	f.pending, f.nodes = false, max(1, nodes)
	return f.nodes, err
}

func (in *inspection) attribute(b []byte, depth int, nodes *int) error {
	return each(b, func(m field) error {
		if m.kind != protowire.BytesType {
			return nil
		}
		switch m.num {
		case attrTensor, attrTensors:
			return in.tensor(m.bytes)
		case attrGraph, attrGraphs:
			return in.graph(m.bytes, depth+1, nodes)
		case attrSparse, attrSparses:
			return in.sparse(m.bytes)
		}
		return nil
	})
}

func (in *inspection) tensor(b []byte) error {
	name, external := "", false
	elements := int64(1)
	err := each(b, func(m field) error {
		switch m.num {
		case tensorDims:
			return in.dims(m, &elements)
		case tensorName:
			name = string(m.bytes)
		case tensorExternal:
			external = true
		case tensorLocation:
			external = external || m.value == locationExternal
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("constant %.64q: %w", name, err)
	}
	if external {
		return fmt.Errorf("constant %.64q lies in a file outside the model: save the model with its data inside", name)
	}
	return nil
}

func (in *inspection) sparse(b []byte) error {
	elements := int64(1)
	return each(b, func(m field) error {
		switch m.num {
		case sparseValues, sparseIndices:
			return in.tensor(m.bytes)
		case sparseDims:
			return in.dims(m, &elements)
		}
		return nil
	})
}

// dims takes one dimension, or several when they are packed.
func (in *inspection) dims(m field, elements *int64) error {
	if m.kind == protowire.VarintType {
		return in.dim(int64(m.value), elements)
	}
	for b := m.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := in.dim(int64(v), elements); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (in *inspection) dim(d int64, elements *int64) error {
	if d < 0 || d > 0 && *elements > math.MaxInt64/d {
		return fmt.Errorf("a dimension of %d", d)
	}
	if *elements *= max(d, 1); *elements > in.lim.Elements {
		return fmt.Errorf("more than %d elements", in.lim.Elements)
	}
	return nil
}

// stated reads the shape that an input, output or value claims.
func (in *inspection) stated(b []byte) error {
	elements := int64(1)
	return within(b, []protowire.Number{valueType, typeTensor, typeShape, shapeDim}, func(dim []byte) error {
		return each(dim, func(m field) error {
			if m.num != dimValue || m.kind != protowire.VarintType {
				return nil
			}
			return in.dim(max(int64(m.value), 1), &elements) // exporters write -1 for a free one
		})
	})
}

// within walks to the messages that lie under a path of members.
func within(b []byte, path []protowire.Number, f func([]byte) error) error {
	if len(path) == 0 {
		return f(b)
	}
	return each(b, func(m field) error {
		if m.num != path[0] || m.kind != protowire.BytesType {
			return nil
		}
		return within(m.bytes, path[1:], f)
	})
}
