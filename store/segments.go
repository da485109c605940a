package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// segmentTables hold what is judged segment by segment. They are apart from
// those of whole subjects, which are read at every tick. Counts are not kept:
// the rows that they were made of are, as long as they may be asked for.
func (s *Store) segmentTables() []string {
	return []string{
		s.fixed("segment_verdicts", strings.Join([]string{"namespace LowCardinality(String)", "monitor LowCardinality(String)", "subject LowCardinality(String)",
			"segment LowCardinality(String)", "`column` LowCardinality(String)", "detector LowCardinality(String)", micros("start"), micros("end"), "revision UInt64",
			"effect Float64", "floor Float64", "p Float64", "adjusted Float64", "drifted Bool", "severity LowCardinality(String)", "reason LowCardinality(String)",
			"sentence String CODEC(ZSTD(1))", "reference_rows UInt64", "rows UInt64"}, ", "), "namespace, monitor, segment, `column`, detector, start, revision", "toYYYYMM(start)"),
	}
}

// DimensionValues are the most frequent values of a dimension with event_time
// in [from, to); rows without one are left out.
func (s *Store) DimensionValues(ctx context.Context, sub Subject, dimension string, from, to time.Time, limit int) ([]string, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("values of %s: %w", dimension, err)
	}
	value, err := t.dimension(dimension)
	if err != nil {
		return nil, fmt.Errorf("values of %s: %w", dimension, err)
	}
	sql := fmt.Sprintf("SELECT v FROM (SELECT %s AS v FROM %s WHERE %s AND %s) WHERE v != '' GROUP BY v ORDER BY count() DESC, v LIMIT %d", value, s.ref(t.name), t.live(), inRange("event_time"), limit)
	rows, err := s.query(ctx, sql, params{"from": micro(from), "to": micro(to)})
	if err != nil {
		return nil, fmt.Errorf("values of %s: %w", dimension, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, fmt.Errorf("values of %s: %w", dimension, err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// SegmentVerdict is one stored judgement about a segment. Its identity is
// (namespace, monitor, segment, column, detector, start); a higher revision
// replaces it.
type SegmentVerdict struct {
	Verdict
	Segment string
}

// SaveSegmentVerdicts stores what was judged of segments under a revision.
func (s *Store) SaveSegmentVerdicts(ctx context.Context, vs []SegmentVerdict, revision uint64) error {
	if len(vs) == 0 {
		return nil
	}
	var cols []named
	add := func(name string, get func(SegmentVerdict) string) {
		cols = append(cols, named{name, texts(collect(vs, get))})
	}
	number := func(name string, get func(SegmentVerdict) float64) {
		cols = append(cols, named{name, fixed[float64]{"Float64", collect(vs, get)}})
	}
	whole := func(name string, get func(SegmentVerdict) uint64) {
		cols = append(cols, named{name, fixed[uint64]{"UInt64", collect(vs, get)}})
	}
	add("namespace", func(v SegmentVerdict) string { return v.Namespace })
	add("monitor", func(v SegmentVerdict) string { return v.Monitor })
	add("subject", func(v SegmentVerdict) string { return v.Subject })
	add("segment", func(v SegmentVerdict) string { return v.Segment })
	add("column", func(v SegmentVerdict) string { return v.Column })
	add("detector", func(v SegmentVerdict) string { return v.Detector })
	add("severity", func(v SegmentVerdict) string { return v.Severity })
	add("reason", func(v SegmentVerdict) string { return v.Reason })
	add("sentence", func(v SegmentVerdict) string { return v.Sentence })
	add("reference", func(v SegmentVerdict) string { return v.Reference })
	number("effect", func(v SegmentVerdict) float64 { return v.Effect })
	number("floor", func(v SegmentVerdict) float64 { return v.Floor })
	number("p", func(v SegmentVerdict) float64 { return v.P })
	number("adjusted", func(v SegmentVerdict) float64 { return v.Adjusted })
	whole("revision", func(SegmentVerdict) uint64 { return revision })
	whole("reference_rows", func(v SegmentVerdict) uint64 { return v.ReferenceRows })
	whole("rows", func(v SegmentVerdict) uint64 { return v.Rows })
	cols = append(cols, named{"drifted", fixed[bool]{"Bool", collect(vs, func(v SegmentVerdict) bool { return v.Drifted })}},
		named{"start", fixed[int64]{timestampType, collect(vs, func(v SegmentVerdict) int64 { return v.Start.UnixMicro() })}},
		named{"end", fixed[int64]{timestampType, collect(vs, func(v SegmentVerdict) int64 { return v.End.UnixMicro() })}})
	var about []string // a token names what it covers, as that of the verdicts does
	for _, v := range vs {
		about = append(about, v.Segment, v.Column, v.Detector, strconv.FormatInt(v.Start.UnixMicro(), 10))
	}
	token := fmt.Sprintf("segment verdicts/%s/%s/%d/%s", vs[0].Namespace, vs[0].Monitor, revision, digestOf(about))
	return s.insertRows(ctx, "segment_verdicts", token, len(vs), cols)
}

// SegmentDrift answers the kind "segment_drift": per judged window, segment and
// column how far it is from the segment's own reference, and the floor it is
// held against, in a range (default: the last day). The newest windows come
// first, the worst first within a window.
func (s *Store) SegmentDrift(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	where, p := verdictFilter(r, from, to)
	if len(r.Segment) > 1 {
		return nil, invalid("drift is kept by one dimension at a time")
	}
	for k, v := range r.Segment {
		p["segment"] = k + "=" + v
		where += " AND " + map[bool]string{true: "startsWith(toString(segment), {segment:String})", false: "segment = {segment:String}"}[v == ""]
	}
	cols := []query.Column{col("time", query.Time, ""), col("segment", query.Text, ""), col("column", query.Text, ""), col("detector", query.Text, ""),
		col("times", query.Float, ""), col("effect", query.Float, ""), col("floor", query.Float, ""), col("adjusted", query.Float, ""), col("drifted", query.Bool, ""),
		col("severity", query.Text, ""), col("rows", query.Uint, ""), col("reference_rows", query.Uint, ""), col("sentence", query.Text, ""), col("monitor", query.Text, ""), col("reference", query.Text, "")}
	cols[4].Thresholds = []query.Threshold{{Value: 1, State: "warning"}}
	sql := "SELECT start, toString(segment), toString(`column`), toString(detector), if(floor > 0, effect / floor, 0) AS times, effect, floor, adjusted, drifted, toString(severity), rows, reference_rows, sentence, toString(monitor), toString(reference) FROM " +
		"(SELECT * FROM " + s.ref("segment_verdicts") + " WHERE " + where + " AND reason = '' ORDER BY revision DESC LIMIT 1 BY monitor, segment, `column`, detector, start)" +
		" ORDER BY start DESC, times DESC, segment, `column`, detector LIMIT " + limit
	f, err := s.frame(ctx, "segment drift", query.Table, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("segment drift of %s: %w", r.View+r.Model, err))
	}
	return []query.Frame{f}, nil
}
