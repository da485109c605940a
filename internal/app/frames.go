package app

import (
	"math"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// Readers of frames for the page. Columns that are absent or of another type
// read as empty, nulls as NaN.

func column(f query.Frame, name string) *query.Column {
	for i := range f.Columns {
		if f.Columns[i].Name == name {
			return &f.Columns[i]
		}
	}
	return &query.Column{}
}

func texts(f query.Frame, name string) []string {
	switch v := column(f, name).Values.(type) {
	case []string:
		return v
	case []*string: // null reads as empty
		return convert(v, func(p *string) (s string) {
			if p != nil {
				s = *p
			}
			return s
		})
	}
	return nil
}

func times(f query.Frame) []time.Time {
	for i := range f.Columns {
		if v, ok := f.Columns[i].Values.([]time.Time); ok {
			return v
		}
	}
	return nil
}

func values(f query.Frame, name string) []float64 { return numbers(column(f, name)) }

func numbers(c *query.Column) []float64 {
	switch v := c.Values.(type) {
	case []float64:
		return v
	case []*float64:
		return convert(v, func(p *float64) float64 { return deref(p) })
	case []int64:
		return convert(v, func(n int64) float64 { return float64(n) })
	case []uint64:
		return convert(v, func(n uint64) float64 { return float64(n) })
	case []*int64:
		return convert(v, func(p *int64) float64 {
			if p == nil {
				return math.NaN()
			}
			return float64(*p)
		})
	}
	return nil
}

func convert[T, U any](in []T, f func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

func deref(p *float64) float64 {
	if p == nil {
		return math.NaN()
	}
	return *p
}

func nonNaN(v []float64) []float64 {
	var out []float64
	for _, x := range v {
		if !math.IsNaN(x) {
			out = append(out, x)
		}
	}
	return out
}

func sum(v []float64) float64 {
	total := 0.0
	for _, x := range nonNaN(v) {
		total += x
	}
	return total
}

func mean(v []float64) float64 {
	there := nonNaN(v)
	if len(there) == 0 {
		return 0
	}
	return sum(there) / float64(len(there))
}

// maximum is NaN for no values.
func maximum(v []float64) float64 {
	out := math.NaN()
	for _, x := range nonNaN(v) {
		if math.IsNaN(out) || x > out {
			out = x
		}
	}
	return out
}

// weighted is the mean of shares over their counts.
func weighted(shares, counts []float64) float64 {
	total, n := 0.0, 0.0
	for i := range min(len(shares), len(counts)) {
		total, n = total+shares[i]*counts[i], n+counts[i]
	}
	if n == 0 {
		return 0
	}
	return total / n
}
