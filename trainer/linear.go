package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/linear"
)

// Linear fits linear, logistic and softmax regression with an L2 penalty, by
// L-BFGS. It needs no native library, so there is always something to train
// with and to compare with.
//
// Numbers are standardised and missing ones filled with the mean, with a
// weight of their own where a column has any; categories are one-hot. All of
// it travels in the model. Parameters: l2, the penalty per mean loss (default
// 0.0001); max_iterations (default 500).
type Linear struct{}

// Name is "linear".
func (Linear) Name() string { return "linear" }

// Fit learns on the processor that calls it.
func (Linear) Fit(ctx context.Context, data Data, p Params, watch Watch) (*Fitted, error) {
	if err := p.refuseUnknown("linear", "l2", "max_iterations"); err != nil {
		return nil, err
	}
	l2, err1 := p.number("l2", 1e-4, 0, 1e6)
	iterations, err2 := p.number("max_iterations", 500, 1, 1e6)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if p.Device == CUDA {
		return nil, fmt.Errorf("%w: back-end linear runs on the CPU only", ErrDevice)
	}
	link, objective, outputs, err := linkOf(p.Task, data.Train)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	d := newDesign(data.Train)
	f := &linearFit{d: d, y: data.Train, k: outputs, link: link, l2: l2, ctx: ctx, watch: watch}
	beta, err := f.minimise(int(iterations))
	if err != nil {
		return nil, err
	}
	m, err := linear.New(d.model(beta, outputs, link))
	if err != nil {
		return nil, err
	}
	return finishLinear(m, objective, data, p, f.steps, time.Since(start))
}

func finishLinear(m *linear.Model, objective string, data Data, p Params, steps int, took time.Duration) (*Fitted, error) {
	file, err := m.Encode()
	if err != nil {
		return nil, err
	}
	out := &Fitted{
		Kind: model.Linear, Model: file, Objective: objective, Outputs: m.Outputs(), Backend: "linear",
		Device: model.Device{Requested: string(p.Device), Used: "cpu"}, Rounds: steps,
		Cost: model.Cost{Wall: took.Seconds(), CPU: took.Seconds()},
	}
	out.Golden = make([]float32, len(data.Golden)/m.Features()*m.Outputs())
	m.Predict(out.Golden, data.Golden)
	return out, nil
}

func linkOf(t model.Task, m *Matrix) (link linear.Link, objective string, outputs int, err error) {
	switch t {
	case model.Binary:
		return linear.Logistic, "logistic", 1, nil
	case model.MultiClass:
		return linear.Softmax, "softmax", len(m.Classes), nil
	case model.Regression:
		return linear.Identity, "least squares", 1, nil
	}
	return "", "", 0, fmt.Errorf("%w: back-end linear has no task %q: use xgboost", ErrParam, t)
}

// design is the standardised training matrix: per input, one coefficient for a
// number, one more for its absence, or one per category and one for none.
type design struct {
	m      *Matrix
	mean   []float64
	scale  []float64
	absent []bool // the column has missing values
	begin  []int  // first coefficient of each input
	width  int
	total  float64 // sum of weights
}

func newDesign(m *Matrix) *design {
	n := len(m.Columns)
	d := &design{m: m, mean: make([]float64, n), scale: make([]float64, n), absent: make([]bool, n), begin: make([]int, n)}
	for r := range m.Rows() {
		d.total += m.weight(r)
	}
	for j := range m.Columns {
		d.begin[j] = d.width
		d.moments(j)
		d.width++
		if c := &m.Columns[j]; c.Categorical() {
			d.width += len(c.Categories) - 1
		}
		if d.absent[j] {
			d.width++
		}
	}
	return d
}

