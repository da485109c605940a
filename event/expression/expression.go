// Package expression runs the expressions of definitions: those of expr-lang,
// over a row's fields and nothing else (no clock, no environment), bounded in
// size and memory. Sources and conversions of views speak the same language.
package expression

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/vm"
)

// Bounds on expressions.
const (
	MaxNodes     = 200     // parts of one expression
	memoryBudget = 100_000 // elements that one run may make
)

// Program is a compiled expression. It may be run by several machines at once.
type Program struct {
	text    string
	program *vm.Program
	names   []string
}

// Compile reads an expression. A name that the row does not have is null.
func Compile(text string) (*Program, error) {
	calls, names := &callCheck{}, &nameList{}
	p, err := expr.Compile(text, append([]expr.Option{expr.Env(map[string]any{}), expr.AllowUndefinedVariables(), expr.Patch(calls), expr.Patch(names), expr.Patch(plainNames{})}, Bounds()...)...)
	if err == nil && calls.bad != "" {
		err = fmt.Errorf("there is no function %s", calls.bad)
	}
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return &Program{text, p, names.fields()}, nil
}

// String is the expression as it was written.
func (p *Program) String() string { return p.text }

// Names are the fields that the expression reads, by their first part.
func (p *Program) Names() []string { return p.names }

// plainNames makes a field of a name that a function has too, where it is not
// called: type, count and last are common names of fields.
type plainNames struct{}

// Visit implements [ast.Visitor].
func (plainNames) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok {
		if _, function := builtin.Index[id.Value]; function {
			ast.Patch(node, &ast.MemberNode{Node: &ast.IdentifierNode{Value: "$env"}, Property: &ast.StringNode{Value: id.Value}})
		}
	}
}

// callCheck finds calls of what is no function: fields may be absent from a
// row, so the compiler takes any name for one. Local is refused because it
// reads the machine's time zone.
type callCheck struct{ bad string }

// Visit implements [ast.Visitor].
func (c *callCheck) Visit(node *ast.Node) {
	call, ok := (*node).(*ast.CallNode)
	if !ok {
		return
	}
	switch callee := call.Callee.(type) {
	case *ast.IdentifierNode:
		c.bad = callee.Value
	case *ast.MemberNode:
		if name, ok := callee.Property.(*ast.StringNode); ok && name.Value == "Local" {
			c.bad = name.Value
		}
	}
}

// nameList collects the identifiers of an expression.
type nameList struct{ read, own []string }

// Visit implements [ast.Visitor].
func (n *nameList) Visit(node *ast.Node) {
	switch x := (*node).(type) {
	case *ast.IdentifierNode:
		n.read = append(n.read, x.Value)
	case *ast.VariableDeclaratorNode:
		n.own = append(n.own, x.Name)
	}
}

func (n *nameList) fields() (out []string) {
	for _, name := range n.read {
		if !slices.Contains(n.own, name) && !slices.Contains(out, name) && !strings.HasPrefix(name, "$") {
			out = append(out, name)
		}
	}
	return out
}

// Machine runs programs over one row after the other. It is for one goroutine.
type Machine struct {
	vm  vm.VM
	env map[string]any
}

// NewMachine returns a machine without a row.
func NewMachine() *Machine {
	return &Machine{vm: vm.VM{MemoryBudget: memoryBudget}, env: map[string]any{}}
}

// Clear forgets the row.
func (m *Machine) Clear() { clear(m.env) }

// Set gives the row a field.
func (m *Machine) Set(name string, v any) { m.env[name] = v }

// Put gives the row a field whose name walks into objects by dots.
func (m *Machine) Put(name string, v any) { put(m.env, name, v) }

func put(env map[string]any, name string, v any) {
	head, rest, dotted := strings.Cut(name, ".")
	if !dotted {
		env[name] = v
		return
	}
	inner, ok := env[head].(map[string]any)
	if !ok {
		inner = map[string]any{}
		env[head] = inner
	}
	put(inner, rest, v)
}

// Run evaluates a program over the row.
func (m *Machine) Run(p *Program) (any, error) {
	out, err := m.vm.Run(p.program, m.env)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", p.text, err)
	}
	return out, nil
}
