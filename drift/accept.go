package drift

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/store"
)

// acceptance is what a column was like from an incident to when it was accepted,
// taken for normal until a time, beside its reference and what else is accepted of
// it. A window from From on, and before that time, is held against the one that it
// lies nearest to.
type acceptance struct {
	Incident store.Incident        `json:"incident"` // with who, why and until when
	From     time.Time             `json:"from"`
	To       time.Time             `json:"to"`   // what came later nobody has accepted
	Slow     map[string][2]float64 `json:"slow"` // ranges that slow changes were watched in before
	Over     bool                  `json:"over"` // a window began at its end or later

	baseline *Baseline
}

// Changes that verdicts carry beside [control.Change]: the first one after an
// incident was accepted, and the first one after that is over.
const (
	acceptedChange = "accepted"
	lapsedChange   = "lapsed"
)

// acceptedPart begins the parts of the stored state that hold what acceptances
// hold windows against.
const acceptedPart = "accepted/"

// keepAccepted is how long after its end late rows still find what an
// acceptance held their window against.
const keepAccepted = 28 * 24 * time.Hour

// referenced says that an incident is a distance from a reference that can be
// another one. What a definition or a clock demands cannot.
func referenced(i store.Incident) bool {
	return !strings.HasPrefix(i.Column, "(") && i.Detector != constraint && i.Detector != domain
}

// holds says whether a window that starts at a time may be as it was accepted.
func (a *acceptance) holds(start time.Time) bool {
	return !start.Before(a.From) && start.Before(a.Incident.Until)
}

// said is who accepted what until when, and why.
func (a *acceptance) said() string {
	return fmt.Sprintf("accepted by %s until %s: %s", a.Incident.Who, a.Incident.Until.UTC().Format(time.RFC3339), a.Incident.Why)
}

// acceptedBy is the acceptance that a window was held against; nil: it was its
// column's reference.
func (m *Monitor) acceptedBy(name string, start time.Time, held *Baseline) *acceptance {
	for _, a := range m.Accepted[name] {
		if a.holds(start) && a.baseline == held {
			return a
		}
	}
	return nil
}

// about says of a window that moved what was accepted of its column.
func (m *Monitor) about(name string, start time.Time, held *Baseline) string {
	if by := m.acceptedBy(name, start, held); by != nil {
		return "; held against what was " + by.said()
	}
	for _, a := range slices.Backward(m.Accepted[name]) {
		switch {
		case a.holds(start):
			return "; nor is it like what was " + a.said()
		case !start.Before(a.Incident.Until):
			return "; what was " + a.said() + ", is normal no longer"
		}
	}
	return ""
}

// heldAgainst is the baseline of a window's column, or of a segment's: its
// reference, or what is accepted of it then, whichever the window lies nearest to.
// Who accepted a column as it is until a time need not hear that it is back
// before then.
func (m *Monitor) heldAgainst(name string, start time.Time, slot int, reference *Baseline, window *dist.Summary) *Baseline {
	if reference == nil {
		return nil
	}
	nearest, least := reference, math.Inf(1)
	for _, a := range slices.Backward(m.Accepted[name]) {
		if !a.holds(start) || a.baseline.Grid.ID() != reference.Grid.ID() {
			continue
		}
		if math.IsInf(least, 1) {
			least = away(reference, window, slot, m.cfg.Options)
		}
		if d := away(a.baseline, window, slot, m.cfg.Options); d < least || nearest == reference && d == least {
			nearest, least = a.baseline, d
		}
	}
	return nearest
}

// away is how far a window is from a baseline, in units of what is relevant, by
// the question that it is furthest in.
func away(b *Baseline, window *dist.Summary, slot int, o Options) float64 {
	c := Column{Baseline: b, Window: window}
	js := []Judgement{judgeShape(c, slot, o), judgeMissing(c, slot, o)}
	if b.Grid.Categorical() && window.Count > 0 && !b.Grid.RestOpen {
		js = append(js, judgeUnseen(c))
	}
	furthest := 0.0
	for _, j := range js {
		if j.Reason == "" {
			furthest = max(furthest, control.Times(j.Effect, j.Floor))
		}
	}
	return furthest
}

// renewed says that a window began before its column, or a segment's, was
// accepted for good as it has been since: what was said of it then stays.
func (m *Monitor) renewed(name string, start time.Time) bool {
	return slices.ContainsFunc(m.Unquiet[name], func(r [2]time.Time) bool { return r[0].IsZero() && start.Before(r[1]) })
}

// accept ends an incident; what its column has been since becomes its
// reference at the next tick.
func (m *Monitor) accept(key string, rec store.Incident) {
	delete(m.Open, key)
	delete(m.watch.Incidents, key)
	rec.Ended = m.Next
	m.mark(key, acceptedChange)
	m.changed = append(m.changed, rec)
	m.renew = append(m.renew, renewal{rec, rec.Opened.Add(-m.cfg.Window)})
	if !rec.Told {
		return
	}
	until := "for good"
	if !rec.Until.IsZero() {
		until = "until " + rec.Until.UTC().Format(time.RFC3339)
	}
	m.told = append(m.told, AlertChange{Incident: rec.ID, Change: acceptedChange, Column: rec.Column, Detector: rec.Detector, Severity: rec.Severity,
		Sentence: fmt.Sprintf("%s is accepted %s by %s: %s", rec.Column, until, rec.Who, rec.Why)})
}