// moments are the weighted mean and deviation of a numeric column.
func (d *design) moments(j int) {
	c := &d.m.Columns[j]
	d.scale[j] = 1
	d.absent[j] = slices.ContainsFunc(c.Values, func(v float32) bool { return v != v })
	if c.Categorical() {
		return
	}
	var n, sum, square float64
	for r, v := range c.Values {
		if v == v {
			n += d.m.weight(r)
			sum += d.m.weight(r) * float64(v)
		}
	}
	if n == 0 {
		return
	}
	d.mean[j] = sum / n
	for r, v := range c.Values {
		if v == v {
			e := float64(v) - d.mean[j]
			square += d.m.weight(r) * e * e
		}
	}
	if s := math.Sqrt(square / n); s > 0 {
		d.scale[j] = s
	}
}

// each calls fn with the coefficient and the value of every entry of column j
// that is not 0.
func (d *design) each(j int, fn func(row, coefficient int, x float64)) {
	c := &d.m.Columns[j]
	at := d.begin[j]
	missing := at + 1
	if c.Categorical() {
		missing = at + len(c.Categories)
	}
	for r, v := range c.Values {
		switch {
		case v != v:
			fn(r, missing, 1)
		case c.Categorical():
			fn(r, at+int(v), 1)
		default:
			fn(r, at, (float64(v)-d.mean[j])/d.scale[j])
		}
	}
}

// model turns coefficients into the artefact's terms.
func (d *design) model(beta []float64, k int, link linear.Link) *linear.Model {
	m := &linear.Model{Version: linear.Format, Link: link, Intercept: slices.Clone(beta[d.width*k:])}
	pick := func(coefficient int) []float64 { return slices.Clone(beta[coefficient*k : (coefficient+1)*k]) }
	for j := range d.m.Columns {
		c := &d.m.Columns[j]
		t := linear.Term{Mean: d.mean[j], Scale: d.scale[j], Missing: make([]float64, k), Average: make([]float64, k)}
		next := d.begin[j] + 1
		if c.Categorical() {
			next = d.begin[j] + len(c.Categories)
			t.Mean, t.Scale = 0, 0
			for i := range c.Categories {
				t.Categories = append(t.Categories, pick(d.begin[j]+i))
			}
			if len(c.Categories) == 0 { // a column without a single value
				t.Categories = [][]float64{make([]float64, k)}
			}
		} else {
			t.Weights = pick(d.begin[j])
		}
		if d.absent[j] {
			t.Missing = pick(next)
		}
		d.each(j, func(row, coefficient int, x float64) {
			for o := range k {
				t.Average[o] += d.m.weight(row) / d.total * x * beta[coefficient*k+o]
			}
		})
		m.Terms = append(m.Terms, t)
	}
	return m
}

// linearFit is one minimisation: mean loss plus l2/2·‖β‖² without the
// intercepts, which come last in β.
type linearFit struct {
	d       *design
	y       *Matrix
	k       int
	link    linear.Link
	l2      float64
	ctx     context.Context
	watch   Watch
	margin  []float64 // of all rows at the point at
	at      []float64
	rest    []float64 // prediction minus truth, weighted
	unit    []float64 // of every coefficient: what is minimised over is β/unit
	point   []float64 // β of the point that the minimiser asks for
	steps   int
	stopped error // by the watcher
}

// Gonum's own reasons to stop; the gradient's size below is the usual one.
const gradientTolerance = 1e-6

