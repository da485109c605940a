package model

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/model/onnx"
)

// ErrCorrupt means that an artefact is damaged, incomplete or contradicts
// itself. Nothing of it may be served.
var ErrCorrupt = errors.New("corrupt artefact")

// ManifestFile is the file that lists the others with their sums.
const ManifestFile = "SHA256SUMS"

// Names of the files of an artefact.
const (
	modelFile     = "model.json" // XGBoost or linear
	onnxFile      = "model.onnx" // the model itself for kind onnx, else its export
	signatureFile = "signature.json"
	goldenFile    = "golden.bin"
	cardFile      = "card.json"
	cardText      = "card.md"
	manifestFile  = ManifestFile
)

// Artifact is a trained model with everything that belongs to it.
type Artifact struct {
	Signature Signature
	Model     []byte // in the encoding that Signature.Kind names
	Export    []byte // the same model as ONNX; optional, nil for kind ONNX
	Golden    Golden
	Card      Card
}

// Files encodes the artefact, by file name. It refuses what [FromFiles] would
// refuse, the golden rows included, so that nothing unservable is ever stored.
func (a *Artifact) Files() (map[string][]byte, error) {
	files, err := a.encode()
	if err != nil {
		return nil, fmt.Errorf("encode artefact: %w", err)
	}
	if _, err := FromFiles(files, DefaultLimits()); err != nil {
		return nil, fmt.Errorf("encode artefact: %w", err)
	}
	return files, nil
}

func (a *Artifact) encode() (map[string][]byte, error) {
	signature, err1 := json.MarshalIndent(&a.Signature, "", "  ")
	card, err2 := a.Card.encode()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	files := map[string][]byte{
		signatureFile: append(signature, '\n'),
		goldenFile:    a.Golden.Encode(),
		cardFile:      card,
		cardText:      a.Card.Markdown(),
	}
	if a.Signature.Kind == ONNX {
		files[onnxFile] = a.Model
		return files, nil
	}
	files[modelFile] = a.Model
	if a.Export != nil {
		files[onnxFile] = a.Export
	}
	return files, nil
}

// FromFiles decodes an artefact and checks that its parts agree; for kinds
// with a Go predictor it replays the golden rows.
func FromFiles(files map[string][]byte, lim Limits) (*Artifact, error) {
	for _, name := range []string{signatureFile, goldenFile, cardFile} {
		if files[name] == nil {
			return nil, fmt.Errorf("%w: %s is missing", ErrCorrupt, name)
		}
	}
	a := new(Artifact)
	if err := json.Unmarshal(files[signatureFile], &a.Signature); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrCorrupt, signatureFile, err)
	}
	if err := a.Signature.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, signatureFile, err)
	}
	if err := json.Unmarshal(files[cardFile], &a.Card); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrCorrupt, cardFile, err)
	}
	golden, err := DecodeGolden(files[goldenFile])
	if err != nil {
		return nil, err
	}
	a.Golden, a.Model, a.Export = *golden, files[modelFile], files[onnxFile]
	if a.Signature.Kind == ONNX {
		a.Model, a.Export = files[onnxFile], nil
	}
	return a, a.agree(lim)
}

// agree checks the parts against one another.
func (a *Artifact) agree(lim Limits) error {
	if a.Model == nil {
		return fmt.Errorf("%w: the model file is missing", ErrCorrupt)
	}
	g := &a.Golden
	if g.Rows() == 0 || g.Features != len(a.Signature.Inputs) || g.Outputs != a.Signature.Width() {
		return fmt.Errorf("%w: %d golden rows of %d+%d values, the signature has %d inputs and %d outputs",
			ErrCorrupt, g.Rows(), g.Features, g.Outputs, len(a.Signature.Inputs), a.Signature.Width())
	}
	if a.Signature.Kind == ONNX {
		if err := onnx.Inspect(a.Model, lim.ONNX); err != nil {
			return fmt.Errorf("%s: %w", onnxFile, err)
		}
		return nil
	}
	_, err := a.Predictor(lim)
	return err
}

// Predictor reads the model and replays the golden rows on it. Kind ONNX
// answers [ErrNoPredictor].
func (a *Artifact) Predictor(lim Limits) (Predictor, error) {
	p, err := NewPredictor(&a.Signature, a.Model, lim)
	if err != nil {
		return nil, err
	}
	_, err = a.Golden.Replay(func(out, rows []float32) error {
		p.Predict(out, rows)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}
