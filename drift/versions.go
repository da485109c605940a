package drift

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// pair are two versions of a model over the same time: now against before.
type pair struct {
	now, before string
	from, to    time.Time
}

// VersionCompare answers the kind "version_compare": what a version of a model
// met and answered over a range (default: the last week), beside what another
// one did, column by column and metric by metric. Params name the other one:
// {"against": "1"}.
func (s *Scheduler) VersionCompare(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	p, err := pairOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	w := ws[0]
	columns, err := w.monitor.versions(ctx, p, r.Columns)
	if err != nil {
		return nil, err
	}
	metrics, err := w.perf.versions(ctx, w.monitor, p)
	if err != nil {
		return nil, err
	}
	return []query.Frame{columns, metrics}, nil
}

func pairOf(r query.Request, now time.Time) (pair, error) {
	var params struct {
		Against string `json:"against"`
	}
	if len(r.Params) > 0 {
		if err := event.DecodeStrict(r.Params, &params); err != nil {
			return pair{}, fmt.Errorf("%w: params: %w", store.ErrInvalid, err)
		}
	}
	p := pair{now: r.Version, before: params.Against, from: r.From, to: r.To}
	if p.now == "" || p.before == "" || p.now == p.before {
		return p, fmt.Errorf(`%w: want two versions: version, and params {"against": …}`, store.ErrInvalid)
	}
	if p.to.IsZero() {
		p.to = now
	}
	if p.from.IsZero() {
		p.from = p.to.Add(-7 * 24 * time.Hour)
	}
	if !p.from.Before(p.to) {
		return p, fmt.Errorf("%w: want from before to", store.ErrInvalid)
	}
	return p, nil
}

// length is that of the windows in which the range is counted, to be merged.
func (p pair) length() time.Duration {
	switch span := p.to.Sub(p.from); {
	case span > 7*24*time.Hour:
		return 24 * time.Hour
	case span > 6*time.Hour:
		return time.Hour
	}
	return base
}

// versions judges each column as if the other version's rows were its
// reference. Who carries the same traffic has the same inputs; outputs tell what
// the change is.
func (m *Monitor) versions(ctx context.Context, p pair, only []string) (query.Frame, error) {
	m.mu.Lock()
	grids, table, options, state := slices.Clone(m.grids), m.cfg.Table, m.cfg.Options, m.state()
	ready := m.baselines != nil
	m.mu.Unlock()
	if !ready {
		return query.Frame{}, fmt.Errorf("%w: %s: %s", store.ErrInvalid, m.cfg.Subject, state)
	}
	grids = slices.DeleteFunc(grids, func(c store.SummaryColumn) bool { return len(only) > 0 && !slices.Contains(only, c.Name) })
	by := store.Dimension{Name: "version", Values: []string{p.before, p.now}}
	windows, err := m.store.DeriveSegments(ctx, table, by, grids, p.from, p.to, p.length())
	if err != nil {
		return query.Frame{}, err
	}
	var columns []Column
	for _, c := range grids {
		sides := map[string]*dist.Summary{}
		for _, segment := range by.Segments() {
			sides[segment] = &dist.Summary{GridID: c.Grid.ID()}
		}
		for _, w := range windows {
			if w.Column == c.Name && sides[w.Segment] != nil {
				if err := sides[w.Segment].Merge(w.Summary); err != nil {
					return query.Frame{}, err
				}
			}
		}
		columns = append(columns, Column{Name: c.Name, Importance: m.importance(c.Name), Window: sides["version="+p.now],
			Baseline: &Baseline{Grid: c.Grid, Reference: sides["version="+p.before]}})
	}
	return versionColumns(p, columns, options), nil
}

