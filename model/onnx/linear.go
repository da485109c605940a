package onnx

import (
	"fmt"

	"github.com/kedge-ml/kedge/model/linear"
)

// Linear writes a linear or logistic model together with its pre-processing.
func Linear(m *linear.Model) ([]byte, error) {
	var g graph
	k := m.Outputs()
	base := append([]float64(nil), m.Intercept...)
	var sums []string
	var numeric []int
	for j := range m.Terms {
		t := &m.Terms[j]
		if len(t.Categories) == 0 {
			numeric = append(numeric, j)
			continue
		}
		for i, v := range t.Missing { // a row without any category gets this
			base[i] += v
		}
		sums = append(sums, category(&g, j, t, k))
	}
	if len(numeric) > 0 {
		sums = append(sums, numbers(&g, m, numeric)...)
	}
	at := g.floats("base", []int{1, k}, narrow(base))
	for i, s := range sums {
		at = g.op("Add", fmt.Sprintf("sum%d", i), at, s)
	}
	switch m.Link {
	case linear.Identity:
		g.op("Identity", "output", at)
	case linear.Logistic:
		g.op("Sigmoid", "output", at)
	case linear.Softmax:
		g.node("", "Softmax", []string{at}, "output", intAttr("axis", 1))
	default:
		return nil, fmt.Errorf("write ONNX: link %q", m.Link)
	}
	return g.model(m.Features(), k), nil
}

// numbers adds the numeric terms: standardise, weigh, and weigh being missing.
func numbers(g *graph, m *linear.Model, columns []int) []string {
	n, k := len(columns), m.Outputs()
	mean, weights, missing := make([]float64, n), make([]float64, n*k), make([]float64, n*k)
	for i, j := range columns {
		t := &m.Terms[j]
		mean[i] = t.Mean
		for o := range k {
			weights[i*k+o] = t.Weights[o] / t.Scale
			missing[i*k+o] = t.Missing[o]
		}
	}
	g.node("", "Gather", []string{"rows", g.ints("numeric", columns)}, "numbers", intAttr("axis", 1))
	center := g.floats("mean", []int{1, n}, narrow(mean))
	g.op("IsNaN", "absent", "numbers")
	g.op("Where", "filled", "absent", center, "numbers")
	g.op("Sub", "centred", "filled", center)
	g.op("MatMul", "weighed", "centred", g.floats("weights", []int{n, k}, narrow(weights)))
	g.node("", "Cast", []string{"absent"}, "absence", intAttr("to", typeFloat))
	g.op("MatMul", "missed", "absence", g.floats("missing", []int{n, k}, narrow(missing)))
	return []string{"weighed", "missed"}
}

// category adds one categorical term as one-hot times weights, relative to
// having no category.
func category(g *graph, j int, t *linear.Term, k int) string {
	name := func(s string) string { return fmt.Sprintf("%s%d", s, j) }
	n := len(t.Categories)
	codes, weights := make([]float32, n), make([]float64, n*k)
	for c, w := range t.Categories {
		codes[c] = float32(c)
		for o := range k {
			weights[c*k+o] = w[o] - t.Missing[o]
		}
	}
	g.node("", "Gather", []string{"rows", g.ints(name("column"), []int{j})}, name("code"), intAttr("axis", 1))
	g.op("Equal", name("is"), name("code"), g.floats(name("codes"), []int{1, n}, codes))
	g.node("", "Cast", []string{name("is")}, name("onehot"), intAttr("to", typeFloat))
	return g.op("MatMul", name("category"), name("onehot"), g.floats(name("categories"), []int{n, k}, narrow(weights)))
}

func narrow(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}
