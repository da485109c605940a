package drift

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/store"
)

const (
	// backlogParts bounds the derived summaries that are read in one statement.
	backlogParts = 4096
	// verdictsAtOnce bounds the verdicts that one statement stores.
	verdictsAtOnce = 20_000
)

// backlog holds the derived parts of windows that are to be judged one after
// the other: after a pause or an import there are hundreds, and a statement for
// each costs more than the judging.
type backlog struct {
	until time.Time // parts that start before it are here
	parts map[int64][]store.WindowSummary
}

// read answers the parts of the window that starts at a time, and fetches those
// of the closed windows behind it along with them.
func (b *backlog) read(ctx context.Context, m *Monitor, start, now time.Time) ([]store.WindowSummary, error) {
	window := m.cfg.Window
	if end := start.Add(window); end.After(b.until) {
		most := max(1, backlogParts/(len(m.grids)*int(window/m.cfg.grain())+1))
		b.until = end
		for n := 1; n < most && m.closed(b.until.Add(window), now); n++ {
			b.until = b.until.Add(window)
		}
		saved, err := m.store.SavedSummaries(ctx, m.cfg.Table, start, b.until, m.cfg.grain())
		if err != nil {
			b.until = time.Time{}
			return nil, err
		}
		b.parts = map[int64][]store.WindowSummary{}
		for _, w := range saved {
			at := w.Start.Truncate(window).UnixMicro()
			b.parts[at] = append(b.parts[at], w)
		}
	}
	return b.parts[start.UnixMicro()], nil
}

// judgeClosed judges windows in order; stretches without rows are skipped, for
// silence is a question of its own.
func (m *Monitor) judgeClosed(ctx context.Context, now time.Time, revision uint64) (out []store.Verdict, err error) {
	defer func() { err = errors.Join(err, m.saveVerdicts(ctx, revision)) }()
	var ahead backlog
	for n := 0; n < atOnce && m.closed(m.Next.Add(m.cfg.Window), now); n++ {
		switched := m.Switched
		if err := m.promote(ctx, revision); err != nil || m.baselines == nil {
			return out, err
		}
		if !m.Switched.Equal(switched) {
			ahead = backlog{} // counted anew, on other grids
		}
		parts, err := ahead.read(ctx, m, m.Next, now)
		if err != nil {
			return out, fmt.Errorf("window %s: %w", m.Next.Format(time.RFC3339), err)
		}
		m.lapse(m.Next, false)
		vs, err := m.judge(ctx, m.Next, parts, revision, true)
		if err != nil {
			return out, fmt.Errorf("window %s: %w", m.Next.Format(time.RFC3339), err)
		}
		out = append(out, vs...)
		m.Next = m.Next.Add(m.cfg.Window)
		if len(vs) > 0 {
			continue
		}
		m.skipped["no_rows"]++
		at, err := m.store.NextSummary(ctx, m.cfg.Table, m.Next, m.cfg.grain())
		if err != nil {
			return out, err
		}
		if at.IsZero() {
			break
		}
		m.Next = at.Truncate(m.cfg.Window)
	}
	return out, nil
}

// judgeAgain judges windows that late rows reached.
func (m *Monitor) judgeAgain(ctx context.Context, late []time.Time, revision uint64) (out []store.Verdict, err error) {
	defer func() { err = errors.Join(err, m.saveVerdicts(ctx, revision)) }()
	for _, start := range late {
		parts, err := m.store.SavedSummaries(ctx, m.cfg.Table, start, start.Add(m.cfg.Window), m.cfg.grain())
		if err != nil {
			return out, fmt.Errorf("window %s again: %w", start.Format(time.RFC3339), err)
		}
		vs, err := m.judge(ctx, start, parts, revision, false)
		if err != nil {
			return out, fmt.Errorf("window %s again: %w", start.Format(time.RFC3339), err)
		}
		out = append(out, vs...)
	}
	return out, nil
}

// judge merges a window's parts and keeps what is to be said of it: nothing
// where it has no rows. A window judged before changes its verdict but not the
// incident, which saw it already.
func (m *Monitor) judge(ctx context.Context, start time.Time, parts []store.WindowSummary, revision uint64, step bool) ([]store.Verdict, error) {
	end, again := start.Add(m.cfg.Window), !step
	step = step && !m.past(start, end)
	columns, err := m.merge(parts, start)
	if err != nil {
		return nil, err
	}
	rows := uint64(0)
	for _, c := range columns {
		rows = max(rows, c.Window.Rows())
	}
	if rows == 0 {
		return nil, nil
	}
	beside, err := m.foreign(ctx, start, end)
	if err != nil {
		return nil, err
	}
	slot := m.cfg.slot(start)
	var out []store.Verdict
	for _, j := range m.judgements(columns, beside, slot, rows, step) {
		if again && j.Detector != constraint && j.Detector != domain && m.renewed(j.Column, start) {
			continue
		}
		c := Column{Name: j.Column}
		if k := slices.IndexFunc(columns, func(o Column) bool { return o.Name == j.Column }); k >= 0 {
			c = columns[k]
		}
		f := Finding{Judgement: j, At: end}
		if step && j.Detector != "psi" {
			f = m.watch.Step(j, end)
		}
		v := m.verdict(c, f, start, end)
		if step {
			m.hush(&v, f)
		}
		out = append(out, v)
	}
	if m.unsaved = append(m.unsaved, out...); len(m.unsaved) < verdictsAtOnce {
		return out, nil
	}
	return out, m.saveVerdicts(ctx, revision)
}

// saveVerdicts stores what was judged since it was last called. What cannot be
// stored is kept for the next tick: its incidents have taken it in.
func (m *Monitor) saveVerdicts(ctx context.Context, revision uint64) error {
	if err := m.store.SaveVerdicts(ctx, m.cfg.Table, m.unsaved, revision); err != nil {
		return err
	}
	m.unsaved = nil
	return nil
}
