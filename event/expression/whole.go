package expression

import (
	"errors"
	"fmt"
	"math"
	"reflect"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/vm/runtime"
)

// errRange is what has no exact answer in 64 bits.
var errRange = errors.New("beyond the range of Int64 (-2^63 to 2^63-1): compute with floats (float(x))")

// Bounds are what every language of definitions shares: how large an expression
// may be, that it sees no clock, and that a whole number which does not fit is
// an error. expr-lang wraps round: 2^63-1 + 1 and int(1.8e19) are negative there.
func Bounds() []expr.Option {
	return []expr.Option{
		expr.MaxNodes(MaxNodes), expr.DisableBuiltin("now"), expr.Patch(wholeNumbers{}),
		expr.Function("whole +", arithmetic(plus, func(a, b any) any { return runtime.Add(a, b) })),
		expr.Function("whole -", arithmetic(minus, func(a, b any) any { return runtime.Subtract(a, b) })),
		expr.Function("whole *", arithmetic(times, func(a, b any) any { return runtime.Multiply(a, b) })),
		expr.Function("whole negative", negate),
		expr.Function("whole int", toWhole),
		expr.Function("whole abs", absolute),
		expr.Function("whole sum", sum),
	}
}

// wholeNumbers puts exact functions in the place of what wraps round. Their
// names have a space, so that no expression can say them.
type wholeNumbers struct{}

// Visit implements [ast.Visitor].
func (wholeNumbers) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		if z, ok := constant(n); ok {
			ast.Patch(node, &ast.IntegerNode{Value: z})
		} else if (n.Operator == "+" || n.Operator == "-" || n.Operator == "*") && mayBeWhole(n.Left) && mayBeWhole(n.Right) {
			call(node, n.Operator, n.Left, n.Right)
		}
	case *ast.UnaryNode:
		if n.Operator != "-" || !mayBeWhole(n.Node) {
			return
		}
		if x, literal := n.Node.(*ast.IntegerNode); literal && x.Value != math.MinInt64 {
			ast.Patch(node, &ast.IntegerNode{Value: -x.Value})
		} else {
			call(node, "negative", n.Node)
		}
	case *ast.BuiltinNode:
		switch {
		case (n.Name == "int" || n.Name == "abs" || n.Name == "sum") && len(n.Arguments) == 1:
			call(node, n.Name, n.Arguments[0])
		case n.Name == "sum" && len(n.Arguments) == 2:
			call(node, n.Name, &ast.BuiltinNode{Name: "map", Arguments: n.Arguments})
		}
	}
}

// constant is what an operator makes of two literals, where that fits: it is
// computed once, here, since expr-lang's own folding wraps round.
func constant(n *ast.BinaryNode) (z int, ok bool) {
	x, ok1 := n.Left.(*ast.IntegerNode)
	y, ok2 := n.Right.(*ast.IntegerNode)
	whole := map[string]func(x, y int64) (int64, bool){"+": plus, "-": minus, "*": times}[n.Operator]
	if !ok1 || !ok2 || whole == nil {
		return 0, false
	}
	exact, fits := whole(int64(x.Value), int64(y.Value))
	return int(exact), fits
}

func call(node *ast.Node, name string, args ...ast.Node) {
	at := (*node).Location()
	*node = &ast.CallNode{Callee: &ast.IdentifierNode{Value: "whole " + name}, Arguments: args}
	(*node).SetLocation(at)
}

// mayBeWhole reports whether a part of an expression is an integer, or of a
// type that shows when it runs.
func mayBeWhole(n ast.Node) bool {
	t := n.Type()
	return t == nil || t.Kind() == reflect.Interface || t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

func plus(x, y int64) (int64, bool) { z := x + y; return z, (z > x) == (y > 0) }

func minus(x, y int64) (int64, bool) { z := x - y; return z, (z < x) == (y > 0) }

func times(x, y int64) (int64, bool) {
	if x == 0 || y == 0 {
		return 0, true
	}
	z := x * y
	return z, z/y == x && (y != -1 || x != math.MinInt64) && (x != -1 || y != math.MinInt64)
}

// arithmetic is an operator that says when a whole number does not fit; what is
// not whole goes to expr-lang's.
func arithmetic(whole func(x, y int64) (z int64, fits bool), other func(a, b any) any) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		x, ok1 := integer(args[0])
		y, ok2 := integer(args[1])
		if !ok1 || !ok2 {
			return other(args[0], args[1]), nil
		}
		z, fits := whole(x, y)
		if !fits {
			return nil, errRange
		}
		return int(z), nil
	}
}

func negate(args ...any) (any, error) {
	if x, ok := integer(args[0]); ok && x == math.MinInt64 {
		return nil, errRange
	}
	return runtime.Negate(args[0]), nil
}

func absolute(args ...any) (any, error) {
	if x, ok := integer(args[0]); ok && x == math.MinInt64 {
		return nil, errRange
	}
	return builtin.Abs(args[0]), nil
}

// sum adds a list's elements up from the left, as a chain of + would.
func sum(args ...any) (any, error) {
	list := reflect.ValueOf(args[0])
	if k := list.Kind(); k != reflect.Slice && k != reflect.Array {
		return nil, fmt.Errorf("sum takes a list, not %T", args[0])
	}
	total, add := any(0), arithmetic(plus, func(a, b any) any { return runtime.Add(a, b) })
	for i := range list.Len() {
		var err error
		if total, err = add(list.Index(i).Interface(), total); err != nil {
			return nil, fmt.Errorf("sum: %w", err)
		}
	}
	return total, nil
}

// toWhole is int(x); float64(1<<63) is the first that does not fit.
func toWhole(args ...any) (any, error) {
	f, ok := args[0].(float64)
	if !ok {
		return builtin.Int(args[0]), nil
	}
	if !(f >= -(1<<63) && f < 1<<63) {
		return nil, fmt.Errorf("int(%v): %w", f, errRange)
	}
	return int(f), nil
}

// integer are the integers that rows hold and expr-lang makes.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}
