package drift

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// Kinds of definitions that this room gives a meaning to.
const (
	MonitorKind = "Monitor"
	ActionKind  = "IncidentAction"
)

// MonitorSpec says how a view or a model is watched. Every member but the
// subject has a default, and a subject without a definition is watched by the
// defaults.
type MonitorSpec struct {
	View  string `json:"view,omitempty" yaml:"view,omitempty"`
	Model string `json:"model,omitempty" yaml:"model,omitempty"`

	Columns   []string           `json:"columns,omitempty" yaml:"columns,omitempty"` // none: all that can be watched
	Ignore    []string           `json:"ignore,omitempty" yaml:"ignore,omitempty"`
	Window    event.Duration     `json:"window,omitempty" yaml:"window,omitempty"`      // 0: chosen by the rate of rows
	Season    event.Duration     `json:"season,omitempty" yaml:"season,omitempty"`      // 0: learnt as history grows; 1ns: none
	Lateness  event.Duration     `json:"lateness,omitempty" yaml:"lateness,omitempty"`  // 0: one window, at most five minutes
	Reference Reference          `json:"reference,omitzero" yaml:"reference,omitempty"` // default: the first 5,000 rows
	Alpha     float64            `json:"alpha,omitempty" yaml:"alpha,omitempty"`        // false discovery rate within a tick; 0: 0.01
	Between   event.Duration     `json:"between,omitempty" yaml:"between,omitempty"`    // expected time between false alarms of slow changes; 0: 90d
	Policy    PolicySpec         `json:"policy,omitzero" yaml:"policy,omitempty"`       // when verdicts become an incident
	Upstream  []string           `json:"upstream,omitempty" yaml:"upstream,omitempty"`  // views whose silence silences this monitor
	Cadence   *Cadence           `json:"cadence,omitempty" yaml:"cadence,omitempty"`    // of a batch subject
	Segments  []string           `json:"segments,omitempty" yaml:"segments,omitempty"`  // dimensions: columns, or names that predictions carry
	Budget    int                `json:"budget,omitempty" yaml:"budget,omitempty"`      // columns × segments; 0: 15,000
	Off       bool               `json:"off,omitempty" yaml:"off,omitempty"`            // not watched
	Rules     []Constraint       `json:"constraints,omitempty" yaml:"constraints,omitempty"`
	Weights   map[string]float64 `json:"importance,omitempty" yaml:"importance,omitempty"` // of columns, 0 to 1; 0.5 where not said
	Groups    []string           `json:"groups,omitempty" yaml:"groups,omitempty"`         // dimensions whose values fairness compares; none: all segments
	Value     Worth              `json:"value,omitempty" yaml:"value,omitempty"`           // what a prediction is worth: by truth, then by predicted class
}

// Reference is what windows are held against: the first rows, a range of
// event_time, a file, or what a model's champion learnt from. A range and a file
// stay whatever is promoted; else a version that becomes champion brings what it
// learnt from, or, where that is not known, its own first rows.
type Reference struct {
	First int       `json:"first,omitempty" yaml:"first,omitempty"`
	From  time.Time `json:"from,omitzero" yaml:"from,omitempty"`
	To    time.Time `json:"to,omitzero" yaml:"to,omitempty"`
	File  string    `json:"file,omitempty" yaml:"file,omitempty"` // name of a reference set from a file; see [Baseline]

	Training bool `json:"training,omitempty" yaml:"training,omitempty"` // from the first champion on, not only from the next promotion
}

// PolicySpec is [control.Policy] as definitions write it. What is 0 has the
// default.
type PolicySpec struct {
	Need     int            `json:"need,omitempty" yaml:"need,omitempty"`
	Of       int            `json:"of,omitempty" yaml:"of,omitempty"`
	Clear    int            `json:"clear,omitempty" yaml:"clear,omitempty"`
	Cooldown event.Duration `json:"cooldown,omitempty" yaml:"cooldown,omitempty"`
}

func (p PolicySpec) policy() control.Policy {
	out := control.DefaultPolicy()
	set := func(to *int, v int) {
		if v > 0 {
			*to = v
		}
	}
	set(&out.Need, p.Need)
	set(&out.Of, p.Of)
	set(&out.Clear, p.Clear)
	out.Of = max(out.Of, out.Need)
	if p.Cooldown > 0 {
		out.Cooldown = time.Duration(p.Cooldown)
	}
	return out
}

