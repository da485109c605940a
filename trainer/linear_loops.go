package trainer

import (
	"math"
	"slices"

	"github.com/kedge-ml/kedge/model/linear"
)

// The loops that a linear fit spends its time in: per input a pass over its
// column, with one output (the usual case) apart from several.

// addMargins adds column j's share of Xβ to the margins of all rows.
func (d *design) addMargins(margin, beta []float64, j, k int) {
	c := &d.m.Columns[j]
	at := d.begin[j]
	switch {
	case k > 1:
		d.each(j, func(row, coefficient int, x float64) {
			b := beta[coefficient*k : coefficient*k+k]
			for o, m := range margin[row*k : row*k+k] {
				margin[row*k+o] = m + x*b[o]
			}
		})
	case c.Categorical():
		b, none := beta[at:at+len(c.Categories)], 0.0
		if d.absent[j] {
			none = beta[at+len(c.Categories)]
		}
		for r, v := range c.Values {
			if v == v {
				margin[r] += b[int(v)]
			} else {
				margin[r] += none
			}
		}
	default:
		slope, none := beta[at]/d.scale[j], 0.0
		if d.absent[j] {
			none = beta[at+1]
		}
		for r, v := range c.Values {
			if v == v {
				margin[r] += (float64(v) - d.mean[j]) * slope
			} else {
				margin[r] += none
			}
		}
	}
}

// addGradient adds column j's share of Xᵀ·residual.
func (d *design) addGradient(grad, residual []float64, j, k int) {
	c := &d.m.Columns[j]
	at := d.begin[j]
	switch {
	case k > 1:
		d.each(j, func(row, coefficient int, x float64) {
			g := grad[coefficient*k : coefficient*k+k]
			for o, e := range residual[row*k : row*k+k] {
				g[o] += x * e
			}
		})
	case c.Categorical():
		g, none := grad[at:at+len(c.Categories)], 0.0
		for r, v := range c.Values {
			if v == v {
				g[int(v)] += residual[r]
			} else {
				none += residual[r]
			}
		}
		if d.absent[j] {
			grad[at+len(c.Categories)] += none
		}
	default:
		sum, none := 0.0, 0.0
		for r, v := range c.Values {
			if v == v {
				sum += (float64(v) - d.mean[j]) * residual[r]
			} else {
				none += residual[r]
			}
		}
		grad[at] += sum / d.scale[j]
		if d.absent[j] {
			grad[at+1] += none
		}
	}
}

// units are the scale of every coefficient in which the loss curves about
// equally in all directions: one over the root of the Hessian's diagonal at the
// prior. Without them a category of a few rows takes hundreds of steps more
// than one of thousands.
func (f *linearFit) units(prior []float64) []float64 {
	d, k := f.d, f.k
	curve := make([]float64, k)
	for o := range curve {
		curve[o] = 1
		switch f.link {
		case linear.Logistic:
			p := 1 / (1 + math.Exp(-prior[o]))
			curve[o] = p * (1 - p)
		case linear.Softmax:
			p := min(math.Exp(prior[o]), 1)
			curve[o] = p * (1 - p)
		}
	}
	square := make([]float64, d.width)
	for j := range d.m.Columns {
		d.each(j, func(row, coefficient int, x float64) { square[coefficient] += d.m.weight(row) / d.total * x * x })
	}
	out := make([]float64, (d.width+1)*k)
	for i := range out {
		h := curve[i%k]
		if i < d.width*k {
			h = square[i/k]*h + f.l2
		}
		out[i] = 1 / math.Sqrt(max(h, 1e-8))
	}
	return out
}

// margins computes Xβ plus intercepts for all rows, unless they are those of β
// already: the minimiser asks for the loss and the gradient of the same point.
func (f *linearFit) margins(beta []float64) {
	if slices.Equal(f.at, beta) {
		return
	}
	f.at = append(f.at[:0], beta...)
	k := f.k
	for i := range f.margin {
		f.margin[i] = beta[f.d.width*k+i%k]
	}
	for j := range f.d.m.Columns {
		f.d.addMargins(f.margin, beta, j, k)
	}
}
