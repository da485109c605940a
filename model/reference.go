package model

import (
	"errors"

	"github.com/kedge-ml/kedge/dist"
)

// NumberReference summarises the training values of a numeric column, NaN for
// missing. A column without one usable number keeps counts only.
func NumberReference(values []float64) (*Reference, error) {
	grid, err := dist.NumericGrid(values, dist.GridConfig{})
	if err != nil && !errors.Is(err, dist.ErrNoSample) {
		return nil, err
	}
	b := dist.NewBuilder(grid)
	for _, v := range values {
		if v != v {
			b.AddMissing()
		} else {
			b.Add(v)
		}
	}
	return &Reference{Grid: grid, Summary: b.Summary()}, nil
}

// CategoryReference summarises the training codes of a categorical column; a
// code outside names is missing.
func CategoryReference(codes []float32, names []string) (*Reference, error) {
	counts := make(map[string]uint64, len(names))
	for _, c := range codes {
		if c >= 0 && int(c) < len(names) {
			counts[names[int(c)]]++
		}
	}
	grid, err := dist.CategoryGrid(counts, dist.GridConfig{})
	if err != nil && !errors.Is(err, dist.ErrNoSample) {
		return nil, err
	}
	b := dist.NewBuilder(grid)
	for _, c := range codes {
		if c >= 0 && int(c) < len(names) {
			b.AddCategory(names[int(c)])
		} else {
			b.AddMissing()
		}
	}
	return &Reference{Grid: grid, Summary: b.Summary()}, nil
}
