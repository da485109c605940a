package drift

import (
	"context"
	"slices"
	"time"
)

// derive counts anew every stretch of time that the ledger says is dirty, and
// answers the judged windows that changed. Minutes that are not over wait.
func (m *Monitor) derive(ctx context.Context, now time.Time, revision uint64) (late []time.Time, err error) {
	since := m.Dirty
	if now.Sub(m.Arrived) < time.Minute {
		since = since.Add(-ledgerOverlap)
	}
	minutes, imported, until, err := m.store.DirtyMinutes(ctx, m.cfg.Table, since)
	if err != nil {
		return nil, err
	}
	m.imported(imported)
	minutes = append(minutes, m.Pending...)
	slices.SortFunc(minutes, time.Time.Compare)
	minutes = slices.CompactFunc(minutes, time.Time.Equal)
	over := slices.IndexFunc(minutes, func(t time.Time) bool { return t.Add(base + 5*time.Second).After(now) })
	var waiting []time.Time
	if over >= 0 {
		minutes, waiting = minutes[:over], slices.Clone(minutes[over:])
	}
	if err := m.deriveMinutes(ctx, minutes, revision); err != nil {
		return nil, err
	}
	m.reached(minutes)
	for _, t := range minutes {
		start := t.Truncate(m.cfg.Window)
		if !start.Before(m.held()) && start.Before(m.Next) && !slices.Contains(late, start) {
			late = append(late, start)
		}
		if end := t.Add(base); end.After(m.Seen) {
			m.Seen = end
		}
	}
	if until.After(m.Dirty) {
		m.Dirty, m.Arrived = until, now
	}
	m.Pending = waiting
	m.Live = m.Live || !m.Seen.IsZero() && now.Sub(m.Seen) < m.cfg.Window+10*time.Minute
	return late, nil
}

// held is when the first window begins that was held against the reference of
// now; those before keep what was said of them.
func (m *Monitor) held() time.Time {
	if m.Switched.After(m.First) {
		return m.Switched
	}
	return m.First
}

// ledgerOverlap is how far back the ledger is read again after news: its rows
// become visible in another order than that of their times.
const ledgerOverlap = 5 * time.Second

func (m *Monitor) deriveMinutes(ctx context.Context, minutes []time.Time, revision uint64) error {
	grain := m.cfg.grain()
	for _, s := range stretches(minutes, grain) {
		windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, m.grids, s[0], s[1], grain)
		if err != nil {
			return err
		}
		if err := m.store.SaveSummaries(ctx, m.cfg.Table, windows, grain, revision); err != nil {
			return err
		}
	}
	return nil
}

const (
	stretchGap   = 10 * time.Minute // dirty minutes that lie this near are one scan: cheaper than two
	maxStretches = 64               // scans of one tick, unless they would be too long
	maxDerived   = 4000             // windows of one scan
)

// stretches are half-open ranges that cover ascending minutes, on the windows'
// boundaries.
func stretches(minutes []time.Time, grain time.Duration) [][2]time.Time {
	gap := max(stretchGap, grain)
	for {
		out := joined(minutes, grain, gap)
		if len(out) <= maxStretches || gap > maxDerived*grain {
			return out
		}
		gap *= 4
	}
}

func joined(minutes []time.Time, grain, gap time.Duration) [][2]time.Time {
	var out [][2]time.Time
	for _, t := range minutes {
		start, end := t.Truncate(grain), t.Truncate(grain).Add(grain)
		if n := len(out); n > 0 && start.Sub(out[n-1][1]) <= gap && end.Sub(out[n-1][0]) <= maxDerived*grain {
			out[n-1][1] = end
			continue
		}
		out = append(out, [2]time.Time{start, end})
	}
	return out
}
