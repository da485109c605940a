package serving

import (
	"math"
	"math/rand/v2"
	"testing"
)

// look draws two arms of Bernoulli losses and reports at which label the
// always-valid bounds, and those of an ordinary z-test, first exclude zero.
func look(rng *rand.Rand, pa, pc float64, n int) (valid, naive int) {
	var a, c Sums
	add := func(s *Sums, p float64) {
		s.N++
		if rng.Float64() < p {
			s.Sum, s.SumOfSqs = s.Sum+1, s.SumOfSqs+1
		}
	}
	for i := 1; i <= n; i++ {
		add(&a, pa)
		add(&c, pc)
		if i < 100 {
			continue
		}
		d := Difference(a, c, 0.05)
		if valid == 0 && (d.Low > 0 || d.High < 0) {
			valid = i
		}
		se := math.Sqrt(a.variance()/float64(a.N) + c.variance()/float64(c.N))
		if naive == 0 && math.Abs(d.Effect) > 1.96*se {
			naive = i
		}
	}
	return valid, naive
}

// TestDifferenceUnderPeeking looks after every label. Arms that are the same
// are told apart in no more than 5 % of runs; an ordinary test under the same
// looks, the control of this test, errs several times as often. A real
// difference is found.
func TestDifferenceUnderPeeking(t *testing.T) {
	const runs, labels = 400, 3000
	rng := rand.New(rand.NewPCG(3, 4))
	wrong, naive := 0, 0
	for range runs {
		v, n := look(rng, 0.3, 0.3, labels)
		if v > 0 {
			wrong++
		}
		if n > 0 {
			naive++
		}
	}
	if share := float64(wrong) / runs; share > 0.07 {
		t.Errorf("equal arms are told apart in %.1f %% of runs, promised 5 %%", 100*share)
	}
	if share := float64(naive) / runs; share < 0.15 {
		t.Errorf("the ordinary test errs in %.1f %% of runs: this test would not notice peeking", 100*share)
	}
	t.Logf("equal arms told apart: %d of %d; by an ordinary test: %d", wrong, runs, naive)
	found, after := 0, 0
	for range 100 {
		if v, _ := look(rng, 0.42, 0.3, labels); v > 0 {
			found, after = found+1, after+v
		}
	}
	if found < 95 {
		t.Errorf("a difference of 0.12 is found in %d of 100 runs", found)
	}
	t.Logf("0.42 against 0.30: found in %d of 100, after %d labels per arm on average", found, after/max(found, 1))
}

func TestDifferenceWithoutEvidence(t *testing.T) {
	for _, s := range [][2]Sums{{{}, {}}, {{N: 1, Sum: 1, SumOfSqs: 1}, {N: 9}}, {{N: 9}, {N: 9}}} {
		if d := Difference(s[0], s[1], 0.05); !math.IsInf(d.Low, -1) || !math.IsInf(d.High, 1) {
			t.Errorf("%+v: bounds %+v", s, d)
		}
	}
}

// TestMismatch watches splits unit by unit: one that is as intended is blamed
// in at most one of a thousand runs, one that lost a twentieth of an arm is
// found.
func TestMismatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	blamed := func(share float64, n int) bool {
		counts := make([]uint64, 2)
		for range n {
			if rng.Float64() < share {
				counts[1]++
			} else {
				counts[0]++
			}
			if (counts[0]+counts[1])%10 == 0 && Mismatch(counts, []float64{0.7, 0.3}) > mismatched {
				return true
			}
		}
		return false
	}
	wrong := 0
	for range 500 {
		if blamed(0.3, 3000) {
			wrong++
		}
	}
	if wrong > 3 {
		t.Errorf("%d of 500 sound splits are blamed", wrong)
	}
	if !blamed(0.3*0.8, 20000) {
		t.Error("an arm that lost a fifth of its units is not noticed")
	}
}

// TestPSI compares with the definition over known shares, and holds that equal
// samples are near zero.
func TestPSI(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	same, shifted, control := make([]float64, 2000), make([]float64, 2000), make([]float64, 2000)
	for i := range control {
		same[i], control[i], shifted[i] = rng.Float64(), rng.Float64(), rng.Float64()*0.5
	}
	if v := psi(same, control); v > 0.02 {
		t.Errorf("equal distributions: %v", v)
	}
	// Ten cells of 0.1 against five of 0.2 and five that are empty but for the half value.
	empty := 0.5 / 2005
	want := 5*(0.2-0.1)*math.Log(0.2/0.1) + 5*(empty-0.1)*math.Log(empty/0.1)
	if v := psi(shifted, control); math.Abs(v-want) > 0.15*want {
		t.Errorf("half the range: %v, by hand %v", v, want)
	}
}

func TestLatencyQuantile(t *testing.T) {
	var l live
	for range 1000 {
		l.answered(0, nil, 1)
	}
	for range 20 {
		l.took[latencyCell(8_000_000)].Add(1) // 8 ms
	}
	r := l.read()
	if q := r.quantile(0.99); q < 8_000_000 || q > 11_400_000 {
		t.Errorf("p99 %v, want 8 ms and at most 41 %% more", q)
	}
	if q := r.quantile(0.5); q > 2_000 {
		t.Errorf("p50 %v, want 1 µs and at most 41 %% more", q)
	}
	if empty := (&reading{}); empty.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
}
