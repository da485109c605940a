package drift

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/gonum/mathext"

	"github.com/kedge-ml/kedge/query"
)

// Preview answers the kind "reference": what may be expected of a monitor's
// reference before anything drifts. Per column: how far it drifts within itself,
// how far its own windows lie from it, the floor that follows, the smallest
// distance that a window of usual size is told by, and how many windows a day may
// be false alarms at most. Notices hold its length against the rhythms that it
// should know, and say how many false incidents are expected.
func (s *Scheduler) Preview(_ context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, w := range ws {
		out = append(out, w.monitor.preview())
	}
	return out, nil
}

func (m *Monitor) preview() query.Frame {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := query.Frame{Name: m.cfg.Name, Type: query.Table}
	if m.baselines == nil {
		f.Notices = append(f.Notices, query.Notice{Severity: "warning", Text: m.state()})
	} else {
		f.Notices = slices.Concat(m.lengthNotices(), m.alarmNotices())
	}
	f.Notices = append(f.Notices, m.watchedNotices()...)
	var names []string
	var rows []uint64
	var halves, plain []*float64
	var typical, floor, smallest, alarms []float64
	for _, c := range m.grids {
		b := m.baselines[c.Name]
		if b == nil {
			continue
		}
		names, rows = append(names, c.Name), append(rows, b.Reference.Rows())
		limit, center := m.cfg.Options.Fallback, 0.0
		if b.Shape.Known() {
			limit, center = b.Shape.At(0, m.cfg.Options.Alpha), b.Shape.Center
		}
		var h, p *float64
		if b.Self != nil {
			h, p = &b.Self.Halves, &b.Self.Plain
			if *h >= max(m.cfg.Options.Fallback, center) {
				f.Notices = append(f.Notices, query.Notice{Severity: "warning", Text: fmt.Sprintf(
					"%s drifts within its own reference: the halves are %.3g apart, a window typically %.3g from the rest; a later, or a longer, reference would tell smaller changes", c.Name, *h, center)})
			}
		}
		halves, plain = append(halves, h), append(plain, p)
		typical, floor, smallest = append(typical, center), append(floor, limit), append(smallest, m.smallest(b))
		alarms = append(alarms, m.cfg.Options.Alpha*m.aDay()/float64(max(len(m.grids), 1)))
	}
	number := func(name, unit string, v []float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Unit: unit, Values: some(v)}
	}
	f.Columns = []query.Column{{Name: "column", Type: query.Text, Values: some(names)}, {Name: "reference_rows", Type: query.Uint, Values: some(rows)},
		{Name: "self_drift", Type: query.Float, Nullable: true, Values: some(halves)}, number("typical_distance", "", typical), number("floor", "", floor),
		number("smallest_detectable", "", smallest), number("drifted_windows_a_day_at_most", "", alarms),
		{Name: "a_plain_test_would_tell", Type: query.Float, Unit: "percentunit", Nullable: true, Values: some(plain)}}
	return f
}

// aDay is how many windows a day has.
func (m *Monitor) aDay() float64 {
	return (24 * time.Hour).Seconds() / max(m.cfg.Window.Seconds(), 1)
}

// smallest is the distance from which on a window with as many rows as the
// reference's have is told, where its column alone moves: neither chance nor the
// reference's own unrest may explain it, after correction for all that is asked
// of the tick.
func (m *Monitor) smallest(b *Baseline) float64 {
	return smallestDistance(b, float64(b.Reference.Rows())*m.cfg.Window.Seconds()/max(m.length().Seconds(), 1), questions*len(m.grids), m.cfg.Options)
}

func smallestDistance(b *Baseline, rows float64, asked int, o Options) float64 {
	alone := o.Alpha / float64(max(asked, 1))
	least := o.Fallback
	if b.Shape.Known() {
		least = max(b.Shape.At(0, o.Alpha), b.Shape.At(0, alone))
	}
	counts, err := b.Reference.Dense(b.Grid)
	if err != nil || rows < 1 || b.Reference.Count == 0 {
		return least
	}
	return min(1, max(least, plainDistance(b.Grid, counts, rows, alone)))
}

