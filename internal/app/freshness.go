package app

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

// watched is a registered view or model: it reports its age whether or not a row
// of it was ever seen, so that silence is a value and not a gap.
type watched struct {
	event.Kind
	registry.Definition
	columns []event.FieldSpec // those in use
}

// watchedSubjects are the views and models that a request is about and that are
// in use.
func (a *App) watchedSubjects(r query.Request) ([]watched, error) {
	var out []watched
	state := a.registry.State()
	for kind, stream := range map[string]event.Kind{event.FeatureViewKind: event.Features, event.ModelKind: event.Predictions} {
		for _, d := range state.List(kind, r.Namespace) {
			other := r.View != "" && (kind != event.FeatureViewKind || d.Name != r.View) || r.Model != "" && (kind != event.ModelKind || d.Name != r.Model)
			if other {
				continue
			}
			s, err := subjectOf(d)
			if err != nil {
				return nil, err
			}
			if s.Retired {
				continue
			}
			out = append(out, watched{stream, d, slices.DeleteFunc(s.Columns, func(f event.FieldSpec) bool { return f.Retired })})
		}
	}
	slices.SortFunc(out, func(a, b watched) int {
		return cmp.Or(cmp.Compare(a.Kind.String(), b.Kind.String()), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// since says when a definition, or one of its columns, was registered: with the
// first of the versions, up to the present one, that have it.
func (a *App) since(w watched, column string) time.Time {
	first := w.Time
	for _, d := range slices.Backward(a.registry.History(w.Definition.Kind, w.Namespace, w.Name)) {
		if d.Version > w.Version {
			continue
		}
		if d.UID != w.UID || d.Deleted {
			break
		}
		if s, err := subjectOf(d); column != "" && (err != nil || !slices.ContainsFunc(s.Columns, func(f event.FieldSpec) bool { return f.Name == column })) {
			break
		}
		first = d.Time
	}
	return time.UnixMicro(first).UTC()
}

// answerFreshness adds to what is stored who is registered and has no row yet:
// its age counts from its registration. What is registered no longer is left out.
func (a *App) answerFreshness(ctx context.Context, r query.Request) ([]query.Frame, error) {
	frames, err := a.store.Freshness(ctx, r)
	if err != nil {
		return nil, err
	}
	subjects, err := a.watchedSubjects(r)
	if err != nil {
		return nil, err
	}
	f := frames[0]
	kinds, names := f.Columns[0].Values.([]string), f.Columns[1].Values.([]string)
	newest, seconds, rows := f.Columns[2].Values.([]*time.Time), f.Columns[3].Values.([]*float64), f.Columns[4].Values.([]int64)
	var out struct {
		kinds, names []string
		newest       []*time.Time
		seconds      []*float64
		rows         []int64
	}
	add := func(kind, name string, at *time.Time, age *float64, n int64) {
		out.kinds, out.names, out.newest, out.seconds, out.rows = append(out.kinds, kind), append(out.names, name), append(out.newest, at), append(out.seconds, age), append(out.rows, n)
	}
	for _, w := range subjects {
		found := false
		for i := range kinds {
			switch {
			case names[i] != w.Name:
			case kinds[i] == event.Labels.String() && w.Kind == event.Predictions && rows[i] > 0:
				add(kinds[i], w.Name, newest[i], seconds[i], rows[i])
			case kinds[i] == w.Kind.String() && rows[i] > 0:
				add(kinds[i], w.Name, newest[i], seconds[i], rows[i])
				found = true
			}
		}
		if !found {
			age := max(0, time.Since(a.since(w, "")).Seconds())
			add(w.Kind.String(), w.Name, nil, &age, 0)
		}
	}
	f.Columns[0].Values, f.Columns[1].Values = orNone(out.kinds), orNone(out.names)
	f.Columns[2].Values, f.Columns[3].Values, f.Columns[4].Values = orNone(out.newest), orNone(out.seconds), orNone(out.rows)
	return []query.Frame{f}, nil
}

// answerColumnFreshness answers the kind "column_freshness".
func (a *App) answerColumnFreshness(ctx context.Context, r query.Request) ([]query.Frame, error) {
	subjects, err := a.watchedSubjects(r)
	if err != nil {
		return nil, err
	}
	asked := r
	asked.Columns = nil
	seen, err := a.store.NewestValues(ctx, asked)
	if err != nil {
		return nil, err
	}
	now := r.To
	if now.IsZero() {
		now = time.Now()
	}
	var ages []columnAge
	for _, w := range subjects {
		rows, values := newestOf(seen, w)
		for _, f := range w.columns {
			if len(r.Columns) > 0 && !slices.Contains(r.Columns, f.Name) {
				continue
			}
			x := columnAge{kind: w.Kind.String(), subject: w.Name, column: f.Name}
			at := values[f.Name]
			if at.IsZero() {
				at = a.since(w, f.Name)
			} else {
				x.newest = &at
			}
			x.seconds, x.behind = max(0, now.Sub(at).Seconds()), max(0, rows.Sub(at).Seconds())
			ages = append(ages, x)
		}
	}
	return []query.Frame{columnAgeFrame(ages)}, nil
}

// columnAge is how old a column's newest value is.
type columnAge struct {
	kind, subject, column string
	newest                *time.Time // nil: never seen
	seconds               float64    // since its newest value, or its registration
	behind                float64    // from then to the newest row
}

// columnAgeFrame puts the most silent column first.
func columnAgeFrame(ages []columnAge) query.Frame {
	slices.SortStableFunc(ages, func(a, b columnAge) int { return cmp.Compare(b.behind, a.behind) })
	text := func(name string, get func(columnAge) string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: each(ages, get)}
	}
	return query.Frame{Name: "column freshness", Type: query.NumericLong, Columns: []query.Column{
		text("kind", func(x columnAge) string { return x.kind }), text("subject", func(x columnAge) string { return x.subject }), text("column", func(x columnAge) string { return x.column }),
		{Name: "newest", Type: query.Time, Nullable: true, Values: each(ages, func(x columnAge) *time.Time { return x.newest })},
		{Name: "seconds", Type: query.Float, Unit: "s", Values: each(ages, func(x columnAge) float64 { return x.seconds })},
		{Name: "behind", Type: query.Float, Unit: "s", Values: each(ages, func(x columnAge) float64 { return x.behind })},
	}}
}

func each[T, V any](list []T, get func(T) V) []V {
	out := make([]V, len(list))
	for i, x := range list {
		out[i] = get(x)
	}
	return out
}

// newestOf is the newest row and the newest values of a subject, over all of its
// tables.
func newestOf(seen []store.Newest, w watched) (rows time.Time, values map[string]time.Time) {
	values = map[string]time.Time{}
	for _, n := range seen {
		if n.Kind != w.Kind || n.Subject != w.Name {
			continue
		}
		if n.Rows.After(rows) {
			rows = n.Rows
		}
		for name, at := range n.Columns {
			if at.After(values[name]) {
				values[name] = at
			}
		}
	}
	return rows, values
}

// answerFreshnessSeries answers the kind "freshness_series": at the end of each
// step the age of each column's newest value. What a column had before the range
// counts on; one that had none ages from its registration.
func (a *App) answerFreshnessSeries(ctx context.Context, r query.Request) ([]query.Frame, error) {
	subjects, err := a.watchedSubjects(r)
	if err != nil {
		return nil, err
	}
	if len(subjects) == 0 {
		return nil, web.Errorf(http.StatusNotFound, web.CodeNotFound, "no view or model named %q in namespace %q", r.View+r.Model, r.Namespace)
	}
	times, err := a.store.ValueTimesOf(ctx, r)
	if err != nil {
		return nil, err
	}
	before := query.Request{Namespace: r.Namespace, View: r.View, Model: r.Model, To: times.Starts[0]}
	seen, err := a.store.NewestValues(ctx, before)
	if err != nil {
		return nil, err
	}
	f := query.Frame{Name: r.View + r.Model, Type: query.TimeSeriesWide, Notices: times.Notices, Columns: []query.Column{{Name: "time", Type: query.Time, Values: times.Starts}}}
	for _, w := range subjects {
		_, had := newestOf(seen, w)
		for _, c := range w.columns {
			if len(r.Columns) > 0 && !slices.Contains(r.Columns, c.Name) {
				continue
			}
			at := had[c.Name]
			if at.IsZero() {
				at = a.since(w, c.Name)
			}
			f.Columns = append(f.Columns, query.Column{Name: c.Name, Type: query.Float, Nullable: true, Unit: "s", Labels: map[string]string{"column": c.Name},
				Values: ages(times, times.Columns[c.Name], at)})
		}
	}
	return []query.Frame{f}, nil
}

// ages are seconds since the newest value at the end of each step; none before
// there was one or the column was registered.
func ages(t store.ValueTimes, newest []time.Time, at time.Time) []*float64 {
	out := make([]*float64, len(t.Ends))
	for i, end := range t.Ends {
		if newest != nil && !newest[i].IsZero() && (newest[i].After(at) || at.After(end)) {
			at = newest[i]
		}
		if age := end.Sub(at).Seconds(); age >= 0 {
			out[i] = &age
		}
	}
	return out
}
