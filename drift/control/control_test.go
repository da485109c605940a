package control

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// Every correction against its definition, by brute force over thresholds: the
// adjusted p-value is the smallest α at which the procedure rejects.
func TestAdjustedPIsTheSmallestLevelThatRejects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 1, 0.05})), 1, 12).Draw(t, "p")
		alpha := rapid.Float64Range(0.001, 1).Draw(t, "alpha")
		bh := BenjaminiHochberg(p)
		k := 0
		for i := 1; i <= len(p); i++ {
			n := 0
			for _, v := range p {
				if v <= alpha*float64(i)/float64(len(p)) {
					n++
				}
			}
			if n >= i {
				k = i
			}
		}
		for i, v := range p {
			rejected := v <= alpha*float64(k)/float64(len(p)) && k > 0
			near := math.Abs(bh[i]-alpha) < 1e-12
			if (bh[i] <= alpha) != rejected && !near {
				t.Fatalf("p %v at %v: adjusted %v, rejected by definition %v", p, alpha, bh[i], rejected)
			}
		}
	})
}

// Holm's adjusted p-values reject at a level what stepping down through the
// hypotheses at that level does.
func TestHolmStepsDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 1, 0.01})), 1, 12).Draw(t, "p")
		alpha := rapid.Float64Range(0.001, 1).Draw(t, "alpha")
		rejected, holm := map[int]bool{}, Holm(p)
		for len(rejected) < len(p) {
			least := -1
			for i := range p {
				if !rejected[i] && (least < 0 || p[i] < p[least]) {
					least = i
				}
			}
			if p[least] > alpha/float64(len(p)-len(rejected)) {
				break
			}
			rejected[least] = true
		}
		for i, v := range p {
			if (holm[i] <= alpha) != rejected[i] && math.Abs(holm[i]-alpha) > 1e-12 {
				t.Fatalf("p %v at %v: adjusted %v, rejected by stepping down %v", v, alpha, holm[i], rejected[i])
			}
		}
	})
}

func TestEValuesRejectByDefinition(t *testing.T) {
	e := []float64{math.Log(500), math.Log(3), math.Log(90), math.Log(0.1), math.Log(45)}
	// m/(αk) at α=.05: 100, 50, 33.3, 25, 20: three e-values reach 33.3
	want := []bool{true, false, true, false, true}
	for i, got := range EBenjaminiHochberg(e, 0.05) {
		if got != want[i] {
			t.Errorf("e-value %d: rejected %v, want %v", i, got, want[i])
		}
	}
}

// The e-process is the ratio of the mixture's likelihood to the null's; here the
// mixture is integrated numerically.
func TestRateEvidenceIsALikelihoodRatio(t *testing.T) {
	r := &RateEvidence{P0: 0.3, A: 2, B: 3}
	got := math.Exp(r.Add(7, 12))
	sum, norm := 0.0, 0.0
	for i := 1; i < 100_000; i++ {
		p := float64(i) / 100_000
		prior := math.Pow(p, 1) * math.Pow(1-p, 2)
		norm += prior
		sum += prior * math.Pow(p/0.3, 7) * math.Pow((1-p)/0.7, 5)
	}
	if math.Abs(got-sum/norm) > 1e-6*got {
		t.Fatalf("e-value %v, integral %v", got, sum/norm)
	}
}

// Looking after every row for 2,000 rows, alarms at 1/α stay below α.
func TestRateEvidenceHoldsUnderContinuousLooking(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const runs, alpha = 2000, 0.05
	alarms := 0
	for range runs {
		r := NewRateEvidence(0.1)
		for range 500 {
			hit := 0.0
			if rng.Float64() < 0.1 {
				hit = 1
			}
			r.Add(hit, 1)
		}
		if r.P() <= alpha {
			alarms++
		}
	}
	if limit := runs*alpha + 3*math.Sqrt(runs*alpha*(1-alpha)); float64(alarms) > limit {
		t.Fatalf("%d of %d runs alarmed, nominal %v", alarms, runs, runs*alpha)
	}
}

// runLength counts windows until the alarm, at most limit.
func runLength(rng *rand.Rand, d *Detector, threshold float64, limit int, mean func(i int) float64) int {
	for i := range limit {
		hits := 0.0
		for range 20 {
			if rng.Float64() < mean(i) {
				hits++
			}
		}
		if d.Add(hits/20) >= threshold {
			return i + 1
		}
	}
	return limit
}

func TestDetectorKeepsItsExpectedTimeBetweenFalseAlarms(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const ert, runs = 200, 300
	total := 0.0
	for range runs {
		n := runLength(rng, NewDetector(0.1, 0.1), LogThreshold(ert, 1), 10*ert, func(int) float64 { return 0.1 })
		total += float64(n)
	}
	if got := total / runs; got < ert {
		t.Fatalf("mean time to a false alarm %.0f windows, promised %d", got, ert)
	}
}

func TestDetectorFindsARise(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	slow := 0
	for range 200 {
		d := NewDetector(0.08, 0.12)
		n := runLength(rng, d, LogThreshold(1000, 1), 400, func(i int) float64 {
			if i < 100 {
				return 0.1
			}
			return 0.3
		})
		if n > 130 || n <= 100 {
			slow++
		}
		if n > 100 && !d.Rising() {
			t.Fatal("a rise was reported as a fall")
		}
	}
	if slow > 10 {
		t.Fatalf("%d of 200 rises from 10 %% to 30 %% took more than 30 windows or were called early", slow)
	}
}
