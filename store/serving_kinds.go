package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// latencyBounds are the upper ends of a latency heat map's cells, in ms; what
// is slower lies in a last one.
var latencyBounds = [...]string{"1", "2", "5", "10", "25", "50", "100", "250", "500", "1000"}

// timed are the predictions in range that say how long they took: step n, the
// stages and their total in ms, trace and id.
func (s *Store) timed(tables []*table, r query.Request, p params) string {
	where := inRange("event_time") + " AND isNotNull(coalesce(queue_ms, features_ms, compute_ms))"
	if r.Version != "" {
		p["version"] = r.Version
		where += " AND version = {version:String}"
	}
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT toInt64("+bucket("event_time")+") AS n, event_time, queue_ms, features_ms, compute_ms, "+
			"ifNull(queue_ms, 0) + ifNull(features_ms, 0) + ifNull(compute_ms, 0) AS total, trace_id, id, version FROM "+s.ref(t.name)+" WHERE "+where)
	}
	return strings.Join(parts, " UNION ALL ")
}

// ServingLatency answers the kind "serving_latency": per step the median and
// the 95th and 99th percentile of a prediction's total time, and the 95th of
// its stages, in ms; then, where traces were kept, the slowest prediction of
// each step as an exemplar. Predictions that say no times are left out.
func (s *Store) ServingLatency(ctx context.Context, r query.Request) ([]query.Frame, error) {
	return s.latency(ctx, r, "latency", query.TimeSeriesWide, func() ([]query.Column, string) {
		cols := []query.Column{col("time", query.Time, "")}
		for _, name := range []string{"p50", "p95", "p99"} {
			c := col(name, query.Float, "ms")
			c.Labels = map[string]string{"quantile": name}
			cols = append(cols, c)
		}
		exprs := "toFloat64(quantileTDigest(0.5)(total)), toFloat64(quantileTDigest(0.95)(total)), toFloat64(quantileTDigest(0.99)(total))"
		for _, stage := range []string{"queue", "features", "compute"} {
			c := maybe(stage+" p95", query.Float, "ms")
			c.Labels = map[string]string{"stage": stage}
			cols = append(cols, c)
			exprs += fmt.Sprintf(", toFloat64(quantileTDigestOrNull(0.95)(%s_ms))", stage)
		}
		return cols, exprs
	})
}

// LatencyHeatmap answers the kind "latency_heatmap": per step how many
// predictions took how long, in cells labelled with their upper end in ms.
func (s *Store) LatencyHeatmap(ctx context.Context, r query.Request) ([]query.Frame, error) {
	return s.latency(ctx, r, "latency heat map", query.HeatmapRows, func() ([]query.Column, string) {
		cols := []query.Column{col("time", query.Time, "")}
		var exprs []string
		for i, le := range append(latencyBounds[:len(latencyBounds):len(latencyBounds)], "+Inf") {
			c := col("", query.Int, "") // a name would stand beside every label
			c.Labels = map[string]string{"le": le}
			cols = append(cols, c)
			exprs = append(exprs, fmt.Sprintf("toInt64(countIf(%s = %d))", latencyCell, i))
		}
		return cols, strings.Join(exprs, ", ")
	})
}

// latencyCell is the number of the cell in which a total lies.
const latencyCell = "arrayFirstIndex(b -> total <= b, [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, inf]) - 1"

func (s *Store) latency(ctx context.Context, r query.Request, name string, typ query.FrameType, what func() ([]query.Column, string)) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	p := g.params()
	rows := s.timed(tables, r, p)
	cols, exprs := what()
	f, err := s.frame(ctx, name, typ, cols, "SELECT fromUnixTimestamp64Micro({from:Int64} + n * {step:Int64}, 'UTC'), "+exprs+" FROM ("+rows+") GROUP BY n ORDER BY n", p)
	if err != nil {
		return nil, requestError(fmt.Errorf("%s of %s: %w", name, r.Model, err))
	}
	f.Notices = g.notices
	slow, err := s.frame(ctx, "exemplar", query.Table, []query.Column{
		col("time", query.Time, ""), col("value", query.Float, "ms"), col("trace_id", query.Text, ""), col("id", query.Text, ""), col("version", query.Text, ""), col("le", query.Text, ""),
	}, "SELECT argMax(event_time, total), max(total) AS worst, argMax(trace_id, total), argMax(id, total), argMax(toString(version), total), "+
		"arrayFirst(b -> worst <= toFloat64(b), ['"+strings.Join(latencyBounds[:], "', '")+"', '+Inf']) FROM ("+rows+") WHERE trace_id != '' GROUP BY n ORDER BY n", p)
	if err != nil {
		return nil, requestError(fmt.Errorf("slowest predictions of %s: %w", r.Model, err))
	}
	if slow.Rows() == 0 {
		return []query.Frame{f}, nil
	}
	return []query.Frame{f, slow}, nil
}

// ServingThroughput answers the kind "serving_throughput": predictions a second
// of a model, per version and, where routing named one, variant.
func (s *Store) ServingThroughput(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	p := g.params()
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT toInt64("+bucket("event_time")+") AS n, if(variant = '', toString(version), concat(toString(version), ' ', toString(variant))) AS series FROM "+s.ref(t.name)+" WHERE "+inRange("event_time"))
	}
	sql := "SELECT n, series, toFloat64(count()) FROM (" + strings.Join(parts, " UNION ALL ") + ") GROUP BY n, series ORDER BY n"
	f, err := s.wide(ctx, "predictions", "reqps", g, sql, p, func(i int, v float64) float64 { return v / g.seconds(i) })
	if err != nil {
		return nil, fmt.Errorf("throughput of %s: %w", r.Model, err)
	}
	return []query.Frame{f}, nil
}
