package trainer

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// tpe proposes points by tree-structured Parzen estimators (Bergstra et al.,
// "Algorithms for Hyper-Parameter Optimization", 2011), every parameter by
// itself: the trials are cut into good and bad ones, each group becomes a
// density, and of some draws from the good density the one that is likeliest
// good and unlikeliest bad is proposed.
type tpe struct {
	space   Space
	startup int // random trials before the first estimate
	draws   int
	rng     *rand.Rand
}

func newTPE(s Space, rng *rand.Rand) *tpe { return &tpe{space: s, startup: 10, draws: 24, rng: rng} }

// scored is a finished trial; a smaller loss is better.
type scored struct {
	at   point
	loss float64
}

// goodShare is how many of n trials count as good: a tenth, at most 25.
func goodShare(n int) int { return min(int(math.Ceil(0.1*float64(n))), 25) }

// propose returns the next point.
func (t *tpe) propose(done []scored) point {
	if len(done) < t.startup {
		return t.space.random(t.rng)
	}
	sorted := slices.Clone(done)
	slices.SortStableFunc(sorted, func(a, b scored) int { return cmp.Compare(a.loss, b.loss) })
	cut := goodShare(len(sorted))
	p := make(point, len(t.space))
	for _, name := range t.space.names() {
		r := t.space[name]
		good, bad := newParzen(r, name, sorted[:cut]), newParzen(r, name, sorted[cut:])
		best := math.Inf(-1)
		for range t.draws {
			x := good.draw(t.rng)
			if score := good.logDensity(x) - bad.logDensity(x); score > best {
				best, p[name] = score, x
			}
		}
	}
	return p
}

// parzen is a density over one parameter: for numbers an even mixture of the
// trials' values, blurred and cut off at the bounds, and of one wide bell over
// the whole range; for choices, counts plus one.
type parzen struct {
	r         Range
	low, high float64
	mu, sigma []float64
	counts    []float64
}

func newParzen(r Range, name string, trials []scored) *parzen {
	e := &parzen{r: r}
	e.low, e.high = r.bounds()
	if n := len(r.Choices); n > 0 {
		e.counts = slices.Repeat([]float64{1}, n)
		for _, t := range trials {
			e.counts[int(t.at[name])]++
		}
		return e
	}
	e.mu = append(e.mu, (e.low+e.high)/2)
	for _, t := range trials {
		e.mu = append(e.mu, t.at[name])
	}
	e.widths()
	return e
}

// widths gives every bell the larger distance to its neighbours, within bounds.
func (e *parzen) widths() {
	width := e.high - e.low
	prior := e.mu[0]
	slices.Sort(e.mu)
	e.sigma = make([]float64, len(e.mu))
	narrowest := width / min(100, 1+float64(len(e.mu)))
	for i, m := range e.mu {
		left, right := e.low, e.high
		if i > 0 {
			left = e.mu[i-1]
		}
		if i+1 < len(e.mu) {
			right = e.mu[i+1]
		}
		e.sigma[i] = min(max(m-left, right-m, narrowest), width)
	}
	e.sigma[slices.Index(e.mu, prior)] = width
}

func (e *parzen) draw(rng *rand.Rand) float64 {
	if e.counts != nil {
		total := 0.0
		for _, c := range e.counts {
			total += c
		}
		at := rng.Float64() * total
		for i, c := range e.counts {
			if at -= c; at < 0 {
				return float64(i)
			}
		}
		return float64(len(e.counts) - 1)
	}
	i := rng.IntN(len(e.mu))
	for range 100 {
		if x := e.mu[i] + e.sigma[i]*rng.NormFloat64(); x >= e.low && x <= e.high {
			return x
		}
	}
	return e.mu[i]
}

func (e *parzen) logDensity(x float64) float64 {
	if e.counts != nil {
		total := 0.0
		for _, c := range e.counts {
			total += c
		}
		return math.Log(e.counts[int(x)] / total)
	}
	sum := 0.0
	for i, m := range e.mu {
		z := (x - m) / e.sigma[i]
		inside := normalCDF((e.high-m)/e.sigma[i]) - normalCDF((e.low-m)/e.sigma[i])
		sum += math.Exp(-z*z/2) / (e.sigma[i] * inside)
	}
	return math.Log(sum / float64(len(e.mu)))
}

func normalCDF(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }
