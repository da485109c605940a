package trainer

import (
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/linear"
	"github.com/kedge-ml/kedge/model/onnx"
	"github.com/kedge-ml/kedge/model/tree"
)

// goldenRows picks rows evenly over the matrix.
func goldenRows(m *Matrix) []float32 {
	n := min(model.GoldenRows, m.Rows())
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i * m.Rows() / n
	}
	return m.RowMajor(rows)
}

// pack puts a fitted model into its artefact. The references are those of the
// training rows. The golden answers are the back-end's own: encoding the
// artefact later proves that the serving predictor gives them too.
func pack(f *Fitted, data Data, p Params) (*model.Artifact, error) {
	m := data.Train
	a := &model.Artifact{Model: f.Model}
	a.Golden = model.Golden{Features: len(m.Columns), Outputs: f.Outputs, Inputs: data.Golden, Expected: f.Golden}
	s := &a.Signature
	*s = model.Signature{Format: model.FormatVersion, Kind: f.Kind, Task: p.Task, Objective: f.Objective}
	for i := range m.Columns {
		in, err := inputOf(&m.Columns[i])
		if err != nil {
			return nil, err
		}
		s.Inputs = append(s.Inputs, in)
	}
	s.Outputs = []model.Output{outputOf(m, p, f.Outputs)}
	s.Outputs[0].Tensor, s.Outputs[0].Column = f.OutputTensor, f.OutputColumn
	if f.Kind == model.ONNX {
		return a, nil
	}
	predictor, err := model.NewPredictor(s, f.Model, model.DefaultLimits())
	if err != nil {
		return nil, fmt.Errorf("read the trained model back: %w", err)
	}
	if s.Outputs[0].Reference, err = scoreReference(predictor, m); err != nil {
		return nil, err
	}
	a.Export, err = exportONNX(predictor)
	return a, err
}

func inputOf(c *Column) (model.Input, error) {
	in := model.Input{
		Name: c.Name, Type: c.Type, View: c.View, ViewVersion: c.ViewVersion,
		Categories: c.Categories, Other: c.Other,
	}
	var err error
	if c.Categorical() {
		in.Reference, err = model.CategoryReference(c.Values, c.Categories)
	} else {
		in.Reference, err = model.NumberReference(widen(c.Values))
	}
	return in, err
}

func outputOf(m *Matrix, p Params, width int) model.Output {
	o := model.Output{Name: "value", Width: width}
	switch p.Task {
	case model.Binary:
		o.Name, o.Classes = "score", m.Classes
	case model.MultiClass:
		o.Name, o.Classes = "scores", m.Classes
	case model.Quantiles:
		o.Name, o.Quantiles = "quantiles", p.Quantiles
	}
	return o
}

// referenceRows bounds how many training rows are scored for the reference.
const referenceRows = 100_000

// scoreReference summarises the predictions on the training rows: the score,
// the value, the first quantile, or of several classes the likeliest one's.
func scoreReference(p model.Predictor, m *Matrix) (*model.Reference, error) {
	rows := m.all()
	if len(rows) > referenceRows {
		for i := range referenceRows {
			rows[i] = i * len(rows) / referenceRows
		}
		rows = rows[:referenceRows]
	}
	out := PredictAll(p, m.Select(rows))
	k := p.Outputs()
	v := make([]float64, len(rows))
	for i := range v {
		v[i] = float64(out[i*k])
		if m.Classes != nil {
			v[i] = float64(slices.Max(out[i*k : (i+1)*k]))
		}
	}
	return model.NumberReference(v)
}

// exportONNX writes the model for other runtimes.
func exportONNX(p model.Predictor) ([]byte, error) {
	switch m := p.(type) {
	case *tree.Ensemble:
		return onnx.Trees(m)
	case *linear.Model:
		return onnx.Linear(m)
	}
	return nil, fmt.Errorf("%w: no ONNX form of this model", ErrParam)
}
