package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/dist"
)

// FormatVersion is the version of signature.json and of the folder's layout.
const FormatVersion = 1

// Kind says how the model file is encoded.
type Kind string

// Kinds of model files. The pure-Go predictors read all but ONNX.
const (
	XGBoost Kind = "xgboost-json"
	Linear  Kind = "linear-json"
	ONNX    Kind = "onnx"
)

// Task says what the outputs mean.
type Task string

// Tasks.
const (
	Binary     Task = "binary"     // one output: the probability of class 1
	MultiClass Task = "multiclass" // one probability per class
	Regression Task = "regression" // one value
	Quantiles  Task = "quantiles"  // one value per quantile
)

// Signature says what a model takes, what it gives, and what both looked like
// in training. Signatures with equal inputs share a prediction table.
type Signature struct {
	Format    int      `json:"format"`
	Kind      Kind     `json:"kind"`
	Task      Task     `json:"task"`
	Objective string   `json:"objective,omitempty"`
	Inputs    []Input  `json:"inputs"`
	Outputs   []Output `json:"outputs"`
	Threshold *float64 `json:"threshold,omitempty"` // of Binary: scores from here on are class 1
}

// Input is one column of a row, in order.
type Input struct {
	Name        string     `json:"name"`
	Type        string     `json:"type"` // as definitions spell it: Bool, Int64, Float64, String, …
	View        string     `json:"view,omitempty"`
	ViewVersion uint64     `json:"view_version,omitempty"`
	Feature     string     `json:"feature,omitempty"`    // the view's column; default: Name
	Categories  []string   `json:"categories,omitempty"` // value of each code; a numeric input has none
	Other       bool       `json:"other,omitempty"`      // values not listed are the last category, else they are missing
	Reference   *Reference `json:"reference,omitempty"`
}

// Output is one answer: one or several consecutive predictions of a row.
type Output struct {
	Name      string     `json:"name"`
	Classes   []string   `json:"classes,omitempty"`   // Binary: of 0 and 1; MultiClass: of each probability
	Quantiles []float64  `json:"quantiles,omitempty"` // of each value
	Width     int        `json:"width"`               // predictions per row
	Tensor    string     `json:"tensor,omitempty"`    // of kind ONNX: the model's output to read; default "output"
	Column    int        `json:"column,omitempty"`    // of kind ONNX: the tensor's first column to read
	Reference *Reference `json:"reference,omitempty"` // of the first (Binary, Regression) or the likeliest class
}

// Reference is what a column looked like in training: the drift reference. The
// grid is nil for columns without a usable value.
type Reference struct {
	Grid    *dist.Grid    `json:"grid,omitempty"`
	Summary *dist.Summary `json:"summary"`
}

// Width is the number of predictions per row.
func (s *Signature) Width() int {
	n := 0
	for _, o := range s.Outputs {
		n += o.Width
	}
	return n
}

// Validate returns all faults of the signature, joined.
func (s *Signature) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if s.Format != FormatVersion {
		fault("format %d: this version reads %d", s.Format, FormatVersion)
	}
	if !slices.Contains([]Kind{XGBoost, Linear, ONNX}, s.Kind) {
		fault("kind %q: want %s, %s or %s", s.Kind, XGBoost, Linear, ONNX)
	}
	if !slices.Contains([]Task{Binary, MultiClass, Regression, Quantiles}, s.Task) {
		fault("task %q: want binary, multiclass, regression or quantiles", s.Task)
	}
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		fault("no inputs or no outputs")
	}
	if s.Threshold != nil && !(*s.Threshold >= 0 && *s.Threshold <= 1) {
		fault("threshold %v: want a probability", *s.Threshold)
	}
	faults = append(faults, s.columnFaults()...)
	return errors.Join(faults...)
}

func (s *Signature) columnFaults() (faults []error) {
	seen := make(map[string]bool)
	name := func(kind, n string) {
		if n == "" || seen[kind+n] {
			faults = append(faults, fmt.Errorf("%s %q: an empty or repeated name", kind, n))
		}
		seen[kind+n] = true
	}
	for i := range s.Inputs {
		in := &s.Inputs[i]
		name("input", in.Name)
		values := make(map[string]bool, len(in.Categories))
		for _, c := range in.Categories {
			if values[c] {
				faults = append(faults, fmt.Errorf("input %q: category %q twice", in.Name, c))
			}
			values[c] = true
		}
		if in.Other && len(in.Categories) == 0 {
			faults = append(faults, fmt.Errorf("input %q: other without categories", in.Name))
		}
	}
	for i := range s.Outputs {
		name("output", s.Outputs[i].Name)
		faults = append(faults, s.outputFaults(&s.Outputs[i])...)
	}
	return faults
}

func (s *Signature) outputFaults(o *Output) (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("output %q: "+format, append([]any{o.Name}, args...)...))
	}
	if o.Width < 1 || o.Width > math.MaxInt16 {
		fault("width %d", o.Width)
	}
	if s.Task == MultiClass && len(o.Classes) != 0 && o.Width > 1 && len(o.Classes) != o.Width {
		fault("%d classes for %d values", len(o.Classes), o.Width)
	}
	if s.Task == Binary && len(o.Classes) != 0 && len(o.Classes) != 2 {
		fault("%d classes, a binary model has 2", len(o.Classes))
	}
	if s.Task == Quantiles && len(o.Quantiles) != o.Width {
		fault("%d quantiles for %d values", len(o.Quantiles), o.Width)
	}
	return faults
}
