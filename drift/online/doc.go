// Package online watches streams one value at a time and says when the mean
// has changed: ADWIN, Page–Hinkley, DDM and HDDM-A, step for step as River
// 0.26 computes them, so that alarms fall on the same observation.
//
// Promises: no clock, no I/O, no randomness; memory is constant (ADWIN:
// logarithmic in the window); a value that is not a finite number is ignored;
// all state is exported and survives JSON, so a watch can stop and go on.
// Units: 1 is an error and 0 a success for DDM and HDDM-A.
package online

import "math"

// Signal is what a detector says about the value it just took.
type Signal int

// Signals. After Drift a detector forgets everything on the next value.
const (
	None Signal = iota
	Warning
	Drift
)

// String returns "none", "warning" or "drift".
func (s Signal) String() string { return [...]string{"none", "warning", "drift"}[s] }

// Detector is a stateful watch over one stream.
type Detector interface {
	Update(x float64) Signal
}

func usable(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Mean is a running mean in River's order of operations.
type Mean struct {
	N     float64 `json:"n"`
	Value float64 `json:"value"`
}

func (m *Mean) add(x float64) {
	m.N++
	m.Value += (1 / m.N) * (x - m.Value)
}
