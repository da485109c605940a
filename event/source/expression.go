package source

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/kedge-ml/kedge/event"
)

// Bounds on expressions.
const (
	maxNodes     = 200     // parts of one expression
	memoryBudget = 100_000 // elements that one run may make
)

// expression is a compiled one. It sees a row's fields under their names, with
// dots walking into flattened objects, and nothing else: no clock, no
// environment.
type expression struct {
	text    string
	program *vm.Program
}

func compile(text string) (*expression, error) {
	calls := &callCheck{}
	p, err := expr.Compile(text, expr.Env(map[string]any{}), expr.AllowUndefinedVariables(), expr.MaxNodes(maxNodes), expr.DisableBuiltin("now"), expr.Patch(calls))
	if err == nil && calls.bad != "" {
		err = fmt.Errorf("there is no function %s", calls.bad)
	}
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return &expression{text, p}, nil
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

// machine runs expressions over one row after the other.
type machine struct {
	vm  vm.VM
	env map[string]any
	set bool
}

func newMachine() *machine {
	return &machine{vm: vm.VM{MemoryBudget: memoryBudget}, env: map[string]any{}}
}

// reset forgets the row.
func (m *machine) reset() { m.set = false }

func (m *machine) run(e *expression, row Row) (any, error) {
	if !m.set {
		m.load(row)
	}
	out, err := m.vm.Run(e.program, m.env)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.text, err)
	}
	return out, nil
}

func (m *machine) load(row Row) {
	clear(m.env)
	for _, f := range row.Meta {
		m.env[f.Name] = native(f.Value)
	}
	for _, f := range row.Fields {
		put(m.env, f.Name, native(f.Value))
	}
	m.set = true
}

// put stores a flattened field where expressions look for it.
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

// native is a value as expressions see it.
func native(v event.Value) any {
	if v.Type.List {
		list := make([]any, len(v.List))
		for i, e := range v.List {
			list[i] = native(e)
		}
		return list
	}
	switch v.Type.Elem {
	case event.Bool:
		return v.Int != 0
	case event.Int32, event.Int64:
		return int(v.Int)
	case event.Float32, event.Float64:
		return v.Float
	case event.String, event.Bytes:
		return v.Text
	case event.Timestamp:
		return time.UnixMicro(v.Int).UTC()
	case event.JSON:
		var out any
		if err := json.Unmarshal([]byte(v.Text), &out); err == nil {
			return out
		}
	}
	return nil
}

// foreign is what an expression gave, as a value.
func foreign(out any) (event.Value, error) {
	switch v := out.(type) {
	case nil:
		return event.Value{}, nil
	case bool:
		return event.Flag(v), nil
	case int:
		return event.Int(int64(v)), nil
	case int64:
		return event.Int(v), nil
	case uint64:
		return event.Int(int64(v)), nil
	case float64:
		return event.Float(v), nil
	case string:
		return event.Text(strings.ToValidUTF8(v, "\uFFFD")), nil
	case time.Time:
		return event.Time(v.UnixMicro()), nil
	case time.Duration:
		return event.Float(v.Seconds()), nil
	}
	text, err := json.Marshal(out)
	if err != nil {
		return event.Value{}, fmt.Errorf("a %T is no value", out)
	}
	return event.Value{Type: event.ColumnType{Elem: event.JSON}, Text: string(text)}, nil
}
