package serving

import (
	"cmp"
	"math"
	"slices"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
)

// explanation says why one row got its answer.
type explanation struct {
	base float64            // the mean margin of training
	top  []event.NamedFloat // the inputs that moved the margin most, largest first
	rest float64            // what all others moved together
}

// explain computes the top contributions of every row: of the margin, or of
// the likeliest class's margin (TreeSHAP; for linear models weight × distance
// from the mean).
func (m *Model) explain(rows, values []float32, n, top int) []explanation {
	k, groups := len(m.Signature.Inputs), m.Predictor.Groups()
	all := make([]float64, n*groups*(k+1))
	m.Predictor.Contributions(all, rows)
	out := make([]explanation, n)
	for i := range out {
		g := 0
		if groups > 1 && groups == m.width() {
			g = likeliest(values[i*groups : (i+1)*groups])
		}
		at := (i*groups + g) * (k + 1)
		out[i] = m.strongest(all[at:at+k+1], top)
	}
	return out
}

func likeliest(p []float32) int {
	best := 0
	for i, v := range p {
		if v > p[best] {
			best = i
		}
	}
	return best
}

func (m *Model) strongest(phi []float64, top int) explanation {
	k := len(phi) - 1
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(math.Abs(phi[b]), math.Abs(phi[a])) })
	e := explanation{base: phi[k]}
	for rank, i := range order {
		if rank < top {
			e.top = append(e.top, event.NamedFloat{Name: m.Signature.Inputs[i].Name, Value: phi[i]})
		} else {
			e.rest += phi[i]
		}
	}
	return e
}

// without is the explanation with hidden inputs among the others.
func (e *explanation) without(m *Model, hides func(string) bool) *explanation {
	out := explanation{base: e.base, rest: e.rest}
	for _, c := range e.top {
		at := slices.IndexFunc(m.Signature.Inputs, func(in model.Input) bool { return in.Name == c.Name })
		if at >= 0 && hidden(&m.Signature.Inputs[at], hides) {
			out.rest += c.Value
		} else {
			out.top = append(out.top, c)
		}
	}
	return &out
}
