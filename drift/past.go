package drift

import (
	"slices"
	"time"
)

// pastGap is how far two windows with imported rows may lie apart to be one
// stretch: history is not always dense.
const pastGap = 24 * time.Hour

// imported notes the windows of ascending minutes to which an import added rows.
// Such windows are judged, and their verdicts kept, but they open no incident:
// nobody can do anything about last year.
func (m *Monitor) imported(minutes []time.Time) {
	if len(minutes) == 0 {
		return
	}
	all := m.Past
	for _, t := range minutes {
		start := t.Truncate(m.cfg.Window)
		if n := len(all); n == len(m.Past) || start.After(all[n-1][0]) {
			all = append(all, [2]time.Time{start, start.Add(m.cfg.Window)})
		}
	}
	slices.SortFunc(all, func(a, b [2]time.Time) int { return a[0].Compare(b[0]) })
	joined := all[:1]
	for _, s := range all[1:] {
		last := &joined[len(joined)-1]
		if s[0].Sub(last[1]) > pastGap {
			joined = append(joined, s)
		} else if s[1].After(last[1]) {
			last[1] = s[1]
		}
	}
	m.Past = joined
}

// past says whether imported rows lie in a range of time.
func (m *Monitor) past(start, end time.Time) bool {
	return slices.ContainsFunc(m.Past, func(s [2]time.Time) bool { return s[0].Before(end) && start.Before(s[1]) })
}
