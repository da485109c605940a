package perf

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// samplingErrors are the deviations of single rows' parts in each metric on the
// reference (NannyML's sampling_error.binary_classification). Average precision
// has none there but a random bootstrap; here it is resampled with a fixed
// seed.
func samplingErrors(ref Rows, value ValueMatrix) map[Metric]errorRule {
	n := float64(len(ref.Score))
	c := Count(ref.Truth, ref.Predicted)
	return map[Metric]errorRule{
		ROCAUC:           aucError(ref.Score, ref.Truth),
		AveragePrecision: apError(ref),
		F1:               f1Error(c),
		Precision:        hitError(c.TP, c.FP, n),
		Recall:           hitError(c.TP, c.FN, n),
		Specificity:      hitError(c.TN, c.FP, n),
		Accuracy:         hitError(c.TP+c.TN, c.FP+c.FN, n),
		TruePositive:     countError(c.TP, n),
		TrueNegative:     countError(c.TN, n),
		FalsePositive:    countError(c.FP, n),
		FalseNegative:    countError(c.FN, n),
		BusinessValue:    {std: c.Business(value).StdErr / math.Sqrt(n), sum: true, known: true},
	}
}

// hitError is for a share of hits among the rows that count.
func hitError(hits, misses, n float64) errorRule {
	relevant := hits + misses
	if relevant == 0 {
		return errorRule{}
	}
	p := hits / relevant
	return errorRule{std: math.Sqrt(p * (1 - p)), fraction: relevant / n, known: true}
}

func countError(hits, n float64) errorRule {
	p := hits / n
	return errorRule{std: math.Sqrt(p * (1 - p)), sum: true, known: true}
}

// f1Error scales the share of true positives among relevant rows to F1.
func f1Error(c Confusion) errorRule {
	relevant := c.TP + c.FP + c.FN
	rule := hitError(c.TP, c.FP+c.FN, c.Rows())
	if relevant > 0 {
		rule.std *= relevant / ((c.FN+c.FP)/2 + c.TP)
	}
	return rule
}

// aucError is the deviation of the share of negatives below each positive, ties
// counting one half. The minority class plays the positive; the lowest rank is
// left out, as NannyML does, whose own value depends on the order in which its
// sort happens to leave ties.
func aucError(score []float64, truth []bool) errorRule {
	positives := 0
	for _, y := range truth {
		positives += index(y)
	}
	flip := 2*positives > len(truth)
	if flip {
		positives = len(truth) - positives
	}
	negatives := float64(len(truth) - positives)
	if positives == 0 || negatives == 0 {
		return errorRule{}
	}
	shares := negativesBelow(score, truth, flip)
	for i := range shares {
		shares[i] /= negatives
	}
	m := stat.MomentsOf(shares)
	if m.N == 0 {
		return errorRule{}
	}
	std := math.Sqrt(m.Variance * float64(m.N-1) / float64(m.N))
	return errorRule{std: std, fraction: float64(positives) / float64(len(truth)), known: true}
}

// negativesBelow counts for each positive, in ascending order, the negatives
// with lower scores and half of those with equal ones.
func negativesBelow(score []float64, truth []bool, flip bool) []float64 {
	steps := Scored{score, truth}.steps()
	if !flip {
		slices.Reverse(steps)
	}
	var out []float64
	below := 0.0
	for i, g := range steps {
		pos, neg := g.pos, g.neg
		if flip {
			pos, neg = neg, pos
		}
		if i == 0 && neg == 0 {
			pos-- // the lowest rank
		}
		for range int(pos) {
			out = append(out, below+neg/2)
		}
		below += neg
	}
	return out
}

func ascendingOrder(p []float64) []int {
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

// resamples and resampleRows bound the bootstrap of average precision.
const (
	resamples    = 50
	resampleRows = 50_000
)

// apError is the deviation of average precision over resamples of half the
// reference.
func apError(ref Rows) errorRule {
	size := min(len(ref.Score)/2, resampleRows)
	r := newNumpyRandom(0)
	var values []float64
	for range resamples {
		s := Scored{make([]float64, size), make([]bool, size)}
		for i := range size {
			k := r.upTo(uint32(len(ref.Score) - 1))
			s.Score[i], s.Truth[i] = ref.Score[k], ref.Truth[k]
		}
		if v, err := s.AveragePrecision(); err == nil {
			values = append(values, v.Value)
		}
	}
	m := stat.MomentsOf(values)
	if m.N < 2 {
		return errorRule{}
	}
	std := math.Sqrt(m.Variance * float64(m.N-1) / float64(m.N))
	return errorRule{std: std * math.Sqrt(float64(size)), fraction: 1, known: true}
}

// needsCalibration asks whether an isotonic fit lowers the expected calibration
// error on ten stratified test splits taken together.
func needsCalibration(score []float64, truth []bool) bool {
	s := Scored{score, truth}
	if auc, err := s.ROCAUC(); err != nil || auc.Value > 0.999 {
		return false
	}
	outcomes := numbers(truth)
	var raw, fitted, actual []float64
	for _, sp := range stratifiedSplits(truth, 10) {
		f := FitIsotonic(pick(score, sp.train), pick(outcomes, sp.train))
		test := pick(score, sp.test)
		raw = append(raw, test...)
		fitted = append(fitted, f.All(test)...)
		actual = append(actual, pick(outcomes, sp.test)...)
	}
	if len(raw) < 4 {
		return false
	}
	return equalCountError(raw, actual) > equalCountError(fitted, actual)
}

func pick(xs []float64, rows []int) []float64 {
	out := make([]float64, len(rows))
	for i, k := range rows {
		out[i] = xs[k]
	}
	return out
}

// equalCountError is the expected calibration error over ten bins of equally
// many rows, by ascending probability.
func equalCountError(p, actual []float64) float64 {
	order := ascendingOrder(p)
	bins := 10
	if len(p) <= 2*bins {
		bins = len(p) / 2
	}
	width := len(p) / bins
	ece := 0.0
	for from := 0; from+width <= len(p); from += width {
		to := from + width
		if to+width > len(p) {
			to = len(p)
		}
		gap := 0.0
		for _, k := range order[from:to] {
			gap += p[k] - actual[k]
		}
		ece += math.Abs(gap) / float64(len(p))
		if to == len(p) {
			break
		}
	}
	return ece
}
