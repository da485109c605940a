package stat_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"testing"

	"github.com/kedge-ml/kedge/drift/stat"
)

// edge is what SciPy says of one pair of samples or counts at the edge of what a
// test takes: numbers, or the text of what is none.
type edge struct {
	Name string
	Ref  []float64
	Cur  []float64
	Want map[string][]any
}

// beyond are answers where SciPy's own arithmetic gives out, and what is right
// instead.
func beyond(name, test string) bool {
	switch name + "/" + test {
	case "huge counts/fisher": // SciPy says 1 where χ² and G say 8e-9
		return true
	case "a zero row/fisher": // SciPy says 1 of a table without a second category; here that is a reason
		return true
	case "huge/welch": // the variance is infinite; SciPy says that nothing differs
		return true
	case "neighbouring doubles/welch": // a difference that is rounding alone
		return true
	}
	return false
}

// What SciPy answers is answered alike, and where it says NaN, infinity or
// raises, there is a number or a reason, never NaN.
func TestEdgesAsSciPy(t *testing.T) {
	b, err := os.ReadFile("testdata/edges.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Samples, Tables []edge }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, e := range file.Samples {
		l := stat.NewLadder(e.Ref, e.Cur)
		ref, cur := stat.MomentsOf(e.Ref), stat.MomentsOf(e.Cur)
		compared += e.check(t, "ks", pairOf(stat.KSAsymptotic(l)))
		compared += e.check(t, "ks_exact", pairOf(stat.KSExact(l)))
		compared += e.check(t, "cramer_von_mises", pairOf(stat.CramerVonMises(l)))
		compared += e.check(t, "mann_whitney", pairOf(stat.MannWhitney(l, stat.TwoSided)))
		compared += e.check(t, "welch", pairOf(stat.Welch(ref, cur)))
		w, err := stat.Wasserstein(l)
		compared += e.check(t, "wasserstein", answer{[]float64{w}, err})
	}
	for _, e := range file.Tables {
		c := stat.Counts{Ref: whole(e.Ref), Cur: whole(e.Cur)}
		compared += e.check(t, "chi2", pairOf(c.ChiSquared()))
		compared += e.check(t, "g", pairOf(c.G()))
		if e.Want["fisher"] != nil {
			f, err := c.Fisher()
			compared += e.check(t, "fisher", answer{[]float64{f.P}, err})
		}
	}
	if compared < 100 {
		t.Errorf("%d answers compared", compared)
	}
}

type answer struct {
	values []float64
	err    error
}

func pairOf(t stat.Test, err error) answer { return answer{[]float64{t.Statistic, t.P}, err} }

func whole(v []float64) []uint64 {
	out := make([]uint64, len(v))
	for i, x := range v {
		out[i] = uint64(x)
	}
	return out
}

// check answers 1 where SciPy's answer was compared.
func (e edge) check(t *testing.T, test string, got answer) int {
	t.Helper()
	var none *stat.NotComputable
	if got.err != nil && !errors.As(got.err, &none) {
		t.Errorf("%s of %s: %v", test, e.Name, got.err)
		return 0
	}
	for i, v := range got.values {
		is := math.IsInf(v, 0) && len(e.Want[test]) > i && e.Want[test][i] == map[bool]any{true: "inf", false: "-inf"}[v > 0]
		if got.err == nil && (math.IsNaN(v) || math.IsInf(v, 0) && !is) {
			t.Errorf("%s of %s: %v, want a number or a reason", test, e.Name, got.values)
		}
	}
	for _, w := range e.Want[test] {
		if _, ok := w.(float64); !ok {
			return 0
		}
	}
	if beyond(e.Name, test) {
		return 0
	}
	for i, w := range e.Want[test] {
		want := w.(float64)
		if got.err != nil {
			t.Errorf("%s of %s: %v, SciPy says %v", test, e.Name, got.err, e.Want[test])
			return 0
		}
		if v := got.values[i]; math.Abs(v-want) > 1e-9*max(math.Abs(want), 1e-3) && math.Abs(v-want) > 1e-12 {
			t.Errorf("%s of %s: %v, SciPy says %v", test, e.Name, got.values, e.Want[test])
			return 0
		}
	}
	return 1
}

// Multiplying all values by one number changes no t-test, and squares that leave
// the range of doubles are a reason.
func TestWelchOfLargeValues(t *testing.T) {
	moments := func(scale float64) (ref, cur stat.Moments) {
		return stat.MomentsOf([]float64{1 * scale, 2 * scale, 4 * scale, 3 * scale}), stat.MomentsOf([]float64{3 * scale, 5 * scale, 4 * scale})
	}
	want, err := stat.Welch(moments(1))
	if err != nil || want.P > 0.2 {
		t.Fatalf("%+v, %v", want, err)
	}
	if got, err := stat.Welch(moments(1e120)); err != nil || math.Abs(got.P-want.P) > 1e-12 || math.Abs(got.DF-want.DF) > 1e-9 {
		t.Errorf("of values of 1e120 %+v, %v; of values of 1 %+v", got, err, want)
	}
	for name, test := range map[string]func(ref, cur stat.Moments) (stat.Test, error){"Welch": stat.Welch, "Student": stat.Student} {
		var none *stat.NotComputable
		if got, err := test(moments(1e200)); !errors.As(err, &none) || none.Reason != stat.TooLarge {
			t.Errorf("%s of values of 1e200: %+v, %v", name, got, err)
		}
	}
}

// Of values of two kinds the characteristic functions say one thing, how many
// there are of each: the test is Wald's of two shares. SciPy takes rounding for a
// second dimension there.
func TestEppsSingletonOfFlags(t *testing.T) {
	flags := func(ones, n int) []float64 {
		out := make([]float64, n)
		for i := range ones {
			out[i] = 1
		}
		return out
	}
	got, err := stat.EppsSingleton(flags(192, 400), flags(177, 300))
	p, q := 192.0/400, 177.0/300
	want := (p - q) * (p - q) / (p*(1-p)/400 + q*(1-q)/300)
	if err != nil || math.Abs(got.Statistic-want) > 1e-9*want || math.Abs(got.P-math.Erfc(math.Sqrt(want/2))) > 1e-12 {
		t.Errorf("%+v, %v; Wald's %v, p %v", got, err, want, math.Erfc(math.Sqrt(want/2)))
	}
}
