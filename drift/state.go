package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/store"
)

// memory is what a monitor stores of itself beside its baselines.
type memory struct {
	remembered
	Digest    string                       `json:"digest"` // of the definition that all this was learnt under
	From      time.Time                    `json:"from"`
	To        time.Time                    `json:"to"`
	Window    time.Duration                `json:"window"`
	Season    time.Duration                `json:"season"`
	Incidents map[string]control.Incident  `json:"incidents"`
	Evidence  map[string]*control.Detector `json:"evidence"`
	Refused   map[string]string            `json:"refused"`
}

// parts of the stored state.
const (
	statePart    = "state"
	baselinePart = "baseline/"
)

// FileMonitor is the name under which a reference made from a file is stored.
func FileMonitor(name string) string { return "reference:" + name }

// load reads what an earlier monitor of this name knew, once. A definition that
// has changed since learns anew, and goes on judging where it stood.
func (m *Monitor) load(ctx context.Context) error {
	if m.loaded {
		return nil
	}
	parts, err := m.store.MonitorState(ctx, m.cfg.Namespace, m.cfg.Name)
	if err != nil {
		return err
	}
	m.loaded = true
	var was memory
	if err := json.Unmarshal([]byte(parts[statePart]), &was); err != nil {
		return nil // nothing stored, or not by this version: learn anew
	}
	m.remembered = was.remembered
	if err := m.unpackAccepted(parts); err != nil {
		return err
	}
	if was.Digest != m.asked.Digest {
		m.Answers = m.Answers.anew()
		for column, stretches := range m.Unquiet { // with it goes what was accepted for good
			m.Unquiet[column] = slices.DeleteFunc(stretches, func(r [2]time.Time) bool { return r[0].IsZero() })
		}
		return nil
	}
	if !was.To.IsZero() || m.cfg.File != "" { // else a promoted version is still learning
		if err := m.restoreBaselines(parts); err != nil {
			return fmt.Errorf("read baselines: %w", err)
		}
		if err := m.unpackSegments(parts); err != nil {
			return err
		}
	}
	m.cfg.From, m.cfg.To, m.cfg.Window, m.cfg.Season = was.From, was.To, was.Window, was.Season
	m.watch.Incidents, m.refused = was.Incidents, was.Refused
	for key, d := range was.Evidence {
		if d.Seen == 0 {
			d = control.NewDetector(d.Low, d.High)
		}
		m.evidence[key] = d
	}
	m.noteFresh() // the table may have grown meanwhile
	return nil
}

// remember is load for those who come before the first tick.
func (m *Monitor) remember(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load(ctx)
}

// restoreBaselines also restores the grids that they stand on.
func (m *Monitor) restoreBaselines(parts map[string]string) error {
	learnt := map[string]*Baseline{}
	var grids []store.SummaryColumn
	for _, w := range m.cfg.Columns {
		text, ok := parts[baselinePart+w.Name]
		if !ok {
			continue
		}
		b := &Baseline{Grid: new(dist.Grid)}
		if err := json.Unmarshal([]byte(text), b); err != nil {
			return err
		}
		learnt[w.Name] = b
		grids = append(grids, store.SummaryColumn{Name: w.Name, Grid: b.Grid})
	}
	if len(learnt) > 0 {
		m.baselines, m.grids = learnt, grids
	}
	return nil
}

func (m *Monitor) saveBaselines(ctx context.Context, revision uint64) error {
	parts := map[string]string{}
	for name, b := range m.baselines {
		text, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("save the baseline of %s: %w", name, err)
		}
		parts[baselinePart+name] = string(text)
	}
	if err := errors.Join(m.packSegments(parts), m.packAccepted(parts)); err != nil {
		return err
	}
	if err := m.store.SaveMonitorState(ctx, m.cfg.Namespace, m.cfg.Name, parts, m.stamp(revision)); err != nil {
		return err
	}
	m.saved = time.Time{}
	return m.save(ctx, revision)
}

