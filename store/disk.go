package store

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/kedge-ml/kedge/query"
)

// Disk answers the kind "disk": bytes and rows per table with their growth
// over the last day, then totals and the days until the disk is full at that
// pace (null while nothing grows).
func (s *Store) Disk(ctx context.Context, r query.Request) ([]query.Frame, error) {
	sql := fmt.Sprintf(`SELECT name, toInt64(any(bytes)), toInt64(any(rows)), any(parts), toFloat64(sum(added)), if(any(rows) = 0, 0, toFloat64(sum(added)) * any(bytes) / any(rows)) FROM (
  SELECT table AS name, sum(bytes_on_disk) AS bytes, sum(rows) AS rows, toInt64(count()) AS parts FROM system.parts
  WHERE database = {db:String} AND active GROUP BY table
) AS p LEFT JOIN (
  SELECT t.1 AS name, sum(t.2) AS added FROM %s ARRAY JOIN CAST(tables, 'Array(Tuple(String, Int64))') AS t
  WHERE inserted_at > now64(6, 'UTC') - INTERVAL 1 DAY GROUP BY name
) AS l USING (name) GROUP BY name ORDER BY any(bytes) DESC`, s.ref("ledger"))
	f, err := s.frame(ctx, "tables", query.Table, []query.Column{
		col("table", query.Text, ""), col("bytes", query.Int, "bytes"), col("rows", query.Int, ""), col("parts", query.Int, ""), col("rows_a_day", query.Float, ""), col("bytes_a_day", query.Float, "bytes"),
	}, sql, params{"db": s.opt.Database})
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	f = s.withSubjects(f, r.Namespace)
	totals, err := s.diskTotals(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	return []query.Frame{f, totals}, nil
}

// withSubjects says what each table holds, and leaves out other namespaces'
// tables.
func (s *Store) withSubjects(f query.Frame, ns string) query.Frame {
	var keep []int
	var kinds, subjects []string
	for i, name := range f.Columns[0].Values.([]string) {
		kind, subject := "system", ""
		if t := s.known(name); t != nil {
			if ns != "" && t.schema.Namespace != ns {
				continue
			}
			kind, subject = t.schema.Kind.String(), t.schema.Subject
		}
		keep, kinds, subjects = append(keep, i), append(kinds, kind), append(subjects, subject)
	}
	for i, c := range f.Columns {
		switch v := c.Values.(type) {
		case []string:
			f.Columns[i].Values = pick(v, keep)
		case []int64:
			f.Columns[i].Values = pick(v, keep)
		case []float64:
			f.Columns[i].Values = pick(v, keep)
		}
	}
	f.Columns = append(f.Columns, query.Column{Name: "kind", Type: query.Text, Values: kinds}, query.Column{Name: "subject", Type: query.Text, Values: subjects})
	return f
}

func (s *Store) diskTotals(ctx context.Context, tables query.Frame) (query.Frame, error) {
	var free, total int64
	if err := s.queryRow(ctx, "SELECT toInt64(sum(free_space)), toInt64(sum(total_space)) FROM system.disks", nil).Scan(&free, &total); err != nil {
		return query.Frame{}, err
	}
	var used int64
	var growth float64
	for i := range tables.Rows() {
		used += at[int64](tables.Columns[1], i)
		growth += at[float64](tables.Columns[5], i)
	}
	var days *float64
	if growth > 0 {
		d := math.Round(float64(free)/growth*10) / 10
		days = &d
	}
	left := maybe("days_until_full", query.Float, "d")
	left.Values = []*float64{days}
	left.Thresholds = []query.Threshold{{Value: 0, State: "critical"}, {Value: 3, State: "warning"}, {Value: 14, State: "ok"}}
	return query.Frame{Name: "total", Type: query.NumericLong, Columns: []query.Column{
		{Name: "used", Type: query.Int, Unit: "bytes", Values: []int64{used}},
		{Name: "free", Type: query.Int, Unit: "bytes", Values: []int64{free}},
		{Name: "disk", Type: query.Int, Unit: "bytes", Values: []int64{total}},
		{Name: "growth_a_day", Type: query.Float, Unit: "bytes", Values: []float64{growth}},
		left,
	}}, nil
}

// Freshness answers the kind "freshness": the newest event of every view and
// model, or of the one named, and how many rows there are. A subject without
// rows has nulls.
func (s *Store) Freshness(ctx context.Context, r query.Request) ([]query.Frame, error) {
	var parts []string
	p := params{}
	for name, t := range s.tables() {
		sc := t.schema
		if sc.From != nil && r.View == "" { // not read unless it is asked for: it may be large, and is not Kedge's to watch
			continue
		}
		if r.Namespace != "" && sc.Namespace != r.Namespace || r.View != "" && sc.Subject != r.View || r.Model != "" && sc.Subject != r.Model {
			continue
		}
		key := fmt.Sprintf("s%d", len(p))
		p[key] = sc.Subject
		parts = append(parts, fmt.Sprintf("SELECT '%s' AS kind, {%s:String} AS subject, maxOrNull(event_time) AS newest, toInt64(count()) AS n FROM %s", sc.Kind, key, s.ref(name)))
	}
	cols := []query.Column{col("kind", query.Text, ""), col("subject", query.Text, ""), maybe("newest", query.Time, ""), maybe("seconds", query.Float, "s"), col("rows", query.Int, "")}
	if len(parts) == 0 {
		for i := range cols {
			cols[i].Values = newCell(cols[i]).values()
		}
		return []query.Frame{{Name: "freshness", Type: query.NumericLong, Columns: cols}}, nil
	}
	f, err := s.frame(ctx, "freshness", query.NumericLong, cols, `SELECT kind, subject, max(newest) AS latest,
  (toUnixTimestamp64Micro(now64(6, 'UTC')) - toUnixTimestamp64Micro(latest)) / 1e6, sum(n)
FROM (`+strings.Join(parts, " UNION ALL ")+`) GROUP BY kind, subject ORDER BY kind, subject`, p)
	if err != nil {
		return nil, fmt.Errorf("freshness: %w", err)
	}
	return []query.Frame{f}, nil
}
