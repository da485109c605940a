package trainer

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Range is what one parameter of a search may be: numbers from Low to High, or
// one of Choices.
type Range struct {
	Low     float64  `json:"low,omitempty"`
	High    float64  `json:"high,omitempty"`
	Log     bool     `json:"log,omitempty"` // even on a logarithmic scale
	Int     bool     `json:"int,omitempty"`
	Choices []string `json:"choices,omitempty"`
	Steps   int      `json:"steps,omitempty"` // grid points of numbers; default 3
}

// Space names the parameters to search.
type Space map[string]Range

// Validate returns what is wrong with the space.
func (s Space) Validate() error {
	if len(s) == 0 {
		return fmt.Errorf("%w: a search without parameters", ErrParam)
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		r := s[name]
		if len(r.Choices) > 0 {
			continue
		}
		if !(r.Low < r.High) || math.IsInf(r.High-r.Low, 0) || r.Log && r.Low <= 0 {
			return fmt.Errorf("%w: search range of %s from %g to %g", ErrParam, name, r.Low, r.High)
		}
	}
	return nil
}

// A point is a place in the space: per parameter a number on the scale that is
// searched (the logarithm for Log), or the index of a choice.
type point map[string]float64

func (r Range) bounds() (low, high float64) {
	switch {
	case len(r.Choices) > 0:
		return 0, float64(len(r.Choices) - 1)
	case r.Log:
		return math.Log(r.Low), math.Log(r.High)
	}
	return r.Low, r.High
}

// text writes a coordinate as the parameter's value.
func (r Range) text(x float64) string {
	if len(r.Choices) > 0 {
		return r.Choices[min(len(r.Choices)-1, max(0, int(math.Round(x))))]
	}
	if r.Log {
		x = math.Exp(x)
	}
	x = min(max(x, r.Low), r.High)
	if r.Int {
		x = math.Round(x)
	}
	return strconv.FormatFloat(x, 'g', 6, 64)
}

// locate is the inverse of text, up to rounding.
func (r Range) locate(text string) float64 {
	if len(r.Choices) > 0 {
		return float64(max(0, slices.Index(r.Choices, text)))
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		x = r.Low
	}
	if r.Log {
		x = math.Log(max(x, r.Low))
	}
	return x
}

// values writes a point as parameters.
func (s Space) values(p point) map[string]string {
	out := make(map[string]string, len(s))
	for name, r := range s {
		out[name] = r.text(p[name])
	}
	return out
}

// names are sorted, so that a seed always means the same search.
func (s Space) names() []string { return slices.Sorted(maps.Keys(s)) }

// random draws a point evenly.
func (s Space) random(rng *rand.Rand) point {
	p := make(point, len(s))
	for _, name := range s.names() {
		p[name] = s[name].random(rng)
	}
	return p
}

func (r Range) random(rng *rand.Rand) float64 {
	if n := len(r.Choices); n > 0 {
		return float64(rng.IntN(n))
	}
	low, high := r.bounds()
	return low + rng.Float64()*(high-low)
}

// grid lists all combinations.
func (s Space) grid() []point {
	points := []point{{}}
	for _, name := range s.names() {
		var next []point
		for _, p := range points {
			for _, x := range s[name].steps() {
				q := maps.Clone(p)
				q[name] = x
				next = append(next, q)
			}
		}
		points = next
	}
	return points
}

func (r Range) steps() []float64 {
	n := r.Steps
	if n == 0 {
		n = 3
	}
	if len(r.Choices) > 0 {
		n = len(r.Choices)
	}
	low, high := r.bounds()
	if n == 1 {
		return []float64{low}
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = low + (high-low)*float64(i)/float64(n-1)
	}
	return out
}
