package control

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// RateEvidence is the beta-binomial mixture e-process against "the rate is
// exactly P0": E = B(a+s, b+n-s)/B(a,b) / (P0^s·(1-P0)^(n-s)). It may be read
// after every row; rejecting once it reaches 1/α errs with probability at most
// α over all time (Ville).
type RateEvidence struct {
	P0   float64 `json:"p0"`
	A    float64 `json:"a"` // prior successes
	B    float64 `json:"b"` // prior failures
	N    float64 `json:"n"` // rows seen
	Hits float64 `json:"hits"`
	Max  float64 `json:"max"` // largest log e-value so far
}

// priorRows is how many rows the default prior is worth.
const priorRows = 25

// NewRateEvidence starts with a prior of 25 rows around the rate itself.
func NewRateEvidence(p0 float64) *RateEvidence {
	return &RateEvidence{P0: p0, A: p0 * priorRows, B: (1 - p0) * priorRows}
}

// Add takes rows of which some are hits, and returns the log e-value.
func (r *RateEvidence) Add(hits, rows float64) float64 {
	r.Hits += hits
	r.N += rows
	e := r.LogE()
	r.Max = max(r.Max, e)
	return e
}

// LogE is the natural log of the e-value.
func (r *RateEvidence) LogE() float64 {
	s, n := r.Hits, r.N
	return mathext.Lbeta(r.A+s, r.B+n-s) - mathext.Lbeta(r.A, r.B) - xlogy(s, r.P0) - xlogy(n-s, 1-r.P0)
}

// P is the anytime-valid p-value, 1/max E.
func (r *RateEvidence) P() float64 { return math.Exp(-max(r.Max, 0)) }

func xlogy(x, y float64) float64 {
	if x == 0 {
		return 0
	}
	return x * math.Log(y)
}

// Detector watches a mean of values in [0, 1] for leaving the range
// [Low, High], for ever: a Shiryaev–Roberts sum of betting e-processes, one
// started at every window (Shin, Ramdas and Rinaldo 2023). While the mean of
// each window, given the past, stays in the range, the expected number of
// windows until the first alarm is at least the threshold. It needs no
// independence within a window.
type Detector struct {
	Low  float64   `json:"low"`
	High float64   `json:"high"`
	Up   []float64 `json:"up"`   // log sums of the bets that the mean rises
	Down []float64 `json:"down"` // log sums of the bets that it falls
	Seen int       `json:"seen"` // windows taken
}

// stakes are the shares of the largest safe bet that the detector spreads its
// money over.
func stakes() []float64 { return []float64{0.02, 0.05, 0.1, 0.2, 0.4, 0.8} }

// NewDetector watches for the mean leaving [low, high] within [0, 1].
func NewDetector(low, high float64) *Detector {
	d := &Detector{Low: max(low, 0), High: min(high, 1)}
	for range stakes() {
		d.Up = append(d.Up, math.Inf(-1))
		d.Down = append(d.Down, math.Inf(-1))
	}
	return d
}

// Add takes the mean of one window, and returns the log evidence: an alarm is
// due when it reaches the log of [Threshold].
func (d *Detector) Add(mean float64) float64 {
	d.Seen++
	x := min(max(mean, 0), 1)
	for i, stake := range stakes() {
		d.Up[i] = restart(d.Up[i], factor(stake, x-d.High, d.High))
		d.Down[i] = restart(d.Down[i], factor(stake, d.Low-x, 1-d.Low))
	}
	return d.LogEvidence()
}

// factor is the e-value of one window for one bet: 1 + λ·excess, where λ is a
// share of the largest bet that cannot lose everything.
func factor(stake, excess, worst float64) float64 {
	if worst <= 0 {
		return 1 // the mean cannot leave the range on this side
	}
	return 1 + stake*excess/worst
}

// restart is log(e·(1+M)).
func restart(logM, e float64) float64 {
	if e <= 0 {
		return math.Inf(-1)
	}
	if logM > 30 {
		return math.Log(e) + logM
	}
	return math.Log(e) + math.Log1p(math.Exp(logM))
}

// LogEvidence is the log of the mean over all bets.
func (d *Detector) LogEvidence() float64 {
	return logMeanExp(append(append([]float64{}, d.Up...), d.Down...))
}

// Rising reports which side holds more of the evidence.
func (d *Detector) Rising() bool { return logMeanExp(d.Up) >= logMeanExp(d.Down) }

// Reset forgets all evidence, after an alarm was answered.
func (d *Detector) Reset() { *d = *NewDetector(d.Low, d.High) }

func logMeanExp(xs []float64) float64 {
	top := math.Inf(-1)
	for _, x := range xs {
		top = max(top, x)
	}
	if math.IsInf(top, -1) {
		return top
	}
	sum := 0.0
	for _, x := range xs {
		sum += math.Exp(x - top)
	}
	return top + math.Log(sum/float64(len(xs)))
}

// LogThreshold is where detectors must alarm so that a model with this many of
// them raises at most one false alarm per expected number of windows.
func LogThreshold(windows float64, detectors int) float64 {
	return math.Log(max(windows, 1)) + math.Log(float64(max(detectors, 1)))
}
