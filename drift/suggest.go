package drift

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// Constraints answers the kind "constraints": what every window should keep, as
// the reference of each monitor of a view or model suggests. See
// [LearnConstraints].
func (s *Scheduler) Constraints(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, w := range ws {
		f, err := w.monitor.suggest(ctx, r.Columns)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (m *Monitor) suggest(ctx context.Context, only []string) (query.Frame, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := query.Frame{Name: m.cfg.Name, Type: query.Table}
	if m.baselines == nil {
		return f, fmt.Errorf("%w: %s: %s", store.ErrInvalid, m.cfg.Subject, m.state())
	}
	var limits []Limit
	for group := range slices.Chunk(m.grids, 8) {
		group = slices.DeleteFunc(slices.Clone(group), func(c store.SummaryColumn) bool { return len(only) > 0 && !slices.Contains(only, c.Name) })
		parts, err := m.referenceParts(ctx, group)
		if err != nil {
			return f, err
		}
		for _, c := range group {
			if len(parts[c.Name]) == 1 {
				f.Notices = append(f.Notices, query.Notice{Severity: "warning", Text: c.Name + ": the reference's windows are not there one by one, so nothing tried what it suggests"})
			}
			found, err := LearnConstraints(c.Name, c.Grid, parts[c.Name])
			if err != nil {
				return f, fmt.Errorf("constraints of %s: %w", c.Name, err)
			}
			limits = append(limits, found...)
		}
	}
	f.Columns = limitColumns(limits)
	return f, nil
}

// referenceParts are the reference's windows by column, without those of the
// column's own incidents; of a file, or where the rows are gone, all of it as
// one.
func (m *Monitor) referenceParts(ctx context.Context, columns []store.SummaryColumn) (map[string][]*dist.Summary, error) {
	out := map[string][]*dist.Summary{}
	if m.cfg.File == "" && len(columns) > 0 {
		windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, columns, m.cfg.From, m.cfg.To, m.cfg.Window)
		if err != nil {
			return nil, err
		}
		for _, c := range columns {
			for _, p := range m.parts(c.Name, windows) {
				out[c.Name] = append(out[c.Name], p.Summary)
			}
		}
	}
	for _, c := range columns {
		if len(out[c.Name]) == 0 {
			out[c.Name] = []*dist.Summary{m.baselines[c.Name].Reference}
		}
	}
	return out, nil
}

func limitColumns(limits []Limit) []query.Column {
	var column, kind, value []string
	var windows, broken []int64
	var withheld []bool
	for _, l := range limits {
		text := strconv.FormatFloat(l.Value, 'g', -1, 64)
		if l.Kind == DomainLimit {
			b, _ := json.Marshal(l.Values) // texts
			text = string(b)
		}
		column, kind, value = append(column, l.Column), append(kind, string(l.Kind)), append(value, text)
		windows, broken, withheld = append(windows, int64(l.Windows)), append(broken, int64(l.Broken)), append(withheld, l.Withheld())
	}
	return []query.Column{{Name: "column", Type: query.Text, Values: some(column)}, {Name: "limit", Type: query.Text, Values: some(kind)},
		{Name: "value", Type: query.Text, Values: some(value)}, {Name: "windows", Type: query.Int, Values: some(windows)},
		{Name: "broken", Type: query.Int, Values: some(broken)}, {Name: "withheld", Type: query.Bool, Values: some(withheld)}}
}
