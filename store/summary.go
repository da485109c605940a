package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store/chdb"
)

// maxSummaryColumns bounds one request.
const maxSummaryColumns = 100

// quantiles that a summary shows.
var quantiles = [...]string{"0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"}

// Summaries answers the kind "summary": per numeric column and step of
// event_time the number of rows, the share of nulls, mean, deviation, extremes
// and quantiles (t-digest, approximate), over the finite values. Steps without
// rows are absent. There is one frame per column and group.
func (s *Store) Summaries(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	columns, notice, err := numericColumns(tables, r.Columns)
	if err != nil {
		return nil, err
	}
	p := g.params()
	from, err := s.union(tables, r, columns, p)
	if err != nil {
		return nil, err
	}
	groups := make([]string, len(r.GroupBy))
	for i := range groups {
		groups[i] = fmt.Sprintf("g%d", i)
	}
	keys := strings.Join(append([]string{"n"}, groups...), ", ")
	var aggregates []string
	for i := range columns {
		aggregates = append(aggregates, statistics(fmt.Sprintf("c%d", i)))
	}
	sql := fmt.Sprintf("SELECT fromUnixTimestamp64Micro({from:Int64} + n * {step:Int64}, 'UTC'), %stoInt64(count()), %s FROM (%s) GROUP BY %s ORDER BY %s",
		strings.Join(append(groups, ""), ", "), strings.Join(aggregates, ", "), from, keys, keys)
	frames, err := s.summaryFrames(ctx, r, columns, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("summary of %s: %w", tables[0].schema.Subject, err))
	}
	for i := range frames {
		frames[i].Notices = append(notice, g.notices...)
	}
	return frames, nil
}

