package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Newest is the newest event_time of a subject's rows, and of those of them in
// which a column has a value. The zero time says that there is none. A map
// without a column says nothing of it: no table has it.
type Newest struct {
	Kind    event.Kind // features or predictions
	Subject string
	Rows    time.Time
	Columns map[string]time.Time
}

// lately is how far back every column is looked for. Older rows are read for the
// columns alone that have no value since.
const lately = time.Hour

// NewestValues says when each value column of a namespace's views and models, or
// of the one named, last had a value before r.To (default: now). Rows are read
// back to r.From, an hour at least; what is older is told by derived windows, to
// the window's end, where there are any.
func (s *Store) NewestValues(ctx context.Context, r query.Request) ([]Newest, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	tables := s.observed(r)
	seen := make([]Newest, len(tables))
	for i, t := range tables {
		seen[i] = Newest{Kind: t.schema.Kind, Subject: t.schema.Subject, Columns: map[string]time.Time{}}
	}
	recent := to.Add(-lately)
	steps := []func() error{
		func() error { return s.newestRows(ctx, tables, seen, recent, to) },
		func() error {
			if !from.Before(recent) {
				return nil
			}
			return s.newestRows(ctx, tables, seen, from, recent)
		},
		func() error { return s.newestWindows(ctx, tables, seen, to) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, requestError(fmt.Errorf("newest values: %w", err))
		}
	}
	return seen, nil
}

// observed are the tables of features and predictions that a request is about,
// in a fixed order.
func (s *Store) observed(r query.Request) []*table {
	var out []*table
	for _, t := range s.tables() {
		sc := t.schema
		if sc.Kind == event.Labels || sc.From != nil && r.View == "" || r.Namespace != "" && sc.Namespace != r.Namespace ||
			r.View != "" && (sc.Kind != event.Features || sc.Subject != r.View) || r.Model != "" && (sc.Kind != event.Predictions || sc.Subject != r.Model) {
			continue
		}
		out = append(out, t)
	}
	out = ofNewestDefinition(out)
	slices.SortFunc(out, func(a, b *table) int { return strings.Compare(a.name, b.name) })
	return out
}

// unseen are a table's value columns for which no time is known yet.
func (t *table) unseen(n Newest) []column {
	var out []column
	for _, c := range t.columns {
		if f := t.schema.Fields[c.index]; f.Role == event.ValueRole && n.Columns[f.Name].IsZero() {
			out = append(out, c)
		}
	}
	return out
}

// hasValue is the condition that a row has a value of a column. Of a nullable
// one the engine reads a bit map, not the values.
func (t *table) hasValue(c column) string {
	switch f := t.schema.Fields[c.index]; {
	case f.Type.List || isMap(f.Type.Elem):
		return "notEmpty(" + chdb.QuoteIdent(c.name) + ")"
	case strings.HasPrefix(c.typ, "Nullable("):
		return "isNotNull(" + chdb.QuoteIdent(c.name) + ")"
	}
	return "1"
}

