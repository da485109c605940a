package drift_test

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/perf"
)

func truths(texts []string) []bool {
	out := make([]bool, len(texts))
	for i, s := range texts {
		out[i] = s == "1"
	}
	return out
}

// gather evaluates metrics into members.
func gather(metrics map[string]func() (perf.Value, error)) (map[string]any, error) {
	out := map[string]any{}
	for name, f := range metrics {
		v, err := f()
		if err != nil {
			return nil, err
		}
		out[name] = v.Value
	}
	return out, nil
}

func binaryMetrics(c *referenceCase, _ map[string]any) (map[string]any, error) {
	s := perf.Scored{Score: c.numbers("y_score", ""), Truth: truths(c.column("y_true", ""))}
	m := perf.Count(s.Truth, s.Predict(c.meta("threshold")))
	out, err := gather(map[string]func() (perf.Value, error){"accuracy": m.Accuracy, "balanced_accuracy": m.BalancedAccuracy,
		"precision": m.Precision, "recall": m.Recall, "f1": m.F1, "specificity": m.Specificity, "mcc": m.MCC,
		"roc_auc": s.ROCAUC, "average_precision": s.AveragePrecision, "log_loss": s.LogLoss, "brier": s.Brier, "ks": s.KS})
	if err != nil {
		return nil, err
	}
	out["tp"], out["fp"], out["tn"], out["fn"] = m.TP, m.FP, m.TN, m.FN
	out["gini"] = 2*out["roc_auc"].(float64) - 1
	_, out["ece10"], err = s.Calibration()
	return out, err
}

func classified(c *referenceCase) perf.Classified {
	classes := map[string]bool{}
	for _, name := range append(c.column("y_true", ""), c.column("y_pred", "")...) {
		classes[name] = true
	}
	out := perf.Classified{Classes: slices.Sorted(maps.Keys(classes))}
	find := func(name string) int { return slices.Index(out.Classes, name) }
	for i, name := range c.column("y_true", "") {
		out.Truth = append(out.Truth, find(name))
		out.Predicted = append(out.Predicted, find(c.column("y_pred", "")[i]))
	}
	for _, name := range c.Header {
		if !strings.HasPrefix(name, "p_") {
			continue
		}
		for i, p := range c.numbers(name, "") {
			if i == len(out.Proba) {
				out.Proba = append(out.Proba, nil)
			}
			out.Proba[i] = append(out.Proba[i], p)
		}
	}
	return out
}

func multiclassMetrics(c *referenceCase, _ map[string]any) (map[string]any, error) {
	m := classified(c)
	avg := func(f func(perf.Average) (perf.Value, error), a perf.Average) func() (perf.Value, error) {
		return func() (perf.Value, error) { return f(a) }
	}
	out, err := gather(map[string]func() (perf.Value, error){"accuracy": m.Accuracy, "kappa": m.Kappa,
		"f1_macro": avg(m.F1, perf.Macro), "f1_micro": avg(m.F1, perf.Micro), "f1_weighted": avg(m.F1, perf.Weighted),
		"precision_macro": avg(m.Precision, perf.Macro), "recall_macro": avg(m.Recall, perf.Macro),
		"roc_auc_ovr_macro": m.ROCAUC, "log_loss": m.LogLoss})
	if err != nil {
		return nil, err
	}
	labels, confusion := []any{}, []any{}
	for i, row := range m.Matrix() {
		labels, confusion = append(labels, m.Classes[i]), append(confusion, plain(row))
	}
	out["labels"], out["confusion"] = labels, confusion
	return out, nil
}

func regressionMetrics(c *referenceCase, _ map[string]any) (map[string]any, error) {
	r := perf.Regression{Truth: c.numbers("y_true", ""), Predicted: c.numbers("y_pred", "")}
	return gather(map[string]func() (perf.Value, error){"me": r.ME, "mae": r.MAE, "mse": r.MSE, "rmse": r.RMSE,
		"mape": r.MAPE, "medae": r.MedAE, "r2": r.R2, "max_error": r.MaxError, "explained_variance": r.ExplainedVariance,
		"pinball90": func() (perf.Value, error) { return r.Pinball(0.9) }})
}

func binaryRows(c *referenceCase, part string) perf.Rows {
	return perf.Rows{Score: c.numbers("y_score", part), Predicted: truths(c.column("y_pred", part)), Truth: truths(c.column("y_true", part))}
}

