package dist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sort"
)

// Limits of a grid. They bound what a decoder may allocate.
const (
	DefaultCells      = 256
	MaxCells          = 1024
	DefaultAtomMass   = 0.001
	DefaultCategories = 1000
	MaxCategories     = 10_000
	MaxRest           = 100_000
	MaxWords          = 10_000
	MaxVector         = 16_384
	maxEdges          = 4 * MaxCells
)

// ErrNoSample means that a grid was asked for without a single usable value.
var ErrNoSample = errors.New("no usable value in the reference sample")

// GridConfig says how finely a grid is cut. The zero value means the defaults.
type GridConfig struct {
	Cells      int     // quantile cells, 2 to MaxCells
	AtomMass   float64 // a value above this share gets a cell of its own
	Categories int     // most frequent categories kept by name, up to MaxCategories
	Anchor     Anchor  // what the values are made against
}

// Anchor is what of the reference a descriptor's values are made against: the
// words that it knows, or a vector. Values that have been made against another
// anchor are others, so it is a part of the grid. Most columns have none.
type Anchor struct {
	// Words are the hashes ([Hash]) of known words, ascending, for rows of an even
	// and of an odd position: each half is held against the words of the other one,
	// so that the reference's own rows are as strange to it as later ones.
	Words  [2][]uint64
	Vector []float64
}

func (a Anchor) check() error {
	if len(a.Vector) > MaxVector {
		return fmt.Errorf("a vector of %d numbers, at most %d", len(a.Vector), MaxVector)
	}
	for _, x := range a.Vector {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return errors.New("the vector is not finite")
		}
	}
	for _, half := range a.Words {
		if len(half) > MaxWords || !slices.IsSorted(half) {
			return fmt.Errorf("%d hashes of words, want at most %d, ascending", len(half), MaxWords)
		}
	}
	return nil
}

func (c GridConfig) withDefaults() (GridConfig, error) {
	if c.Cells == 0 {
		c.Cells = DefaultCells
	}
	if c.AtomMass == 0 {
		c.AtomMass = DefaultAtomMass
	}
	if c.Categories == 0 {
		c.Categories = DefaultCategories
	}
	switch {
	case c.Cells < 2 || c.Cells > MaxCells:
		return c, fmt.Errorf("grid cells %d: want 2 to %d", c.Cells, MaxCells)
	case !(c.AtomMass > 0 && c.AtomMass < 1):
		return c, fmt.Errorf("grid atom mass %v: want a share between 0 and 1", c.AtomMass)
	case c.Categories < 1 || c.Categories > MaxCategories:
		return c, fmt.Errorf("grid categories %d: want 1 to %d", c.Categories, MaxCategories)
	}
	return c, nil
}

// Grid cuts a column's values into cells. It is immutable; another sample makes
// another grid, with another [Grid.ID].
//
// A numeric grid has len(Edges)+1 cells: cell i holds Edges[i-1] ≤ x < Edges[i],
// the first and the last are open. An atom, a value with a mass of its own, is
// the pair of edges v and the next larger float. A categorical grid has one
// cell per category, most frequent first, then OTHER (known to the reference,
// but rare) and UNSEEN.
type Grid struct {
	Edges      []float64
	Deciles    []float64 // inner deciles of the sample (linear interpolation, no duplicates); all of them are edges
	Categories []string
	Rest       []uint64 // [Hash] of every rarer category of the reference, ascending
	RestOpen   bool     // the reference has more categories than Rest can hold: nothing counts as UNSEEN
	Anchor     Anchor   // of a descriptor

	id    uint64
	index map[string]uint32
}

// NumericGrid cuts a reference sample into quantile cells plus atoms. Missing
// and infinite values of the sample are ignored. When the sample has no more
// distinct values than cells, every value becomes an atom and the grid loses
// nothing.
func NumericGrid(sample []float64, cfg GridConfig) (*Grid, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cut numeric grid: %w", err)
	}
	sorted := finite(sample)
	if len(sorted) == 0 {
		return nil, fmt.Errorf("cut numeric grid: %w", ErrNoSample)
	}
	slices.Sort(sorted)
	atoms, remainder := splitAtoms(sorted, cfg)
	deciles := innerDeciles(sorted)
	edges := slices.Concat(deciles, quantileEdges(remainder, cfg.Cells))
	for _, a := range atoms {
		edges = append(edges, a, math.Nextafter(a, math.Inf(1)))
	}
	slices.Sort(edges)
	return newGrid(&Grid{Edges: slices.Compact(finite(edges)), Deciles: deciles, Anchor: cfg.Anchor})
}

// EdgeGrid makes a numeric grid of given cut points, which must be finite and
// strictly ascending.
func EdgeGrid(edges []float64) (*Grid, error) {
	return newGrid(&Grid{Edges: slices.Clone(edges)})
}

// CategoryGrid keeps the most frequent categories of a reference by name and
// the others by hash. Ties go to the smaller string, so that equal references
// make equal grids.
func CategoryGrid(counts map[string]uint64, cfg GridConfig) (*Grid, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cut category grid: %w", err)
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("cut category grid: %w", ErrNoSample)
	}
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if a, b := counts[names[i]], counts[names[j]]; a != b {
			return a > b
		}
		return names[i] < names[j]
	})
	g := &Grid{Categories: names, Anchor: cfg.Anchor}
	if len(names) > cfg.Categories {
		g.Categories = slices.Clone(names[:cfg.Categories])
		g.Rest, g.RestOpen = hashRest(names[cfg.Categories:])
	}
	return newGrid(g)
}

