package trainer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
)

// Data is what a back-end learns from. Valid chooses the number of rounds; it
// may be nil. Golden rows are predicted by the back-end's own runtime at the
// end, so that serving can prove to answer the same.
type Data struct {
	Train, Valid *Matrix
	Golden       []float32 // row-major
}

// Params say how to learn. Extra holds the back-end's own parameters by its
// own names ("max_depth", "eta", "l2"); unknown ones are refused.
type Params struct {
	Task       model.Task        `json:"task"`
	Objective  string            `json:"objective,omitempty"` // default: by task
	Metric     string            `json:"metric,omitempty"`    // watched per round; default: by task
	Quantiles  []float64         `json:"quantiles,omitempty"`
	Rounds     int               `json:"rounds,omitempty"`
	EarlyStop  int               `json:"early_stop,omitempty"` // rounds without a better metric; 0: never
	Device     Device            `json:"device,omitempty"`
	Threads    int               `json:"threads,omitempty"` // 0: what this process may use
	Seed       uint64            `json:"seed,omitempty"`
	Checkpoint int               `json:"checkpoint,omitempty"` // rounds between checkpoints; 0: none
	Extra      map[string]string `json:"extra,omitempty"`
}

// Watch is called by a back-end while it works, from one goroutine. Every
// member may be nil.
type Watch struct {
	// Round reports the metrics after a round (from 0): "train", "valid" →
	// metric → value. An error stops the fit, which then returns it.
	Round func(round int, metrics map[string]map[string]float64) error
	// Log reports a line that the library wrote.
	Log func(line string)
	// Checkpoint hands over a state after whole rounds, to be kept for Resume.
	Checkpoint func(c Checkpoint) error
	// Resume is where to go on; nil: from the beginning.
	Resume *Checkpoint
}

// Checkpoint is the state of a fit after some rounds.
type Checkpoint struct {
	Rounds int    // rounds done
	Best   Best   // of early stopping so far
	State  []byte // the library's
}

// Best is the best round so far.
type Best struct {
	Round int     `json:"round"`
	Value float64 `json:"value"`
	Set   bool    `json:"set"`
}

// Fitted is a model straight from its back-end.
type Fitted struct {
	Kind      model.Kind
	Model     []byte
	Objective string
	Golden    []float32 // answers to Data.Golden
	Outputs   int
	Backend   string // name and version
	// Of kind ONNX: the output tensor to read and its first column.
	OutputTensor string
	OutputColumn int
	Device       model.Device
	Rounds       int // kept in the model
	Best         Best
	Cost         model.Cost
	Warnings     []string
}

// Backend learns models. The implementations are [XGBoost], [Linear] and
// [Command].
type Backend interface {
	Name() string
	Fit(ctx context.Context, data Data, p Params, watch Watch) (*Fitted, error)
}

// metricOf is the metric that a task is judged by unless told otherwise.
func metricOf(t model.Task) string {
	switch t {
	case model.Binary:
		return "logloss"
	case model.MultiClass:
		return "mlogloss"
	case model.Quantiles:
		return "pinball"
	}
	return "rmse"
}

// number reads a back-end's own parameter, with a default and bounds.
func (p *Params) number(name string, def, low, high float64) (float64, error) {
	text, ok := p.Extra[name]
	if !ok {
		return def, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= low && v <= high) {
		return 0, fmt.Errorf("%w: %s=%q: want a number from %g to %g", ErrParam, name, text, low, high)
	}
	return v, nil
}

// refuseUnknown answers an error for parameters that a back-end does not have.
func (p *Params) refuseUnknown(backend string, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(p.Extra)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%w: back-end %s has no %q: it has %v", ErrParam, backend, name, known)
		}
	}
	return nil
}

// UnmarshalJSON reads parameters strictly. Extra ones may be written as numbers
// and booleans, as people write them in YAML.
func (p *Params) UnmarshalJSON(b []byte) error {
	type plain Params
	in := struct {
		*plain
		Extra map[string]json.RawMessage `json:"extra"`
	}{plain: (*plain)(p)}
	if err := event.DecodeStrict(b, &in); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(in.Extra)) {
		var text string
		if err := json.Unmarshal(in.Extra[name], &text); err != nil {
			if text = string(in.Extra[name]); strings.ContainsAny(text[:1], "{[n") {
				return fmt.Errorf("params: extra: %s: want a number, a word or a boolean", name)
			}
		}
		if p.Extra == nil {
			p.Extra = map[string]string{}
		}
		p.Extra[name] = text
	}
	return nil
}
