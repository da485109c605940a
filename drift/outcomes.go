package drift

import (
	"math"
	"slices"
	"strconv"

	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/store"
)

// rows are the labelled rows of a window in the form that a task's metrics
// take.
type rows struct {
	task      string
	labelled  int
	index     []int // of the outcomes that are used
	score     []float64
	truth     []bool
	predicted []bool
	numbers   perf.Regression
	classes   perf.Classified
}

func threshold(t float64) float64 {
	if math.IsNaN(t) {
		return 0.5
	}
	return t
}

func zeroOrOne(v float64) bool { return v == 0 || v == 1 }

// numberSaid is a label as a number, also where a text says it; NaN: none.
func numberSaid(o *store.Outcomes, i int) float64 {
	if said := o.LabelClass[i]; said != "" && math.IsNaN(o.Label[i]) {
		if v, err := strconv.ParseFloat(said, 64); err == nil {
			return v
		}
		if v, err := strconv.ParseBool(said); err == nil {
			return map[bool]float64{true: 1}[v]
		}
	}
	return o.Label[i]
}

// classSaid is a label as the name of a class, also where a number says it;
// empty: none.
func classSaid(o *store.Outcomes, i int) string {
	if o.LabelClass[i] == "" && !math.IsNaN(o.Label[i]) {
		return strconv.FormatFloat(o.Label[i], 'f', -1, 64)
	}
	return o.LabelClass[i]
}

func rowsOf(o *store.Outcomes, task string) *rows {
	r := &rows{task: task}
	classes := map[string]int{}
	if task == "multiclass" {
		r.classes.Classes = classNames(o)
		for i, c := range r.classes.Classes {
			classes[c] = i
		}
	}
	for i := range o.Time {
		if !o.There[i] {
			continue
		}
		switch {
		case task == "binary" && !math.IsNaN(o.Score[i]) && zeroOrOne(numberSaid(o, i)):
			r.score, r.truth = append(r.score, o.Score[i]), append(r.truth, numberSaid(o, i) == 1)
			r.predicted = append(r.predicted, o.Score[i] >= threshold(o.Threshold[i]))
		case task == "multiclass" && o.Class[i] != "" && classSaid(o, i) != "":
			r.classes.Truth, r.classes.Predicted = append(r.classes.Truth, classes[classSaid(o, i)]), append(r.classes.Predicted, classes[o.Class[i]])
			if p := chances(o.Scores[i], r.classes.Classes); p != nil {
				r.classes.Proba = append(r.classes.Proba, p)
			}
		case task == "regression" && !math.IsNaN(o.Value[i]) && !math.IsNaN(numberSaid(o, i)):
			r.numbers.Truth, r.numbers.Predicted = append(r.numbers.Truth, numberSaid(o, i)), append(r.numbers.Predicted, o.Value[i])
		default:
			continue
		}
		r.labelled++
		r.index = append(r.index, i)
	}
	if len(r.classes.Proba) < len(r.classes.Truth) {
		r.classes.Proba = nil // a part of the rows would be another sample
	}
	return r
}

// chances are a row's probabilities in the order of the classes; nil where one
// is missing.
func chances(scores map[string]float64, classes []string) []float64 {
	if len(scores) == 0 {
		return nil
	}
	out := make([]float64, len(classes))
	for k, c := range classes {
		v, ok := scores[c]
		if !ok || !present(v) {
			return nil
		}
		out[k] = v
	}
	return out
}

