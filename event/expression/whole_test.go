package expression

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestWholeNumbersDoNotWrap holds every operator against big integers: the
// exact answer, or an error that says the range.
func TestWholeNumbersDoNotWrap(t *testing.T) {
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -3037000500, -2, -1, 0, 1, 2, 3037000500, math.MaxInt64 - 1, math.MaxInt64}
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		edges = append(edges, int64(r.Uint64())>>r.IntN(63))
	}
	m := NewMachine()
	for text, op := range map[string]func(z, x, y *big.Int) *big.Int{
		"a + b": (*big.Int).Add, "a - b": (*big.Int).Sub, "a * b": (*big.Int).Mul, "-a": func(z, x, _ *big.Int) *big.Int { return z.Neg(x) },
		"sum([a, b])": (*big.Int).Add, "sum([b], # + a)": (*big.Int).Add, "[a, b] | sum(#)": (*big.Int).Add, "sum(map([a, b], #))": (*big.Int).Add, "abs(a)": func(z, x, _ *big.Int) *big.Int { return z.Abs(x) },
	} {
		p, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range edges {
			for _, b := range edges {
				m.Set("a", int(a))
				m.Set("b", int(b))
				want := op(new(big.Int), big.NewInt(a), big.NewInt(b))
				got, err := m.Run(p)
				switch {
				case want.IsInt64() && (err != nil || got != int(want.Int64())):
					t.Fatalf("%s of %d and %d is %v %v, want %v", text, a, b, got, err, want)
				case !want.IsInt64() && (err == nil || !strings.Contains(err.Error(), "range of Int64")):
					t.Fatalf("%s of %d and %d is %v %v, want an error: it is %v", text, a, b, got, err, want)
				}
			}
		}
	}
}

// TestIntOfWhatIsTooLarge: an unsigned 64-bit number above 2^63-1 arrives as a
// float; int() of it had been the smallest number there is.
func TestIntOfWhatIsTooLarge(t *testing.T) {
	m := NewMachine()
	for x, want := range map[any]any{
		1.8446744073709552e19: nil, math.Ldexp(1, 63): nil, math.NaN(): nil, math.Inf(1): nil, math.Nextafter(-math.Ldexp(1, 63), math.Inf(-1)): nil,
		-math.Ldexp(1, 63): math.MinInt64, math.Nextafter(math.Ldexp(1, 63), 0): 1<<63 - 1024, 2.9: 2, -2.9: -2, "17": 17, 5: 5,
	} {
		m.Set("x", x)
		for _, text := range []string{"int(x)", "x | int()"} {
			p, err := Compile(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.Run(p); got != want || (err == nil) != (want != nil) {
				t.Errorf("%s of %v is %v %v, want %v", text, x, got, err, want)
			}
		}
	}
}

// TestOperatorsOfOtherTypes: what is not whole is as it was.
func TestOperatorsOfOtherTypes(t *testing.T) {
	m := NewMachine()
	m.Set("i", 3)
	m.Set("f", 1.5)
	m.Set("s", "a")
	for text, want := range map[string]any{
		"i + f": 4.5, "f * i": 4.5, "f - i": -1.5, "-f": -1.5, `s + "b"`: "ab", "2 + 3 * 4": 14, "1 - -1": 2, "[1,2,3][i - 2]": 2, "sum(map([1,2], # * i))": 9, "i + 1 > f": true,
		"sum([i, f])": 4.5, "sum([f, i, 1])": 5.5, "sum([i, 2], # * f)": 7.5, "sum([])": 0, "sum(1..4)": 10, "sum(1..4, # * 2)": 20, "abs(-f)": 1.5, "abs(-i)": 3,
		"sum(filter([1, -2, 3], # > 0), # + i)":                      10,
		`date("2026-03-02") - duration("24h") == date("2026-03-01")`: true, "-9223372036854775807 - 1": math.MinInt64,
	} {
		p, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := m.Run(p); err != nil || got != want {
			t.Errorf("%s is %v %v, want %v", text, got, err, want)
		}
	}
	m.Set("i", nil)
	p, _ := Compile("i + 1")
	if got, err := m.Run(p); err == nil {
		t.Errorf("null and one make %v", got)
	}
}

// TestConstantsAreFolded: what is known before the first event is computed
// once, and a constant that does not fit is no other number.
func TestConstantsAreFolded(t *testing.T) {
	m := NewMachine()
	m.Set("x", 2)
	for text, want := range map[string]any{
		"60*60*24": 86400, "2 * -3 + 1": -5, "-(2 - 5)": 3, "9223372036854775807 + 1": nil, "-(-9223372036854775807 - 1)": nil, "4611686018427387904 * 2": nil,
		"sum([9223372036854775807, 1])": nil, "abs(-9223372036854775807 - 1)": nil, "sum(1..2, 9223372036854775807)": nil,
	} {
		p, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Run(p); got != want || (err == nil) != (want != nil) {
			t.Errorf("%s is %v %v, want %v", text, got, err, want)
		}
		if code := p.program.Disassemble(); want != nil && strings.Count(code, "\n") != 1 {
			t.Errorf("%s is computed for each event:\n%s", text, code)
		}
	}
}
