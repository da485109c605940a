// Package linear predicts with linear and logistic models.
//
// Holds: the coefficients together with the pre-processing they were fitted
// behind (standardisation, filling of missing values, category weights), so
// that the same row means the same thing in training and in serving. Promises:
// prediction allocates nothing for up to 64 outputs and is safe for concurrent
// use; a reader never trusts a shape that a file states. Units: rows are
// row-major float32, NaN is missing, categories are codes from 0; sums are
// made in float64. May not: read files, fit.
package linear

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrFormat means that bytes are not a linear model of format version 1.
var ErrFormat = errors.New("not a valid linear model")

// Link turns margins into predictions.
type Link string

// Links.
const (
	Identity Link = "identity"
	Logistic Link = "logistic"
	Softmax  Link = "softmax"
)

// Format is the version of the file's shape.
const Format = 1

// Term is one input's share of the margins. A numeric input adds
// Weights·(x-Mean)/Scale, or Missing where it is missing. A categorical input
// adds Categories[code], or Missing for no or an unknown code.
//
// All vectors have one value per output. Missing is what the fit found for
// rows without the value: a missing number is filled with the mean, so it
// starts at 0, plus the weight of "was missing" where the fit had one.
type Term struct {
	Mean       float64     `json:"mean,omitempty"`
	Scale      float64     `json:"scale,omitempty"`
	Weights    []float64   `json:"weights,omitempty"`
	Missing    []float64   `json:"missing"`
	Categories [][]float64 `json:"categories,omitempty"`
	Average    []float64   `json:"average"` // the term's mean over the training rows, for contributions
}

// Model is a fitted linear model. Use [Read] or [New]: they check it.
type Model struct {
	Version   int       `json:"format"`
	Link      Link      `json:"link"`
	Intercept []float64 `json:"intercept"` // one per output
	Terms     []Term    `json:"terms"`     // one per input, in the signature's order
}

// Read decodes and checks a model file.
func Read(text []byte) (*Model, error) {
	m := new(Model)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("read linear model: %w: %v", ErrFormat, err)
	}
	return New(m)
}

// New checks a model that was put together in memory and returns it.
func New(m *Model) (*Model, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("linear model: %w: %w", ErrFormat, err)
	}
	return m, nil
}

// Encode writes the model file.
func (m *Model) Encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode linear model: %w", err)
	}
	return append(text, '\n'), nil
}

func (m *Model) check() error {
	k := len(m.Intercept)
	switch {
	case m.Version != Format:
		return fmt.Errorf("format %d, this version reads %d", m.Version, Format)
	case !slices.Contains([]Link{Identity, Logistic, Softmax}, m.Link):
		return fmt.Errorf("link %q: want identity, logistic or softmax", m.Link)
	case k == 0 || len(m.Terms) == 0:
		return errors.New("no outputs or no terms")
	case !finite(m.Intercept):
		return errors.New("an intercept is not finite")
	}
	for i := range m.Terms {
		if err := m.Terms[i].check(k); err != nil {
			return fmt.Errorf("term %d: %w", i, err)
		}
	}
	return nil
}

func (t *Term) check(k int) error {
	for _, v := range append(slices.Clone(t.Categories), t.Missing, t.Average) {
		if len(v) != k || !finite(v) {
			return fmt.Errorf("a vector of %d values for %d outputs, or one that is not finite", len(v), k)
		}
	}
	if len(t.Categories) > 0 {
		if len(t.Weights) > 0 {
			return errors.New("both weights and categories")
		}
		return nil
	}
	if len(t.Weights) != k || !finite(t.Weights) || !finite([]float64{t.Mean}) || !(t.Scale > 0) || math.IsInf(t.Scale, 0) {
		return errors.New("weights, mean or scale missing or not finite")
	}
	return nil
}

func finite(v []float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return x-x != 0 })
}

// Features is the number of inputs of a row.
func (m *Model) Features() int { return len(m.Terms) }

// Outputs is the number of values predicted per row.
func (m *Model) Outputs() int { return len(m.Intercept) }

// Groups is the number of margins per row.
func (m *Model) Groups() int { return len(m.Intercept) }

// Predict scores len(rows)/Features() rows into out, Outputs() values a row.
func (m *Model) Predict(out, rows []float32) {
	f, k := len(m.Terms), len(m.Intercept)
	var few [64]float64
	margin := few[:]
	if k > len(few) {
		margin = make([]float64, k)
	}
	margin = margin[:k]
	for i := range len(rows) / f {
		copy(margin, m.Intercept)
		for j, x := range rows[i*f : (i+1)*f] {
			m.Terms[j].add(margin, float64(x))
		}
		m.Link.apply(margin)
		for g, v := range margin {
			out[i*k+g] = float32(v)
		}
	}
}

// add adds the term of one value to all margins.
func (t *Term) add(margin []float64, x float64) {
	if x != x {
		addTo(margin, t.Missing, 1)
		return
	}
	if len(t.Categories) == 0 {
		addTo(margin, t.Weights, (x-t.Mean)/t.Scale)
		return
	}
	if x >= 0 && x < float64(len(t.Categories)) {
		addTo(margin, t.Categories[int(x)], 1)
		return
	}
	addTo(margin, t.Missing, 1)
}

func addTo(margin, w []float64, by float64) {
	for g := range margin {
		margin[g] += w[g] * by
	}
}

// Contributions writes, per row and output, Features()+1 numbers that sum to
// the margin: every term's distance from its mean over the training rows, and
// last the mean margin. For a linear model these are the exact Shapley values
// of independent inputs.
func (m *Model) Contributions(out []float64, rows []float32) {
	f, k := len(m.Terms), len(m.Intercept)
	width := f + 1
	term := make([]float64, k)
	for i := range len(rows) / f {
		at := out[i*k*width : (i+1)*k*width]
		for g, b := range m.Intercept {
			at[g*width+f] = b
		}
		for j, x := range rows[i*f : (i+1)*f] {
			clear(term)
			m.Terms[j].add(term, float64(x))
			for g, v := range term {
				at[g*width+j] = v - m.Terms[j].Average[g]
				at[g*width+f] += m.Terms[j].Average[g]
			}
		}
	}
}

func (l Link) apply(m []float64) {
	switch l {
	case Logistic:
		for g, x := range m {
			m[g] = 1 / (1 + math.Exp(-x))
		}
	case Softmax:
		top, sum := slices.Max(m), 0.0
		for g, x := range m {
			m[g] = math.Exp(x - top)
			sum += m[g]
		}
		for g := range m {
			m[g] /= sum
		}
	}
}