// length is how long the reference is; that of a file has no time.
func (m *Monitor) length() time.Duration { return m.cfg.To.Sub(m.cfg.From) }

// lengthNotices hold the reference's length against the rhythms of day and week,
// and against the season that it is cut into.
func (m *Monitor) lengthNotices() []query.Notice {
	if m.cfg.File != "" {
		return nil
	}
	const day, week = 24 * time.Hour, 7 * 24 * time.Hour
	length, season := m.length(), m.cfg.Season
	var out []query.Notice
	switch {
	case length < day:
		out = append(out, query.Notice{Severity: "warning", Text: fmt.Sprintf("the reference is %v long: the rhythm of the day is not in it", length)})
	case length < week:
		out = append(out, query.Notice{Severity: "info", Text: fmt.Sprintf("the reference is %v long: the rhythm of the week is not in it", length)})
	}
	if season == 0 || season < m.cfg.Window {
		return out
	}
	slots, own := int(season/m.cfg.Window), 0
	for _, b := range m.baselines {
		own = max(own, len(b.Slots))
	}
	n := query.Notice{Severity: "info", Text: fmt.Sprintf("the reference is %v long, %.1f times its season of %v: %d of %d windows of the season have been there %d times, and are held against their like",
		length, length.Seconds()/season.Seconds(), season, own, slots, minSlotWindows)}
	if own < slots {
		n.Severity = "warning"
		n.Text += fmt.Sprintf("; %v of reference would do for all", minSlotWindows*season)
	}
	return append(out, n)
}

// alarmNotices say what comes of chance where nothing drifts.
func (m *Monitor) alarmNotices() []query.Notice {
	windows := m.cfg.Options.Alpha * m.aDay()
	text := fmt.Sprintf("where nothing drifts at most %.3g windows a day have a drifted column; if windows are independent, %.2g incidents in %d days come of that",
		windows, m.falseIncidents()*falseDays, falseDays)
	if len(m.evidence) > 0 {
		text += fmt.Sprintf(", and of slow changes one in %v", m.cfg.Between)
	}
	return []query.Notice{{Severity: "info", Text: text}}
}

// falseDays is the stretch that false incidents are counted for.
const falseDays = 30

// falseIncidents is how many incidents a day are opened by windows that drift by
// chance, each column's as often as the others', independently, and none
// critical: the last of need among of drifts, and need − 1 of those before it.
func (m *Monitor) falseIncidents() float64 {
	p, columns := m.cfg.Policy, float64(max(len(m.grids), 1))
	rate := m.cfg.Options.Alpha / columns
	before := 1.0
	if p.Need > 1 {
		before = mathext.RegIncBeta(float64(p.Need-1), float64(p.Of-p.Need+1), rate) // at least need − 1 of a binomial
	}
	return columns * m.aDay() * rate * before
}

// watchedNotices say what is watched in which segments, what is held against
// something else for a while, and what is not watched.
func (m *Monitor) watchedNotices() []query.Notice {
	var out []query.Notice
	note := func(severity, format string, args ...any) {
		out = append(out, query.Notice{Severity: severity, Text: fmt.Sprintf(format, args...)})
	}
	if m.segments != nil {
		for _, by := range m.segments.by {
			note("info", "segments by %s, in windows of %v: %s", by.Name, m.segments.window, strings.Join(by.Values, ", ")+" and the rest")
		}
		for _, name := range m.segments.capped {
			note("warning", "the dimension %s is left out: the budget of %d columns × segments is spent", name, m.cfg.Budget)
		}
	}
	for _, column := range slices.Sorted(maps.Keys(m.Accepted)) {
		for _, a := range m.inForce(column) {
			note("info", "%s is held against what it was since %s: it is %s", column, a.From.UTC().Format(time.RFC3339), a.said())
		}
	}
	for _, column := range slices.Sorted(maps.Keys(m.refused)) {
		note("info", "%s is not watched: %s", column, m.refused[column])
	}
	return out
}
