package control

import (
	"math"
	"slices"
)

// BenjaminiHochberg adjusts p-values so that rejecting those at most α keeps
// the false discovery rate at α, for independent or positively dependent tests
// (scipy.stats.false_discovery_control, method "bh"). The order is kept.
func BenjaminiHochberg(p []float64) []float64 { return stepUp(p, 1) }

// BenjaminiYekutieli is BenjaminiHochberg for any dependence.
func BenjaminiYekutieli(p []float64) []float64 {
	h := 0.0
	for i := range p {
		h += 1 / float64(i+1)
	}
	return stepUp(p, h)
}

func stepUp(p []float64, factor float64) []float64 {
	out := make([]float64, len(p))
	order, m := ascending(p), float64(len(p))
	running := 1.0
	for i := len(order) - 1; i >= 0; i-- {
		running = min(running, p[order[i]]*factor*m/float64(i+1))
		out[order[i]] = running
	}
	return out
}

// Holm adjusts p-values for the family-wise error rate, step down.
func Holm(p []float64) []float64 {
	out := make([]float64, len(p))
	running := 0.0
	for i, k := range ascending(p) {
		running = max(running, min(1, p[k]*float64(len(p)-i)))
		out[k] = running
	}
	return out
}

// Bonferroni multiplies p-values by their number.
func Bonferroni(p []float64) []float64 {
	out := make([]float64, len(p))
	for i, v := range p {
		out[i] = min(1, v*float64(len(p)))
	}
	return out
}

func ascending(p []float64) []int {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return 0
	})
	return order
}

// EBenjaminiHochberg says which e-values to reject so that the false discovery
// rate stays at α under any dependence (Wang and Ramdas 2022).
func EBenjaminiHochberg(logE []float64, alpha float64) []bool {
	minus := make([]float64, len(logE))
	for i, e := range logE {
		minus[i] = -e
	}
	order, m := ascending(minus), float64(len(logE))
	last := -1
	for i, k := range order {
		if logE[k] >= math.Log(m/(alpha*float64(i+1))) {
			last = i
		}
	}
	out := make([]bool, len(logE))
	for _, k := range order[:last+1] {
		out[k] = true
	}
	return out
}