// Cadence is when a batch must have come and how large it is: its rows' event
// times lie between the deadline before and this one, a day of 23, 24 or 25 hours.
type Cadence struct {
	By   string `json:"by" yaml:"by"`     // "06:00"
	Zone string `json:"zone" yaml:"zone"` // "Europe/Rome"
	Rows [2]int `json:"rows" yaml:"rows"` // least and most
}

// due is the newest deadline that has passed at a time, and the one before it.
func (c *Cadence) due(now time.Time) (before, at time.Time, err error) {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return before, at, fmt.Errorf("cadence: zone: %w", err)
	}
	clock, err := time.Parse("15:04", c.By)
	if err != nil {
		return before, at, fmt.Errorf("cadence: by %q: want a time of day such as 06:00", c.By)
	}
	local := now.In(zone)
	on := func(day int) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day()+day, clock.Hour(), clock.Minute(), 0, 0, zone)
	}
	if on(0).After(now) {
		return on(-2), on(-1), nil
	}
	return on(-1), on(0), nil
}

// mostDomain bounds a declared list of values.
const mostDomain = 10_000

// Constraint is what every window must keep, whatever the reference was. A
// member that is absent constrains nothing.
type Constraint struct {
	Column  string   `json:"column" yaml:"column"`
	Missing *float64 `json:"max_missing,omitempty" yaml:"max_missing,omitempty"` // largest share without a value
	Unseen  *float64 `json:"max_unseen,omitempty" yaml:"max_unseen,omitempty"`   // largest share of categories that the reference lacks
	Min     *float64 `json:"min,omitempty" yaml:"min,omitempty"`
	Max     *float64 `json:"max,omitempty" yaml:"max,omitempty"`
	Values  Values   `json:"values,omitempty" yaml:"values,omitempty"` // all that it may hold
}

// limits says that a constraint bounds something of a window's counts.
func (c Constraint) limits() bool {
	return c.Missing != nil || c.Unseen != nil || c.Min != nil || c.Max != nil
}

// Action is what a person decided about a monitor's incidents. Who and why
// stand in the registry entry that carries it.
type Action struct {
	Do       ActionVerb `json:"do" yaml:"do"`
	Monitor  string     `json:"monitor" yaml:"monitor"`
	Column   string     `json:"column,omitempty" yaml:"column,omitempty"`     // empty: all
	Detector string     `json:"detector,omitempty" yaml:"detector,omitempty"` // empty: all
	Incident string     `json:"incident,omitempty" yaml:"incident,omitempty"` // this one alone; empty: those that are open when it is given
	From     time.Time  `json:"from,omitzero" yaml:"from,omitempty"`
	Until    time.Time  `json:"until,omitzero" yaml:"until,omitempty"`
}

// ActionVerb names an action.
type ActionVerb string

// Actions. Snooze is silence until a time; Acknowledge is silence until the
// incident ends; Planned is silence within a range, given beforehand; Accept
// makes what the column is like since the incident its new reference, for good
// or until a time. Times are those of rows.
const (
	Snooze      ActionVerb = "snooze"
	Acknowledge ActionVerb = "acknowledge"
	Planned     ActionVerb = "planned"
	Accept      ActionVerb = "accept"
)

// ParseMonitor reads a monitor's definition, JSON or YAML. Unknown members are
// errors; so is whatever Validate finds.
func ParseMonitor(b []byte) (*MonitorSpec, error) {
	s := &MonitorSpec{}
	if err := decode(b, s); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	return s, s.Validate()
}

// ParseAction reads an action; see [ParseMonitor].
func ParseAction(b []byte) (*Action, error) {
	a := &Action{}
	if err := decode(b, a); err != nil {
		return nil, fmt.Errorf("incident action: %w", err)
	}
	return a, a.Validate()
}

func decode(b []byte, v any) error {
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		return event.DecodeStrict(b, v)
	}
	return event.DecodeYAML(b, v)
}

