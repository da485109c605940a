package control

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift/stat"
)

func zipf(k int) []float64 {
	out, sum := make([]float64, k), 0.0
	for i := range out {
		out[i] = 1 / float64(i+1)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// rate runs a test many times without drift and returns how often p ≤ 0.05.
func rate(runs int, seed uint64, p func(rng *rand.Rand) float64) float64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	hits := 0.0
	for range runs {
		if p(rng) <= 0.05 {
			hits++
		}
	}
	return hits / float64(runs)
}

// upper is the 99.9 % limit of a nominal rate of 5 % over so many runs.
func upper(runs int) float64 { return 0.05 + 3.1*math.Sqrt(0.05*0.95/float64(runs)) }

func TestSparseChiSquaredKeepsItsLevelOnRareCategories(t *testing.T) {
	for _, k := range []int{5, 300, 1000} {
		shares := zipf(k)
		got := rate(1000, uint64(k), func(rng *rand.Rand) float64 {
			test, err := SparseChiSquared(stat.Counts{Ref: Multinomial(rng, shares, 1500), Cur: Multinomial(rng, shares, 900)})
			if err != nil {
				t.Fatal(err)
			}
			return test.P
		})
		if got > upper(1000) || got < 0.025 {
			t.Errorf("%d categories: %.4f of windows at p ≤ .05", k, got)
		}
	}
}

// The exact moments against tables drawn with fixed margins by shuffling.
func TestChiSquaredMomentsAreThoseOfShuffledTables(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	labels := []int{}
	for category, n := range []int{40, 12, 5, 2, 1, 1, 1} {
		for range n {
			labels = append(labels, category)
		}
	}
	const ref = 25
	var values []float64
	var c stat.Counts
	for range 20_000 {
		rng.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
		c = stat.Counts{Ref: make([]uint64, 7), Cur: make([]uint64, 7)}
		for i, l := range labels {
			if i < ref {
				c.Ref[l]++
			} else {
				c.Cur[l]++
			}
		}
		x, _ := c.ChiSquared()
		values = append(values, x.Statistic)
	}
	mean, variance := chiSquaredMoments(c)
	m := stat.MomentsOf(values)
	if math.Abs(m.Mean/mean-1) > 0.01 || math.Abs(m.Variance/variance-1) > 0.06 {
		t.Errorf("mean %v and variance %v, shuffled %v and %v", mean, variance, m.Mean, m.Variance)
	}
}

func TestCorrectedPSIKeepsItsLevelAndHasNoBias(t *testing.T) {
	shares := []float64{.1, .1, .1, .1, .1, .1, .1, .1, .1, .1}
	sum := 0.0
	got := rate(3000, 4, func(rng *rand.Rand) float64 {
		s, _ := stat.SharesOf(Multinomial(rng, shares, 2000), Multinomial(rng, shares, 1000))
		psi := s.Distance(stat.PSI)
		_, p := CorrectedPSI(psi, 10, 2000, 1000)
		sum += (psi - 9*(1.0/2000+1.0/1000)) / 3000
		return p
	})
	if got > upper(3000) || got < 0.035 {
		t.Errorf("%.4f of windows at p ≤ .05", got)
	}
	if math.Abs(sum) > 5e-4 {
		t.Errorf("mean corrected PSI %v without drift", sum)
	}
}

func TestBootstrapKeepsItsLevelAndItsSeed(t *testing.T) {
	shares := zipf(50)
	tvd := func(c stat.Counts) (float64, error) {
		s, err := stat.SharesOf(c.Ref, c.Cur)
		return s.Distance(stat.TVD), err
	}
	law := Bootstrap(shares, 400, 300, 1500, 7, tvd)
	if again := Bootstrap(shares, 400, 300, 1500, 7, tvd); again.Quantile(0.9) != law.Quantile(0.9) {
		t.Error("equal seeds made different laws")
	}
	got := rate(3000, 5, func(rng *rand.Rand) float64 {
		v, _ := tvd(stat.Counts{Ref: Multinomial(rng, shares, 400), Cur: Multinomial(rng, shares, 300)})
		return law.P(v)
	})
	if got > upper(3000)+0.01 || got < 0.03 {
		t.Errorf("%.4f of windows at p ≤ .05", got)
	}
	var cache NullCache
	made := 0
	for range 3 {
		cache.Get(KeyOf(1, "tvd", 400, 301), func(uint64) *Null { made++; return law })
	}
	if made != 1 {
		t.Errorf("the law was made %d times", made)
	}
}

func TestBinomialHasItsMeanAndVariance(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 7))
	for _, c := range []struct {
		n uint64
		p float64
	}{{10, 0.3}, {1000, 0.002}, {1000, 0.9}, {1_000_000, 0.4}} {
		var xs []float64
		for range 20_000 {
			xs = append(xs, float64(Binomial(rng, c.n, c.p)))
		}
		m := stat.MomentsOf(xs)
		mean, variance := float64(c.n)*c.p, float64(c.n)*c.p*(1-c.p)
		if math.Abs(m.Mean-mean) > 4*math.Sqrt(variance/20_000) || math.Abs(m.Variance/variance-1) > 0.06 {
			t.Errorf("%+v: mean %v variance %v", c, m.Mean, m.Variance)
		}
	}
}

