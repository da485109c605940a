package drift

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// correctable is how far back labels are looked at that come after a window
// was measured for good.
const correctable = 90 * 24 * time.Hour

// corrected finds windows that were measured for good and whose labels the
// ledger says came, changed or were withdrawn since. They are measured anew
// with those that are not mature; a time of zero says that their labels have
// had their time.
func (p *performance) corrected(ctx context.Context, m *Monitor, now time.Time) error {
	if m.Labelled.IsZero() {
		m.Labelled = m.Dirty // all windows are still to be measured
	}
	since := m.Labelled
	if now.Sub(p.came) < time.Minute {
		since = since.Add(-ledgerOverlap)
	}
	from := m.First
	if oldest := m.Measured.Add(-correctable); from.Before(oldest) {
		from = oldest
	}
	starts, until, err := p.store.Relabelled(ctx, p.table, p.join(), from, m.Measured, p.fitted.window, since)
	if err != nil {
		return fmt.Errorf("find corrected labels: %w", err)
	}
	if until.After(m.Labelled) {
		m.Labelled, p.came = until, now
	}
	for _, start := range starts {
		if _, waiting := m.Rough[start.UnixMicro()]; !waiting {
			m.roughly(start, time.Time{})
		}
	}
	return nil
}

// reached marks windows that were measured for good and to which late
// predictions came: their labels may be there already. One that was empty has never
// been judged: it is as one that was not mature.
func (m *Monitor) reached(minutes []time.Time) {
	for _, t := range minutes {
		start := t.Truncate(performanceWindow(m.cfg.Window))
		_, waiting := m.Rough[start.UnixMicro()]
		if !waiting && !start.Before(m.First) && start.Before(m.Measured) && !start.Before(m.Measured.Add(-correctable)) {
			at := time.Time{}
			if i := slices.Index(m.Empty, start.UnixMicro()); i >= 0 {
				m.Empty, at = slices.Delete(m.Empty, i, i+1), time.Unix(0, 0)
			}
			m.roughly(start, at)
		}
	}
}

// roughly remembers that a window is to be measured again.
func (m *Monitor) roughly(start, at time.Time) {
	if m.Rough == nil {
		m.Rough = map[int64]time.Time{}
	}
	m.Rough[start.UnixMicro()] = at
}

// thinKept bounds the windows that are remembered as never mature, and those as
// empty.
const thinKept = 500

// thin keeps which windows had too few labels when they were due: if they come
// after all, the window is judged for its incident then, once.
func (m *Monitor) thin(start time.Time, mature bool) (was bool) {
	i := slices.Index(m.Thin, start.UnixMicro())
	switch {
	case mature && i >= 0:
		m.Thin = slices.Delete(m.Thin, i, i+1)
	case !mature && i < 0:
		m.Thin = append(m.Thin, start.UnixMicro())
		m.Thin = m.Thin[max(0, len(m.Thin)-thinKept):]
	}
	return i >= 0
}
