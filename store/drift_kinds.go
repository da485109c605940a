package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// newestOf keeps of rows that agree in what a table is sorted by the one of the
// newest revision. Read backwards in that order it needs no table in memory,
// which is two to three times as fast as argMax by revision.
func newestOf(sortedBy ...string) string {
	return " ORDER BY " + strings.Join(sortedBy, " DESC, ") + " DESC, revision DESC LIMIT 1 BY " + strings.Join(sortedBy, ", ")
}

// Drift answers the kind "drift": per column and detector the distance of each
// judged window from its reference, and the floor it is held against, in a range
// (default: the last day). There is one frame per monitor, column and detector.
func (s *Store) Drift(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "subject": r.View + r.Model, "detector": r.Detector}
	where := "namespace = {namespace:String} AND subject = {subject:String} AND reason = '' AND " + inRange("start")
	if r.Detector != "" {
		where += " AND detector = {detector:String}"
	}
	if len(r.Columns) > 0 {
		p["columns"] = textList(r.Columns)
		where += " AND has(arrayMap(h -> unhex(h), {columns:Array(String)}), toString(`column`))"
	}
	cols := []query.Column{col("monitor", query.Text, ""), col("column", query.Text, ""), col("detector", query.Text, ""),
		col("time", query.Time, ""), col("effect", query.Float, ""), col("floor", query.Float, "")}
	sql := "SELECT toString(monitor) AS m, toString(`column`) AS c, toString(detector) AS d, start, effect, floor FROM (SELECT monitor, `column`, detector, start, effect, floor FROM " +
		s.ref("verdicts") + " WHERE " + where + newestOf("monitor", "`column`", "detector", "start") + ") ORDER BY m, c, d, start"
	if err := s.scan(ctx, cols, sql, p, nil); err != nil {
		return nil, requestError(fmt.Errorf("drift of %s: %w", r.View+r.Model, err))
	}
	return dealOut(cols, 3), nil
}

// dealOut makes a frame of each group of rows that agree in the first columns,
// which become labels.
func dealOut(cols []query.Column, labels int) []query.Frame {
	groups, order := groupRows(append([]query.Column{cols[labels]}, cols...), labels)
	var out []query.Frame
	for _, key := range order {
		parts := strings.Split(key, "\x00")
		named := map[string]string{}
		for i := range labels {
			named[cols[i].Name] = parts[i]
		}
		out = append(out, query.Frame{Name: parts[labels-2], Type: query.TimeSeriesMulti, Columns: pickRows(cols[labels:], groups[key], named)})
	}
	return out
}

// qualityStretch is the length of what one point of a range stands for, in whole
// minutes: a panel has no room for the 43,200 minutes of a month, and all columns
// together none for more than qualityPoints.
func qualityStretch(from, to time.Time, columns int) time.Duration {
	const most, qualityPoints = 1000, 20_000
	points := time.Duration(max(1, min(most, qualityPoints/max(1, columns))))
	return max(time.Minute, (to.Sub(from)/points + time.Minute - 1).Truncate(time.Minute))
}

// Quality answers the kind "quality": per column and derived window how many
// rows there were and which share of them had no value, in a range (default:
// the last day).
func (s *Store) Quality(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, t := range tables {
		p := Subject{t.schema.Kind, t.schema.TableID}.params(params{"from": micro(from), "to": micro(to), "stretch": fmt.Sprint(qualityStretch(from, to, len(t.schema.Values())).Microseconds())})
		cols := []query.Column{col("column", query.Text, ""), col("time", query.Time, ""), col("rows", query.Uint, ""), col("missing", query.Float, "percentunit")}
		sql := "SELECT toString(name), fromUnixTimestamp64Micro(intDiv(toUnixTimestamp64Micro(start), {stretch:Int64}) * {stretch:Int64}, 'UTC') AS at, sum(n) AS whole, if(whole = 0, 0, sum(m) / whole) FROM " +
			"(SELECT `column` AS name, start, rows AS n, missing AS m FROM " + s.ref("summaries") + " WHERE " + ofSubject + " AND " + inRange("start") +
			newestOf("`column`", "start") + ") GROUP BY name, at ORDER BY name, at"
		f, err := s.frame(ctx, t.schema.Subject, query.TimeSeriesLong, cols, sql, p)
		if err != nil {
			return nil, requestError(fmt.Errorf("quality of %s: %w", t.schema.Subject, err))
		}
		out = append(out, f)
	}
	return out, nil
}