// newestIn is an array of the newest times, µs, of rows in which columns have
// values, 0 for none.
func (t *table) newestIn(columns []column) string {
	parts := []string{"toInt64(0)"} // an array of a type, without columns too
	for _, c := range columns {
		parts = append(parts, "toInt64(maxIf(toUnixTimestamp64Micro(event_time), "+t.hasValue(c)+"))")
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// newestRows looks among rows of a range for the columns not seen yet, in one
// statement for all tables.
func (s *Store) newestRows(ctx context.Context, tables []*table, seen []Newest, from, to time.Time) error {
	var parts []string
	columns := make([][]column, len(tables))
	for i, t := range tables {
		if columns[i] = t.unseen(seen[i]); len(columns[i]) > 0 || seen[i].Rows.IsZero() {
			parts = append(parts, fmt.Sprintf("SELECT toInt64(%d), toInt64(max(toUnixTimestamp64Micro(event_time))), %s FROM %s WHERE %s",
				i, t.newestIn(columns[i]), s.ref(t.name), inRange("event_time")))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	rows, err := s.query(ctx, strings.Join(parts, " UNION ALL "), params{"from": micro(from), "to": micro(to)})
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var i, newest int64
		var values []int64
		if err := rows.Scan(&i, &newest, &values); err != nil {
			return err
		}
		n := &seen[i]
		n.Rows = later(n.Rows, newest)
		for k, c := range columns[i] {
			n.Columns[tables[i].schema.Fields[c.index].Name] = later(time.Time{}, values[k+1])
		}
	}
	return rows.Err()
}

// newestWindows looks among derived windows for the columns not seen yet. What a
// window's end says of is before the end.
func (s *Store) newestWindows(ctx context.Context, tables []*table, seen []Newest, to time.Time) error {
	for i, t := range tables {
		columns := t.unseen(seen[i])
		if len(columns) == 0 {
			continue
		}
		names := collect(columns, func(c column) string { return t.schema.Fields[c.index].Name })
		p := Subject{t.schema.Kind, t.schema.TableID}.params(params{"to": micro(to), "columns": textList(names)})
		rows, err := s.query(ctx, "SELECT toString(`column`), max(toUnixTimestamp64Micro(start) + length_us) FROM "+s.ref("summaries")+" WHERE "+ofSubject+
			" AND has(arrayMap(h -> unhex(h), {columns:Array(String)}), toString(`column`)) AND start < fromUnixTimestamp64Micro({to:Int64}, 'UTC') AND rows > missing GROUP BY `column`", p)
		if err != nil {
			return err
		}
		for rows.Next() {
			var name string
			var end int64
			if err := rows.Scan(&name, &end); err != nil {
				_ = rows.Close()
				return err
			}
			seen[i].Columns[name] = later(time.Time{}, min(end, to.UnixMicro()))
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}

// later is the later of a time and one in µs, where 0 is none.
func later(t time.Time, us int64) time.Time {
	if u := time.UnixMicro(us).UTC(); us != 0 && u.After(t) {
		return u
	}
	return t
}

// ValueTimes is when columns of one subject had values: per step of event_time
// the newest time, zero where a step has none, and when each step ends.
type ValueTimes struct {
	Starts, Ends []time.Time
	Columns      map[string][]time.Time
	Notices      []query.Notice
}

// ValueTimesOf follows named value columns of a view or model, or all of them,
// through the steps of a range.
func (s *Store) ValueTimesOf(ctx context.Context, r query.Request) (ValueTimes, error) {
	g, err := gridOf(r, time.Now())
	if err != nil {
		return ValueTimes{}, err
	}
	out := ValueTimes{Starts: g.times(), Columns: map[string][]time.Time{}, Notices: g.notices}
	for _, at := range out.Starts {
		end := at.Add(g.step)
		if end.After(g.to) {
			end = g.to
		}
		out.Ends = append(out.Ends, end)
	}
	for _, t := range s.observed(r) {
		var columns []column
		for _, c := range t.unseen(Newest{}) {
			if len(r.Columns) == 0 || slices.Contains(r.Columns, t.schema.Fields[c.index].Name) {
				columns = append(columns, c)
			}
		}
		if err := s.addValueTimes(ctx, t, columns, g, &out); err != nil {
			return ValueTimes{}, requestError(fmt.Errorf("times of values of %s: %w", t.schema.Subject, err))
		}
	}
	return out, nil
}

func (s *Store) addValueTimes(ctx context.Context, t *table, columns []column, g grid, out *ValueTimes) error {
	rows, err := s.query(ctx, fmt.Sprintf("SELECT toInt64(%s) AS n, %s FROM %s WHERE %s GROUP BY n", bucket("event_time"), t.newestIn(columns), s.ref(t.name), inRange("event_time")), g.params())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var values []int64
		if err := rows.Scan(&n, &values); err != nil {
			return err
		}
		for k, c := range columns {
			name := t.schema.Fields[c.index].Name
			if out.Columns[name] == nil {
				out.Columns[name] = make([]time.Time, len(out.Starts))
			}
			out.Columns[name][n] = later(out.Columns[name][n], values[k+1])
		}
	}
	return rows.Err()
}
