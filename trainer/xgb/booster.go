package xgb

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// Booster is a model that can be trained further. It is safe for concurrent
// prediction, not for concurrent training. Free it.
type Booster struct {
	l *Library
	h uintptr
}

// Param is one parameter by XGBoost's name.
type Param struct{ Name, Value string }

// NewBooster makes an empty model; the matrices are those that will be trained
// and evaluated on, whose margins it then keeps.
func (l *Library) NewBooster(params []Param, cache ...*Matrix) (*Booster, error) {
	b := &Booster{l: l}
	hs := handles(cache)
	err := l.call("XGBoosterCreate", func() int32 {
		return l.boosterCreate(unsafe.SliceData(hs), uint64(len(hs)), &b.h)
	})
	if err != nil {
		return nil, err
	}
	if err := b.Set(params...); err != nil {
		return nil, errors.Join(err, b.Free())
	}
	return b, nil
}

func handles(mats []*Matrix) []uintptr {
	out := make([]uintptr, len(mats))
	for i, m := range mats {
		out[i] = m.h
	}
	return out
}

// Set changes parameters.
func (b *Booster) Set(params ...Param) error {
	for _, p := range params {
		err := b.l.call("XGBoosterSetParam", func() int32 { return b.l.boosterSetParam(b.h, p.Name, p.Value) })
		if err != nil {
			return fmt.Errorf("parameter %s=%s: %w", p.Name, p.Value, err)
		}
	}
	return nil
}

// Update trains one round. Rounds count from 0.
func (b *Booster) Update(round int, train *Matrix) error {
	return b.l.call("XGBoosterUpdateOneIter", func() int32 {
		return b.l.boosterUpdate(b.h, int32(round), train.h)
	})
}

// Eval computes the evaluation metrics on named matrices:
// "valid" → "logloss" → value.
func (b *Booster) Eval(round int, mats []*Matrix, names []string) (map[string]map[string]float64, error) {
	var text string
	hs := handles(mats)
	err := withStrings(names, func(p **byte, n uint64) error {
		return b.l.call("XGBoosterEvalOneIter", func() int32 {
			var out *byte
			rc := b.l.boosterEval(b.h, int32(round), unsafe.SliceData(hs), p, n, &out)
			if rc == 0 {
				text = cString(out)
			}
			return rc
		})
	})
	if err != nil {
		return nil, err
	}
	return parseEval(text)
}