// versionColumns lists the judgements, what differs most on top.
func versionColumns(p pair, columns []Column, o Options) query.Frame {
	var name, detector, sentence []string
	var effect, adjusted []float64
	var differs []bool
	var rows, against []uint64
	js := Judge(columns, 0, o)
	slices.SortStableFunc(js, func(a, b Judgement) int { return cmp.Compare(b.Effect, a.Effect) })
	for _, j := range js {
		if j.Detector != "ks" && j.Detector != "chi2" && j.Detector != "missing_rate" {
			continue
		}
		c := columns[slices.IndexFunc(columns, func(c Column) bool { return c.Name == j.Column })]
		name, detector, sentence = append(name, j.Column), append(detector, j.Detector), append(sentence, Sentence(c, j))
		effect, adjusted, differs = append(effect, j.Effect), append(adjusted, j.Adjusted), append(differs, j.Drifted)
		rows, against = append(rows, c.Window.Rows()), append(against, c.Baseline.Reference.Rows())
	}
	return query.Frame{Name: "columns", Type: query.Table,
		Notices: []query.Notice{{Severity: "info", Text: fmt.Sprintf("version %s against %s, %s; in the sentences the reference is version %s", p.now, p.before, stretchText(p.from, p.to), p.before)}},
		Columns: []query.Column{{Name: "column", Type: query.Text, Values: some(name)}, {Name: "detector", Type: query.Text, Values: some(detector)},
			{Name: "differs", Type: query.Bool, Values: some(differs)}, {Name: "effect", Type: query.Float, Values: some(effect)}, {Name: "adjusted", Type: query.Float, Values: some(adjusted)},
			{Name: "rows", Type: query.Uint, Values: some(rows)}, {Name: "against_rows", Type: query.Uint, Values: some(against)}, {Name: "sentence", Type: query.Text, Values: some(sentence)}}}
}

// versions measures both on the labelled rows of the range. A difference is
// beyond chance by the errors of both values, after Benjamini–Hochberg.
func (p *performance) versions(ctx context.Context, m *Monitor, of pair) (query.Frame, error) {
	o, err := p.store.Outcomes(ctx, p.table, p.join(), []string{"version"}, of.from, of.to, sampleRows)
	if err != nil {
		return query.Frame{}, err
	}
	m.mu.Lock()
	worth := p.worth
	m.mu.Unlock()
	task := p.task(o)
	side := func(version string) (map[string]perf.Value, int) {
		var index []int
		for i, v := range o.Groups["version"] {
			if v == version {
				index = append(index, i)
			}
		}
		r := rowsOf(pick(o, index), task)
		return r.metrics(worth), r.labelled
	}
	now, labelled := side(of.now)
	before, others := side(of.before)
	var names []string
	for n := range now {
		if _, both := before[n]; both && !sums(n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var values, errs, against, againstErrs, diff, ps []float64
	for _, n := range names {
		a, b := now[n], before[n]
		values, errs, against, againstErrs, diff = append(values, a.Value), append(errs, a.StdErr), append(against, b.Value), append(againstErrs, b.StdErr), append(diff, a.Value-b.Value)
		p := 1.0
		if se := math.Hypot(a.StdErr, b.StdErr); se > 0 {
			p = math.Erfc(math.Abs(a.Value-b.Value) / se / math.Sqrt2)
		}
		ps = append(ps, p)
	}
	number := func(name string, v []float64) query.Column { // NaN is nothing
		out := make([]*float64, len(v))
		for i := range v {
			if !math.IsNaN(v[i]) && !math.IsInf(v[i], 0) {
				out[i] = &v[i]
			}
		}
		return query.Column{Name: name, Type: query.Float, Nullable: true, Values: out}
	}
	f := query.Frame{Name: "metrics", Type: query.Table, Columns: []query.Column{{Name: "metric", Type: query.Text, Values: some(names)}, number("value", values), number("stderr", errs),
		number("against", against), number("against_stderr", againstErrs), number("difference", diff), number("adjusted", control.BenjaminiHochberg(ps))}}
	f.Notices = []query.Notice{{Severity: "info", Text: fmt.Sprintf("%d and %d labelled rows", labelled, others)}}
	return f, nil
}
