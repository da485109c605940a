package model

import (
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/model/linear"
	"github.com/kedge-ml/kedge/model/onnx"
	"github.com/kedge-ml/kedge/model/tree"
)

// ErrNoPredictor means that a model is of a kind that no Go predictor reads;
// an ONNX runtime must serve it, and replay the golden rows itself.
var ErrNoPredictor = errors.New("no Go predictor for this kind of model")

// Predictor scores rows. Implementations are safe for concurrent use and
// allocate nothing in Predict.
type Predictor interface {
	Features() int // values of a row
	Outputs() int  // predictions of a row
	Groups() int   // margins of a row: what contributions explain
	// Predict scores len(rows)/Features() row-major rows into out.
	Predict(out, rows []float32)
	// Contributions writes Groups()×(Features()+1) values a row: how far each
	// input moved the margin, and last the mean margin of training.
	Contributions(out []float64, rows []float32)
}

var (
	_ Predictor = (*tree.Ensemble)(nil)
	_ Predictor = (*linear.Model)(nil)
)

// Limits bound what loading an artefact may cost.
type Limits struct {
	Tree  tree.Limits
	ONNX  onnx.Limits
	File  int64 // bytes of any one file
	Total int64 // bytes of the folder
}

// DefaultLimits allow 256 MB a file and 1 GB a folder.
func DefaultLimits() Limits {
	return Limits{Tree: tree.DefaultLimits(), ONNX: onnx.DefaultLimits(), File: 256 << 20, Total: 1 << 30}
}

// NewPredictor reads a model file and checks it against its signature.
func NewPredictor(s *Signature, file []byte, lim Limits) (Predictor, error) {
	p, err := decode(s.Kind, file, lim)
	if err != nil {
		return nil, err
	}
	if p.Features() != len(s.Inputs) || p.Outputs() != s.Width() {
		return nil, fmt.Errorf("model has %d inputs and %d outputs, its signature says %d and %d: %w",
			p.Features(), p.Outputs(), len(s.Inputs), s.Width(), ErrCorrupt)
	}
	return p, nil
}

func decode(k Kind, file []byte, lim Limits) (Predictor, error) {
	switch k {
	case XGBoost:
		return tree.Read(file, lim.Tree)
	case Linear:
		return linear.Read(file)
	}
	return nil, fmt.Errorf("kind %q: %w", k, ErrNoPredictor)
}
