package drift

import (
	"context"
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/query"
)

// Distribution answers the kind "distribution": for each column asked for (all,
// if none) the shares of the reference and of the derived rows in [From, To) in
// every bin, and the bin's part of their distance. It needs a first Tick.
func (m *Monitor) Distribution(ctx context.Context, r query.Request) ([]query.Frame, error) {
	columns, err := m.window(ctx, &r)
	if err != nil {
		return nil, fmt.Errorf("distribution of %s: %w", m.cfg.Subject, err)
	}
	var out []query.Frame
	for _, c := range columns {
		if len(r.Columns) > 0 && !slices.Contains(r.Columns, c.Name) {
			continue
		}
		f, err := distribution(c)
		if err != nil {
			return nil, fmt.Errorf("distribution of %s: %w", c.Name, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func distribution(c Column) (query.Frame, error) {
	cmp, err := Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
	if err != nil {
		return query.Frame{}, err
	}
	parts, err := cmp.Contributions(stat.JS)
	if err != nil {
		return query.Frame{}, err
	}
	var bins []string
	var ref, cur, share []float64
	for _, p := range parts {
		bins = append(bins, p.Label)
		ref, cur, share = append(ref, p.Ref), append(cur, p.Cur), append(share, p.Part)
	}
	number := func(name string, v []float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Unit: "percentunit", Values: v}
	}
	return query.Frame{Name: c.Name, Type: query.Table, Columns: []query.Column{{Name: "bin", Type: query.Text, Values: bins},
		number("reference", ref), number("window", cur), number("contribution", share)}}, nil
}
