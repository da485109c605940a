package tree

import (
	"fmt"
	"math"
	"slices"
)

// link turns margins into predictions.
type link uint8

const (
	identity link = iota
	logistic
	exponential
	step    // binary:hinge
	softmax // probabilities per class
	class   // index of the likeliest class
)

// objective says how a trained objective's base score and margins are read.
type objective struct {
	link link
	base func(score float64) float64 // base score to margin
}

// objectiveOf knows the objectives this package predicts. Others are refused
// by name, because a wrong transformation is worse than none.
func objectiveOf(name string) (objective, error) {
	same := func(s float64) float64 { return s }
	switch name {
	case "reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror",
		"reg:pseudohubererror", "reg:quantileerror", "binary:logitraw":
		return objective{identity, same}, nil
	case "binary:logistic", "reg:logistic":
		return objective{logistic, logit}, nil
	case "count:poisson", "reg:gamma", "reg:tweedie":
		return objective{exponential, math.Log}, nil
	case "binary:hinge":
		return objective{step, same}, nil
	case "multi:softprob":
		return objective{softmax, same}, nil
	case "multi:softmax":
		return objective{class, same}, nil
	}
	if slices.Contains([]string{"rank:ndcg", "rank:map", "rank:pairwise"}, name) {
		return objective{}, fmt.Errorf("%w: objective %s: ranking is not supported yet", ErrUnsupported, name)
	}
	return objective{}, fmt.Errorf("%w: objective %q is not known here", ErrUnsupported, name)
}

func logit(p float64) float64 {
	return float64(-float32(math.Log(float64(1/float32(p) - 1))))
}

// outputs is the number of predictions made of a row's margins.
func (l link) outputs(groups int) int {
	if l == class {
		return 1
	}
	return groups
}

// apply transforms margins in place; rows have groups values each.
func (l link) apply(m []float32, groups int) {
	switch l {
	case logistic:
		for i, x := range m {
			m[i] = sigmoid(x)
		}
	case exponential:
		for i, x := range m {
			m[i] = expf(x)
		}
	case step:
		for i, x := range m {
			m[i] = heaviside(x)
		}
	case softmax:
		for i := 0; i < len(m); i += groups {
			softmaxRow(m[i : i+groups])
		}
	}
}

func expf(x float32) float32 { return float32(math.Exp(float64(x))) }

// sigmoid is XGBoost's, in float32 and with its bound on the exponent.
func sigmoid(x float32) float32 {
	const bound = 88.7
	return 1 / (expf(min(-x, bound)) + 1)
}

func heaviside(x float32) float32 {
	if x > 0 {
		return 1
	}
	return 0
}

func softmaxRow(m []float32) {
	top := slices.Max(m)
	sum := 0.0
	for i, x := range m {
		m[i] = expf(x - top)
		sum += float64(m[i])
	}
	for i := range m {
		m[i] /= float32(sum)
	}
}