// save stores the rest when a window was judged since, which is when it would
// cost something to lose it.
func (m *Monitor) save(ctx context.Context, revision uint64) error {
	if m.saved.Equal(m.Next) && len(m.changed) == 0 {
		return nil
	}
	evidence := maps.Clone(m.evidence)
	for key, d := range evidence {
		if d.Seen == 0 { // nothing yet is minus infinity, which JSON cannot say
			evidence[key] = &control.Detector{Low: d.Low, High: d.High}
		}
	}
	text, err := json.Marshal(memory{remembered: m.remembered, Digest: m.asked.Digest, From: m.cfg.From, To: m.cfg.To, Window: m.cfg.Window,
		Season: m.cfg.Season, Incidents: m.watch.Incidents, Evidence: evidence, Refused: m.refused})
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	revision = m.stamp(revision)
	if err := m.store.SaveIncidents(ctx, m.changed, revision); err != nil {
		return err
	}
	parts := map[string]string{statePart: string(text)}
	for part := range m.orphans {
		parts[part] = ""
	}
	if err := m.store.SaveMonitorState(ctx, m.cfg.Namespace, m.cfg.Name, parts, revision); err != nil {
		return err
	}
	m.saved, m.changed, m.orphans = m.Next, nil, nil
	return nil
}

// stamp is the revision under which a monitor stores something of itself: a tick
// may store it twice, and the second is news, not a repeat of the first.
func (m *Monitor) stamp(revision uint64) uint64 {
	m.stored = max(m.stored+1, revision)
	return m.stored
}

// fromFile takes the baselines that were stored from a file.
func (m *Monitor) fromFile(ctx context.Context, revision uint64) error {
	parts, err := m.store.MonitorState(ctx, m.cfg.Namespace, FileMonitor(m.cfg.File))
	if err != nil {
		return err
	}
	if err := m.restoreBaselines(parts); err != nil {
		return fmt.Errorf("reference %s: %w", m.cfg.File, err)
	}
	if m.baselines == nil {
		var has []string
		for part := range parts {
			has = append(has, strings.TrimPrefix(part, baselinePart))
		}
		return fmt.Errorf("reference %s has no column of %s (it has %v): set it with kedge reference set", m.cfg.File, m.cfg.Subject, has)
	}
	first, err := m.store.FirstRows(ctx, m.cfg.Table, m.cfg.To, windowRows)
	if err != nil {
		return err
	}
	if first.Rows == 0 {
		m.baselines = nil
		return &Learning{Windows: "the reference is there, rows are not"}
	}
	if m.cfg.Window == 0 {
		m.cfg.Window = windowFor(float64(first.Rows) / max(first.To.Sub(first.From).Seconds(), 1))
	}
	if err := m.store.SaveGrids(ctx, m.cfg.Table, m.grids, revision); err != nil {
		return err
	}
	if err := m.recountAccepted(ctx); err != nil {
		return err
	}
	m.begin(first.From.Truncate(m.cfg.Window))
	m.outlook = ""
	return m.saveBaselines(ctx, revision)
}

// tellLearning stores the progress of learning as a verdict, for every day
// once and newer ones in its place.
func (m *Monitor) tellLearning(ctx context.Context, l *Learning, now time.Time, revision uint64) ([]store.Verdict, error) {
	m.skipped["learning"]++
	if l.Error() == m.outlook { // nothing new
		return nil, nil
	}
	m.outlook = l.Error()
	v := store.Verdict{Namespace: m.cfg.Namespace, Monitor: m.cfg.Name, Subject: m.cfg.Subject, Column: allRows, Detector: "reference",
		Start: now.UTC().Truncate(24 * time.Hour), End: now, Reason: "learning", Severity: control.Quiet.String(), Change: control.Same.String(),
		Sentence: m.cfg.Subject + ": " + l.Error(), Rows: l.Rows, ReferenceRows: l.Of, P: 1, Adjusted: 1}
	out := []store.Verdict{v}
	return out, m.store.SaveVerdicts(ctx, m.cfg.Table, out, revision)
}
