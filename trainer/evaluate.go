package trainer

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/tree"
)

// Report is what the time-held-out test says about a model.
type Report struct {
	Rows        int
	Metrics     map[string]float64
	Baseline    map[string]float64 // of always answering what training saw on average
	Live        map[string]float64 // of the model in service, on the same rows
	Segments    []model.SegmentMetrics
	Importance  []model.Importance
	Calibration *model.Calibration // Binary only
}

// segmentLimit is how many values of a segment column are told apart.
const segmentLimit = 20

// Evaluate asks a predictor for all test rows.
func Evaluate(p model.Predictor, test, train *Matrix, task model.Task, quantiles []float64, segments []string) (*Report, error) {
	out := PredictAll(p, test)
	r := &Report{Rows: test.Rows()}
	var err error
	if r.Metrics, err = Measure(test, task, out, quantiles); err != nil {
		return nil, err
	}
	if r.Baseline, err = Measure(test, task, constantAnswer(train, test.Rows(), task, quantiles), quantiles); err != nil {
		return nil, err
	}
	if r.Segments, err = segmentMetrics(test, task, out, quantiles, segments); err != nil {
		return nil, err
	}
	if task == model.Binary {
		w := make([]float64, test.Rows())
		for i := range w {
			w[i] = test.weight(i)
		}
		r.Calibration = Calibrate(widen(out), widen(test.Label), w)
	}
	r.Importance = importance(p, test)
	return r, nil
}

// PredictAll predicts every row of a matrix, row-major, in bounded memory.
func PredictAll(p model.Predictor, m *Matrix) []float32 {
	const block = 4096
	out := make([]float32, m.Rows()*p.Outputs())
	rows := m.all()
	for i := 0; i < len(rows); i += block {
		end := min(i+block, len(rows))
		p.Predict(out[i*p.Outputs():end*p.Outputs()], m.RowMajor(rows[i:end]))
	}
	return out
}

// constantAnswer is the baseline: training's own average for every row.
func constantAnswer(train *Matrix, rows int, task model.Task, quantiles []float64) []float32 {
	var one []float32
	switch task {
	case model.MultiClass, model.Binary:
		share := make([]float64, len(train.Classes))
		total := 0.0
		for i, y := range train.Label {
			share[int(y)] += train.weight(i)
			total += train.weight(i)
		}
		for _, s := range share {
			one = append(one, float32(s/total))
		}
		if task == model.Binary {
			one = one[1:]
		}
	case model.Quantiles:
		sorted := slices.Clone(train.Label)
		slices.Sort(sorted)
		for _, q := range quantiles {
			one = append(one, sorted[min(len(sorted)-1, int(q*float64(len(sorted))))])
		}
	default:
		var sum, total float64
		for i, y := range train.Label {
			sum += train.weight(i) * float64(y)
			total += train.weight(i)
		}
		one = []float32{float32(sum / total)}
	}
	return slices.Repeat(one, rows)
}

// segmentMetrics measures the rows of every frequent value of some
// categorical columns.
func segmentMetrics(m *Matrix, task model.Task, out []float32, quantiles []float64, columns []string) ([]model.SegmentMetrics, error) {
	width := len(out) / m.Rows()
	var all []model.SegmentMetrics
	for _, name := range columns {
		c := m.Column(name)
		if c == nil || !c.Categorical() {
			return nil, fmt.Errorf("%w: segment %q: no such categorical input", ErrParam, name)
		}
		for _, code := range frequentCodes(c) {
			var rows []int
			for r, v := range c.Values {
				if v == float32(code) {
					rows = append(rows, r)
				}
			}
			part := make([]float32, 0, len(rows)*width)
			for _, r := range rows {
				part = append(part, out[r*width:(r+1)*width]...)
			}
			metrics, err := Measure(m.Select(rows), task, part, quantiles)
			if err != nil {
				return nil, err
			}
			all = append(all, model.SegmentMetrics{Column: name, Value: c.Categories[code], Rows: len(rows), Metrics: metrics})
		}
	}
	return all, nil
}

// frequentCodes are the codes of the most frequent categories present.
func frequentCodes(c *Column) []int {
	counts := make([]int, len(c.Categories))
	for _, v := range c.Values {
		if v == v {
			counts[int(v)]++
		}
	}
	var codes []int
	for code, n := range counts {
		if n > 0 {
			codes = append(codes, code)
		}
	}
	slices.SortFunc(codes, func(a, b int) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return codes[:min(segmentLimit, len(codes))]
}

// importanceRows is how many test rows are explained.
const importanceRows = 500

// importance is the mean size of each input's contribution, and for trees the
// mean gain of its splits.
func importance(p model.Predictor, m *Matrix) []model.Importance {
	step := max(1, m.Rows()/importanceRows)
	var rows []int
	for r := 0; r < m.Rows() && len(rows) < importanceRows; r += step {
		rows = append(rows, r)
	}
	f, g := p.Features(), p.Groups()
	contributions := make([]float64, len(rows)*g*(f+1))
	p.Contributions(contributions, m.RowMajor(rows))
	out := make([]model.Importance, f)
	for i := range m.Columns {
		out[i].Input = m.Columns[i].Name
	}
	for at, v := range contributions {
		if i := at % (f + 1); i < f {
			out[i].Contribution += math.Abs(v) / float64(len(rows)*g)
		}
	}
	if e, ok := p.(*tree.Ensemble); ok {
		gain, _ := e.Importance()
		for i := range out {
			out[i].Gain = gain[i]
		}
	}
	slices.SortStableFunc(out, func(a, b model.Importance) int { return cmp.Compare(b.Contribution, a.Contribution) })
	return out
}
