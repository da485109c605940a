package perf

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Classified are rows of a multi-class model. Truth and Predicted index
// Classes, which are sorted; Proba holds a probability per class for each row
// and may be nil.
type Classified struct {
	Classes          []string
	Truth, Predicted []int
	Proba            [][]float64
}

// Matrix is the confusion matrix: rows are the truth, columns the prediction.
func (c Classified) Matrix() [][]float64 {
	m := make([][]float64, len(c.Classes))
	for i := range m {
		m[i] = make([]float64, len(c.Classes))
	}
	for i, y := range c.Truth {
		m[y][c.Predicted[i]]++
	}
	return m
}

// OneVsRest is the binary confusion matrix of one class.
func (c Classified) OneVsRest(class int) Confusion {
	truth, predicted := make([]bool, len(c.Truth)), make([]bool, len(c.Truth))
	for i := range c.Truth {
		truth[i], predicted[i] = c.Truth[i] == class, c.Predicted[i] == class
	}
	return Count(truth, predicted)
}

func (c Classified) scored(class int) Scored {
	s := Scored{make([]float64, len(c.Truth)), make([]bool, len(c.Truth))}
	for i := range c.Truth {
		s.Score[i], s.Truth[i] = c.Proba[i][class], c.Truth[i] == class
	}
	return s
}

// Accuracy is the share of right predictions.
func (c Classified) Accuracy() (Value, error) {
	hits := 0.0
	for i, y := range c.Truth {
		if y == c.Predicted[i] {
			hits++
		}
	}
	return share(hits, float64(len(c.Truth)))
}

// Business is the total value of the rows, with the error of the sum. value has
// a row for every class that is true and a column for every one predicted.
func (c Classified) Business(value [][]float64) Value {
	sum, squares, n := 0.0, 0.0, float64(len(c.Truth))
	for i, y := range c.Truth {
		v := value[y][c.Predicted[i]]
		sum, squares = sum+v, squares+v*v
	}
	if n == 0 {
		return Value{}
	}
	return Value{sum, math.Sqrt(max(squares-sum*sum/n, 0))}
}

// Average says how class-wise metrics are put together.
type Average int

// Averages: equal classes, classes weighted by their rows, or pooled counts.
const (
	Macro Average = iota
	Weighted
	Micro
)

// F1 averages the class-wise F1; a class without rows and predictions counts 0,
// as in scikit-learn.
func (c Classified) F1(avg Average) (Value, error) { return c.average(avg, Confusion.F1) }

// Precision averages the class-wise precision; a class never predicted counts 0.
func (c Classified) Precision(avg Average) (Value, error) { return c.average(avg, Confusion.Precision) }

// Recall averages the class-wise recall; a class without rows counts 0.
func (c Classified) Recall(avg Average) (Value, error) { return c.average(avg, Confusion.Recall) }

// Specificity averages the class-wise specificity.
func (c Classified) Specificity(avg Average) (Value, error) {
	return c.average(avg, Confusion.Specificity)
}

func (c Classified) average(avg Average, metric func(Confusion) (Value, error)) (Value, error) {
	if len(c.Truth) == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	var sum, variance, weights float64
	var pooled Confusion
	for class := range c.Classes {
		m := c.OneVsRest(class)
		pooled = Confusion{pooled.TP + m.TP, pooled.FP + m.FP, pooled.TN + m.TN, pooled.FN + m.FN}
		w := 1.0
		if avg == Weighted {
			w = m.TP + m.FN
		}
		v, _ := metric(m) // an undefined class-wise value counts 0
		sum, variance, weights = sum+w*v.Value, variance+w*w*v.StdErr*v.StdErr, weights+w
	}
	if avg == Micro {
		return metric(pooled)
	}
	return Value{sum / weights, math.Sqrt(variance) / weights}, nil
}

// Kappa is Cohen's: agreement beyond what the margins give by chance.
func (c Classified) Kappa() (Value, error) {
	n := float64(len(c.Truth))
	if n == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	m := c.Matrix()
	agree, chance := 0.0, 0.0
	for i := range m {
		row, col := 0.0, 0.0
		for j := range m {
			row, col = row+m[i][j], col+m[j][i]
		}
		agree, chance = agree+m[i][i]/n, chance+row*col/(n*n)
	}
	if chance == 1 {
		return Value{}, refuse(stat.OneClass, "one class only")
	}
	return Value{(agree - chance) / (1 - chance), math.Sqrt(agree*(1-agree)/n) / (1 - chance)}, nil
}

// ROCAUC is the mean of the one-versus-rest areas.
func (c Classified) ROCAUC() (Value, error) {
	return c.meanOver(func(s Scored) (Value, error) { return s.ROCAUC() })
}

// AveragePrecision is the mean of the one-versus-rest average precisions.
func (c Classified) AveragePrecision() (Value, error) {
	return c.meanOver(func(s Scored) (Value, error) { return s.AveragePrecision() })
}

func (c Classified) meanOver(metric func(Scored) (Value, error)) (Value, error) {
	var sum, variance float64
	for class := range c.Classes {
		v, err := metric(c.scored(class))
		if err != nil {
			return Value{}, err
		}
		sum, variance = sum+v.Value, variance+v.StdErr*v.StdErr
	}
	k := float64(len(c.Classes))
	return Value{sum / k, math.Sqrt(variance) / k}, nil
}

// LogLoss is the mean negative log probability of the true class, clipped to
// the resolution of doubles as scikit-learn does.
func (c Classified) LogLoss() (Value, error) {
	if len(c.Truth) == 0 {
		return Value{}, refuse(stat.EmptyCurrent, "no rows")
	}
	const eps = 0x1p-52
	losses := make([]float64, len(c.Truth))
	for i, y := range c.Truth {
		losses[i] = -math.Log(min(max(c.Proba[i][y], eps), 1-eps))
	}
	return meanOf(losses), nil
}