func classNames(o *store.Outcomes) []string {
	var out []string
	for i := range o.Time {
		if o.There[i] && classSaid(o, i) != "" && o.Class[i] != "" {
			out = append(out, classSaid(o, i), o.Class[i])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pick are some of the outcomes.
func pick(o *store.Outcomes, index []int) *store.Outcomes {
	out := &store.Outcomes{}
	for _, i := range index {
		out.Time, out.Score, out.Value, out.Threshold = append(out.Time, o.Time[i]), append(out.Score, o.Score[i]), append(out.Value, o.Value[i]), append(out.Threshold, o.Threshold[i])
		out.Label, out.Class, out.LabelClass, out.There = append(out.Label, o.Label[i]), append(out.Class, o.Class[i]), append(out.LabelClass, o.LabelClass[i]), append(out.There, o.There[i])
		out.Scores = append(out.Scores, o.Scores[i])
	}
	return out
}

func (r *rows) rows() perf.Rows {
	return perf.Rows{Score: r.score, Predicted: r.predicted, Truth: r.truth}
}

// metrics are all that can be computed; those that do not exist for these rows
// are missing.
func (r *rows) metrics(worth Worth) map[string]perf.Value {
	out := map[string]perf.Value{}
	add := func(name string, f func() (perf.Value, error)) {
		if v, err := f(); err == nil && !math.IsNaN(v.Value) && !math.IsInf(v.Value, 0) {
			out[name] = v
		}
	}
	if r.labelled == 0 {
		return out
	}
	switch r.task {
	case "binary":
		c, s := perf.Count(r.truth, r.predicted), perf.Scored{Score: r.score, Truth: r.truth}
		for name, f := range map[string]func() (perf.Value, error){"accuracy": c.Accuracy, "precision": c.Precision, "recall": c.Recall, "f1": c.F1,
			"specificity": c.Specificity, "selection_rate": c.SelectionRate, "roc_auc": s.ROCAUC, "average_precision": s.AveragePrecision, "log_loss": s.LogLoss, "brier": s.Brier} {
			add(name, f)
		}
		for name, n := range map[string]float64{"true_positive": c.TP, "false_positive": c.FP, "true_negative": c.TN, "false_negative": c.FN} {
			out[name] = perf.Value{Value: n}
		}
		out["business_value"] = c.Business(worth.binary())
		if _, ece, err := s.Calibration(); err == nil {
			out["calibration_error"] = perf.Value{Value: ece}
		}
	case "multiclass":
		add("accuracy", r.classes.Accuracy)
		add("kappa", r.classes.Kappa)
		add("f1", func() (perf.Value, error) { return r.classes.F1(perf.Macro) })
		add("precision", func() (perf.Value, error) { return r.classes.Precision(perf.Macro) })
		add("recall", func() (perf.Value, error) { return r.classes.Recall(perf.Macro) })
		add("specificity", func() (perf.Value, error) { return r.classes.Specificity(perf.Macro) })
		if r.classes.Proba != nil {
			add("roc_auc", r.classes.ROCAUC)
			add("average_precision", r.classes.AveragePrecision)
			add("log_loss", r.classes.LogLoss)
		}
		out["business_value"] = r.classes.Business(worth.of(r.classes.Classes))
		if len(r.classes.Classes) <= mostClasses {
			for i, row := range r.classes.Matrix() {
				for j, n := range row {
					out[confusionMetric(r.classes.Classes[i], r.classes.Classes[j])] = perf.Value{Value: n}
				}
			}
		}
	case "regression":
		n := r.numbers
		for name, f := range map[string]func() (perf.Value, error){"mae": n.MAE, "mse": n.MSE, "rmse": n.RMSE, "mape": n.MAPE, "r2": n.R2, "mean_error": n.ME} {
			add(name, f)
		}
	}
	return out
}

// addGaps measures how unequally a binary model treats the values of a segment.
func (p *performance) addGaps(out *[]store.Performance, base store.Performance, group string, o *store.Outcomes, before bool) {
	r := rowsOf(o, "binary")
	var of []string
	for _, i := range r.index {
		of = append(of, o.Groups[group][i])
	}
	f := perf.CompareGroups(of, r.truth, r.predicted)
	for name, gap := range map[string]*perf.Gap{"selection_gap": f.Selection, "tpr_gap": f.TruePos, "fpr_gap": f.FalsePos} {
		if gap == nil && !before {
			continue
		}
		row := base
		row.Segment, row.Metric, row.Value, row.StdErr, row.Labelled = group, name, math.NaN(), math.NaN(), uint64(math.Round(float64(r.labelled)*base.Scale))
		row.Estimate, row.Lower, row.Upper, row.Reference = math.NaN(), math.NaN(), math.NaN(), math.NaN()
		if gap != nil {
			row.Value, row.StdErr, row.Reason = gap.Value.Value, gap.Value.StdErr, gap.High+" against "+gap.Low
		}
		*out = append(*out, row)
	}
}

// mostClasses bounds the classes whose confusion matrix is kept.
const mostClasses = 20

// confusionPrefix begins the names of a multi-class model's counts.
const confusionPrefix = "confusion/"

// confusionMetric names the count of rows of one class predicted as another:
// "confusion/cat/dog".
func confusionMetric(truth, predicted string) string {
	return confusionPrefix + truth + "/" + predicted
}

// Worth is what a prediction is worth: by the truth, then by the predicted
// class; those of binary models are "0" and "1". What is not named is worth
// nothing; without any statement every right answer is worth 1.
type Worth map[string]map[string]float64

func (w Worth) of(classes []string) [][]float64 {
	out := make([][]float64, len(classes))
	for i, truth := range classes {
		out[i] = make([]float64, len(classes))
		for j, predicted := range classes {
			if w != nil {
				out[i][j] = w[truth][predicted]
			} else if i == j {
				out[i][j] = 1
			}
		}
	}
	return out
}

func (w Worth) binary() perf.ValueMatrix {
	m := w.of([]string{"0", "1"})
	return perf.ValueMatrix{{m[0][0], m[0][1]}, {m[1][0], m[1][1]}}
}
