package online

import "math"

// Side says which changes of the mean count.
type Side string

// Sides.
const (
	Up   Side = "up"
	Down Side = "down"
	Both Side = "both"
)

// PageHinkleyConfig are the knobs of the Page–Hinkley test.
type PageHinkleyConfig struct {
	MinValues int     `json:"min_values"`
	Delta     float64 `json:"delta"`     // change that is tolerated
	Threshold float64 `json:"threshold"` // cumulated deviation that fires
	Alpha     float64 `json:"alpha"`     // forgetting factor
	Side      Side    `json:"side"`
}

// DefaultPageHinkley are River's defaults.
func DefaultPageHinkley() PageHinkleyConfig {
	return PageHinkleyConfig{MinValues: 30, Delta: 0.005, Threshold: 50, Alpha: 1 - 0.0001, Side: Both}
}

// PageHinkley cumulates deviations from the running mean and fires when they
// have moved a threshold away from their extreme.
type PageHinkley struct {
	Config     PageHinkleyConfig `json:"config"`
	Mean       Mean              `json:"mean"`
	Rise, Fall float64           // cumulated deviations
	Low, High  float64           // their extremes so far
	Fired      bool              `json:"fired"`
}

// NewPageHinkley returns a watch that has seen nothing.
func NewPageHinkley(cfg PageHinkleyConfig) *PageHinkley {
	return &PageHinkley{Config: cfg, Low: math.MaxFloat64, High: -1}
}

// Update takes a value and says Drift or None.
func (p *PageHinkley) Update(x float64) Signal {
	if !usable(x) {
		return None
	}
	if p.Fired {
		*p = *NewPageHinkley(p.Config)
	}
	p.Mean.add(x)
	dev := x - p.Mean.Value
	p.Rise = p.Config.Alpha*p.Rise + dev - p.Config.Delta
	p.Fall = p.Config.Alpha*p.Fall + dev + p.Config.Delta
	p.Low, p.High = min(p.Low, p.Rise), max(p.High, p.Fall)
	if p.Mean.N >= float64(p.Config.MinValues) {
		up := p.Rise-p.Low > p.Config.Threshold
		down := p.High-p.Fall > p.Config.Threshold
		p.Fired = up && p.Config.Side != Down || down && p.Config.Side != Up
	}
	if p.Fired {
		return Drift
	}
	return None
}
