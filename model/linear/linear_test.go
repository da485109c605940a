package linear

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func example() *Model {
	return &Model{
		Version: Format, Link: Logistic, Intercept: []float64{0.5},
		Terms: []Term{
			{Mean: 2, Scale: 4, Weights: []float64{3}, Missing: []float64{-0.25}, Average: []float64{0}},
			{Categories: [][]float64{{1}, {-1}}, Missing: []float64{0.125}, Average: []float64{0.5}},
		},
	}
}

func TestPredictByHand(t *testing.T) {
	m, err := New(example())
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		x, category float32
		margin      float64
	}{
		{6, 0, 0.5 + 3 + 1},
		{2, 1, 0.5 + 0 - 1},
		{nan, 1, 0.5 - 0.25 - 1},
		{2, nan, 0.5 + 0.125},
		{2, 9, 0.5 + 0.125},
		{2, -1, 0.5 + 0.125},
	} {
		out, contrib := make([]float32, 1), make([]float64, 3)
		row := []float32{c.x, c.category}
		m.Predict(out, row)
		if want := float32(1 / (1 + math.Exp(-c.margin))); out[0] != want {
			t.Errorf("%v: %v, want %v", row, out[0], want)
		}
		m.Contributions(contrib, row)
		if sum := contrib[0] + contrib[1] + contrib[2]; math.Abs(sum-c.margin) > 1e-12 {
			t.Errorf("%v: contributions %v sum to %v, want %v", row, contrib, sum, c.margin)
		}
		if contrib[2] != 1 { // intercept plus average of the category term
			t.Errorf("%v: mean margin %v, want 1", row, contrib[2])
		}
	}
}

func TestSoftmaxSumsToOne(t *testing.T) {
	m := &Model{Version: Format, Link: Softmax, Intercept: []float64{1, -2, 800}, Terms: []Term{{
		Scale: 1, Weights: []float64{1, 2, 3}, Missing: make([]float64, 3), Average: make([]float64, 3)}}}
	out := make([]float32, 3)
	m.Predict(out, []float32{7})
	if sum := out[0] + out[1] + out[2]; math.Abs(float64(sum)-1) > 1e-6 || out[2] != 1 {
		t.Fatalf("%v sums to %v", out, sum)
	}
}

func TestPredictDoesNotAllocate(t *testing.T) {
	m := example()
	rows := make([]float32, 200)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range rows {
		rows[i] = rng.Float32() * 2
	}
	out := make([]float32, 100)
	if n := testing.AllocsPerRun(20, func() { m.Predict(out, rows) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRoundTripAndDamage(t *testing.T) {
	text, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(text); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{`"format": 1`, `"format": 2`},
		{`"logistic"`, `"probit"`},
		{`"scale": 4`, `"scale": 0`},
		{`"scale": 4`, `"scale": -1`},
		{`"weights"`, `"wights"`},
		{`"missing"`, `"mising"`},
		{`"average"`, `"avg"`},
		{`"intercept"`, `"incept"`},
		{`{`, `[`},
	} {
		bad := strings.Replace(string(text), c[0], c[1], 1)
		if _, err := Read([]byte(bad)); bad == string(text) || !errors.Is(err, ErrFormat) {
			t.Errorf("%s for %s: got %v, want ErrFormat", c[1], c[0], err)
		}
	}
}

func FuzzRead(f *testing.F) {
	text, _ := example().Encode()
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Read(text)
		if err != nil {
			return
		}
		rows := make([]float32, 3*m.Features())
		for i := range rows {
			rows[i] = []float32{0, 1e9, float32(math.NaN()), -1}[i%4]
		}
		m.Predict(make([]float32, 3*m.Outputs()), rows)
		m.Contributions(make([]float64, 3*m.Groups()*(m.Features()+1)), rows)
	})
}