// parseEval reads "[3]\ttrain-logloss:0.5\tvalid-logloss:0.6". Names of sets
// must not contain "-".
func parseEval(text string) (map[string]map[string]float64, error) {
	out := make(map[string]map[string]float64)
	for i, part := range strings.Split(text, "\t") {
		if i == 0 {
			continue
		}
		set, rest, ok := strings.Cut(part, "-")
		at := strings.LastIndexByte(rest, ':')
		if !ok || at < 0 {
			return nil, fmt.Errorf("xgboost evaluation answered %q", text)
		}
		v, err := strconv.ParseFloat(rest[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("xgboost evaluation answered %q: %w", text, err)
		}
		if out[set] == nil {
			out[set] = make(map[string]float64)
		}
		out[set][rest[:at]] = v
	}
	return out, nil
}

// Output says what to predict.
type Output int

// What Predict can answer; the numbers are XGBoost's.
const (
	Value         Output = 0
	Margin        Output = 1
	Contributions Output = 2
)

// Predict answers for all rows of a matrix, row-major, and the values per row.
func (b *Booster) Predict(m *Matrix, what Output) (values []float32, width int, err error) {
	config := fmt.Sprintf(`{"type": %d, "training": false, "iteration_begin": 0, "iteration_end": 0, "strict_shape": false}`, what)
	err = b.l.call("XGBoosterPredictFromDMatrix", func() int32 {
		var shape *uint64
		var dim uint64
		var out *float32
		rc := b.l.boosterPredict(b.h, m.h, config, &shape, &dim, &out)
		if rc == 0 {
			values, width = copyResult(shape, dim, out)
		}
		return rc
	})
	return values, width, err
}

// PredictRows answers for row-major rows without a matrix, as a server would.
// It is here to be compared with.
func (b *Booster) PredictRows(rows []float32, columns int) (values []float32, width int, err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	array := arrayInterface(&pin, rows, fmt.Sprintf(`[%d, %d]`, len(rows)/columns, columns), "null")
	const config = `{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, "strict_shape": false, "missing": NaN, "cache_id": 0}`
	err = b.l.call("XGBoosterPredictFromDense", func() int32 {
		var shape *uint64
		var dim uint64
		var out *float32
		rc := b.l.boosterPredictRow(b.h, array, config, 0, &shape, &dim, &out)
		if rc == 0 {
			values, width = copyResult(shape, dim, out)
		}
		return rc
	})
	return values, width, err
}

// copyResult copies out of the thread's buffer.
func copyResult(shape *uint64, dim uint64, out *float32) ([]float32, int) {
	n := 1
	dims := unsafe.Slice(shape, dim)
	for _, d := range dims {
		n *= int(d)
	}
	width := 1
	if dim > 0 && dims[0] > 0 {
		width = n / int(dims[0])
	}
	return slices.Clone(unsafe.Slice(out, n)), width
}

// Save returns the model as "json" or "ubj".
func (b *Booster) Save(format string) ([]byte, error) {
	config := fmt.Sprintf(`{"format": %q}`, format)
	return b.buffer("XGBoosterSaveModelToBuffer", func(n *uint64, out **byte) int32 {
		return b.l.boosterSave(b.h, config, n, out)
	})
}

// Serialize returns the model together with its training state, for Restore.
func (b *Booster) Serialize() ([]byte, error) {
	return b.buffer("XGBoosterSerializeToBuffer", func(n *uint64, out **byte) int32 {
		return b.l.boosterSerialize(b.h, n, out)
	})
}

// Config returns the configuration that is in force, as JSON.
func (b *Booster) Config() ([]byte, error) {
	return b.buffer("XGBoosterSaveJsonConfig", func(n *uint64, out **byte) int32 {
		return b.l.boosterConfig(b.h, n, out)
	})
}

// Device returns the device that the configuration in force names: "cpu",
// "cuda:0". It is true only after a round was trained: XGBoost falls back
// without an error.
func (b *Booster) Device() (string, error) {
	text, err := b.Config()
	if err != nil {
		return "", err
	}
	var c struct {
		Learner struct {
			Generic struct {
				Device string `json:"device"`
			} `json:"generic_param"`
		} `json:"learner"`
	}
	if err := json.Unmarshal(text, &c); err != nil || c.Learner.Generic.Device == "" {
		return "", fmt.Errorf("xgboost configuration names no device: %v", err)
	}
	return c.Learner.Generic.Device, nil
}

func (b *Booster) buffer(name string, fn func(n *uint64, out **byte) int32) (copied []byte, err error) {
	err = b.l.call(name, func() int32 {
		var n uint64
		var out *byte
		rc := fn(&n, &out)
		if rc == 0 {
			copied = slices.Clone(unsafe.Slice(out, n))
		}
		return rc
	})
	return copied, err
}

// Load replaces the model by one that Save returned.
func (b *Booster) Load(model []byte) error {
	if len(model) == 0 {
		return errors.New("xgboost load: an empty model")
	}
	return b.l.call("XGBoosterLoadModelFromBuffer", func() int32 {
		return b.l.boosterLoad(b.h, unsafe.Pointer(unsafe.SliceData(model)), uint64(len(model)))
	})
}

// Restore replaces model and training state by what Serialize returned.
func (b *Booster) Restore(state []byte) error {
	if len(state) == 0 {
		return errors.New("xgboost restore: an empty state")
	}
	return b.l.call("XGBoosterUnserializeFromBuffer", func() int32 {
		return b.l.boosterRestore(b.h, unsafe.Pointer(unsafe.SliceData(state)), uint64(len(state)))
	})
}

// Slice returns a new booster of the rounds [begin, end).
func (b *Booster) Slice(begin, end int) (*Booster, error) {
	out := &Booster{l: b.l}
	err := b.l.call("XGBoosterSlice", func() int32 {
		return b.l.boosterSlice(b.h, int32(begin), int32(end), 1, &out.h)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Rounds is the number of rounds trained.
func (b *Booster) Rounds() (int, error) {
	var n int32
	err := b.l.call("XGBoosterBoostedRounds", func() int32 { return b.l.boosterRounds(b.h, &n) })
	return int(n), err
}

// Describe names the model's features and their types in the saved file.
func (b *Booster) Describe(names, types []string) error {
	for field, v := range map[string][]string{"feature_name": names, "feature_type": types} {
		err := withStrings(v, func(p **byte, n uint64) error {
			return b.l.call("XGBoosterSetStrFeatureInfo", func() int32 { return b.l.boosterSetStrings(b.h, field, p, n) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Free gives the booster's memory back.
func (b *Booster) Free() error {
	if b.h == 0 {
		return nil
	}
	h := b.h
	b.h = 0
	return b.l.call("XGBoosterFree", func() int32 { return b.l.boosterFree(h) })
}
