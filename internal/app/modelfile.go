package app

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/tree"
	"github.com/kedge-ml/kedge/serving/ort"
)

// ModelFile says how a model that was made elsewhere becomes an artefact.
type ModelFile struct {
	Path      string // .onnx, or .json as XGBoost saves it
	Name      string
	Rows      string   // CSV with a header: a sample of rows in the model's order of inputs
	Answers   []string // columns of Rows that hold what the maker's runtime answered
	Task      string   // binary, multiclass, regression; empty: of XGBoost by its objective, else regression
	Tensor    string   // of ONNX: the output to read; empty: "output", or the only one
	Column    int      // of ONNX: its first column to read
	Width     int      // of ONNX: how many columns; 0: as many as Answers, or 1
	Artifacts string   // folder of artefacts
}

// Import checks the model on the sample, writes the artefact and returns its
// digest. The sample becomes the golden rows and the reference for drift. Where
// it has no answers of the maker's, the runtime's own are taken, and the card
// says so.
func (f *ModelFile) Import(out io.Writer) (string, error) {
	file, err := os.ReadFile(f.Path)
	if err != nil {
		return "", err
	}
	s, err := f.sample()
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Rows, err)
	}
	a := &model.Artifact{Model: file, Card: model.Card{Name: f.Name, Namespace: "default", Created: time.Now().UTC().Truncate(time.Second), Backend: "import of " + filepath.Base(f.Path)}}
	a.Card.Data.Query, a.Card.Data.Rows = "file "+filepath.Base(f.Rows), map[string]int{"sample": s.rows}
	a.Signature = model.Signature{Format: model.FormatVersion, Task: model.Task(f.Task), Inputs: s.inputs}
	predict, done, err := f.runtime(a, s)
	if err != nil {
		return "", err
	}
	defer done()
	width := a.Signature.Width()
	answers := make([]float32, s.rows*width)
	if err := predict(answers, s.values); err != nil {
		return "", fmt.Errorf("compute the sample: %w", err)
	}
	if a.Signature.Outputs[0].Reference, err = model.NumberReference(columnOf(answers, 0, width)); err != nil {
		return "", err
	}
	a.Golden = s.golden(width, answers)
	if s.answers == nil {
		a.Card.Warnings = append(a.Card.Warnings, "the golden answers are those of the serving runtime: the sample had none of the maker's")
	} else if off, err := a.Golden.Replay(predict); err != nil {
		return "", fmt.Errorf("the serving runtime does not answer the sample as its maker did (by %g): %w", off, err)
	}
	digest, err := writeArtifact(f.Artifacts, a)
	if err != nil {
		return "", err
	}
	for _, w := range a.Card.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	_, err = fmt.Fprintf(out, "%s, %d inputs, %d golden rows\nartefact %s in %s\n", a.Signature.Task, len(s.inputs), a.Golden.Rows(), digest, f.Artifacts)
	return digest, err
}

// runtime is what will serve the model; it completes the signature. done ends
// it.
func (f *ModelFile) runtime(a *model.Artifact, s *sample) (predict func(out, rows []float32) error, done func(), err error) {
	sig := &a.Signature
	switch ext := strings.ToLower(filepath.Ext(f.Path)); ext {
	case ".json":
		sig.Kind = model.XGBoost
		e, err := tree.Read(a.Model, tree.DefaultLimits())
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if slices.Contains(e.FeatureTypes(), "c") {
			return nil, nil, fmt.Errorf("%s has categorical inputs, whose codes the file does not explain: train it with kedge, or encode them as numbers", f.Path)
		}
		if names := e.FeatureNames(); names != nil && !slices.Equal(names, s.names) {
			return nil, nil, fmt.Errorf("%s wants the columns %v in this order, %s has %v", f.Path, names, f.Rows, s.names)
		}
		if e.Features() != len(s.inputs) {
			return nil, nil, fmt.Errorf("%s has %d inputs, %s has %d", f.Path, e.Features(), f.Rows, len(s.inputs))
		}
		sig.Objective = e.Objective()
		if sig.Task == "" {
			sig.Task = taskOf(e.Objective())
		}
		sig.Outputs = []model.Output{outputOfTask(sig.Task, e.Outputs())}
		return func(out, rows []float32) error { e.Predict(out, rows); return nil }, func() {}, nil
	case ".onnx":
		return f.native(a, s)
	default:
		return nil, nil, fmt.Errorf("%s: extension %q: want .onnx, or .json of XGBoost", f.Path, ext)
	}
}

