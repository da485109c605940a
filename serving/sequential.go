package serving

import "math"

// Sums are what a comparison needs to know of one arm's losses.
type Sums struct {
	N             uint64  // units with a label
	Sum, SumOfSqs float64 // of their losses
}

// Mean is the mean loss; NaN without units.
func (s Sums) Mean() float64 { return s.Sum / float64(s.N) }

// variance is the unbiased sample variance.
func (s Sums) variance() float64 {
	if s.N < 2 {
		return math.NaN()
	}
	n := float64(s.N)
	return max(0, (s.SumOfSqs-s.Sum*s.Sum/n)/(n-1))
}

// Interval is a difference with bounds that hold, with probability 1 − α, at
// all looks at once: one may look after every label and stop at will.
type Interval struct {
	Effect, Low, High float64
}

// mixture is how large an effect, in standard deviations of the loss, the test
// is tuned to find soonest. It changes how soon, never how often it errs.
const mixture = 0.2

// Difference is the mean loss of arm minus that of control. The bounds are
// those of the mixture sequential probability ratio test with estimated
// variances (Johari, Koomen, Pekelis, Walsh: "Always valid inference", 2022).
// Fewer than two units in an arm, or no variance at all, bound nothing.
func Difference(arm, control Sums, alpha float64) Interval {
	out := Interval{arm.Mean() - control.Mean(), math.Inf(-1), math.Inf(1)}
	va, vc := arm.variance(), control.variance()
	v := va/float64(arm.N) + vc/float64(control.N)
	tau := mixture * mixture * (va + vc) / 2
	if !(v > 0) || !(tau > 0) {
		return out
	}
	half := math.Sqrt(v * (v + tau) / tau * math.Log((v+tau)/(v*alpha*alpha)))
	out.Low, out.High = out.Effect-half, out.Effect+half
	return out
}

// srmConcentration is the weight of the prior around the intended shares.
const srmConcentration = 200

// Mismatch is the evidence against counts having come from the intended
// shares: a test martingale, so that 1/Mismatch is a p-value at every look at
// once (Lindon and Malek: "Anytime-valid inference for multinomial count
// data", 2022). It is returned as a natural logarithm.
func Mismatch(counts []uint64, shares []float64) float64 {
	total, sum := 0.0, 0.0
	for i, n := range counts {
		total += float64(n)
		sum += shares[i]
	}
	log := lgamma(srmConcentration) - lgamma(srmConcentration+total)
	for i, n := range counts {
		w := shares[i] / sum
		log += lgamma(srmConcentration*w+float64(n)) - lgamma(srmConcentration*w) - float64(n)*math.Log(w)
	}
	return log
}

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

// mismatched is the log evidence from which a split counts as broken: one
// false alarm in a thousand experiments.
const mismatched = 6.907755278982137 // ln 1000
