package online

import "math"

// ADWINConfig are ADWIN's knobs.
type ADWINConfig struct {
	Delta     float64 `json:"delta"`      // significance of a cut
	Clock     int     `json:"clock"`      // values between two looks
	Buckets   int     `json:"buckets"`    // buckets of one size before two are joined
	MinWindow float64 `json:"min_window"` // shortest side of a cut
	Grace     float64 `json:"grace"`      // values before the first look
}

// DefaultADWIN are River's defaults.
func DefaultADWIN() ADWINConfig {
	return ADWINConfig{Delta: 0.002, Clock: 32, Buckets: 5, MinWindow: 5, Grace: 10}
}

// Bucket sums up 2^level consecutive values.
type Bucket struct {
	Total    float64 `json:"total"`
	Variance float64 `json:"variance"` // sum of squared deviations
}

// ADWIN keeps the longest window whose mean has not changed (Bifet and Gavaldà
// 2007) in buckets of doubling size: Levels[i] holds buckets of 2^i values,
// oldest first.
type ADWIN struct {
	Config   ADWINConfig `json:"config"`
	Width    float64     `json:"width"`
	Total    float64     `json:"total"`
	Variance float64     `json:"variance"`
	Ticks    int         `json:"ticks"`
	Levels   [][]Bucket  `json:"levels"`
	Fired    bool        `json:"fired"`
}

// NewADWIN returns a watch that has seen nothing.
func NewADWIN(cfg ADWINConfig) *ADWIN { return &ADWIN{Config: cfg, Levels: [][]Bucket{nil}} }

// Update takes a value and says Drift when the window had to be cut.
func (a *ADWIN) Update(x float64) Signal {
	if !usable(x) {
		return None
	}
	if a.Fired {
		*a = *NewADWIN(a.Config)
	}
	a.insert(x)
	a.Ticks++
	if a.Ticks%a.Config.Clock == 0 && a.Width > a.Config.Grace {
		for a.cut() {
			a.Fired = true
		}
	}
	if a.Fired {
		return Drift
	}
	return None
}

// Mean is the mean of the window.
func (a *ADWIN) Mean() float64 {
	if a.Width == 0 {
		return 0
	}
	return a.Total / a.Width
}

func (a *ADWIN) insert(x float64) {
	a.Levels[0] = append(a.Levels[0], Bucket{Total: x})
	a.Width++
	if a.Width > 1 {
		d := x - a.Total/(a.Width-1)
		a.Variance += (a.Width - 1) * d * d / a.Width
	}
	a.Total += x
	for i := 0; i < len(a.Levels) && len(a.Levels[i]) == a.Config.Buckets+1; i++ {
		a.join(i)
	}
}

// join replaces the two oldest buckets of a full level by one of the next.
func (a *ADWIN) join(level int) {
	if level+1 == len(a.Levels) {
		a.Levels = append(a.Levels, nil)
	}
	n := math.Ldexp(1, level)
	b := a.Levels[level]
	d := b[0].Total/n - b[1].Total/n
	sum := Bucket{b[0].Total + b[1].Total, b[0].Variance + b[1].Variance + n*0.5*d*d}
	a.Levels[level+1] = append(a.Levels[level+1], sum)
	a.Levels[level] = append(b[:0], b[2:]...)
}

// cut tries every boundary between buckets from the oldest on; at the first
// significant one it drops the oldest bucket and answers true.
func (a *ADWIN) cut() bool {
	n0, n1, u0, u1 := 0.0, a.Width, 0.0, a.Total
	for level := len(a.Levels) - 1; level >= 0; level-- {
		size := math.Ldexp(1, level)
		for k, b := range a.Levels[level] {
			n0, n1, u0, u1 = n0+size, n1-size, u0+b.Total, u1-b.Total
			if level == 0 && k == len(a.Levels[0])-1 {
				return false
			}
			if n0 >= a.Config.MinWindow && n1 >= a.Config.MinWindow && math.Abs(u0/n0-u1/n1) > a.bound(n0, n1) {
				a.dropOldest()
				return true
			}
		}
	}
	return false
}

func (a *ADWIN) bound(n0, n1 float64) float64 {
	delta := math.Log(2 * math.Log(a.Width) / a.Config.Delta)
	m := 1/(n0-a.Config.MinWindow+1) + 1/(n1-a.Config.MinWindow+1)
	return math.Sqrt(2*m*(a.Variance/a.Width)*delta) + 2.0/3*delta*m
}

func (a *ADWIN) dropOldest() {
	last := len(a.Levels) - 1
	n := math.Ldexp(1, last)
	b := a.Levels[last][0]
	a.Width -= n
	a.Total -= b.Total
	d := b.Total/n - a.Total/a.Width
	a.Variance -= b.Variance + n*a.Width*d*d/(n+a.Width)
	a.Levels[last] = a.Levels[last][1:]
	if len(a.Levels[last]) == 0 {
		a.Levels = a.Levels[:last]
	}
}
