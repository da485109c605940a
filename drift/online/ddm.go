package online

import "math"

// DDMConfig are DDM's knobs.
type DDMConfig struct {
	WarmStart        int     `json:"warm_start"`
	WarningThreshold float64 `json:"warning_threshold"`
	DriftThreshold   float64 `json:"drift_threshold"`
}

// DefaultDDM are River's defaults.
func DefaultDDM() DDMConfig { return DDMConfig{30, 2, 3} }

// DDM watches an error rate and fires when it is several standard deviations
// above the best it has been (Gama et al. 2004). The best is that of many looks,
// so it is too low: by River's defaults DDM fires in 60 % of quiet streams of
// 3,000 values (docs/drift.md). It is here to compare with.
type DDM struct {
	Config   DDMConfig `json:"config"`
	Rate     Mean      `json:"rate"`
	BestRate float64   `json:"best_rate"`
	BestStd  float64   `json:"best_std"`
	Best     bool      `json:"best"` // whether the two above are set
	Fired    bool      `json:"fired"`
}

// NewDDM returns a watch that has seen nothing.
func NewDDM(cfg DDMConfig) *DDM { return &DDM{Config: cfg} }

// Update takes an error (1) or a success (0).
func (d *DDM) Update(x float64) Signal {
	if !usable(x) {
		return None
	}
	if d.Fired {
		*d = *NewDDM(d.Config)
	}
	d.Rate.add(x)
	p := d.Rate.Value
	s := math.Sqrt(p * (1 - p) / d.Rate.N)
	if !(d.Rate.N > float64(d.Config.WarmStart)) {
		return None
	}
	if !d.Best || p+s <= d.BestRate+d.BestStd {
		d.BestRate, d.BestStd, d.Best = p, s, true
	}
	switch {
	case p+s > d.BestRate+d.Config.DriftThreshold*d.BestStd:
		d.Fired = true
		return Drift
	case p+s > d.BestRate+d.Config.WarningThreshold*d.BestStd:
		return Warning
	}
	return None
}

// HDDMAConfig are HDDM-A's knobs.
type HDDMAConfig struct {
	DriftConfidence   float64 `json:"drift_confidence"`
	WarningConfidence float64 `json:"warning_confidence"`
	TwoSided          bool    `json:"two_sided"`
}

// DefaultHDDMA are River's defaults: increases only.
func DefaultHDDMA() HDDMAConfig { return HDDMAConfig{0.001, 0.005, false} }

// HDDMA compares the mean of the stream with its mean at the best cut point by
// Hoeffding's bound (Frías-Blanco et al. 2015, the A-test).
type HDDMA struct {
	Config HDDMAConfig `json:"config"`
	All    Mean        `json:"all"`
	Low    Mean        `json:"low"`  // the stream up to its lowest cut point
	High   Mean        `json:"high"` // the stream up to its highest cut point
	Fired  bool        `json:"fired"`
}

// NewHDDMA returns a watch that has seen nothing.
func NewHDDMA(cfg HDDMAConfig) *HDDMA { return &HDDMA{Config: cfg} }

// Update takes an error (1) or a success (0), or any value in [0, 1].
func (h *HDDMA) Update(x float64) Signal {
	if !usable(x) {
		return None
	}
	if h.Fired {
		*h = *NewHDDMA(h.Config)
	}
	h.All.add(x)
	if h.Low.N == 0 || h.Low.Value+h.bound(h.Low.N) >= h.All.Value+h.bound(h.All.N) {
		h.Low = h.All
	}
	if h.High.N == 0 || h.High.Value-h.bound(h.High.N) <= h.All.Value-h.bound(h.All.N) {
		h.High = h.All
	}
	s := h.signal(h.rise)
	if h.Config.TwoSided {
		s = max(s, h.signal(h.fall))
	}
	h.Fired = s == Drift
	return s
}

func (h *HDDMA) bound(n float64) float64 {
	return math.Sqrt(1 / (2 * n) * math.Log(1/h.Config.DriftConfidence))
}

func (h *HDDMA) signal(moved func(confidence float64) bool) Signal {
	switch {
	case moved(h.Config.DriftConfidence):
		return Drift
	case moved(h.Config.WarningConfidence):
		return Warning
	}
	return None
}

func (h *HDDMA) rise(confidence float64) bool {
	return h.Low.N != h.All.N && h.All.Value-h.Low.Value >= h.distance(h.Low.N, confidence)
}

func (h *HDDMA) fall(confidence float64) bool {
	return h.High.N != h.All.N && h.High.Value-h.All.Value >= h.distance(h.High.N, confidence)
}

func (h *HDDMA) distance(n, confidence float64) float64 {
	m := (h.All.N - n) / n * (1 / h.All.N)
	return math.Sqrt(m / 2 * math.Log(2/confidence))
}