// mark has the next verdict of a question tell a change that is none of its
// window.
func (m *Monitor) mark(key, change string) {
	if m.Marks == nil {
		m.Marks = map[string]string{}
	}
	m.Marks[key] = change
}

// learnAccepted learns what a column was like from a time until now, beside its
// reference.
func (m *Monitor) learnAccepted(ctx context.Context, r renewal) error {
	a, name := &acceptance{Incident: r.incident, From: r.from.Truncate(m.cfg.Window), To: m.Next}, r.incident.Column
	if _, _, ok := ofSegment(name); ok && m.segments != nil {
		a.From, a.To = r.from.Truncate(m.segments.window), m.Segmented
	}
	windows, grid, err := m.countAccepted(ctx, a)
	if err != nil || grid == nil {
		return err
	}
	a.Slow = m.slowRanges(name)
	m.watchAccepted(name, *grid, windows)
	if m.Accepted == nil {
		m.Accepted = map[string][]*acceptance{}
	}
	given := m.Accepted[name]
	if i := slices.IndexFunc(given, func(o *acceptance) bool { return o.Incident.ID == a.Incident.ID }); i >= 0 { // learnt, and not stored
		a.Slow, given[i] = given[i].Slow, a
	} else {
		m.Accepted[name] = append(given, a)
	}
	m.unquiet(name, a.From, r.incident.Until)
	return nil
}

// countAccepted counts the rows of an acceptance on the bins of now. No grid: its
// column is not watched, or has none.
func (m *Monitor) countAccepted(ctx context.Context, a *acceptance) (windows []store.WindowSummary, grid *store.SummaryColumn, err error) {
	name, was := a.Incident.Column, m.baselines[a.Incident.Column]
	if column, segment, ok := ofSegment(name); ok {
		if windows, grid, err = m.segmentBetween(ctx, column, segment, a.From, a.To); grid == nil || err != nil {
			return nil, nil, err
		}
		was = m.segments.baselines[segment][column]
	} else {
		i := slices.IndexFunc(m.grids, func(c store.SummaryColumn) bool { return c.Name == name })
		if i < 0 {
			return nil, nil, nil
		}
		grid = &m.grids[i]
		if windows, err = m.store.DeriveSummaries(ctx, m.cfg.Table, m.grids[i:i+1], a.From, a.To, m.cfg.Window); err != nil {
			return nil, nil, fmt.Errorf("learn %s as accepted: %w", name, err)
		}
	}
	if a.baseline, err = m.baselineSince(*grid, windows, was); err != nil || a.baseline.Reference.Rows() == 0 {
		return nil, nil, err
	}
	return windows, grid, nil
}

// watchAccepted watches for slow changes of what is accepted; of segments nobody
// does.
func (m *Monitor) watchAccepted(name string, grid store.SummaryColumn, windows []store.WindowSummary) {
	if _, _, ok := ofSegment(name); !ok {
		m.setEvidence(name, evidenceOf(grid, m.allParts(windows)))
	}
}

// recountAccepted counts what is accepted until a time anew where a new reference
// brought other bins, or left nobody to watch for slow changes of it. It ends where
// its rows, or its column, are gone.
func (m *Monitor) recountAccepted(ctx context.Context) error {
	kept := map[string][]*acceptance{}
	var ended []store.Incident
	for _, name := range slices.Sorted(maps.Keys(m.Accepted)) {
		_, _, segment := ofSegment(name)
		watched := segment || len(m.slowRanges(name)) > 0
		for _, a := range m.Accepted[name] {
			again, known := *a, a.baseline.Grid.ID() == m.gridOf(name)
			if a.Over || known && watched {
				kept[name] = append(kept[name], &again)
				continue
			}
			windows, grid, err := m.countAccepted(ctx, &again)
			if err != nil {
				return err
			}
			if known { // it stays as it was learnt, also where its rows are gone
				again.baseline = a.baseline
			}
			switch {
			case grid != nil:
				m.watchAccepted(name, *grid, windows)
			case !known:
				again.Incident.State = lapsedChange
				ended = append(ended, again.Incident)
				continue
			}
			kept[name] = append(kept[name], &again)
		}
	}
	m.Accepted, m.changed = kept, append(m.changed, ended...)
	return nil
}

// gridOf is the identity of the grid of a column, or of a segment's; 0: it has
// none.
func (m *Monitor) gridOf(name string) uint64 {
	if column, _, ok := ofSegment(name); ok {
		name = column
	}
	for _, c := range m.grids {
		if c.Name == name {
			return c.Grid.ID()
		}
	}
	return 0
}

