package features

import (
	"math"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// TestTransformsDoNotWrap: a transform's whole number that does not fit is
// refused where rows are served and where training sets are made: both ask
// eval and convertDerived.
func TestTransformsDoNotWrap(t *testing.T) {
	for _, c := range []struct {
		expr    string
		typ     event.Type
		a       any
		f       any
		want    any
		refused bool
	}{
		{"a + 1", event.Int64, int64(math.MaxInt64), 0.0, nil, true},
		{"a + 1", event.Int64, int64(41), 0.0, int64(42), false},
		{"-a * 2", event.Int64, int64(math.MinInt64), 0.0, nil, true},
		{"int(f)", event.Int64, int64(0), 1.8446744073709552e19, nil, true},
		{"int(f)", event.Int64, int64(0), -3.5, int64(-3), false},
		{"f", event.Int64, int64(0), math.Ldexp(1, 63), nil, true},
		{"f * 2", event.Float64, int64(0), math.Ldexp(1, 63), math.Ldexp(1, 64), false},
		{"a", event.Int32, int64(1 << 31), 0.0, nil, true},
		{"a", event.Int32, int64(-1 << 31), 0.0, int64(-1 << 31), false},
		{"a + 1", event.Int64, nil, 0.0, nil, false},
	} {
		spec := &OnDemandSpec{
			Request:  []event.FieldSpec{{Name: "a", Type: event.ColumnType{Elem: event.Int64}}, {Name: "f", Type: event.ColumnType{Elem: event.Float64}}},
			Features: []OnDemandFeature{{Name: "x", Type: event.ColumnType{Elem: c.typ}, Expr: c.expr}},
		}
		v, err := newOnDemand("d", spec, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.expr, err)
		}
		out, err := v.eval(0, nil, map[string]any{"a": c.a, "f": c.f})
		got, ok := convertDerived(out, spec.Features[0].Type)
		if refused := err != nil || !ok; refused != c.refused || !refused && got != c.want {
			t.Errorf("%s of %v and %v is %v (%v %v), want %v, refused %v", c.expr, c.a, c.f, got, err, ok, c.want, c.refused)
		}
	}
}
