package perf

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Scored are rows with a score for the positive class and the truth.
type Scored struct {
	Score []float64
	Truth []bool
}

// Predict turns scores into predictions: positive at the threshold or above.
func (s Scored) Predict(threshold float64) []bool {
	out := make([]bool, len(s.Score))
	for i, v := range s.Score {
		out[i] = v >= threshold
	}
	return out
}

// step is a group of equal scores.
type step struct{ pos, neg float64 }

// steps groups rows by score, highest first.
func (s Scored) steps() []step {
	order := make([]int, len(s.Score))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case s.Score[a] > s.Score[b]:
			return -1
		case s.Score[a] < s.Score[b]:
			return 1
		}
		return 0
	})
	var out []step
	for i, k := range order {
		if i == 0 || s.Score[k] != s.Score[order[i-1]] {
			out = append(out, step{})
		}
		if s.Truth[k] {
			out[len(out)-1].pos++
		} else {
			out[len(out)-1].neg++
		}
	}
	return out
}

func totals(steps []step) (pos, neg float64) {
	for _, s := range steps {
		pos, neg = pos+s.pos, neg+s.neg
	}
	return pos, neg
}

func (s Scored) bothClasses() ([]step, float64, float64, error) {
	steps := s.steps()
	pos, neg := totals(steps)
	if pos == 0 || neg == 0 {
		return nil, 0, 0, refuse(stat.OneClass, "a ranking needs positives and negatives")
	}
	return steps, pos, neg, nil
}

// ROCAUC is the probability that a positive scores above a negative, ties
// counting one half, with DeLong's standard error.
func (s Scored) ROCAUC() (Value, error) {
	steps, pos, neg, err := s.bothClasses()
	if err != nil {
		return Value{}, err
	}
	// above and below count the other class around each group.
	auc, posAbove := 0.0, 0.0
	var sumV, squaresV, sumW, squaresW float64
	negBelow := neg
	for _, g := range steps {
		negBelow -= g.neg
		v := (negBelow + g.neg/2) / neg // a positive of this group beats this share
		w := (posAbove + g.pos/2) / pos // a negative of this group loses to this share
		posAbove += g.pos
		auc += g.pos * v
		sumV, squaresV = sumV+g.pos*v, squaresV+g.pos*v*v
		sumW, squaresW = sumW+g.neg*w, squaresW+g.neg*w*w
	}
	variance := spread(sumV, squaresV, pos)/pos + spread(sumW, squaresW, neg)/neg
	return Value{auc / pos, math.Sqrt(max(variance, 0))}, nil
}

// spread is a sample variance from sums; one observation has none.
func spread(sum, squares, n float64) float64 {
	if n < 2 {
		return 0
	}
	return (squares - sum*sum/n) / (n - 1)
}

// AveragePrecision sums precision over the steps of recall
// (sklearn.metrics.average_precision_score). Its error is the binomial one on
// the positives, an approximation.
func (s Scored) AveragePrecision() (Value, error) {
	steps := s.steps()
	pos, _ := totals(steps)
	if pos == 0 {
		return Value{}, refuse(stat.OneClass, "no positive")
	}
	var tp, seen, ap float64
	for _, g := range steps {
		tp, seen = tp+g.pos, seen+g.pos+g.neg
		ap += g.pos / pos * tp / seen
	}
	return Value{ap, math.Sqrt(ap * (1 - ap) / pos)}, nil
}

// KS is the largest distance between the score distributions of the classes.
func (s Scored) KS() (Value, error) {
	steps, pos, neg, err := s.bothClasses()
	if err != nil {
		return Value{}, err
	}
	var tp, fp, worst float64
	for _, g := range steps {
		tp, fp = tp+g.pos, fp+g.neg
		worst = max(worst, tp/pos-fp/neg)
	}
	return Value{Value: worst}, nil
}

// minProbability bounds scores away from 0 and 1 in the log loss.
const minProbability = 1e-15

// LogLoss is the mean negative log likelihood in nats, scores clipped to
// [1e-15, 1-1e-15].
func (s Scored) LogLoss() (Value, error) {
	return s.perRow(func(p float64, y bool) float64 {
		p = min(max(p, minProbability), 1-minProbability)
		if !y {
			p = 1 - p
		}
		return -math.Log(p)
	})
}

// Brier is the mean squared distance of score and truth.
func (s Scored) Brier() (Value, error) {
	return s.perRow(func(p float64, y bool) float64 {
		if y {
			p--
		}
		return p * p
	})
}

func (s Scored) perRow(loss func(p float64, y bool) float64) (Value, error) {
	if len(s.Score) == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	losses := make([]float64, len(s.Score))
	for i, p := range s.Score {
		losses[i] = loss(p, s.Truth[i])
	}
	return meanOf(losses), nil
}

// CalibrationBin compares the mean score with the share of positives in one of
// ten equal ranges of the score.
type CalibrationBin struct {
	Rows                 int
	MeanScore, Positives float64
}

// Calibration fills ten bins [i/10, (i+1)/10) and returns the expected
// calibration error: the mean gap, weighted by rows.
func (s Scored) Calibration() (bins [10]CalibrationBin, ece float64, err error) {
	if len(s.Score) == 0 {
		return bins, 0, refuse(stat.EmptyCurrent, "no rows")
	}
	for i, p := range s.Score {
		b := &bins[min(max(int(p*10), 0), 9)]
		b.Rows++
		b.MeanScore += p
		if s.Truth[i] {
			b.Positives++
		}
	}
	for i := range bins {
		b := &bins[i]
		if b.Rows == 0 {
			continue
		}
		b.MeanScore /= float64(b.Rows)
		b.Positives /= float64(b.Rows)
		ece += float64(b.Rows) / float64(len(s.Score)) * math.Abs(b.MeanScore-b.Positives)
	}
	return bins, ece, nil
}
