package drift

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
)

// SliceRows are raw rows to search: what each row is worth (its error, the
// value of a column), which side it is on, and what it may be told by. NaN and
// the empty string are values of their own: rows without one may be the slice.
type SliceRows struct {
	Worth   []float64
	Current []bool // the row is of the window, not of the reference; nil: there is no reference
	Numbers map[string][]float64
	Texts   map[string][]string
}

// SliceOptions bound a search.
type SliceOptions struct {
	Depth   int     // conditions of one slice; 1 or 2
	Support float64 // smallest share of the window's rows that a slice may have
	Beam    int     // slices that are refined and tested
	Rising  bool    // only slices whose worth rose are of interest
}

// DefaultSliceOptions look for slices of a fiftieth of the rows and more, of one
// condition or two.
func DefaultSliceOptions() SliceOptions { return SliceOptions{Depth: 2, Support: 0.02, Beam: 20} }

// Slice is a set of rows told by conditions. What is said of it comes from rows
// that the search did not see.
type Slice struct {
	Conditions   []string
	Rows         int     // of the window, in both halves
	Support      float64 // share of the window's rows
	Inside       float64 // mean worth of the slice's rows in the window
	Before       float64 // and in the reference; NaN without one
	Effect       float64 // how much more worth changed inside than outside
	StdErr       float64
	Contribution float64 // Effect × Support: what the slice does to the mean of all rows
	P, Adjusted  float64 // of no effect, two-sided unless Rising; Holm's correction for all slices tested
}

// SearchSlices finds where worth changed more than elsewhere: a beam search over
// values of texts, quarters of numbers and pairs of them on one half of the rows,
// by effect × support. The best are tested on the other half, which makes their
// p-values those of a few stated questions, however many were looked at. Rows are
// taken alternately: they must come in no order that matters.
func SearchSlices(r SliceRows, o SliceOptions) ([]Slice, error) {
	n := len(r.Worth)
	if n < 200 {
		return nil, &stat.NotComputable{Reason: stat.TooFew, Detail: fmt.Sprintf("%d rows, a search needs 200", n)}
	}
	s := &sliceSearch{rows: r, o: o}
	s.all = [2][2]sums3{s.whole(0), s.whole(1)}
	s.atoms()
	best := s.best()
	if len(best) == 0 {
		return nil, nil
	}
	out, p := make([]Slice, len(best)), make([]float64, len(best))
	for i, c := range best {
		out[i] = s.told(c)
		p[i] = out[i].P
	}
	for i, a := range control.Holm(p) {
		out[i].Adjusted = a
	}
	slices.SortStableFunc(out, func(a, b Slice) int {
		return cmp.Or(cmp.Compare(step(a.Adjusted), step(b.Adjusted)), cmp.Compare(math.Abs(b.Contribution), math.Abs(a.Contribution)))
	})
	return out, nil
}

// step puts what is shown before what is not.
func step(p float64) int {
	if p <= 0.05 {
		return 0
	}
	return 1
}

// sliceSearch holds the rows of both halves: even ones are searched, odd ones
// test.
type sliceSearch struct {
	rows  SliceRows
	o     SliceOptions
	parts []atom
	all   [2][2]sums3 // of every row, by half and side
}

// atom is one condition and the rows that meet it.
type atom struct {
	feature, text string
	rows          []int32
}

// candidate is a slice under search.
type candidate struct {
	atoms []int
	rows  []int32
	score float64
}

// sliceValues is how many values of a text are looked at one by one.
const sliceValues = 20

func (s *sliceSearch) atoms() {
	for _, name := range sortedNames(s.rows.Texts) {
		byValue := map[string][]int32{}
		for i, v := range s.rows.Texts[name] {
			byValue[v] = append(byValue[v], int32(i))
		}
		names := sortedNames(byValue)
		sort.SliceStable(names, func(i, j int) bool { return len(byValue[names[i]]) > len(byValue[names[j]]) })
		for _, v := range names[:min(len(names), sliceValues)] {
			text := name + " = " + v
			if v == "" {
				text = name + " is missing"
			}
			s.parts = append(s.parts, atom{name, text, byValue[v]})
		}
	}
	for _, name := range sortedNames(s.rows.Numbers) {
		s.numberAtoms(name, s.rows.Numbers[name])
	}
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// numberAtoms cut a number at its quartiles.
func (s *sliceSearch) numberAtoms(name string, xs []float64) {
	sorted := stat.Clean(xs)
	slices.Sort(sorted)
	var edges []float64
	if len(sorted) > 0 {
		for _, q := range []float64{0.25, 0.5, 0.75} {
			if e := stat.Quantile(sorted, q); len(edges) == 0 && e > sorted[0] || len(edges) > 0 && e > edges[len(edges)-1] {
				edges = append(edges, e)
			}
		}
	}
	cells := make([][]int32, len(edges)+2)
	for i, x := range xs {
		k := len(edges) + 1 // missing
		if present(x) {
			k = sort.Search(len(edges), func(j int) bool { return x < edges[j] })
		}
		cells[k] = append(cells[k], int32(i))
	}
	for k, rows := range cells {
		var text string
		switch {
		case k == len(edges)+1:
			text = name + " is missing"
		case len(edges) == 0:
			continue // constant: all rows are no slice
		case k == 0:
			text = fmt.Sprintf("%s < %.4g", name, edges[0])
		case k == len(edges):
			text = fmt.Sprintf("%s ≥ %.4g", name, edges[k-1])
		default:
			text = fmt.Sprintf("%.4g ≤ %s < %.4g", edges[k-1], name, edges[k])
		}
		s.parts = append(s.parts, atom{name, text, rows})
	}
}

// best are the slices of one condition and two with the largest score.
func (s *sliceSearch) best() []candidate {
	var all []candidate
	for i, a := range s.parts {
		if c, ok := s.score([]int{i}, a.rows); ok {
			all = append(all, c)
		}
	}
	byScore := func(a, b candidate) int { return cmp.Compare(b.score, a.score) }
	slices.SortStableFunc(all, byScore)
	single := all[:min(len(all), s.o.Beam)]
	if s.o.Depth > 1 {
		for _, c := range slices.Clone(single) {
			all = append(all, s.refine(c)...)
		}
	}
	slices.SortStableFunc(all, byScore)
	return distinct(all, s.o.Beam/2)
}

// refine adds a second condition where that says more than the first alone.
func (s *sliceSearch) refine(c candidate) []candidate {
	var out []candidate
	for j, a := range s.parts {
		if j == c.atoms[0] || a.feature == s.parts[c.atoms[0]].feature {
			continue
		}
		both := intersect(c.rows, a.rows)
		if f, ok := s.score([]int{min(c.atoms[0], j), max(c.atoms[0], j)}, both); ok && f.score > c.score {
			out = append(out, f)
		}
	}
	return out
}

// distinct keeps the best slices, each set of conditions once.
func distinct(cs []candidate, n int) []candidate {
	seen := map[string]bool{}
	var out []candidate
	for _, c := range cs {
		key := fmt.Sprint(c.atoms)
		if !seen[key] && len(out) < n {
			seen[key] = true
			out = append(out, c)
		}
	}
	return out
}

// intersect walks two ascending lists.
func intersect(a, b []int32) []int32 {
	var out []int32
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			out = append(out, a[i])
			i, j = i+1, j+1
		}
	}
	return out
}