// Validate joins all faults of the definition.
func (s *MonitorSpec) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	window := time.Duration(s.Window)
	fault((s.View == "") == (s.Model == ""), "want a view or a model")
	fault(window < 0 || window%base != 0, "window %v: want whole minutes", window)
	fault(s.Season < 0 || s.Lateness < 0 || s.Between < 0, "season, lateness, between: want durations that are not negative")
	fault(s.Season > 1 && window > 0 && time.Duration(s.Season)%window != 0, "season %v: want a multiple of the window", time.Duration(s.Season))
	fault(s.Alpha < 0 || s.Alpha >= 1, "alpha %v: want 0 to 1", s.Alpha)
	r := s.Reference
	fault(s.Budget < 0, "budget %d: want columns × segments", s.Budget)
	fault(r.First < 0, "reference: first %d: want more than 0 rows", r.First)
	fault(r.From.IsZero() != r.To.IsZero() || !r.From.IsZero() && !r.From.Before(r.To), "reference: want from before to")
	fault(r.First > 0 && !r.From.IsZero() || r.File != "" && (r.First > 0 || !r.From.IsZero()), "reference: want one of first, from and to, file")
	fault(r.Training && (r.File != "" || !r.From.IsZero()), "reference: training beside a file or a range: want one of them")
	fault(r.Training && s.Model == "", "reference: training: only a model has learnt from something")
	fault(len(s.Value) > 0 && s.Model == "", "value: only predictions have one")
	for name, w := range s.Weights {
		fault(w < 0 || w > 1, "importance of %s: %v: want 0 to 1", name, w)
	}
	for _, c := range s.Rules {
		fault(c.Column == "", "constraints: a constraint names its column")
		fault(!c.limits() && len(c.Values) == 0, "constraints: %s: want max_missing, max_unseen, min, max or values", c.Column)
		fault(len(c.Values) > mostDomain, "constraints: %s: %d values, at most %d", c.Column, len(c.Values), mostDomain)
		fault(c.Min != nil && c.Max != nil && *c.Min > *c.Max, "constraints: %s: min is above max", c.Column)
	}
	p := s.Policy
	fault(p.Need < 0 || p.Of < 0 || p.Clear < 0 || p.Cooldown < 0 || p.Of > 0 && p.Need > p.Of, "policy: want need of at most of, and nothing negative")
	if s.Cadence != nil {
		_, _, err := s.Cadence.due(time.Unix(0, 0))
		errs = append(errs, err)
		fault(s.Cadence.Rows[0] < 0 || s.Cadence.Rows[0] > s.Cadence.Rows[1], "cadence: rows: want least and most")
	}
	return errors.Join(errs...)
}

// Validate joins all faults of the action.
func (a *Action) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(a.Monitor == "", "want the monitor's name")
	switch a.Do {
	case Snooze:
		fault(a.Until.IsZero(), "snooze: want until when")
	case Planned:
		fault(!a.From.Before(a.Until), "planned: want from before until")
	case Accept:
		fault(!a.Until.IsZero() && !a.From.Before(a.Until), "accept: want until after from")
	case Acknowledge:
	default:
		fault(true, "do %q: want snooze, acknowledge, planned or accept", a.Do)
	}
	return errors.Join(errs...)
}

// about says whether the action means incidents of a monitor's column.
func (a *Action) about(monitor, column, detector string) bool {
	return a.Monitor == monitor && (a.Column == "" || a.Column == column) && (a.Detector == "" || a.Detector == detector)
}

// silences says whether the action keeps quiet about an incident at a time.
// What is accepted is silent only where there is no reference to change.
func (a *Action) silences(monitor string, i store.Incident, at time.Time) bool {
	if !a.about(monitor, i.Column, i.Detector) {
		return false
	}
	switch a.Do {
	case Snooze:
		return at.Before(a.Until)
	case Planned:
		return !at.Before(a.From) && at.Before(a.Until)
	case Acknowledge:
		if a.Incident != "" {
			return a.Incident == i.ID
		}
		return !i.Opened.IsZero() && !a.From.Before(i.Opened)
	case Accept:
		return !referenced(i) && (a.Incident == "" || a.Incident == i.ID) && (a.Until.IsZero() || at.Before(a.Until))
	}
	return false
}

// subject is the view's or model's name.
func (s *MonitorSpec) subject() string { return s.View + s.Model }

// digest tells whether a definition changed.
func (s *MonitorSpec) digest() string {
	b, _ := json.Marshal(s) // plain data
	return string(b)
}