// numericColumns resolves names; none means every numeric value column.
func numericColumns(tables []*table, names []string) ([]string, []query.Notice, error) {
	if len(names) > maxSummaryColumns {
		return nil, nil, invalid("%d columns: want at most %d", len(names), maxSummaryColumns)
	}
	if len(names) > 0 {
		return numericAmong(tables, names)
	}
	for _, t := range tables {
		for _, c := range t.columns {
			f := t.schema.Fields[c.index]
			outcome := f.Name == "score" || f.Name == "value" || f.Name == "label"
			if name := t.label(c); numeric(f) && (f.Role == event.ValueRole || f.Role == event.System && outcome) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil, nil, invalid("%s has no numeric columns", tables[0].schema.Subject)
	}
	if len(names) > maxSummaryColumns {
		return names[:maxSummaryColumns], []query.Notice{{Severity: "warning", Text: fmt.Sprintf("the first %d of %d numeric columns; name the others", maxSummaryColumns, len(names))}}, nil
	}
	return names, nil, nil
}

// numericAmong keeps of named columns those with numbers: who chose all of them
// wants to see these. One that does not exist, or none with numbers, is an error.
func numericAmong(tables []*table, names []string) (numeric []string, notices []query.Notice, err error) {
	var others []string
	for _, n := range names {
		switch e := numericIn(tables, n); {
		case e == nil:
			numeric = append(numeric, n)
		case errors.Is(e, ErrInvalid):
			others, err = append(others, n), e
		default:
			return nil, nil, e
		}
	}
	if len(numeric) == 0 {
		return nil, nil, err
	}
	if len(others) > 0 {
		notices = []query.Notice{{Severity: "info", Text: "without numbers, and left out: " + strings.Join(others, ", ")}}
	}
	return numeric, notices, nil
}

func numericIn(tables []*table, name string) error {
	for _, t := range tables {
		if _, f, ok := t.find(name); ok {
			if !numeric(f) {
				return invalid("column %q is a %s, which has no numeric summary", name, f.Type)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: %s has no column %q", ErrUnknown, tables[0].schema.Subject, name)
}

func numeric(f event.Field) bool {
	switch f.Type.Elem {
	case event.Bool, event.Int32, event.Int64, event.Float32, event.Float64:
		return !f.Type.List
	}
	return false
}

// union is one stream of rows from all of a subject's tables: step n, groups
// g0…, values c0… as Nullable(Float64).
func (s *Store) union(tables []*table, r query.Request, columns []string, p params) (string, error) {
	var parts []string
	for _, t := range tables {
		where, err := t.filterOf(r, p)
		if err != nil {
			return "", err
		}
		exprs := []string{"toInt64(" + bucket("event_time") + ") AS n"}
		for i, name := range r.GroupBy {
			g, err := t.group(name, p, i)
			if err != nil {
				return "", err
			}
			exprs = append(exprs, fmt.Sprintf("%s AS g%d", g, i))
		}
		for i, name := range columns {
			value := "NULL"
			if c, _, ok := t.find(name); ok {
				value = chdb.QuoteIdent(c.name)
			}
			exprs = append(exprs, fmt.Sprintf("CAST(%s, 'Nullable(Float64)') AS c%d", value, i))
		}
		parts = append(parts, fmt.Sprintf("SELECT %s FROM %s WHERE %s AND %s", strings.Join(exprs, ", "), s.ref(t.name), inRange("event_time"), where))
	}
	return strings.Join(parts, " UNION ALL "), nil
}

// group is a column, or a declared segment of a prediction, as text.
func (t *table) group(name string, p params, i int) (string, error) {
	c, f, ok := t.find(name)
	if ok && !f.Type.List && !isMap(f.Type.Elem) {
		return "ifNull(toString(" + chdb.QuoteIdent(c.name) + "), '')", nil
	}
	if !ok && t.schema.Kind == event.Predictions {
		key := fmt.Sprintf("segment%d", i)
		p[key] = name
		return "segments[{" + key + ":String}]", nil
	}
	return "", fmt.Errorf("%w: %s has no column %q to group by", ErrUnknown, t.schema.Subject, name)
}

// statistics are the aggregates of one Nullable(Float64) column.
func statistics(c string) string {
	finite := fmt.Sprintf("ifNull(isFinite(%s), 0)", c)
	q := fmt.Sprintf("quantilesTDigestIf(%s)(assumeNotNull(%s), %s)", strings.Join(quantiles[:], ", "), c, finite)
	parts := []string{
		fmt.Sprintf("countIf(isNull(%s)) / count()", c),
		fmt.Sprintf("countIf(NOT %s AND isNotNull(%s)) / count()", finite, c),
	}
	for _, agg := range []string{"avg", "stddevPop", "min", "max"} {
		parts = append(parts, fmt.Sprintf("%sOrNullIf(%s, %s)", agg, c, finite))
	}
	for i := range quantiles {
		parts = append(parts, fmt.Sprintf("if(countIf(%s) = 0, NULL, toFloat64(%s[%d]))", finite, q, i+1))
	}
	return strings.Join(parts, ", ")
}

// summaryFrames reads one wide answer and deals it out to a frame per column
// and group.
func (s *Store) summaryFrames(ctx context.Context, r query.Request, columns []string, sql string, p params) ([]query.Frame, error) {
	cols := []query.Column{col("time", query.Time, "")}
	for _, name := range r.GroupBy {
		cols = append(cols, col(name, query.Text, ""))
	}
	cols = append(cols, col("count", query.Int, ""))
	for range columns {
		cols = append(cols, statisticColumns()...)
	}
	if err := s.scan(ctx, cols, sql, p, nil); err != nil {
		return nil, err
	}
	groups, order := groupRows(cols, len(r.GroupBy))
	var out []query.Frame
	for i, name := range columns {
		for _, key := range order {
			labels := map[string]string{"column": name}
			for j, by := range r.GroupBy {
				labels[by] = strings.Split(key, "\x00")[j]
			}
			first := 2 + len(r.GroupBy) + i*len(statisticColumns())
			picked := append([]query.Column{cols[0], cols[1+len(r.GroupBy)]}, cols[first:first+len(statisticColumns())]...)
			out = append(out, query.Frame{Name: name, Type: query.TimeSeriesMulti, Columns: pickRows(picked, groups[key], labels)})
		}
	}
	return out, nil
}

func statisticColumns() []query.Column {
	cols := []query.Column{col("null_share", query.Float, "percentunit"), col("nonfinite_share", query.Float, "percentunit")}
	for _, n := range []string{"mean", "stddev", "min", "max", "p01", "p05", "p25", "p50", "p75", "p95", "p99"} {
		cols = append(cols, maybe(n, query.Float, ""))
	}
	return cols
}

// groupRows finds each group's rows, in order of appearance.
func groupRows(cols []query.Column, groups int) (rows map[string][]int, order []string) {
	rows = map[string][]int{}
	for i := range cols[0].Len() {
		parts := make([]string, groups)
		for j := range parts {
			parts[j] = at[string](cols[1+j], i)
		}
		key := strings.Join(parts, "\x00")
		if rows[key] == nil {
			order = append(order, key)
		}
		rows[key] = append(rows[key], i)
	}
	return rows, order
}

func pickRows(cols []query.Column, rows []int, labels map[string]string) []query.Column {
	out := make([]query.Column, len(cols))
	for i, c := range cols {
		if i > 0 {
			c.Labels = labels
		}
		switch v := c.Values.(type) {
		case []time.Time:
			c.Values = pick(v, rows)
		case []int64:
			c.Values = pick(v, rows)
		case []float64:
			c.Values = pick(v, rows)
		case []*float64:
			c.Values = pick(v, rows)
		case []uint64:
			c.Values = pick(v, rows)
		case []bool:
			c.Values = pick(v, rows)
		case []string:
			c.Values = pick(v, rows)
		}
		out[i] = c
	}
	return out
}

func pick[T any](v []T, rows []int) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}
