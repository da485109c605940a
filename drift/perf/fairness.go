package perf

import (
	"maps"
	"math"
	"slices"
)

// Group is how a model treats the rows of one group. A rate that does not
// exist (no positives, no negatives) is nil.
type Group struct {
	Name                         string
	Rows                         float64
	Selection, TruePos, FalsePos *Value
}

// Gap is the largest difference of a rate between two groups, with the error of
// the difference. Z is the gap over its error.
type Gap struct {
	High, Low string
	Value     Value
	Z         float64
}

// Fairness compares groups: who is selected, who is found (equal opportunity)
// and who is selected wrongly.
type Fairness struct {
	Groups                       []Group
	Selection, TruePos, FalsePos *Gap
}

// CompareGroups builds the matrix of each group and finds the largest gaps.
func CompareGroups(groups []string, truth, predicted []bool) Fairness {
	by := map[string]*Confusion{}
	for i, name := range groups {
		if by[name] == nil {
			by[name] = &Confusion{}
		}
		one := Count(truth[i:i+1], predicted[i:i+1])
		c := by[name]
		*c = Confusion{c.TP + one.TP, c.FP + one.FP, c.TN + one.TN, c.FN + one.FN}
	}
	var f Fairness
	for _, name := range slices.Sorted(maps.Keys(by)) {
		c := by[name]
		f.Groups = append(f.Groups, Group{name, c.Rows(), known(c.SelectionRate()), known(c.Recall()), known(c.FalsePositiveRate())})
	}
	f.Selection = largestGap(f.Groups, func(g Group) *Value { return g.Selection })
	f.TruePos = largestGap(f.Groups, func(g Group) *Value { return g.TruePos })
	f.FalsePos = largestGap(f.Groups, func(g Group) *Value { return g.FalsePos })
	return f
}

func known(v Value, err error) *Value {
	if err != nil {
		return nil
	}
	return &v
}

// largestGap is nil when fewer than two groups have the rate.
func largestGap(groups []Group, rate func(Group) *Value) *Gap {
	var high, low *Group
	n := 0
	for i := range groups {
		g := &groups[i]
		if rate(*g) == nil {
			continue
		}
		n++
		if high == nil || rate(*g).Value > rate(*high).Value {
			high = g
		}
		if low == nil || rate(*g).Value < rate(*low).Value {
			low = g
		}
	}
	if n < 2 {
		return nil
	}
	a, b := rate(*high), rate(*low)
	gap := &Gap{High: high.Name, Low: low.Name, Value: Value{a.Value - b.Value, math.Hypot(a.StdErr, b.StdErr)}}
	if gap.Value.StdErr > 0 {
		gap.Z = gap.Value.Value / gap.Value.StdErr
	}
	return gap
}
