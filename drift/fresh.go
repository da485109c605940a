package drift

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/store"
)

// whyNew is what is said of a column that came when the others were learnt.
const whyNew = "it is new; it is learnt once it has been there for a while"

// setColumns takes the columns of a table that has grown.
func (m *Monitor) setColumns(columns []WatchedColumn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range columns {
		if !slices.ContainsFunc(m.cfg.Columns, func(o WatchedColumn) bool { return o.Name == c.Name }) {
			m.cfg.Columns = append(m.cfg.Columns, c)
		}
	}
	m.noteFresh()
}

// setNames tells which columns' values say who somebody is. The map is not
// changed afterwards.
func (m *Monitor) setNames(names map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names = names
}

// noteFresh keeps from when on columns are learnt that the reference does not
// know: from the next window, since their first rows lie in the middle of one. A
// reference from a file stays as it is.
func (m *Monitor) noteFresh() {
	if m.baselines == nil || m.cfg.File != "" {
		return
	}
	for _, c := range m.cfg.Columns {
		_, waits := m.Fresh[c.Name]
		if m.baselines[c.Name] != nil || m.refused[c.Name] != "" || c.Optional || waits {
			continue
		}
		if m.Fresh == nil {
			m.Fresh = map[string]time.Time{}
		}
		m.Fresh[c.Name] = m.Next.Add(m.cfg.Window)
		m.refused[c.Name] = whyNew
	}
}

// learnFresh learns columns that have been there for as many windows as a
// reference of first rows spans. Without a value in them a column waits on.
func (m *Monitor) learnFresh(ctx context.Context, revision uint64) error {
	for _, c := range slices.Clone(m.cfg.Columns) {
		since, fresh := m.Fresh[c.Name]
		if m.baselines[c.Name] != nil { // learnt with another definition, or version
			delete(m.Fresh, c.Name)
			continue
		}
		if !fresh || m.Next.Before(since.Add(learnWindows*m.cfg.Window)) {
			continue
		}
		delete(m.refused, c.Name)
		grid, err := m.cutGrid(ctx, c, since, m.Next)
		switch {
		case errors.Is(err, dist.ErrNoSample):
			m.Fresh[c.Name], m.refused[c.Name] = m.Next, whyNew
			continue
		case errors.Is(err, errIdentifier), errors.Is(err, errText):
			delete(m.Fresh, c.Name)
			m.refused[c.Name] = err.Error()
			m.describeFresh(c.Name, since)
			continue
		case err != nil:
			m.refused[c.Name] = whyNew
			return err
		}
		if err := m.takeFresh(ctx, grid, since, revision); err != nil {
			m.refused[c.Name] = whyNew
			return err
		}
	}
	return nil
}

// describeFresh has the descriptors of a new text learnt from the same rows.
func (m *Monitor) describeFresh(column string, since time.Time) {
	for _, d := range m.cfg.Columns {
		if d.OfText == column && m.refused[column] == errText.Error() {
			m.Fresh[d.Name] = since
		}
	}
}

// takeFresh begins to watch a column. What came of it after its reference is
// counted on its grid, for the windows to come.
func (m *Monitor) takeFresh(ctx context.Context, c store.SummaryColumn, since time.Time, revision uint64) error {
	if err := m.store.SaveGrids(ctx, m.cfg.Table, []store.SummaryColumn{c}, revision); err != nil {
		return err
	}
	if err := m.learnColumn(ctx, c, since); err != nil {
		return err
	}
	m.grids = append(m.grids, c)
	delete(m.Fresh, c.Name)
	var minutes []time.Time
	for t := m.Next; t.Before(m.Seen); t = t.Add(base) {
		minutes = append(minutes, t)
	}
	if err := m.deriveMinutes(ctx, minutes, revision); err != nil {
		return err
	}
	return m.saveBaselines(ctx, revision)
}
