package trainer

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/model"
)

// Leak is a feature that tells the label by itself: most often it was computed
// from the label, or known only after it.
type Leak struct {
	Column string
	Power  float64 // AUC of the column alone, or |rank correlation| with a number
	Equal  bool    // the column is the label
}

// String is a sentence for a warning.
func (l Leak) String() string {
	if l.Equal {
		return fmt.Sprintf("feature %q equals the label: it cannot be known before the answer; leave it out", l.Column)
	}
	return fmt.Sprintf("feature %q alone tells the label almost perfectly (%.4f): check that it is known before the answer", l.Column, l.Power)
}

// leakPower is from where on a single column is suspicious.
const leakPower = 0.995

// leakRows bounds the rows that are looked at.
const leakRows = 50_000

// Leaks looks for features that give the label away. Prepare the matrix first.
func Leaks(m *Matrix, task model.Task) []Leak {
	rows := m.all()
	if step := len(rows)/leakRows + 1; step > 1 {
		rows = slices.Collect(func(yield func(int) bool) {
			for i := 0; i < len(rows) && yield(i); i += step {
			}
		})
	}
	var out []Leak
	for i := range m.Columns {
		c := &m.Columns[i]
		if l := leakOf(c, m, rows, task); l.Equal || l.Power >= leakPower {
			out = append(out, l)
		}
	}
	return out
}

func leakOf(c *Column, m *Matrix, rows []int, task model.Task) Leak {
	x, y := make([]float64, len(rows)), make([]float64, len(rows))
	equal := true
	for i, r := range rows {
		x[i], y[i] = float64(c.Values[r]), float64(m.Label[r])
		equal = equal && x[i] == y[i]
	}
	if constant(x) || constant(y) {
		return Leak{Column: c.Name}
	}
	l := Leak{Column: c.Name, Equal: equal}
	if c.Categorical() {
		x = meanLabel(x, y)
	}
	switch task {
	case model.Binary:
		a := AUC(x, y, nil)
		l.Power = max(a, 1-a)
	case model.MultiClass:
		l.Power = purity(x, y)
	default:
		l.Power = math.Abs(correlation(ranks(x), ranks(y)))
	}
	return l
}

func constant(v []float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return x != v[0] && (x == x || v[0] == v[0]) })
}

// meanLabel replaces a category by the mean label of the other rows that have
// it, so that a category met once tells nothing.
func meanLabel(x, y []float64) []float64 {
	sum, n := make(map[float64]float64), make(map[float64]float64)
	total := 0.0
	for i, v := range x {
		sum[v] += y[i]
		n[v]++
		total += y[i]
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = total / float64(len(y))
		if n[v] > 1 {
			out[i] = (sum[v] - y[i]) / (n[v] - 1)
		}
	}
	return out
}

// purity is the share of rows whose class is the commonest one of the rows with
// the same value, above what the commonest class alone gives, from 0 to 1.
func purity(x, y []float64) float64 {
	counts := make(map[[2]float64]int)
	values := make(map[float64]int)
	classes := make(map[float64]int)
	for i := range x {
		counts[[2]float64{x[i], y[i]}]++
		values[x[i]]++
		classes[y[i]]++
	}
	if len(values) > len(x)/2 { // nearly a key: every value is pure by itself
		return 0
	}
	best, base := make(map[float64]int), 0
	for k, n := range counts {
		best[k[0]] = max(best[k[0]], n)
	}
	for _, n := range classes {
		base = max(base, n)
	}
	hit := 0
	for _, n := range best {
		hit += n
	}
	if base == len(x) {
		return 0
	}
	return float64(hit-base) / float64(len(x)-base)
}

// ranks replaces values by their mid-ranks; a missing value ranks in the
// middle, where it tells nothing.
func ranks(v []float64) []float64 {
	order := make([]int, 0, len(v))
	for i, x := range v {
		if x == x {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(v[a], v[b]) })
	out := make([]float64, len(v))
	for i := range out {
		out[i] = float64(len(order)-1) / 2
	}
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && v[order[j]] == v[order[i]] {
			j++
		}
		for _, at := range order[i:j] {
			out[at] = float64(i+j-1) / 2
		}
		i = j
	}
	return out
}

// correlation is Pearson's.
func correlation(x, y []float64) float64 {
	var mx, my float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(y))
	}
	var xx, yy, xy float64
	for i := range x {
		a, b := x[i]-mx, y[i]-my
		xx, yy, xy = xx+a*a, yy+b*b, xy+a*b
	}
	if xx == 0 || yy == 0 {
		return 0
	}
	return xy / math.Sqrt(xx*yy)
}
