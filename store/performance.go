package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// Performance is one metric of one window of a model, or of a segment of it.
// NaN stands for what is not known.
type Performance struct {
	Namespace, Model       string
	Segment                string // "district=harbour"; a name alone for gaps between its values; empty: all rows
	Metric                 string
	Start, End             time.Time
	Value, StdErr          float64 // realised
	Estimate, Lower, Upper float64 // expected without labels
	Reference              float64
	Predictions, Labelled  uint64
	Mature                 bool // labels have had the time they need, and enough have come
	Reason                 string
	Scale                  float64 // predictions for each row that was looked at; not stored
}

// SavePerformance stores metrics of a window that a writer measured, under a
// revision; a second block of the same writer, window and revision is a repeat of
// the first.
func (s *Store) SavePerformance(ctx context.Context, writer string, ps []Performance, revision uint64) error {
	if len(ps) == 0 {
		return nil
	}
	var cols []named
	add := func(name string, get func(Performance) string) {
		cols = append(cols, named{name, texts(collect(ps, get))})
	}
	number := func(name string, get func(Performance) float64) {
		cols = append(cols, named{name, fixed[float64]{"Float64", collect(ps, get)}})
	}
	whole := func(name, typ string, get func(Performance) uint64) {
		cols = append(cols, named{name, fixed[uint64]{typ, collect(ps, get)}})
	}
	add("namespace", func(p Performance) string { return p.Namespace })
	add("model", func(p Performance) string { return p.Model })
	add("segment", func(p Performance) string { return p.Segment })
	add("metric", func(p Performance) string { return p.Metric })
	add("reason", func(p Performance) string { return p.Reason })
	number("value", func(p Performance) float64 { return p.Value })
	number("stderr", func(p Performance) float64 { return p.StdErr })
	number("estimate", func(p Performance) float64 { return p.Estimate })
	number("lower", func(p Performance) float64 { return p.Lower })
	number("upper", func(p Performance) float64 { return p.Upper })
	number("reference", func(p Performance) float64 { return p.Reference })
	whole("predictions", "UInt64", func(p Performance) uint64 { return p.Predictions })
	whole("labelled", "UInt64", func(p Performance) uint64 { return p.Labelled })
	whole("revision", "UInt64", func(Performance) uint64 { return revision })
	cols = append(cols, named{"mature", fixed[bool]{"Bool", collect(ps, func(p Performance) bool { return p.Mature })}},
		named{"start", fixed[int64]{timestampType, collect(ps, func(p Performance) int64 { return p.Start.UnixMicro() })}},
		named{"end", fixed[int64]{timestampType, collect(ps, func(p Performance) int64 { return p.End.UnixMicro() })}})
	token := fmt.Sprintf("performance/%s/%s/%s/%d/%d", ps[0].Namespace, ps[0].Model, writer, ps[0].Start.UnixMicro(), revision)
	return s.insertRows(ctx, "performance", token, len(ps), cols)
}

// Performance answers the kind "performance": per metric and segment the
// realised value with its error, the value expected without labels with its
// band, and how many labels there are, window by window (default: the last
// day). Columns of the request are metrics; segment {"district": "harbour"} asks
// for one segment, {"district": ""} for the gaps between its values; group_by is
// a dimension whose values are told one by one, or "*" for all of all; without
// either the frames are about all rows.
func (s *Store) Performance(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "model": r.Model, "columns": textList(r.Columns), "segment": ""}
	where := "namespace = {namespace:String} AND model = {model:String} AND " + inRange("start")
	if len(r.Columns) > 0 {
		where += " AND has(arrayMap(h -> unhex(h), {columns:Array(String)}), toString(metric))"
	}
	switch by := r.GroupBy; {
	case len(r.Segment) > 1 || len(by) > 1 || len(r.Segment)+len(by) > 1:
		return nil, invalid("performance is kept by one segment at a time")
	case len(by) == 1 && by[0] == "*":
		where += " AND position(toString(segment), '=') > 0"
	case len(by) == 1:
		p["segment"] = by[0] + "="
		where += " AND startsWith(toString(segment), {segment:String})"
	default:
		for k, v := range r.Segment {
			p["segment"] = k
			if v != "" {
				p["segment"] = k + "=" + v
			}
		}
		where += " AND segment = {segment:String}"
	}
	known := func(c string) string {
		x := "argMax(" + c + ", revision)"
		return "if(isNaN(" + x + "), NULL, " + x + ")"
	}
	cols := []query.Column{col("segment", query.Text, ""), col("metric", query.Text, ""), col("time", query.Time, ""), maybe("value", query.Float, ""), maybe("stderr", query.Float, ""),
		maybe("expected", query.Float, ""), maybe("lower", query.Float, ""), maybe("upper", query.Float, ""), maybe("reference", query.Float, ""),
		col("coverage", query.Float, "percentunit"), col("mature", query.Bool, ""), col("predictions", query.Uint, ""), col("about", query.Text, "")}
	sql := "SELECT toString(segment), toString(metric), start, " + known("value") + ", " + known("stderr") + ", " + known("estimate") + ", " + known("lower") + ", " + known("upper") + ", " + known("reference") +
		", argMax(labelled, revision) / greatest(argMax(predictions, revision), 1), argMax(mature, revision), argMax(predictions, revision), argMax(reason, revision) FROM " + s.ref("performance") +
		" WHERE " + where + " GROUP BY segment, metric, start ORDER BY segment, metric, start"
	if err := s.scan(ctx, cols, sql, p, nil); err != nil {
		return nil, requestError(fmt.Errorf("performance of %s: %w", r.Model, err))
	}
	out := dealOut(cols, 2)
	for i := range out {
		out[i].Name = out[i].Columns[1].Labels["metric"]
	}
	return out, nil
}
