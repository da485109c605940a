package perf

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext/prng"
)

// numpyRandom draws as numpy's legacy RandomState does, so that the decision
// whether to calibrate falls as NannyML's falls, on the same splits.
type numpyRandom struct{ src *prng.MT19937 }

func newNumpyRandom(seed uint64) *numpyRandom {
	src := prng.NewMT19937()
	src.Seed(seed)
	return &numpyRandom{src}
}

// upTo draws from 0 … most by masked rejection.
func (r *numpyRandom) upTo(most uint32) uint32 {
	mask := most
	for shift := 1; shift < 32; shift *= 2 {
		mask |= mask >> shift
	}
	for {
		if v := r.src.Uint32() & mask; v <= most {
			return v
		}
	}
}

// shuffle is Fisher and Yates' from the end.
func (r *numpyRandom) shuffle(xs []int) []int {
	for i := len(xs) - 1; i > 0; i-- {
		j := r.upTo(uint32(i))
		xs[i], xs[j] = xs[j], xs[i]
	}
	return xs
}

func (r *numpyRandom) permutation(n int) []int {
	xs := make([]int, n)
	for i := range xs {
		xs[i] = i
	}
	return r.shuffle(xs)
}

// split holds row numbers.
type split struct{ train, test []int }

// stratifiedSplits are scikit-learn's StratifiedShuffleSplit with a test share
// of one tenth and seed 42. It is nil when a class has fewer than two rows.
func stratifiedSplits(truth []bool, count int) []split {
	byClass := [2][]int{}
	for i, y := range truth {
		byClass[index(y)] = append(byClass[index(y)], i)
	}
	sizes := [2]int{len(byClass[0]), len(byClass[1])}
	n := len(truth)
	testSize := int(math.Ceil(0.1 * float64(n)))
	if min(sizes[0], sizes[1]) < 2 || testSize < 2 {
		return nil
	}
	r := newNumpyRandom(42)
	var out []split
	for range count {
		train := r.share(sizes, n-testSize)
		test := r.share([2]int{sizes[0] - train[0], sizes[1] - train[1]}, testSize)
		var s split
		for class, rows := range byClass {
			p := r.permutation(len(rows))
			for i, k := range p[:train[class]+test[class]] {
				if i < train[class] {
					s.train = append(s.train, rows[k])
				} else {
					s.test = append(s.test, rows[k])
				}
			}
		}
		r.shuffle(s.train)
		r.shuffle(s.test)
		out = append(out, s)
	}
	return out
}

func index(y bool) int {
	if y {
		return 1
	}
	return 0
}

// share divides draws between two classes in proportion; what rounding leaves
// goes to the larger remainder, ties by lot.
func (r *numpyRandom) share(sizes [2]int, draws int) [2]int {
	total := float64(sizes[0] + sizes[1])
	var out [2]int
	var rest [2]float64
	for c := range sizes {
		exact := float64(sizes[c]) / total * float64(draws)
		out[c] = int(math.Floor(exact))
		rest[c] = exact - math.Floor(exact)
	}
	left := draws - out[0] - out[1]
	values := slices.Compact(slices.Sorted(slices.Values(rest[:])))
	for i := len(values) - 1; i >= 0 && left > 0; i-- {
		var equal []int
		for c := range rest {
			if rest[c] == values[i] {
				equal = append(equal, c)
			}
		}
		for _, k := range r.permutation(len(equal))[:min(len(equal), left)] {
			out[equal[k]]++
			left--
		}
	}
	return out
}
