package drift_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
)

func cramerVonMises(t *testing.T, g *dist.Grid, ref, cur []float64) drift.Result {
	t.Helper()
	d, err := drift.Detector("cramer_von_mises")
	if err != nil {
		t.Fatal(err)
	}
	c, err := drift.Compare(g, dist.Summarize(g, ref), dist.Summarize(g, cur))
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Compare(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Windows without drift that are much smaller than their reference look as they
// should, whether values lie apart or are equal.
func TestCramerVonMisesHoldsItsLevelOnCells(t *testing.T) {
	for name, draw := range map[string]func(rng *rand.Rand) float64{
		"normal": func(rng *rand.Rand) float64 { return rng.NormFloat64() },
		"ties":   func(rng *rand.Rand) float64 { return poisson(rng, 4) },
	} {
		rng := rand.New(rand.NewPCG(3, uint64(len(name))))
		const trials = 100
		alarms, sum := 0, 0.0
		for range trials {
			ref, cur := drawRows(rng, shift{draw: draw}, 5000), drawRows(rng, shift{draw: draw}, 400)
			g, err := dist.NumericGrid(ref, dist.GridConfig{})
			if err != nil {
				t.Fatal(err)
			}
			r := cramerVonMises(t, g, ref, cur)
			sum += r.P / trials
			if r.P <= nominal {
				alarms++
			}
			if r.Statistic < r.Low-1e-9 || r.Statistic > r.High+1e-9 {
				t.Fatalf("%s: statistic %v outside [%v, %v]", name, r.Statistic, r.Low, r.High)
			}
		}
		if alarms > 12 || sum < 0.4 || sum > 0.7 {
			t.Errorf("%s: %d of %d quiet windows at p ≤ .05, mean p %.2f", name, alarms, trials, sum)
		}
	}
}

// The statistic is the mean over all orders in which a cell's values may lie,
// counted one by one.
func TestCramerVonMisesIsTheMeanOfAllOrders(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	apart := make([]float64, 4000) // no value has the mass of an atom
	for i := range apart {
		apart[i] = rng.Float64()
	}
	g, err := dist.NumericGrid(apart, dist.GridConfig{Cells: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ref, cur := drawRows(rng, shift{draw: (*rand.Rand).Float64}, 2+rng.IntN(4)), drawRows(rng, shift{draw: (*rand.Rand).Float64}, 2+rng.IntN(4))
		a, err := dist.Summarize(g, ref).Dense(g)
		if err != nil {
			t.Fatal(err)
		}
		b, err := dist.Summarize(g, cur).Dense(g)
		if err != nil {
			t.Fatal(err)
		}
		var statistics []float64
		orders(a, b, nil, func(isRef []bool) { statistics = append(statistics, cvmOf(isRef)) })
		want := 0.0
		for _, x := range statistics {
			want += x / float64(len(statistics))
		}
		if got := cramerVonMises(t, g, ref, cur).Statistic; math.Abs(got-want) > 1e-9 {
			t.Errorf("%v against %v: %v, the mean of %d orders is %v", a, b, got, len(statistics), want)
		}
	}
}

// orders calls f with every order of the cells' values; true stands for the
// reference's.
func orders(a, b []uint64, so []bool, f func([]bool)) {
	switch {
	case len(a) == 0:
		f(so)
	case a[0]+b[0] == 0:
		orders(a[1:], b[1:], so, f)
	default:
		for _, isRef := range []bool{true, false} {
			left := [2]uint64{a[0], b[0]}
			if i := 1 - b2i(isRef); left[i] > 0 {
				left[i]--
				orders(append([]uint64{left[0]}, a[1:]...), append([]uint64{left[1]}, b[1:]...), append(so[:len(so):len(so)], isRef), f)
			}
		}
	}
}

// cvmOf is T of values that lie in an order, by its definition.
func cvmOf(isRef []bool) float64 {
	var n, m, u, v float64
	for i, ref := range isRef {
		rank := float64(i + 1)
		if ref {
			n++
			u += (rank - n) * (rank - n)
		} else {
			m++
			v += (rank - m) * (rank - m)
		}
	}
	return (n*u+m*v)/(n*m*(n+m)) - (4*n*m-1)/(6*(n+m))
}
