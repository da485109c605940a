package peer

import (
	"maps"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
)

// Column is one side of a comparison: numbers, or categories. Missing values
// are NaN among numbers and already left out among categories.
type Column struct {
	Numbers    []float64
	Categories []string
	Category   bool // which of the two counts
	Integers   bool // numbers whose type is an integer: numpy bins them at least 1 wide
}

// Numbers makes a numeric column. Missing and infinite values are NaN and ±Inf.
func Numbers(xs []float64) Column { return Column{Numbers: xs} }

// Integers makes a numeric column whose type is an integer.
func Integers(xs []float64) Column { return Column{Numbers: xs, Integers: true} }

// Categories makes a categorical column.
func Categories(names []string) Column { return Column{Categories: names, Category: true} }

// pair is two columns made comparable.
type pair struct {
	ref, cur []float64 // sorted finite numbers
	ladder   stat.Ladder
	counts   stat.Counts // per distinct value or category, ascending
	n, m     int
	category bool
	integers bool
}

func newPair(ref, cur Column) (pair, error) {
	p := pair{category: ref.Category, integers: ref.Integers && cur.Integers}
	if ref.Category != cur.Category {
		return p, &stat.NotComputable{Reason: stat.WrongData, Detail: "one side holds numbers, the other categories"}
	}
	if p.category {
		p.n, p.m = len(ref.Categories), len(cur.Categories)
		p.counts = countBoth(ref.Categories, cur.Categories)
	} else {
		p.ref, p.cur = stat.Clean(ref.Numbers), stat.Clean(cur.Numbers)
		p.n, p.m = len(p.ref), len(p.cur)
		p.ladder = stat.LadderOfSorted(p.ref, p.cur)
		p.counts = stat.Counts{Ref: p.ladder.A, Cur: p.ladder.B}
	}
	_, err := stat.SharesOf([]uint64{uint64(p.n)}, []uint64{uint64(p.m)})
	return p, err
}

// countBoth counts two lists over the sorted union of their categories.
func countBoth(ref, cur []string) stat.Counts {
	both := [2]map[string]uint64{tally(ref), tally(cur)}
	names := maps.Clone(both[0])
	maps.Copy(names, both[1])
	var c stat.Counts
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c.Ref = append(c.Ref, both[0][name])
		c.Cur = append(c.Cur, both[1][name])
	}
	return c
}

func tally(names []string) map[string]uint64 {
	counts := make(map[string]uint64)
	for _, name := range names {
		counts[name]++
	}
	return counts
}

func (p pair) distinct() int { return len(p.counts.Ref) }

func (p pair) distinctRef() int {
	n := 0
	for _, c := range p.counts.Ref {
		if c > 0 {
			n++
		}
	}
	return n
}

func missing(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
