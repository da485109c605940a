package drift

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/store"
)

// Alert is one message about a subject: what opened, worsened or ended in one
// tick, the worst first. Its ID stays the same as long as anything is open.
type Alert struct {
	ID        string        `json:"id"`
	Namespace string        `json:"namespace"`
	Monitor   string        `json:"monitor"`
	Subject   string        `json:"subject"`
	At        time.Time     `json:"at"`
	Severity  string        `json:"severity"`
	Open      int           `json:"open"` // incidents that are open now
	Sentence  string        `json:"sentence"`
	Changes   []AlertChange `json:"changes"`
}

// AlertChange is one incident of an alert.
type AlertChange struct {
	Incident string `json:"incident"`
	Change   string `json:"change"`
	Column   string `json:"column"`
	Detector string `json:"detector"`
	Severity string `json:"severity"`
	Sentence string `json:"sentence"`
	level    control.Severity
	weight   float64 // how far beyond what is relevant, times importance
}

// open is how many incidents are open.
func (w *Watch) open() int {
	n := 0
	for _, i := range w.Incidents {
		if i.Open {
			n++
		}
	}
	return n
}

// hush silences what somebody asked not to hear of, and keeps the books of
// incidents.
func (m *Monitor) hush(v *store.Verdict, f Finding) {
	key := incidentKey(f.Column, f.Detector)
	inc, change := m.watch.Incidents[key], f.Change
	why := ""
	if m.silence != nil && inc.Open {
		why = m.silence(store.Incident{ID: m.incidentID(key, inc.Since), Column: f.Column, Detector: f.Detector, Opened: inc.Since}, f.At)
	}
	switch {
	case why != "" && (change == control.Opened || change == control.Worsened):
		inc, change = inc.Silence()
	case why == "" && change == control.Same && f.Drifted:
		if m.Open[key].State == "snoozed" { // told before it, and still there after it
			inc, _ = inc.Silence()
		}
		inc, change = inc.Speak()
	}
	m.watch.Incidents[key] = inc
	v.Change = change.String()
	if mark, ok := m.Marks[key]; ok {
		delete(m.Marks, key)
		if change == control.Same {
			v.Change = mark
		}
	}
	m.keepBooks(key, inc, change, f, v.Sentence, why)
}

func (m *Monitor) keepBooks(key string, inc control.Incident, change control.Change, f Finding, sentence, why string) {
	rec, known := m.Open[key]
	switch {
	case !known && !inc.Open:
		return
	case !known:
		rec = store.Incident{Namespace: m.cfg.Namespace, ID: m.incidentID(key, inc.Since), Monitor: m.cfg.Name, Subject: m.cfg.Subject,
			Column: f.Column, Detector: f.Detector, Opened: inc.Since, State: "open"}
		if change == control.Suppressed {
			rec.State, rec.Why = "silenced", cmp.Or(why, "it came back within the cool-down")
		}
	case change == control.Same && inc.Open:
		return
	case change == control.Opened || change == control.Worsened:
		rec.State = "open"
	}
	if m.Open == nil {
		m.Open = map[string]store.Incident{}
	}
	rec.Told = rec.Told || inc.Told
	if inc.Open {
		rec.Severity, rec.Sentence = inc.Worst.String(), sentence
		m.Open[key] = rec
	} else {
		rec.State, rec.Ended = "resolved", f.At
		delete(m.Open, key)
		m.unquiet(f.Column, rec.Opened.Add(-m.cfg.Window), f.At)
	}
	m.changed = append(m.changed, rec)
	if change == control.Opened || change == control.Worsened || change == control.Resolved {
		m.told = append(m.told, AlertChange{Incident: rec.ID, Change: change.String(), Column: f.Column, Detector: f.Detector, Severity: rec.Severity, Sentence: sentence, level: max(inc.Worst, f.Severity),
			weight: control.Times(f.Effect, f.Floor) * (0.5 + m.importance(f.Column))})
	}
}

// incidentID is the same however often the windows are judged.
func (m *Monitor) incidentID(key string, since time.Time) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%d", m.cfg.Namespace, m.cfg.Name, key, since.UnixMicro())
	return hex.EncodeToString(h.Sum(nil))
}

