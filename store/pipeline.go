package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// inNamespace is the condition for ledger rows of a namespace: its own topics,
// and mapped topics that fed its tables.
func (s *Store) inNamespace(ns string, p params) string {
	if ns == "" {
		return "1"
	}
	var tables []string
	if p := s.prepared.Load(); p != nil {
		for _, t := range p.bySchema {
			if t.schema.Namespace == ns {
				tables = append(tables, "'"+t.name+"'")
			}
		}
	}
	slices.Sort(tables)
	p["topics"] = "kedge." + ns + "."
	p["tables"] = "[" + strings.Join(tables, ",") + "]"
	return fmt.Sprintf("(startsWith(topic, {topics:String}) OR (NOT startsWith(topic, 'kedge.') AND topic IN "+
		"(SELECT DISTINCT topic FROM %s WHERE NOT startsWith(topic, 'kedge.') AND hasAny(mapKeys(tables), {tables:Array(String)}))))", s.ref("ledger"))
}

// Throughput answers the kind "throughput": rows a second that landed, per
// stream, or per topic with group_by ["topic"].
func (s *Store) Throughput(ctx context.Context, r query.Request) ([]query.Frame, error) {
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	series, sum, from := "splitByChar('_', t.1)[1]", "t.2", s.ref("ledger")+" ARRAY JOIN CAST(tables, 'Array(Tuple(String, Int64))') AS t"
	switch {
	case slices.Equal(r.GroupBy, []string{"topic"}):
		series, sum, from = "toString(topic)", "rows", s.ref("ledger")
	case len(r.GroupBy) > 0 && !slices.Equal(r.GroupBy, []string{"stream"}):
		return nil, invalid("throughput groups by stream or topic, not by %v", r.GroupBy)
	}
	p := g.params()
	sql := fmt.Sprintf("SELECT toInt64(%s) AS n, %s AS series, toFloat64(sum(%s)) FROM %s WHERE %s AND %s GROUP BY n, series ORDER BY n",
		bucket("inserted_at"), series, sum, from, inRange("inserted_at"), s.inNamespace(r.Namespace, p))
	f, err := s.wide(ctx, "throughput", "rowsps", g, sql, p, func(i int, v float64) float64 { return v / g.seconds(i) })
	if err != nil {
		return nil, fmt.Errorf("throughput: %w", err)
	}
	return []query.Frame{f}, nil
}

// IngestLag answers the kind "ingest_lag": the longest time in seconds that a
// record of a step waited between the broker's append and being queryable, per
// topic. A step in which nothing landed is null.
func (s *Store) IngestLag(ctx context.Context, r query.Request) ([]query.Frame, error) {
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	p := g.params()
	sql := fmt.Sprintf("SELECT toInt64(%s) AS n, toString(topic) AS series, max(toUnixTimestamp64Micro(inserted_at) - toUnixTimestamp64Micro(min_appended_at)) / 1e6 FROM %s WHERE records > 0 AND %s AND %s GROUP BY n, series ORDER BY n",
		bucket("inserted_at"), s.ref("ledger"), inRange("inserted_at"), s.inNamespace(r.Namespace, p))
	f, err := s.wide(ctx, "ingest lag", "s", g, sql, p, nil)
	if err != nil {
		return nil, fmt.Errorf("ingest lag: %w", err)
	}
	return []query.Frame{f}, nil
}

// wide turns (step, series, value) rows into one column per series. With rate
// a step without a row is 0, without it is null.
func (s *Store) wide(ctx context.Context, name, unit string, g grid, sql string, p params, rate func(i int, v float64) float64) (query.Frame, error) {
	long, err := s.frame(ctx, name, query.TimeSeriesWide, []query.Column{col("n", query.Int, ""), col("series", query.Text, ""), col("v", query.Float, "")}, sql, p)
	if err != nil {
		return long, err
	}
	series := map[string][]*float64{}
	for i := range long.Rows() {
		n, key, v := int(at[int64](long.Columns[0], i)), at[string](long.Columns[1], i), at[float64](long.Columns[2], i)
		if series[key] == nil {
			series[key] = make([]*float64, g.points())
		}
		if rate != nil {
			v = rate(n, v)
		}
		series[key][n] = &v
	}
	f := query.Frame{Name: name, Type: query.TimeSeriesWide, Notices: g.notices, Columns: []query.Column{{Name: "time", Type: query.Time, Values: g.times()}}}
	for _, key := range slices.Sorted(maps.Keys(series)) {
		c := query.Column{Name: key, Type: query.Float, Unit: unit, Labels: map[string]string{"series": key}, Nullable: true, Values: series[key]}
		if rate != nil {
			c.Nullable, c.Values = false, zeroFilled(series[key])
		}
		f.Columns = append(f.Columns, c)
	}
	return f, nil
}

func zeroFilled(in []*float64) []float64 {
	out := make([]float64, len(in))
	for i, v := range in {
		if v != nil {
			out[i] = *v
		}
	}
	return out
}
