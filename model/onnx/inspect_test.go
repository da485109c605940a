package onnx

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/model/linear"
)

// bomb is a model of the given graph members and model members.
func bomb(graph message, more ...message) []byte {
	m := message{}.varint(1, irVersion).bytes(modelGraph, graph)
	for _, f := range more {
		m = m.bytes(modelFunctions, f)
	}
	return m
}

func operator(domain, op string, attributes ...message) message {
	m := message{}.text(1, "x").text(2, "y").text(nodeOp, op).text(nodeDomain, domain)
	for _, a := range attributes {
		m = m.bytes(nodeAttribute, a)
	}
	return m
}

func calls(name, callee string, times int) message {
	m := message{}.text(functionName, name).text(functionDomain, "f")
	for range times {
		m = m.bytes(functionNode, operator("f", callee))
	}
	return m
}

// doubling is functions that each call the next one twice: 2^40 operators in
// two kilobytes.
func doubling() []byte {
	var functions []message
	for i := range 40 {
		functions = append(functions, calls(fmt.Sprint("f", i), fmt.Sprint("f", i+1), 2))
	}
	return bomb(message{}.bytes(graphNode, operator("f", "f0")), functions...)
}

func nested(depth int) message {
	g := message{}.bytes(graphNode, operator("", "Identity"))
	for range depth {
		g = message{}.bytes(graphNode, operator("", "If", attribute("then", 5).bytes(attrGraph, g)))
	}
	return g
}

func constant(dims ...int64) message {
	m := message{}.text(tensorName, "w").varint(2, typeFloat)
	for _, d := range dims {
		m = m.varint(tensorDims, d)
	}
	return m
}

func TestBombsAreRefused(t *testing.T) {
	lim := DefaultLimits()
	good := message{}.bytes(graphNode, operator("", "Identity")).bytes(graphInitializer, constant(3, 4)).bytes(graphInput, valueInfo("rows", 3))
	external := constant(1).varint(tensorLocation, 1).bytes(tensorExternal, message{}.text(1, "location").text(2, "../../etc/passwd"))
	packed := message{}.text(tensorName, "w").bytes(tensorDims, message{0x80, 0x80, 0x80, 0x80, 0x10, 0x80, 0x80, 0x80, 0x80, 0x10}) // 2^32 twice
	many := message{}
	for range 100 {
		many = many.bytes(graphNode, operator("", "Identity"))
	}
	few := lim
	few.Nodes, few.Functions = 50, 50
	for name, c := range map[string]struct {
		file []byte
		lim  Limits
		says string // "" accepts
	}{
		"good":               {bomb(good), lim, ""},
		"good functions":     {bomb(message{}.bytes(graphNode, operator("f", "a")), calls("a", "b", 2), calls("b", "Relu", 2)), few, ""},
		"external data":      {bomb(message{}.bytes(graphInitializer, external)), lim, "a file outside the model"},
		"in an attribute":    {bomb(message{}.bytes(graphNode, operator("", "Constant", attribute("value", 4).bytes(attrTensor, external)))), lim, "a file outside the model"},
		"in an inner graph":  {bomb(message{}.bytes(graphNode, operator("", "If", attribute("then", 5).bytes(attrGraph, message{}.bytes(graphInitializer, external))))), lim, "a file outside the model"},
		"in sparse":          {bomb(message{}.bytes(graphSparse, message{}.bytes(sparseValues, external))), lim, "a file outside the model"},
		"in a function":      {bomb(message{}.bytes(graphNode, operator("f", "a")), message{}.text(functionName, "a").text(functionDomain, "f").bytes(functionNode, operator("", "Constant", attribute("value", 4).bytes(attrTensor, external)))), lim, "a file outside the model"},
		"absurd constant":    {bomb(message{}.bytes(graphInitializer, constant(1<<20, 1<<20))), lim, "elements"},
		"overflowing":        {bomb(message{}.bytes(graphInitializer, constant(math.MaxInt64, 3))), lim, "elements"},
		"negative":           {bomb(message{}.bytes(graphInitializer, constant(-5))), lim, "dimension"},
		"packed dimensions":  {bomb(message{}.bytes(graphInitializer, packed)), lim, "elements"},
		"absurd input":       {bomb(message{}.bytes(graphInput, valueInfo("rows", 1<<40))), lim, "elements"},
		"too many operators": {bomb(many), few, "more than 50 operators"},
		"functions double":   {doubling(), lim, "operators"},
		"functions recur":    {bomb(message{}.bytes(graphNode, operator("f", "a")), calls("a", "b", 1), calls("b", "a", 1)), lim, "calls itself"},
		"too many functions": {doublingOf(60), few, "more than 50 functions"},
		"deep":               {bomb(nested(lim.Depth + 1)), lim, "deep"},
		"as deep as allowed": {bomb(nested(lim.Depth)), lim, ""},
		"cut off":            {bomb(good)[:20], lim, "not an ONNX model"},
		"text":               {[]byte("pickle"), lim, "not an ONNX model"},
		"nothing":            {nil, lim, "0 graphs"},
	} {
		err := Inspect(c.file, c.lim)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func doublingOf(n int) []byte {
	var functions []message
	for i := range n {
		functions = append(functions, calls(fmt.Sprint("f", i), "Relu", 1))
	}
	return bomb(message{}, functions...)
}

// What this package writes passes its own inspection.
func TestOwnModelsPass(t *testing.T) {
	for _, link := range []linear.Link{linear.Identity, linear.Logistic, linear.Softmax} {
		file, err := Linear(randomLinear(t, link))
		if err != nil {
			t.Fatal(err)
		}
		if err := Inspect(file, DefaultLimits()); err != nil {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(doubling())
	f.Add(bomb(nested(3)))
	f.Add(bomb(message{}.bytes(graphInitializer, constant(3, 4))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := Inspect(b, DefaultLimits()); err != nil && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	})
}