func (f *linearFit) minimise(iterations int) ([]float64, error) {
	f.margin = make([]float64, f.y.Rows()*f.k)
	start := make([]float64, (f.d.width+1)*f.k)
	f.rest, f.point = make([]float64, len(f.margin)), make([]float64, len(start))
	f.prior(start[f.d.width*f.k:])
	f.unit = f.units(start[f.d.width*f.k:])
	for i, u := range f.unit {
		start[i] /= u
	}
	problem := optimize.Problem{
		Func: func(x []float64) float64 { return f.loss(f.scaled(x)) },
		Grad: func(grad, x []float64) {
			f.gradient(grad, f.scaled(x))
			for i, u := range f.unit {
				grad[i] *= u
			}
		},
	}
	settings := &optimize.Settings{
		GradientThreshold: gradientTolerance, MajorIterations: iterations,
		Converger: &optimize.FunctionConverge{Relative: 1e-12, Iterations: 20},
		Recorder:  f,
	}
	result, err := optimize.Minimize(problem, start, settings, &optimize.LBFGS{Store: 20})
	if ctxErr := f.ctx.Err(); ctxErr != nil {
		return nil, fmt.Errorf("%w: %w", ErrCancelled, context.Cause(f.ctx))
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	// A line search that finds no lower point has arrived as far as floats go.
	if err != nil && !errors.Is(err, optimize.ErrLinesearcherFailure) && !errors.Is(err, optimize.ErrNoProgress) {
		return nil, fmt.Errorf("fit linear model: %w", err)
	}
	return slices.Clone(f.scaled(result.X)), nil
}

// scaled is β at a point of the minimiser.
func (f *linearFit) scaled(x []float64) []float64 {
	for i, u := range f.unit {
		f.point[i] = x[i] * u
	}
	return f.point
}

// Init is part of gonum's recorder.
func (f *linearFit) Init() error { return nil }

// Record is part of gonum's recorder: it counts steps, reports them and lets
// the caller cancel.
func (f *linearFit) Record(at *optimize.Location, op optimize.Operation, _ *optimize.Stats) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	if op != optimize.MajorIteration {
		return nil
	}
	f.steps++
	if f.watch.Round != nil {
		f.stopped = f.watch.Round(f.steps-1, map[string]map[string]float64{"train": {"loss": at.F}})
	}
	return f.stopped
}

// prior sets the intercepts to what a model without inputs would say.
func (f *linearFit) prior(b []float64) {
	share := make([]float64, max(f.k, 2))
	mean := 0.0
	for r, y := range f.y.Label {
		w := f.y.weight(r) / f.d.total
		mean += w * float64(y)
		if f.link != linear.Identity {
			share[int(y)] += w
		}
	}
	switch f.link {
	case linear.Identity:
		b[0] = mean
	case linear.Logistic:
		b[0] = math.Log(max(share[1], smallest) / max(share[0], smallest))
	case linear.Softmax:
		for o := range b {
			b[o] = math.Log(max(share[o], smallest))
		}
	}
}

func (f *linearFit) loss(beta []float64) float64 {
	f.margins(beta)
	sum := 0.0
	for r, y := range f.y.Label {
		sum += f.y.weight(r) * f.rowLoss(f.margin[r*f.k:(r+1)*f.k], float64(y))
	}
	b := mat.NewVecDense(f.d.width*f.k, beta[:f.d.width*f.k])
	return sum/f.d.total + f.l2/2*mat.Dot(b, b)
}

func (f *linearFit) rowLoss(m []float64, y float64) float64 {
	switch f.link {
	case linear.Identity:
		return (m[0] - y) * (m[0] - y) / 2
	case linear.Logistic: // log(1+e^m) - y·m without overflow
		return max(m[0], 0) + math.Log1p(math.Exp(-math.Abs(m[0]))) - y*m[0]
	}
	top, sum := slices.Max(m), 0.0
	for _, v := range m {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum) - m[int(y)]
}

func (f *linearFit) gradient(grad, beta []float64) {
	k := f.k
	f.margins(beta)
	clear(grad)
	copy(f.rest, f.margin)
	for r, y := range f.y.Label {
		residual := f.rest[r*k : (r+1)*k]
		f.residual(residual, float64(y))
		for o := range k {
			residual[o] *= f.y.weight(r) / f.d.total
			grad[f.d.width*k+o] += residual[o]
		}
	}
	for j := range f.d.m.Columns {
		f.d.addGradient(grad, f.rest, j, k)
	}
	for i := range f.d.width * k {
		grad[i] += f.l2 * beta[i]
	}
}

// residual turns margins into prediction minus truth.
func (f *linearFit) residual(m []float64, y float64) {
	switch f.link {
	case linear.Identity:
		m[0] -= y
	case linear.Logistic:
		m[0] = 1/(1+math.Exp(-m[0])) - y
	case linear.Softmax:
		top, sum := slices.Max(m), 0.0
		for o, v := range m {
			m[o] = math.Exp(v - top)
			sum += m[o]
		}
		for o := range m {
			m[o] /= sum
		}
		m[int(y)]--
	}
}