func valueMatrix(c *referenceCase) perf.ValueMatrix {
	var m perf.ValueMatrix
	for i, row := range c.Meta["business"].([]any) {
		for j, v := range row.([]any) {
			m[i][j] = v.(float64)
		}
	}
	return m
}

// realizedLimits are thresholds from the realised metrics of reference chunks.
func realizedLimits(c *referenceCase, rows perf.Rows, value perf.ValueMatrix, m perf.Metric) peer.Limits {
	low, high := m.Bounds()
	return peer.ThreeSigma(refValues(c, func(ch peer.Chunk) float64 {
		v, ok := perf.Realized(rows.Slice(ch.From, ch.To), value)[m]
		if !ok {
			return math.NaN()
		}
		return v
	})).Within(low, high)
}

// cbpeChunks lays out CBPE's members, or only the realised ones.
func cbpeChunks(realizedOnly bool) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		if c.Kind == "dle" {
			return regressionChunks(c)
		}
		value := valueMatrix(c)
		parts := map[string]perf.Rows{"ref": binaryRows(c, "ref"), "cur": binaryRows(c, "cur")}
		model, err := perf.FitCBPE(parts["ref"], value)
		if err != nil {
			return nil, err
		}
		limits := map[perf.Metric]peer.Limits{}
		for _, m := range perf.Metrics() {
			limits[m] = realizedLimits(c, parts["ref"], value, m)
		}
		rows := chunkRows(c, "chunk/", func(part string, ch peer.Chunk, out map[string]any) {
			window := parts[part].Slice(ch.From, ch.To)
			estimates, _ := model.Estimate(window)
			realized := perf.Realized(window, value)
			if realizedOnly {
				out["chunk/targets_missing_rate"] = 0.0
			}
			for _, m := range perf.Metrics() {
				v, key := estimates[m], string(m)+"/"
				if realizedOnly {
					v.Value = realized[m]
				} else {
					out[key+"realized"] = nil
					if r, ok := realized[m]; ok {
						out[key+"realized"] = r
					}
					out[key+"upper_confidence_boundary"], out[key+"lower_confidence_boundary"] = v.Upper, v.Lower
				}
				out[key+"value"], out[key+"sampling_error"] = v.Value, model.StdErr(m, ch.To-ch.From)
				out[key+"lower_threshold"], out[key+"upper_threshold"] = limits[m].Lower, limits[m].Upper
				out[key+"alert"] = limits[m].Crossed(v.Value)
			}
		})
		return map[string]any{"chunks": rows, "needs_calibration": model.Calibrator != nil}, nil
	}
}

func regressionChunks(c *referenceCase) (map[string]any, error) {
	metrics := map[string]func(perf.Regression) (perf.Value, error){"mae": perf.Regression.MAE, "mse": perf.Regression.MSE,
		"rmse": perf.Regression.RMSE, "mape": perf.Regression.MAPE}
	window := func(part string, ch peer.Chunk) perf.Regression {
		return perf.Regression{Truth: slice(c.numbers("y_true", part), ch), Predicted: slice(c.numbers("y_pred", part), ch)}
	}
	whole := perf.Regression{Truth: c.numbers("y_true", "ref"), Predicted: c.numbers("y_pred", "ref")}
	limits := map[string]peer.Limits{}
	for name, f := range metrics {
		limits[name] = peer.ThreeSigma(refValues(c, func(ch peer.Chunk) float64 {
			v, _ := f(window("ref", ch))
			return v.Value
		})).Within(0, math.Inf(1))
	}
	rows := chunkRows(c, "chunk/", func(part string, ch peer.Chunk, out map[string]any) {
		out["chunk/targets_missing_rate"] = 0.0
		for name, f := range metrics {
			v, _ := f(window(part, ch))
			out[name+"/value"], out[name+"/sampling_error"] = v.Value, whole.WindowStdErr(perf.Metric(name), ch.To-ch.From)
			out[name+"/lower_threshold"], out[name+"/upper_threshold"] = limits[name].Lower, limits[name].Upper
			out[name+"/alert"] = limits[name].Crossed(v.Value)
		}
	})
	return map[string]any{"chunks": rows}, nil
}

func perfHandlers() map[string]handler {
	return map[string]handler{
		"binary_metrics":     binaryMetrics,
		"multiclass_metrics": multiclassMetrics,
		"regression_metrics": regressionMetrics,
		"nannyml.cbpe":       cbpeChunks(false),
		"nannyml.realized":   cbpeChunks(true),
	}
}