// newGrid checks a grid and gives it its identity. Every grid passes here.
func newGrid(g *Grid) (*Grid, error) {
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("make grid: %w", err)
	}
	if g.Categorical() {
		g.index = make(map[string]uint32, len(g.Categories))
		for i, name := range g.Categories {
			g.index[name] = uint32(i)
		}
		if len(g.index) != len(g.Categories) {
			return nil, errors.New("make grid: a category is listed twice")
		}
	}
	g.id = g.digest()
	return g, nil
}

func (g *Grid) check() error {
	switch {
	case len(g.Edges) > maxEdges || len(g.Categories) > MaxCategories || len(g.Rest) > MaxRest:
		return errors.New("more cells than a grid may have")
	case g.Categorical() && len(g.Edges)+len(g.Deciles) > 0:
		return errors.New("edges and categories at once")
	case !g.Categorical() && len(g.Edges) == 0:
		return errors.New("neither edges nor categories")
	}
	for i, e := range g.Edges {
		if math.IsNaN(e) || math.IsInf(e, 0) || i > 0 && e <= g.Edges[i-1] {
			return fmt.Errorf("edge %d (%v) is not finite and above the one before", i, e)
		}
	}
	for i, d := range g.Deciles {
		if _, ok := slices.BinarySearch(g.Edges, d); !ok || i > 0 && d <= g.Deciles[i-1] {
			return fmt.Errorf("decile %d (%v) is not an edge above the one before", i, d)
		}
	}
	for i, h := range g.Rest {
		if i > 0 && h <= g.Rest[i-1] {
			return errors.New("hashes of rare categories are not ascending")
		}
	}
	return g.Anchor.check()
}

// digest is FNV-1a over the grid's content, never 0: a summary's grid 0 means
// "no grid yet".
func (g *Grid) digest() uint64 {
	h := fnv.New64a()
	var b [8]byte
	word := func(v uint64) {
		binary.LittleEndian.PutUint64(b[:], v)
		h.Write(b[:])
	}
	for _, part := range [][]float64{g.Edges, g.Deciles} {
		word(uint64(len(part)))
		for _, v := range part {
			word(math.Float64bits(v))
		}
	}
	word(uint64(len(g.Categories)))
	for _, name := range g.Categories {
		word(uint64(len(name)))
		h.Write([]byte(name))
	}
	for _, r := range g.Rest {
		word(r)
	}
	if g.RestOpen {
		word(1)
	}
	for _, half := range g.Anchor.Words {
		for _, w := range half {
			word(w)
		}
	}
	for _, x := range g.Anchor.Vector {
		word(math.Float64bits(x))
	}
	return max(h.Sum64(), 1)
}

// ID identifies the grid by its content; it is never 0.
func (g *Grid) ID() uint64 { return g.id }

// Categorical reports whether the cells are categories.
func (g *Grid) Categorical() bool { return len(g.Categories) > 0 }

// Cells is the number of cells, OTHER and UNSEEN included.
func (g *Grid) Cells() int {
	if g.Categorical() {
		return len(g.Categories) + 2
	}
	return len(g.Edges) + 1
}

// Other is the cell of rare categories that the reference knows.
func (g *Grid) Other() int { return len(g.Categories) }

// Unseen is the cell of categories that the reference does not know.
func (g *Grid) Unseen() int { return len(g.Categories) + 1 }

// Cell returns the cell of a finite number.
func (g *Grid) Cell(x float64) int {
	lo, hi := 0, len(g.Edges)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); g.Edges[mid] <= x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// CategoryCell returns the cell of a category.
func (g *Grid) CategoryCell(name string) int {
	if i, ok := g.index[name]; ok {
		return int(i)
	}
	if g.RestOpen {
		return g.Other()
	}
	if _, ok := slices.BinarySearch(g.Rest, Hash(name)); ok {
		return g.Other()
	}
	return g.Unseen()
}

// Bounds returns the half-open range [lo, hi) of a numeric cell; the outer
// cells reach to infinity.
func (g *Grid) Bounds(cell int) (lo, hi float64) {
	lo, hi = math.Inf(-1), math.Inf(1)
	if cell > 0 {
		lo = g.Edges[cell-1]
	}
	if cell < len(g.Edges) {
		hi = g.Edges[cell]
	}
	return lo, hi
}

// Atom reports whether a numeric cell can hold one value only.
func (g *Grid) Atom(cell int) bool {
	lo, hi := g.Bounds(cell)
	return math.Nextafter(lo, math.Inf(1)) == hi
}

// Label names a cell for a reader.
func (g *Grid) Label(cell int) string {
	switch {
	case !g.Categorical():
		return g.rangeLabel(cell)
	case cell < len(g.Categories):
		return g.Categories[cell]
	case cell == g.Other():
		return "OTHER"
	}
	return "UNSEEN"
}

func (g *Grid) rangeLabel(cell int) string {
	lo, hi := g.Bounds(cell)
	switch {
	case g.Atom(cell):
		return fmt.Sprintf("= %.6g", lo)
	case cell == 0:
		return fmt.Sprintf("< %.6g", hi)
	case cell == len(g.Edges):
		return fmt.Sprintf("≥ %.6g", lo)
	}
	return fmt.Sprintf("%.6g to %.6g", lo, hi)
}
