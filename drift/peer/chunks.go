package peer

import (
	"math"
)

// Chunk is a half-open range of rows.
type Chunk struct{ From, To int }

// Chunks cuts n rows into chunks of a size; what is left makes a shorter one.
func Chunks(n, size int) []Chunk {
	var out []Chunk
	for from := 0; from < n; from += size {
		out = append(out, Chunk{from, min(from+size, n)})
	}
	return out
}

// Limits are thresholds; a nil side does not exist.
type Limits struct{ Lower, Upper *float64 }

// ThreeSigma is NannyML's threshold: mean ± 3 population standard deviations of
// the values on the reference's chunks, NaN left out.
func ThreeSigma(values []float64) Limits {
	n, mean := 0.0, 0.0
	for _, v := range values {
		if !math.IsNaN(v) {
			n++
			mean += v
		}
	}
	mean /= n
	squares := 0.0
	for _, v := range values {
		if !math.IsNaN(v) {
			squares += (v - mean) * (v - mean)
		}
	}
	if n == 0 {
		return Limits{}
	}
	spread := 3 * math.Sqrt(squares/n)
	lower, upper := mean-spread, mean+spread
	return Limits{&lower, &upper}
}

// Within moves limits into the range a metric can take.
func (l Limits) Within(lowest, highest float64) Limits {
	if l.Lower != nil {
		v := max(*l.Lower, lowest)
		l.Lower = &v
	}
	if l.Upper != nil {
		v := min(*l.Upper, highest)
		l.Upper = &v
	}
	return l
}

// UpperOnly drops the lower limit.
func (l Limits) UpperOnly() Limits { return Limits{Upper: l.Upper} }

// Crossed reports whether a value lies beyond a limit.
func (l Limits) Crossed(v float64) bool {
	return l.Lower != nil && v < *l.Lower || l.Upper != nil && v > *l.Upper
}

// Estimate is a value per chunk with its standard error, as NannyML's summary
// and data quality calculators give it. A value or an error that does not exist
// is NaN inside this package's callers' tables only; see Known.
type Estimate struct {
	Value, StdErr float64
	Known         bool // StdErr exists
}

// MeanOf is the mean of a chunk's present values; its standard error is the
// reference's deviation over the root of the chunk's rows.
func MeanOf(refStd float64, chunk []float64) Estimate {
	m := momentsPresent(chunk)
	return Estimate{m.Mean, refStd / math.Sqrt(float64(len(chunk))), true}
}

// StdOf is the standard deviation (n-1) of a chunk's present values; its
// standard error comes from the reference's deviation and fourth central
// moment, which do not exist when the reference has missing values.
func StdOf(ref StdComponents, chunk []float64) Estimate {
	m := momentsPresent(chunk)
	e := Estimate{Value: math.Sqrt(m.Variance)}
	n := float64(len(chunk))
	inner := ref.Fourth - (n-3)*math.Pow(ref.Std, 4)/(n-1)
	if ref.Known && inner >= 0 && ref.Std > 0 {
		e.StdErr, e.Known = math.Sqrt(inner/n)/(2*ref.Std), true
	}
	return e
}

// StdComponents are the reference's deviation (n-1) and fourth central moment.
type StdComponents struct {
	Std, Fourth float64
	Known       bool // no value was missing
}

// ComponentsOf computes them.
func ComponentsOf(ref []float64) StdComponents {
	m := momentsPresent(ref)
	c := StdComponents{Std: math.Sqrt(m.Variance), Known: int(m.N) == len(ref)}
	for _, x := range ref {
		d := x - m.Mean
		c.Fourth += d * d * d * d / float64(len(ref))
	}
	return c
}

// MissingShare is the share of missing values with the standard error that the
// reference's share has in a chunk of this size.
func MissingShare(refShare float64, missing, rows int) Estimate {
	n := float64(rows)
	return Estimate{float64(missing) / n, math.Sqrt(refShare*(1-refShare)) / math.Sqrt(n), true}
}

// UnseenShare is the share of values that the reference does not have.
func UnseenShare(ref, chunk []string) float64 {
	seen := tally(ref)
	n := 0
	for _, name := range chunk {
		if seen[name] == 0 {
			n++
		}
	}
	return float64(n) / float64(len(chunk))
}