// native starts the process of an ONNX model.
func (f *ModelFile) native(a *model.Artifact, s *sample) (func(out, rows []float32) error, func(), error) {
	sig := &a.Signature
	sig.Kind = model.ONNX
	if sig.Task == "" {
		sig.Task = model.Regression
	}
	o := outputOfTask(sig.Task, max(1, f.Width, len(f.Answers)))
	o.Tensor, o.Column = f.Tensor, f.Column
	sig.Outputs = []model.Output{o}
	cfg, err := onnxConfig()
	if err != nil {
		return nil, nil, err
	}
	p, err := ort.Start(cfg, ort.Model{File: a.Model, Inputs: len(sig.Inputs), Tensor: o.Tensor, Column: o.Column, Width: o.Width})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return p.Predict, p.Close, nil
}

// taskOf is what an XGBoost objective trains for.
func taskOf(objective string) model.Task {
	switch {
	case strings.HasPrefix(objective, "binary:"):
		return model.Binary
	case strings.HasPrefix(objective, "multi:"):
		return model.MultiClass
	}
	return model.Regression
}

func outputOfTask(t model.Task, width int) model.Output {
	name := map[model.Task]string{model.Binary: "score", model.MultiClass: "scores"}[t]
	if name == "" {
		name = "value"
	}
	return model.Output{Name: name, Width: width}
}

// sample is a file of rows, its numbers row-major.
type sample struct {
	names   []string
	inputs  []model.Input
	rows    int
	values  []float32
	answers []float32 // of the maker; nil: the file has none
}

// sample reads the rows; an empty value is missing.
func (f *ModelFile) sample() (*sample, error) {
	file, err := os.Open(f.Rows)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(records) < 2 {
		return nil, errors.New("want a header and at least one row")
	}
	s := &sample{rows: len(records) - 1}
	header := records[0]
	var answers []int
	for _, name := range f.Answers {
		at := slices.Index(header, name)
		if at < 0 {
			return nil, fmt.Errorf("no column %q for the answers: there are %v", name, header)
		}
		answers = append(answers, at)
	}
	var inputs []int
	for i, name := range header {
		if !slices.Contains(answers, i) {
			inputs, s.names = append(inputs, i), append(s.names, name)
		}
	}
	for n, r := range records[1:] {
		if s.values, err = appendNumbers(s.values, r, inputs); err == nil {
			s.answers, err = appendNumbers(s.answers, r, answers)
		}
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", n+1, err)
		}
	}
	for i, name := range s.names {
		ref, err := model.NumberReference(columnOf(s.values, i, len(s.names)))
		if err != nil {
			return nil, err
		}
		s.inputs = append(s.inputs, model.Input{Name: name, Type: "Float32", Reference: ref})
	}
	return s, nil
}

func appendNumbers(dst []float32, record []string, columns []int) ([]float32, error) {
	for _, i := range columns {
		v := math.NaN()
		if record[i] != "" {
			var err error
			if v, err = strconv.ParseFloat(record[i], 64); err != nil {
				return dst, fmt.Errorf("%q is no number: a model that was made elsewhere takes numbers", record[i])
			}
		}
		dst = append(dst, float32(v))
	}
	return dst, nil
}

// columnOf is one column of row-major values.
func columnOf(values []float32, at, width int) []float64 {
	out := make([]float64, 0, len(values)/width)
	for ; at < len(values); at += width {
		out = append(out, float64(values[at]))
	}
	return out
}

// golden takes rows evenly over the sample, with the maker's answers where
// there are some, else the given ones.
func (s *sample) golden(width int, answers []float32) model.Golden {
	g := model.Golden{Features: len(s.names), Outputs: width}
	if s.answers != nil {
		answers = s.answers
	}
	n := min(model.GoldenRows, s.rows)
	for i := range n {
		at := i * s.rows / n
		g.Inputs = append(g.Inputs, s.values[at*g.Features:(at+1)*g.Features]...)
		g.Expected = append(g.Expected, answers[at*width:(at+1)*width]...)
	}
	return g
}

// writeArtifact stores an artefact in a folder, which it makes.
func writeArtifact(dir string, a *model.Artifact) (digest string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("artefacts: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("artefacts: %w", err)
	}
	defer root.Close()
	if digest, err = model.Write(root, a); err != nil {
		return "", fmt.Errorf("write the artefact: %w", err)
	}
	return digest, nil
}
