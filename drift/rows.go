package drift

import (
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/drift/stat"
)

// RowDetector compares the rows of a numeric column themselves. Missing and
// infinite values are left out of both sides.
type RowDetector interface {
	Name() string
	CompareRows(ref, cur []float64) (Result, error)
}

type rowDetector struct {
	name string
	f    func(ref, cur []float64) (stat.Test, bool, error)
}

func (d rowDetector) Name() string { return d.name }

func (d rowDetector) CompareRows(ref, cur []float64) (Result, error) {
	t, hasP, err := d.f(stat.Clean(ref), stat.Clean(cur))
	if err != nil {
		return Result{Detector: d.name}, fmt.Errorf("%s: %w", d.name, err)
	}
	r := tested(d.name, t)
	r.HasP = hasP
	return r, nil
}

// RowDetectors lists every detector that works on rows.
func RowDetectors() []RowDetector {
	ladder := func(name string, f func(stat.Ladder) (stat.Test, error)) RowDetector {
		return rowDetector{name, func(ref, cur []float64) (stat.Test, bool, error) {
			t, err := f(stat.LadderOfSorted(ref, cur))
			return t, true, err
		}}
	}
	distance := func(name string, f func(stat.Ladder) (float64, error)) RowDetector {
		return rowDetector{name, func(ref, cur []float64) (stat.Test, bool, error) {
			v, err := f(stat.LadderOfSorted(ref, cur))
			return stat.Test{Statistic: v}, false, err
		}}
	}
	share := func(name string, d stat.Divergence) RowDetector {
		return rowDetector{name, func(ref, cur []float64) (stat.Test, bool, error) {
			v, err := decileDistance(ref, cur, d)
			return stat.Test{Statistic: v}, false, err
		}}
	}
	return []RowDetector{
		ladder("ks", stat.KS), ladder("cramer_von_mises", stat.CramerVonMises), ladder("anderson", stat.Anderson),
		ladder("mann_whitney", func(l stat.Ladder) (stat.Test, error) { return stat.MannWhitney(l, stat.TwoSided) }),
		distance("wasserstein", stat.Wasserstein), distance("wasserstein_normed", stat.WassersteinNormed),
		share("psi", stat.PSI), share("js", stat.JS), share("hellinger", stat.Hellinger), share("tvd", stat.TVD),
		share("l_infinity", stat.LInfinity), share("kl", stat.KL),
		rowDetector{"welch", func(ref, cur []float64) (stat.Test, bool, error) {
			t, err := stat.Welch(stat.MomentsOf(ref), stat.MomentsOf(cur))
			return t, true, err
		}},
		rowDetector{"epps_singleton", func(ref, cur []float64) (stat.Test, bool, error) {
			t, err := stat.EppsSingleton(ref, cur)
			return t, true, err
		}},
	}
}

func decileDistance(ref, cur []float64, d stat.Divergence) (float64, error) {
	if _, err := stat.SharesOf([]uint64{uint64(len(ref))}, []uint64{uint64(len(cur))}); err != nil {
		return 0, err
	}
	edges := stat.Deciles(ref)
	s, err := stat.SharesOf(stat.OpenBins(ref, edges), stat.OpenBins(cur, edges))
	return s.Distance(d), err
}

// CorrelationDistance is the root mean square difference of all pairwise
// correlations. Its p-value is that of the most surprising pair by Fisher's z,
// corrected for the number of pairs (Bonferroni). It sees a correlation that
// breaks, which the reconstruction error of a PCA can miss. Rows are of equal
// length; a pair counts the rows where both values are present.
func CorrelationDistance(ref, cur [][]float64) (Result, error) {
	if len(ref) < 4 || len(cur) < 4 {
		return Result{}, &stat.NotComputable{Reason: stat.TooFew, Detail: "correlations need four rows"}
	}
	squares, pairs, surprise := 0.0, 0, 0.0
	for i := range ref[0] {
		for j := range i {
			r, n, okRef := correlation(ref, i, j)
			q, m, okCur := correlation(cur, i, j)
			if !okRef || !okCur {
				continue
			}
			pairs++
			squares += (r - q) * (r - q)
			surprise = max(surprise, math.Abs(fisherZ(r)-fisherZ(q))/math.Sqrt(1/(n-3)+1/(m-3)))
		}
	}
	if pairs == 0 {
		return Result{}, &stat.NotComputable{Reason: stat.Constant, Detail: "no pair of columns varies on both sides"}
	}
	r := exactly("correlation", math.Sqrt(squares/float64(pairs)))
	r.P, r.HasP = min(1, float64(pairs)*math.Erfc(surprise/math.Sqrt2)), true
	return r, nil
}

func fisherZ(r float64) float64 { return math.Atanh(min(max(r, -1+1e-12), 1-1e-12)) }

// correlation is Pearson's over the rows where both columns are present.
func correlation(rows [][]float64, i, j int) (r, n float64, ok bool) {
	var xs, ys []float64
	for _, row := range rows {
		if present(row[i]) && present(row[j]) {
			xs, ys = append(xs, row[i]), append(ys, row[j])
		}
	}
	a, b := stat.MomentsOf(xs), stat.MomentsOf(ys)
	if len(xs) < 4 || a.Variance == 0 || b.Variance == 0 {
		return 0, 0, false
	}
	sum := 0.0
	for k := range xs {
		sum += (xs[k] - a.Mean) * (ys[k] - b.Mean)
	}
	n = float64(len(xs))
	return sum / (n - 1) / math.Sqrt(a.Variance*b.Variance), n, true
}

func present(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