// score is the effect, less its standard error, times the support, on the half
// that is searched.
func (s *sliceSearch) score(atoms []int, rows []int32) (candidate, bool) {
	e, ok := s.effect(rows, 0)
	if !ok {
		return candidate{}, false
	}
	size := math.Abs(e.effect)
	if s.o.Rising {
		size = e.effect
	}
	score := (size - e.stderr) * e.support
	return candidate{atoms, rows, score}, score > 0
}

// contrast is what a half says of a slice.
type contrast struct{ effect, stderr, support, inside, before float64 }

// sums are count, sum and sum of squares.
type sums3 struct{ n, sum, squares float64 }

func (a *sums3) add(x float64) { a.n, a.sum, a.squares = a.n+1, a.sum+x, a.squares+x*x }

func (a sums3) mean() float64 { return a.sum / a.n }

// error2 is the squared standard error of the mean.
func (a sums3) error2() float64 {
	return max(a.squares/a.n-a.mean()*a.mean(), 0) / max(a.n-1, 1)
}

func (a sums3) without(b sums3) sums3 { return sums3{a.n - b.n, a.sum - b.sum, a.squares - b.squares} }

// leastSlice is how many rows of a side a slice needs in a half.
const leastSlice = 15

// effect compares a slice with the other rows, in the rows whose number has a
// parity: the change from reference to window where there is a reference.
func (s *sliceSearch) effect(rows []int32, half int32) (contrast, bool) {
	var in [2]sums3
	for _, i := range rows {
		if i%2 == half && present(s.rows.Worth[i]) {
			in[s.side(int(i))].add(s.rows.Worth[i])
		}
	}
	all := s.all[half]
	out := [2]sums3{all[0].without(in[0]), all[1].without(in[1])}
	support := in[1].n / max(all[1].n, 1)
	if support < s.o.Support || in[1].n < leastSlice || out[1].n < leastSlice {
		return contrast{}, false
	}
	c := contrast{effect: in[1].mean() - out[1].mean(), stderr: in[1].error2() + out[1].error2(), support: support, inside: in[1].mean(), before: math.NaN()}
	if all[0].n > 0 {
		if in[0].n < leastSlice || out[0].n < leastSlice {
			return contrast{}, false
		}
		c.before = in[0].mean()
		c.effect -= in[0].mean() - out[0].mean()
		c.stderr += in[0].error2() + out[0].error2()
	}
	c.stderr = math.Sqrt(c.stderr)
	return c, true
}

func (s *sliceSearch) side(i int) int {
	if s.rows.Current == nil || s.rows.Current[i] {
		return 1
	}
	return 0
}

func (s *sliceSearch) whole(half int32) [2]sums3 {
	var all [2]sums3
	for i := int(half); i < len(s.rows.Worth); i += 2 {
		if present(s.rows.Worth[i]) {
			all[s.side(i)].add(s.rows.Worth[i])
		}
	}
	return all
}

// told is what the other half says of a slice that was found.
func (s *sliceSearch) told(c candidate) Slice {
	out := Slice{P: 1, Before: math.NaN()}
	for _, i := range c.atoms {
		out.Conditions = append(out.Conditions, s.parts[i].text)
	}
	for _, i := range c.rows {
		out.Rows += s.side(int(i))
	}
	e, ok := s.effect(c.rows, 1)
	if !ok {
		return out
	}
	out.Support, out.Inside, out.Before, out.Effect, out.StdErr = e.support, e.inside, e.before, e.effect, e.stderr
	out.Contribution = e.effect * e.support
	switch {
	case e.stderr == 0 && e.effect != 0:
		out.P = 0
	case e.stderr == 0:
	case s.o.Rising:
		out.P = math.Erfc(e.effect/e.stderr/math.Sqrt2) / 2
	default:
		out.P = math.Erfc(math.Abs(e.effect) / e.stderr / math.Sqrt2)
	}
	return out
}

// Name joins the conditions.
func (s Slice) Name() string { return strings.Join(s.Conditions, " and ") }
