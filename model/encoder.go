package model

import (
	"math"
	"strconv"
)

// Encoder turns named, typed values into the float32 row that a model takes.
// It is made once per signature and safe for concurrent use.
type Encoder struct {
	index map[string]int
	cats  []*categories // nil for numeric inputs
}

type categories struct {
	text   map[string]float32
	number map[float64]float32 // the categories that are numbers, for numeric callers
	unseen float32
}

// NewEncoder prepares the lookups of a signature.
func NewEncoder(s *Signature) *Encoder {
	e := &Encoder{index: make(map[string]int, len(s.Inputs)), cats: make([]*categories, len(s.Inputs))}
	for i := range s.Inputs {
		in := &s.Inputs[i]
		e.index[in.Name] = i
		if len(in.Categories) > 0 {
			e.cats[i] = newCategories(in)
		}
	}
	return e
}

func newCategories(in *Input) *categories {
	c := &categories{
		text:   make(map[string]float32, len(in.Categories)),
		number: make(map[float64]float32),
		unseen: float32(math.NaN()),
	}
	for code, v := range in.Categories {
		c.text[v] = float32(code)
		if x, err := strconv.ParseFloat(v, 64); err == nil && x == x {
			c.number[x] = float32(code)
		}
	}
	if in.Other {
		c.unseen = float32(len(in.Categories) - 1)
	}
	return c
}

// Index returns the position of a named input.
func (e *Encoder) Index(name string) (int, bool) {
	i, ok := e.index[name]
	return i, ok
}

// Categorical reports whether input i takes categories.
func (e *Encoder) Categorical(i int) bool { return e.cats[i] != nil }

// Number encodes a number for input i. Known is false when the input is
// categorical and the number is none of its categories; the code is then that
// of OTHER, or missing.
func (e *Encoder) Number(i int, v float64) (code float32, known bool) {
	c := e.cats[i]
	if c == nil || v != v {
		return float32(v), true
	}
	if code, ok := c.number[v]; ok {
		return code, true
	}
	return c.unseen, false
}

// Text encodes a text for input i; it allocates nothing. Known is false when
// the text is none of the input's categories, or when the input is numeric and
// the text is no number; the value is then that of OTHER, or missing.
func (e *Encoder) Text(i int, v []byte) (code float32, known bool) {
	c := e.cats[i]
	if c == nil {
		x, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return float32(math.NaN()), false
		}
		return float32(x), true
	}
	if code, ok := c.text[string(v)]; ok {
		return code, true
	}
	return c.unseen, false
}

// Missing is the value of an input that is not there.
func Missing() float32 { return float32(math.NaN()) }
