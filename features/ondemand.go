package features

import (
	"fmt"
	"slices"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// maxExpressionMemory is how many elements one run may make; the other bounds
// are those of all expressions.
const maxExpressionMemory = 100_000

// onDemandView computes features from stored ones and from what the caller
// sends. The same code runs when serving and when building training sets.
type onDemandView struct {
	name     string
	spec     *OnDemandSpec
	inputs   []onDemandInput
	programs []*vm.Program
}

// onDemandInput is one stored feature that an expression names.
type onDemandInput struct {
	view   *View
	column string
	typ    event.ColumnType
}

// newOnDemand compiles a view's expressions against the views there are.
func newOnDemand(name string, spec *OnDemandSpec, views map[string]*View) (*onDemandView, error) {
	v := &onDemandView{name: name, spec: spec}
	env := map[string]any{}
	for _, f := range spec.Request {
		env[f.Name] = exampleOf(f.Type)
	}
	for viewName, view := range views {
		columns := map[string]any{}
		for _, f := range view.Schema.Values() {
			columns[f.Name] = exampleOf(f.Type)
		}
		env[viewName] = columns
	}
	for _, f := range spec.Features {
		uses := &memberVisitor{views: views, found: func(in onDemandInput) {
			if !slices.Contains(v.inputs, in) {
				v.inputs = append(v.inputs, in)
			}
		}}
		p, err := expr.Compile(f.Expr, append(expression.Bounds(), expr.Env(env), expr.Patch(uses))...)
		if err != nil {
			return nil, fmt.Errorf("feature %s: %w", f.Name, err)
		}
		if uses.err != nil {
			return nil, fmt.Errorf("feature %s: %w", f.Name, uses.err)
		}
		v.programs = append(v.programs, p)
	}
	return v, nil
}

// exampleOf is a value of the type that expressions see.
func exampleOf(t event.ColumnType) any {
	if t.List {
		return []any{}
	}
	switch t.Elem {
	case event.Bool:
		return false
	case event.Int32, event.Int64, event.Timestamp:
		return int64(0)
	case event.Float32, event.Float64:
		return float64(0)
	}
	return ""
}

// memberVisitor finds every view.column of an expression.
type memberVisitor struct {
	views map[string]*View
	found func(onDemandInput)
	err   error
}

// Visit is called for each node by the expression library.
func (m *memberVisitor) Visit(node *ast.Node) {
	n, ok := (*node).(*ast.MemberNode)
	if !ok {
		return
	}
	name, ok := n.Node.(*ast.IdentifierNode)
	if !ok {
		return
	}
	view := m.views[name.Value]
	column, ok := n.Property.(*ast.StringNode)
	if view == nil || !ok {
		return
	}
	for _, f := range view.Schema.Values() {
		if f.Name == column.Value {
			m.found(onDemandInput{view, f.Name, f.Type})
			return
		}
	}
	m.err = fmt.Errorf("view %s has no feature %q", view.Name, column.Value)
}

// eval computes one feature. inputs are parallel to v.inputs; request holds the
// caller's values by name. nil stands for null. An expression that cannot go
// on because something it needs is null is null.
func (v *onDemandView) eval(feature int, inputs []any, request map[string]any) (any, error) {
	env := make(map[string]any, len(request)+len(inputs))
	null := false
	for k, x := range request {
		env[k] = x
		null = null || x == nil
	}
	for i, in := range v.inputs {
		columns, ok := env[in.view.Name].(map[string]any)
		if !ok {
			columns = map[string]any{}
			env[in.view.Name] = columns
		}
		columns[in.column] = inputs[i]
		null = null || inputs[i] == nil
	}
	machine := vm.VM{MemoryBudget: maxExpressionMemory}
	out, err := machine.Run(v.programs[feature], env)
	if err != nil && null {
		return nil, nil
	}
	if err != nil {
		f := v.spec.Features[feature]
		return nil, badRequest("On-demand feature %s:%s: %v", v.name, f.Name, err)
	}
	return out, nil
}

// convertDerived gives an expression's result the feature's type; false means
// that it has none of that type.
func convertDerived(x any, t event.ColumnType) (any, bool) {
	if t.List || x == nil {
		return x, true
	}
	switch t.Elem {
	case event.Float32, event.Float64:
		f, ok := asFloat(x)
		if t.Elem == event.Float32 {
			f = float64(float32(f))
		}
		return f, ok
	case event.Int32, event.Int64, event.Timestamp:
		n, ok := asInt(x)
		return n, ok && (t.Elem != event.Int32 || n == int64(int32(n)))
	case event.Bool:
		b, ok := x.(bool)
		return b, ok
	}
	s, ok := x.(string)
	return s, ok
}

func asFloat(x any) (float64, bool) {
	switch x := x.(type) {
	case float64:
		return x, true
	case float32:
		return float64(x), true
	case int:
		return float64(x), true
	case int64:
		return float64(x), true
	}
	return 0, false
}

func asInt(x any) (int64, bool) {
	switch x := x.(type) {
	case int64:
		return x, true
	case int:
		return int64(x), true
	case float64:
		return int64(x), x >= -(1<<63) && x < 1<<63 && float64(int64(x)) == x
	}
	return 0, false
}