// Slots of very different level and few windows each: new windows of the same
// world are far out as rarely as promised.
func TestFloorKeepsItsLevelAcrossSlots(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	level := func(slot int) float64 { return 0.02 * math.Exp(1.5*math.Sin(float64(slot))) }
	draw := func(slot int) float64 { return level(slot) * math.Exp(0.4*rng.NormFloat64()) }
	hits, runs := 0.0, 0.0
	for range 200 {
		var windows []Window
		for slot := range 24 {
			for range 4 {
				windows = append(windows, Window{slot, draw(slot)})
			}
		}
		f := LearnFloor(windows, 1e-4)
		if !f.Known() {
			t.Fatal("96 windows are not enough")
		}
		for range 20 {
			slot := rng.IntN(24)
			runs++
			if f.P(slot, draw(slot)) <= 0.05 {
				hits++
			}
		}
	}
	if got := hits / runs; got > upper(int(runs)) {
		t.Errorf("%.4f of windows at p ≤ .05", got)
	}
}

func TestFloorIsWhereItsPValueTurns(t *testing.T) {
	var windows []Window
	for i := range 60 {
		windows = append(windows, Window{i % 6, 0.01 + 0.0005*float64(i%11)})
	}
	f := LearnFloor(windows, 1e-4)
	for _, share := range []float64{0.2, 0.05, 0.001} {
		at := f.At(2, share)
		if f.P(2, at*1.001+1e-9) > share || f.P(2, at*0.98) <= share {
			t.Errorf("floor of %v is %v, p just above %v, below %v", share, at, f.P(2, at*1.001), f.P(2, at*0.98))
		}
	}
	if f.P(2, 1) > 1e-6 {
		t.Errorf("a hundredfold distance has p = %v", f.P(2, 1))
	}
	if f.Known() && (&Floor{}).Known() {
		t.Error("an empty floor claims to know")
	}
}

func at(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }

// step is one window of a policy scenario.
type step struct {
	drift, calm bool
	severity    Severity
	want        Change
}

func TestPolicyScenarios(t *testing.T) {
	p := Policy{Need: 2, Of: 3, Urgent: Critical, Clear: 2, Cooldown: 4 * time.Hour}
	d, c := step{drift: true, severity: Notice}, step{calm: true}
	want := func(s step, w Change) step { s.want = w; return s }
	scenarios := map[string][]step{
		"one window is not enough":    {d, c, c, d, c, c},
		"two of three open":           {d, c, want(d, Opened)},
		"critical opens at once":      {{drift: true, severity: Critical, want: Opened}},
		"calm closes, in between not": {d, want(d, Opened), {}, c, {}, c, want(c, Resolved)},
		"again within the cool-down":  {d, want(d, Opened), c, want(c, Resolved), d, want(d, Suppressed), c, c},
		"again after the cool-down":   {d, want(d, Opened), c, want(c, Resolved), c, c, c, c, d, want(d, Opened)},
		"worse while open":            {d, want(d, Opened), d, {drift: true, severity: Warning, want: Worsened}, {drift: true, severity: Notice}},
		"worse while suppressed":      {d, want(d, Opened), c, want(c, Resolved), d, want(d, Suppressed), {drift: true, severity: Critical, want: Worsened}},
	}
	for name, steps := range scenarios {
		var s Incident
		for i, x := range steps {
			var got Change
			s, got = p.Step(s, Observation{at(i), x.drift, x.calm, x.severity})
			if got != x.want {
				t.Errorf("%s: window %d %v, want %v", name, i, got, x.want)
			}
		}
	}
}

func TestStepLeavesItsArgumentAlone(t *testing.T) {
	p := DefaultPolicy()
	s, _ := p.Step(Incident{}, Observation{At: at(0), Drifted: true, Severity: Notice})
	before := len(s.Recent)
	a, _ := p.Step(s, Observation{At: at(1), Drifted: true})
	b, _ := p.Step(s, Observation{At: at(1), Calm: true})
	if len(s.Recent) != before || a.Recent[1] == b.Recent[1] {
		t.Fatal("two futures of one incident share memory")
	}
}

func TestGradeFollowsDistanceAndImportance(t *testing.T) {
	for _, c := range []struct {
		times, importance float64
		want              Severity
	}{{0.5, 1, Quiet}, {1.2, 0.5, Notice}, {3, 0.5, Warning}, {3, 0, Notice}, {9, 0.5, Critical}, {6, 1, Critical}} {
		if got := Grade(c.times, c.importance); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
