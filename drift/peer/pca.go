package peer

import (
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
	"gonum.org/v1/gonum/mat"
)

func momentsPresent(xs []float64) stat.Moments {
	present := make([]float64, 0, len(xs))
	for _, x := range xs {
		if !missing(x) {
			present = append(present, x)
		}
	}
	return stat.MomentsOf(present)
}

// Reconstruction is NannyML's multivariate detector: rows are imputed by the
// reference's means, standardised, projected on the components that hold a
// share of the reference's variance, and their mean distance from the
// projection is watched. A change that weakens what the components miss goes
// unseen; [drift] has the correlation distance for that.
type Reconstruction struct {
	mean, scale []float64
	basis       *mat.Dense // columns are the kept components
}

// FitReconstruction fits on rows of equally long columns; missing is NaN. share
// is the part of the variance to keep (NannyML: 0.65).
func FitReconstruction(rows [][]float64, share float64) (*Reconstruction, error) {
	if len(rows) < 2 || len(rows[0]) == 0 {
		return nil, &stat.NotComputable{Reason: stat.TooFew, Detail: "PCA needs two rows"}
	}
	d := len(rows[0])
	r := &Reconstruction{mean: make([]float64, d), scale: make([]float64, d)}
	for c := range d {
		r.mean[c] = momentsPresent(columnOf(rows, c)).Mean
	}
	for c := range d {
		r.scale[c] = r.deviation(rows, c)
	}
	cov := mat.NewSymDense(d, nil)
	for _, row := range rows {
		cov.SymRankOne(cov, 1/float64(len(rows)), mat.NewVecDense(d, r.standard(row)))
	}
	return r, r.keep(cov, share)
}

func columnOf(rows [][]float64, c int) []float64 {
	out := make([]float64, len(rows))
	for i, row := range rows {
		out[i] = row[c]
	}
	return out
}

// deviation is the population deviation of an imputed column; a constant column
// keeps its scale.
func (r *Reconstruction) deviation(rows [][]float64, c int) float64 {
	sum := 0.0
	for _, row := range rows {
		if !missing(row[c]) {
			sum += (row[c] - r.mean[c]) * (row[c] - r.mean[c])
		}
	}
	if sum == 0 {
		return 1
	}
	return math.Sqrt(sum / float64(len(rows)))
}

func (r *Reconstruction) standard(row []float64) []float64 {
	out := make([]float64, len(row))
	for c, x := range row {
		if !missing(x) {
			out[c] = (x - r.mean[c]) / r.scale[c]
		}
	}
	return out
}

// keep takes the fewest leading eigenvectors that hold more than the share.
func (r *Reconstruction) keep(cov *mat.SymDense, share float64) error {
	var eig mat.EigenSym
	if !eig.Factorize(cov, true) {
		return &stat.NotComputable{Reason: stat.Constant, Detail: "the covariance has no eigenvectors"}
	}
	values := eig.Values(nil)
	var vectors mat.Dense
	eig.VectorsTo(&vectors)
	total := 0.0
	for _, v := range values {
		total += v
	}
	if total == 0 {
		return &stat.NotComputable{Reason: stat.Constant, Detail: "every column is constant"}
	}
	d, kept, sum := len(values), 0, 0.0
	for kept < d && !(sum > share) {
		kept++
		sum += values[d-kept] / total
	}
	r.basis = mat.DenseCopyOf(vectors.Slice(0, d, d-kept, d))
	return nil
}

// Error is the mean distance of rows from their reconstruction, with its
// standard error from the rows themselves.
func (r *Reconstruction) Error(rows [][]float64) Estimate {
	distances := make([]float64, len(rows))
	for i, row := range rows {
		z := mat.NewVecDense(len(row), r.standard(row))
		var inner, back mat.VecDense
		inner.MulVec(r.basis.T(), z)
		back.MulVec(r.basis, &inner)
		back.SubVec(z, &back)
		distances[i] = mat.Norm(&back, 2)
	}
	m := stat.MomentsOf(distances)
	return Estimate{m.Mean, math.Sqrt(m.Variance / float64(len(rows))), len(rows) > 1}
}
