package stat

import "math"

// minScale is the smallest reference deviation that the normed Wasserstein
// distance divides by (Evidently's rule).
const minScale = 0.001

// Wasserstein is the 1-Wasserstein distance in the column's own units, the area
// between the two distribution functions.
func Wasserstein(l Ladder) (float64, error) {
	if err := l.check(); err != nil {
		return 0, err
	}
	var a, b uint64
	sum := 0.0
	for i := 0; i+1 < len(l.X); i++ {
		a, b = a+l.A[i], b+l.B[i]
		sum += math.Abs(float64(a)/float64(l.N)-float64(b)/float64(l.M)) * (l.X[i+1] - l.X[i])
	}
	return sum, nil
}

// WassersteinNormed is Wasserstein divided by the population standard deviation
// of the reference, at least 0.001.
func WassersteinNormed(l Ladder) (float64, error) {
	w, err := Wasserstein(l)
	if err != nil {
		return 0, err
	}
	_, variance := l.momentsRef()
	return w / max(math.Sqrt(variance), minScale), nil
}

// momentsRef returns the mean and population variance of the reference.
func (l Ladder) momentsRef() (mean, variance float64) {
	n := float64(l.N)
	for i, x := range l.X {
		mean += x * float64(l.A[i]) / n
	}
	for i, x := range l.X {
		variance += (x - mean) * (x - mean) * float64(l.A[i]) / n
	}
	return mean, variance
}
