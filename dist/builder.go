package dist

import "math"

// Builder counts values into a summary. It is not safe for concurrent use. A
// nil grid keeps moments and counts only.
type Builder struct {
	grid *Grid
	sum  Summary
	mean float64
	n    []uint64
	s    []float64
}

// NewBuilder returns a builder on a grid, which may be nil.
func NewBuilder(g *Grid) *Builder {
	b := &Builder{grid: g}
	if g != nil {
		b.sum.GridID = g.ID()
		b.n = make([]uint64, g.Cells())
		b.s = make([]float64, g.Cells())
	}
	return b
}

// Add counts one number with weight 1.
func (b *Builder) Add(x float64) { b.AddWeighted(x, 1) }

// AddWeighted counts one number. The weight counts towards Summary.Weight only:
// tests need numbers of rows.
func (b *Builder) AddWeighted(x, weight float64) {
	b.sum.Weight += weight
	switch {
	case math.IsNaN(x):
		b.sum.NaN++
	case math.IsInf(x, 1):
		b.sum.PosInf++
	case math.IsInf(x, -1):
		b.sum.NegInf++
	default:
		b.number(x)
	}
}

func (b *Builder) number(x float64) {
	s := &b.sum
	if s.Count == 0 {
		s.Min, s.Max = x, x
	}
	s.Count++
	s.Min, s.Max = min(s.Min, x), max(s.Max, x)
	s.Sum += x
	delta := x - b.mean
	b.mean += delta / float64(s.Count)
	s.M2 += delta * (x - b.mean)
	s.Distinct.Add(HashFloat(x))
	if b.grid != nil && !b.grid.Categorical() {
		i := b.grid.Cell(x)
		b.n[i]++
		b.s[i] += x
	}
}

// AddCategory counts one category with weight 1.
func (b *Builder) AddCategory(name string) {
	b.sum.Weight++
	b.sum.Count++
	b.sum.Distinct.Add(Hash(name))
	if b.grid != nil && b.grid.Categorical() {
		b.n[b.grid.CategoryCell(name)]++
	}
}

// AddMissing counts one missing value with weight 1.
func (b *Builder) AddMissing() {
	b.sum.Weight++
	b.sum.Missing++
}

// Summary returns what was counted so far; the builder may go on.
func (b *Builder) Summary() *Summary {
	out := b.sum
	out.Sum, out.M2 = saturate(out.Sum), saturate(math.Abs(out.M2))
	out.Distinct = b.sum.Distinct.clone()
	out.Cells = nil
	for i, n := range b.n {
		if n > 0 {
			out.Cells = append(out.Cells, Cell{uint32(i), n, saturate(b.s[i])})
		}
	}
	return &out
}

// Summarize counts numbers on a grid, which may be nil.
func Summarize(g *Grid, xs []float64) *Summary {
	b := NewBuilder(g)
	for _, x := range xs {
		b.Add(x)
	}
	return b.Summary()
}

// SummarizeCategories counts categories on a grid, which may be nil.
func SummarizeCategories(g *Grid, names []string) *Summary {
	b := NewBuilder(g)
	for _, name := range names {
		b.AddCategory(name)
	}
	return b.Summary()
}
