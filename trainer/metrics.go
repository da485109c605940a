package trainer

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/model"
)

// Measure computes a task's metrics of predictions on labelled rows. predicted
// is row-major, one value (Binary, Regression), one per class or one per
// quantile. Weights count where the matrix has them.
//
// The names are those that search and gates use: auc, logloss, brier, ece,
// accuracy, precision, recall, f1 · mlogloss, accuracy, macro_f1 · rmse, mae,
// r2, bias · pinball.
func Measure(m *Matrix, task model.Task, predicted []float32, quantiles []float64) (map[string]float64, error) {
	n := m.Rows()
	if n == 0 {
		return nil, fmt.Errorf("measure: %w", ErrNoRows)
	}
	if len(predicted)%n != 0 || len(predicted) == 0 {
		return nil, fmt.Errorf("measure: %d predictions for %d rows: %w", len(predicted), n, ErrType)
	}
	w := make([]float64, n)
	for i := range w {
		w[i] = m.weight(i)
	}
	y := widen(m.Label)
	var out map[string]float64
	switch task {
	case model.Binary:
		out = binaryMetrics(widen(predicted), y, w)
	case model.MultiClass:
		out = classMetrics(widen(predicted), y, w)
	case model.Quantiles:
		out = map[string]float64{"pinball": pinball(widen(predicted), y, w, quantiles)}
	default:
		out = regressionMetrics(widen(predicted), y, w)
	}
	// What the rows do not decide (AUC of one class) is left out, not NaN.
	maps.DeleteFunc(out, func(_ string, v float64) bool { return v-v != 0 })
	return out, nil
}

// HigherIsBetter says which way a metric points.
func HigherIsBetter(metric string) bool {
	return slices.Contains([]string{"auc", "aucpr", "accuracy", "precision", "recall", "f1", "macro_f1", "r2"}, metric)
}

func widen(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// AUC is the area under the ROC curve: the chance that a random row of class 1
// scores above one of class 0, ties counting half. A NaN score gets the middle
// rank. w may be nil. The result is NaN when a class is missing.
func AUC(score, y, w []float64) float64 {
	order := make([]int, len(score))
	for i := range order {
		order[i] = i
	}
	key := score
	if slices.ContainsFunc(score, math.IsNaN) {
		key = ranks(score)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(key[a], key[b]) })
	var pos, neg, area float64
	for i := 0; i < len(order); {
		var p, q float64
		j := i
		for ; j < len(order) && key[order[j]] == key[order[i]]; j++ {
			at := order[j]
			weight := 1.0
			if w != nil {
				weight = w[at]
			}
			if y[at] > 0.5 {
				p += weight
			} else {
				q += weight
			}
		}
		area += p * (neg + q/2)
		pos, neg, i = pos+p, neg+q, j
	}
	return area / (pos * neg)
}

// smallest keeps logarithms finite, as XGBoost's and scikit-learn's metrics do.
const smallest = 1e-16

func binaryMetrics(p, y, w []float64) map[string]float64 {
	var total, loss, brier, tp, fp, fn, tn float64
	for i := range p {
		q := min(max(p[i], smallest), 1-smallest)
		total += w[i]
		loss -= w[i] * (y[i]*math.Log(q) + (1-y[i])*math.Log1p(-q))
		brier += w[i] * (p[i] - y[i]) * (p[i] - y[i])
		switch said, is := p[i] >= 0.5, y[i] > 0.5; {
		case said && is:
			tp += w[i]
		case said:
			fp += w[i]
		case is:
			fn += w[i]
		default:
			tn += w[i]
		}
	}
	return map[string]float64{
		"auc": AUC(p, y, w), "logloss": loss / total, "brier": brier / total,
		"accuracy": (tp + tn) / total, "precision": tp / (tp + fp), "recall": tp / (tp + fn),
		"f1": 2 * tp / (2*tp + fp + fn), "ece": Calibrate(p, y, w).ECE,
	}
}

func classMetrics(p, y, w []float64) map[string]float64 {
	k := len(p) / len(y)
	var total, loss, right float64
	tp, fp, fn := make([]float64, k), make([]float64, k), make([]float64, k)
	for i := range y {
		row, is := p[i*k:(i+1)*k], int(y[i])
		said := slices.Index(row, slices.Max(row))
		total += w[i]
		if is >= k {
			continue
		}
		loss -= w[i] * math.Log(max(row[is], smallest))
		if said == is {
			right += w[i]
			tp[is] += w[i]
		} else {
			fp[max(said, 0)] += w[i]
			fn[is] += w[i]
		}
	}
	f1, met := 0.0, 0.0
	for c := range k {
		if d := 2*tp[c] + fp[c] + fn[c]; d > 0 {
			f1, met = f1+2*tp[c]/d, met+1
		}
	}
	return map[string]float64{"mlogloss": loss / total, "accuracy": right / total, "macro_f1": f1 / met}
}

func regressionMetrics(p, y, w []float64) map[string]float64 {
	var total, mean float64
	for i := range y {
		total += w[i]
		mean += w[i] * y[i]
	}
	mean /= total
	var square, abs, bias, spread float64
	for i := range y {
		d := p[i] - y[i]
		square += w[i] * d * d
		abs += w[i] * math.Abs(d)
		bias += w[i] * d
		spread += w[i] * (y[i] - mean) * (y[i] - mean)
	}
	return map[string]float64{
		"rmse": math.Sqrt(square / total), "mae": abs / total, "bias": bias / total, "r2": 1 - square/spread,
	}
}

func pinball(p, y, w []float64, quantiles []float64) float64 {
	k := len(p) / len(y)
	var total, sum float64
	for i := range y {
		total += w[i]
		for q := range min(k, len(quantiles)) {
			d := y[i] - p[i*k+q]
			sum += w[i] * max(quantiles[q]*d, (quantiles[q]-1)*d) / float64(k)
		}
	}
	return sum / total
}