// unquiet remembers when a column was not itself.
func (m *Monitor) unquiet(column string, from, to time.Time) {
	if m.Unquiet == nil {
		m.Unquiet = map[string][][2]time.Time{}
	}
	m.Unquiet[column] = append(m.Unquiet[column], [2]time.Time{from, to})
}

// Alert is what is to be told since it was last asked; ok is false when that is
// nothing.
func (m *Monitor) Alert(now time.Time) (a Alert, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.told) == 0 {
		return a, false
	}
	changes := m.told
	m.told = nil
	slices.SortStableFunc(changes, func(a, b AlertChange) int {
		return cmp.Or(cmp.Compare(b.level, a.level), cmp.Compare(b.weight, a.weight))
	})
	first := now
	for _, rec := range m.Open {
		if rec.Opened.Before(first) {
			first = rec.Opened
		}
	}
	if m.Unrest.IsZero() {
		m.Unrest = first
	}
	a = Alert{ID: m.incidentID("", m.Unrest), Namespace: m.cfg.Namespace, Monitor: m.cfg.Name, Subject: m.cfg.Subject,
		At: now, Severity: changes[0].Severity, Open: len(m.Open), Changes: changes, Sentence: headline(m.cfg.Subject, changes)}
	if len(m.Open) == 0 {
		m.Unrest = time.Time{}
	}
	return a, true
}

// headline names the subject and its worst columns.
func headline(subject string, changes []AlertChange) string {
	ended := []string{control.Resolved.String(), acceptedChange}
	if !slices.ContainsFunc(changes, func(c AlertChange) bool { return !slices.Contains(ended, c.Change) }) {
		subject += ", over"
	}
	if len(changes) == 1 {
		return subject + ": " + changes[0].Sentence
	}
	var columns []string
	for _, c := range changes {
		if !slices.Contains(columns, c.Column) {
			columns = append(columns, c.Column)
		}
	}
	const most = 3
	also := ""
	if len(columns) > most {
		also, columns = fmt.Sprintf(" and %d more", len(columns)-most), columns[:most]
	}
	return fmt.Sprintf("%s: %s%s. %s", subject, strings.Join(columns, ", "), also, changes[0].Sentence)
}

// carryOut makes what people decided visible on open incidents, and takes new
// references where they asked for them, each once.
func (m *Monitor) carryOut(actions []namedAction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	given := map[string]bool{}
	for _, n := range actions {
		given[n.name] = true
		if n.action.Monitor == m.cfg.Name && n.action.Do != Planned {
			m.act(n)
		}
	}
	m.Acts = slices.DeleteFunc(m.Acts, func(done string) bool { return !given[done[:strings.LastIndexByte(done, '/')]] })
}

func (m *Monitor) act(n namedAction) {
	a, done := n.action, n.name+"/"
	if a.Do == Accept && a.Incident == "" && slices.ContainsFunc(m.Acts, func(d string) bool { return strings.HasPrefix(d, done) }) {
		return // it meant what was open then
	}
	for key, rec := range m.Open {
		if !a.about(m.cfg.Name, rec.Column, rec.Detector) || a.Incident != "" && a.Incident != rec.ID || slices.Contains(m.Acts, done+rec.ID) {
			continue
		}
		renewed := a.Do == Accept && referenced(rec)
		if !renewed && !a.silences(m.cfg.Name, rec, m.Next) {
			continue
		}
		m.Acts = append(m.Acts, done+rec.ID)
		rec.State, rec.Who, rec.Why, rec.Until = map[ActionVerb]string{Snooze: "snoozed", Acknowledge: "acknowledged", Accept: "accepted"}[a.Do], n.who, n.why, a.Until
		if renewed {
			m.accept(key, rec)
			continue
		}
		m.Open[key] = rec
		m.changed = append(m.changed, rec)
	}
	if a.Do == Accept && a.Incident == "" && !slices.Contains(m.Acts, done) {
		m.Acts = append(m.Acts, done)
	}
}
