package drift

import (
	"time"

	"github.com/kedge-ml/kedge/drift/control"
)

// Finding is a judgement and what it did to its incident.
type Finding struct {
	Judgement
	At     time.Time
	Change control.Change
}

// Watch turns the judgements of successive windows into incidents. Time is the
// windows' own; there is no clock. It is not safe for concurrent use.
type Watch struct {
	Options   Options
	Policy    control.Policy
	Incidents map[string]control.Incident // by column and detector
}

// NewWatch returns a watch that has seen nothing.
func NewWatch(o Options, p control.Policy) *Watch {
	return &Watch{Options: o, Policy: p, Incidents: map[string]control.Incident{}}
}

// Take judges one tick.
func (w *Watch) Take(columns []Column, slot int, at time.Time) []Finding {
	var out []Finding
	for _, j := range Judge(columns, slot, w.Options) {
		out = append(out, w.Step(j, at))
	}
	return out
}

// incidentKey names a question about a column.
func incidentKey(column, detector string) string { return column + "\x00" + detector }

// Step takes one judgement. A window without an answer leaves its incident as
// it is.
func (w *Watch) Step(j Judgement, at time.Time) Finding {
	f := Finding{Judgement: j, At: at}
	if j.Reason != "" {
		return f
	}
	key := incidentKey(j.Column, j.Detector)
	o := control.Observation{At: at, Drifted: j.Drifted, Calm: j.Calm, Severity: j.Severity}
	w.Incidents[key], f.Change = w.Policy.Step(w.Incidents[key], o)
	return f
}
