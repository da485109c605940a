package drift

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// CauseSeries is how far a column was from its reference in successive windows
// (in units of its floor; NaN where a window has no answer), and how much it
// matters to the model.
type CauseSeries struct {
	Column     string
	Times      []float64
	Importance float64 // 0 to 1; 0.5 if unknown
}

// Cause is a column under suspicion.
type Cause struct {
	Column      string
	Score       float64 // what the order follows: correlation, or nearness to the floor where there is none, times what the column matters
	Times       float64 // how many times its floor the column was away in the newest window
	Correlation float64 // of its drift with the model's loss; NaN where it cannot be known
	P           float64 // of a correlation this large by chance, one-sided
	Importance  float64
	Windows     int
}

// leastPairs is how many windows a correlation needs.
const leastPairs = 5

// RankCauses orders columns by how their drift moves with the model's loss
// (NannyML's correlation ranking: Pearson's between drift and the absolute
// change of performance) and by how much they matter. loss is NaN in windows
// where it is not known; without enough of it the distances alone speak, and
// stand behind every column that can be correlated.
func RankCauses(columns []CauseSeries, loss []float64) []Cause {
	out := make([]Cause, 0, len(columns))
	for _, c := range columns {
		k := Cause{Column: c.Column, Importance: c.Importance, Correlation: math.NaN(), P: 1}
		var drifted, lost []float64
		for i, x := range c.Times {
			if !present(x) {
				continue
			}
			k.Times = x
			if i < len(loss) && present(loss[i]) {
				drifted, lost = append(drifted, x), append(lost, math.Abs(loss[i]))
			}
		}
		k.Windows = len(drifted)
		if r, ok := pearson(drifted, lost); ok {
			k.Correlation, k.P = r, correlationP(r, len(drifted))
			k.Score = max(r, 0) * (0.5 + c.Importance)
		} else {
			k.Score = k.Times / (1 + k.Times) * (0.5 + c.Importance) / 100
		}
		out = append(out, k)
	}
	slices.SortStableFunc(out, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Times, a.Times), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// pearson is the correlation of two series; ok is false where one is constant or
// too short.
func pearson(x, y []float64) (r float64, ok bool) {
	n := float64(len(x))
	if len(x) < leastPairs {
		return 0, false
	}
	var mx, my float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	var xx, yy, xy float64
	for i := range x {
		xx, yy, xy = xx+(x[i]-mx)*(x[i]-mx), yy+(y[i]-my)*(y[i]-my), xy+(x[i]-mx)*(y[i]-my)
	}
	if xx <= 0 || yy <= 0 {
		return 0, false
	}
	return max(-1, min(1, xy/math.Sqrt(xx*yy))), true
}

// correlationP is Student's one-sided tail of a correlation.
func correlationP(r float64, n int) float64 {
	df := float64(n - 2)
	if r >= 1 {
		return 0
	}
	t2 := r * r * df / (1 - r*r)
	p := mathext.RegIncBeta(df/2, 0.5, df/(df+t2)) / 2
	if r < 0 {
		return 1 - p
	}
	return p
}
