package control

import (
	"math"
	"time"
)

// Severity says how much a drifted column deserves to be looked at.
type Severity int

// Severities.
const (
	Quiet Severity = iota
	Notice
	Warning
	Critical
)

// String returns the word that verdicts carry.
func (s Severity) String() string { return [...]string{"quiet", "notice", "warning", "critical"}[s] }

// Grade turns how many times a window is farther out than it must be to count
// (1 is just so), and how much the column matters to the model (0 to 1, 0.5 if
// unknown), into a severity.
func Grade(times, importance float64) Severity {
	switch weight := times * (0.5 + importance); {
	case times < 1:
		return Quiet
	case weight >= 8:
		return Critical
	case weight >= 2:
		return Warning
	}
	return Notice
}

// Policy says when verdicts become an incident, and when it ends.
type Policy struct {
	Need     int           `json:"need"`     // drifted windows …
	Of       int           `json:"of"`       // … among the last so many open an incident
	Urgent   Severity      `json:"urgent"`   // a single window of this severity opens one at once
	Clear    int           `json:"clear"`    // calm windows in a row that close it
	Cooldown time.Duration `json:"cooldown"` // time after an end in which the same incident is only noted
}

// DefaultPolicy needs two of three windows, or one critical one; three calm ones
// end it, and it stays silent for six hours.
func DefaultPolicy() Policy {
	return Policy{Need: 2, Of: 3, Urgent: Critical, Clear: 3, Cooldown: 6 * time.Hour}
}

// Observation is one verdict as the policy sees it. Calm is stricter than not
// drifted: between the two nothing changes (hysteresis).
type Observation struct {
	At       time.Time
	Drifted  bool
	Calm     bool
	Severity Severity
}

// Change is what a step did to an incident.
type Change int

// Changes. Suppressed is an opening during the cool-down: kept, not told.
const (
	Same Change = iota
	Opened
	Worsened
	Resolved
	Suppressed
)

// String returns the word that notifications carry.
func (c Change) String() string {
	return [...]string{"same", "opened", "worsened", "resolved", "suppressed"}[c]
}

// Incident is one monitor column's state between windows. The zero value has
// seen nothing.
type Incident struct {
	Recent  []bool    `json:"recent"` // drifted or not, newest last
	Open    bool      `json:"open"`
	Told    bool      `json:"told"` // somebody was notified of the open incident
	Since   time.Time `json:"since,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Worst   Severity  `json:"worst"`
	Calm    int       `json:"calm"` // calm windows in a row
	Windows int       `json:"windows"`

	// Silenced says that somebody or something asked not to be told of the
	// incident while it lasts: a snooze, a planned change, a stale view upstream.
	Silenced bool `json:"silenced,omitempty"`
}

// Silence takes back a notification that [Policy.Step] just decided.
func (s Incident) Silence() (Incident, Change) {
	s.Told, s.Silenced = false, true
	return s, Suppressed
}

// Speak tells of an incident whose silence is over and which goes on.
func (s Incident) Speak() (Incident, Change) {
	if !s.Open || s.Told || !s.Silenced {
		return s, Same
	}
	s.Told, s.Silenced = true, false
	return s, Opened
}

// Step takes the next window, in event time. The incident given is not changed.
func (p Policy) Step(s Incident, o Observation) (Incident, Change) {
	s.Recent = append(append([]bool{}, s.Recent...), o.Drifted)
	s.Recent = s.Recent[max(0, len(s.Recent)-p.Of):]
	s.Windows++
	s.Calm++
	if !o.Calm {
		s.Calm = 0
	}
	if s.Open {
		return p.whileOpen(s, o)
	}
	if !o.Drifted || count(s.Recent) < p.Need && o.Severity < p.Urgent {
		return s, Same
	}
	s.Open, s.Since, s.Worst, s.Told = true, o.At, o.Severity, true
	if !s.Ended.IsZero() && o.At.Sub(s.Ended) < p.Cooldown {
		s.Told = false
		return s, Suppressed
	}
	return s, Opened
}

func (p Policy) whileOpen(s Incident, o Observation) (Incident, Change) {
	switch {
	case s.Calm >= p.Clear:
		told := s.Told
		s.Open, s.Told, s.Silenced, s.Ended, s.Worst = false, false, false, o.At, Quiet
		s.Recent = nil
		if told {
			return s, Resolved
		}
		return s, Same
	case o.Drifted && o.Severity > s.Worst:
		s.Worst, s.Told = o.Severity, true
		return s, Worsened
	}
	return s, Same
}

func count(bits []bool) int {
	n := 0
	for _, b := range bits {
		if b {
			n++
		}
	}
	return n
}

// Times is how many times farther out than its floor a distance is; a floor of
// nothing makes any distance infinitely far.
func Times(distance, floor float64) float64 {
	if distance <= 0 {
		return 0
	}
	if floor <= 0 {
		return math.Inf(1)
	}
	return distance / floor
}