// inForce are a column's acceptances that are not over, the newest last.
func (m *Monitor) inForce(name string) (out []*acceptance) {
	for _, a := range m.Accepted[name] {
		if !a.Over {
			out = append(out, a)
		}
	}
	return out
}

// baselineSince is what a column is held against while it is accepted as it is.
// Few windows do not say how restless it is: as long as there are too few, it is
// taken to be as restless as it was, if that is more than the stated distance.
func (m *Monitor) baselineSince(c store.SummaryColumn, windows []store.WindowSummary, was *Baseline) (*Baseline, error) {
	b, err := LearnBaseline(c.Grid, m.allParts(windows), 1)
	if err != nil {
		return nil, fmt.Errorf("learn %s as accepted: %w", c.Name, err)
	}
	if was == nil {
		return b, nil
	}
	restless := func(f *control.Floor) bool {
		return f.Known() && f.At(0, m.cfg.Options.Alpha) > m.cfg.Options.Fallback
	}
	if !b.Shape.Known() && restless(was.Shape) {
		b.Shape = was.Shape
	}
	if !b.Missing.Known() && restless(was.Missing) {
		b.Missing = was.Missing
	}
	return b, nil
}

// allParts are windows with those of incidents.
func (m *Monitor) allParts(windows []store.WindowSummary) []SlotWindow {
	out := make([]SlotWindow, len(windows))
	for i, w := range windows {
		out[i] = SlotWindow{m.cfg.slot(w.Start), w.Summary}
	}
	return out
}

// slowRanges are the ranges that slow changes of a column are watched in.
func (m *Monitor) slowRanges(column string) map[string][2]float64 {
	out := map[string][2]float64{}
	for _, detector := range []string{missingSlowly, meanSlowly} {
		if d := m.evidence[incidentKey(column, detector)]; d != nil {
			out[detector] = [2]float64{d.Low, d.High}
		}
	}
	return out
}

// lapse ends the acceptances that do not reach a window, before it is judged.
// The reference, and what else is accepted, hold on, and what is seen of the
// column counts from here on. An incident that is open stays open until its
// column is calm.
func (m *Monitor) lapse(start time.Time, segments bool) {
	for _, name := range slices.Sorted(maps.Keys(m.Accepted)) { // what is told has an order
		if _, _, of := ofSegment(name); of != segments {
			continue
		}
		for _, a := range m.inForce(name) {
			if !start.Before(a.Incident.Until) {
				m.lapseOne(name, a)
			}
		}
		m.Accepted[name] = slices.DeleteFunc(m.Accepted[name], func(a *acceptance) bool {
			return a.Over && !start.Before(a.Incident.Until.Add(keepAccepted))
		})
		if len(m.Accepted[name]) == 0 {
			delete(m.Accepted, name)
		}
	}
}

func (m *Monitor) lapseOne(name string, a *acceptance) {
	left := m.inForce(name)
	i := slices.Index(left, a)
	a.Over = true
	if i+1 < len(left) { // what is watched slowly is the newer one
		left[i+1].Slow = a.Slow
	} else {
		for key, i := range m.watch.Incidents {
			if strings.HasPrefix(key, incidentKey(name, "")) && !i.Open {
				delete(m.watch.Incidents, key)
			}
		}
		of := map[string]*control.Detector{}
		for detector, r := range a.Slow {
			of[detector] = control.NewDetector(r[0], r[1])
		}
		m.setEvidence(name, of)
	}
	m.mark(incidentKey(name, a.Incident.Detector), lapsedChange)
	rec := a.Incident
	rec.State = lapsedChange
	m.changed = append(m.changed, rec)
}

// packAccepted adds what is stored of acceptances that are remembered.
func (m *Monitor) packAccepted(parts map[string]string) error {
	for name, given := range m.Accepted {
		for _, a := range given {
			text, err := json.Marshal(a.baseline)
			if err != nil {
				return fmt.Errorf("save what is accepted of %s: %w", name, err)
			}
			parts[acceptedPart+a.Incident.ID] = string(text)
			delete(m.orphans, acceptedPart+a.Incident.ID)
		}
	}
	return nil
}

// unpackAccepted reads what packAccepted wrote. What is stored of acceptances that
// nobody remembers any more is removed when the monitor is saved next.
func (m *Monitor) unpackAccepted(parts map[string]string) error {
	m.orphans = map[string]bool{}
	for part := range parts {
		m.orphans[part] = strings.HasPrefix(part, acceptedPart)
	}
	maps.DeleteFunc(m.orphans, func(_ string, is bool) bool { return !is })
	for name, given := range m.Accepted {
		m.Accepted[name] = slices.DeleteFunc(given, func(a *acceptance) bool { return parts[acceptedPart+a.Incident.ID] == "" })
		for _, a := range m.Accepted[name] {
			delete(m.orphans, acceptedPart+a.Incident.ID)
			a.baseline = &Baseline{Grid: new(dist.Grid)}
			if err := json.Unmarshal([]byte(parts[acceptedPart+a.Incident.ID]), a.baseline); err != nil {
				return fmt.Errorf("read what is accepted of %s: %w", name, err)
			}
		}
	}
	return nil
}
