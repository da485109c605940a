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

// remembered is how far back an incident may have opened and still count as
// open: verdicts older than that are not looked at.
const remembered = 7 * 24 * time.Hour

// newestVerdicts are the judged windows since `from`, each at its newest
// revision. A window judged again for late rows has no change of its own: the
// one that it had stays.
func (s *Store) newestVerdicts(where string) string {
	return "SELECT toString(subject) AS subject, toString(monitor) AS monitor, toString(`column`) AS name, toString(detector) AS detector, start, " +
		"argMax(toString(severity), revision) AS severity, argMaxIf(toString(change), revision, change != 'same') AS change, argMax(sentence, revision) AS sentence FROM " +
		s.ref("verdicts") + " WHERE " + where + " GROUP BY subject, monitor, name, detector, start"
}

// verdictFilter is the condition on verdicts of a request since a time.
func verdictFilter(r query.Request, from, to time.Time) (string, params) {
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "subject": r.View + r.Model}
	where := "namespace = {namespace:String} AND " + inRange("start") + " AND detector != 'psi'"
	if r.View+r.Model != "" {
		where += " AND subject = {subject:String}"
	}
	if len(r.Columns) > 0 {
		p["columns"] = textList(r.Columns)
		where += " AND has(arrayMap(h -> unhex(h), {columns:Array(String)}), toString(`column`))"
	}
	if r.Detector != "" {
		p["detectors"] = textList(strings.Split(r.Detector, ","))
		where += " AND has(arrayMap(h -> unhex(h), {detectors:Array(String)}), toString(detector))"
	}
	return where, p
}

// DriftState answers the kind "drift_state": one number for every column and
// question that was judged, 0 while no incident is open, else 1 (notice), 2
// (warning) or 3 (critical) by the newest window. It is what alert rules ask.
func (s *Store) DriftState(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if least := to.Add(-remembered); from.After(least) {
		from = least
	}
	where, p := verdictFilter(r, from, to)
	cols := []query.Column{col("subject", query.Text, ""), col("monitor", query.Text, ""), col("column", query.Text, ""), col("detector", query.Text, ""), col("state", query.Float, "")}
	cols[4].Thresholds = []query.Threshold{{Value: 1, State: "low"}, {Value: 2, State: "warning"}, {Value: 3, State: "critical"}}
	sql := "SELECT subject, monitor, name, detector, toFloat64(if(argMaxIf(change, start, change IN ('opened', 'worsened', 'resolved', 'accepted')) IN ('opened', 'worsened'), " +
		"greatest(1, indexOf(['notice', 'warning', 'critical'], argMax(severity, start))), 0)) AS state FROM (" + s.newestVerdicts(where) +
		") GROUP BY subject, monitor, name, detector ORDER BY state DESC, subject, monitor, name, detector"
	f, err := s.frame(ctx, "drift state", query.NumericLong, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("drift state: %w", err))
	}
	return []query.Frame{f}, nil
}

// DriftShare answers the kind "drift_share": per subject the share of its judged
// columns that have an open incident.
func (s *Store) DriftShare(ctx context.Context, r query.Request) ([]query.Frame, error) {
	frames, err := s.DriftState(ctx, r)
	if err != nil {
		return nil, err
	}
	states := frames[0]
	open, all := map[string]map[string]bool{}, map[string]map[string]bool{}
	for i := range states.Rows() {
		subject, column := at[string](states.Columns[0], i), at[string](states.Columns[2], i)
		if strings.HasPrefix(column, "(") { // "(rows)", "(performance)": of the subject as a whole
			continue
		}
		if all[subject] == nil {
			all[subject], open[subject] = map[string]bool{}, map[string]bool{}
		}
		all[subject][column] = true
		if at[float64](states.Columns[4], i) > 0 {
			open[subject][column] = true
		}
	}
	subjects, shares := slices.Sorted(maps.Keys(all)), []float64{}
	for _, name := range subjects {
		shares = append(shares, float64(len(open[name]))/float64(len(all[name])))
	}
	if subjects == nil {
		subjects = []string{}
	}
	return []query.Frame{{Name: "drift share", Type: query.NumericLong, Columns: []query.Column{
		{Name: "subject", Type: query.Text, Values: subjects}, {Name: "share", Type: query.Float, Unit: "percentunit", Values: shares},
	}}}, nil
}

// heatmapColumns is how many columns a heat map shows when not told.
const heatmapColumns = 40

// DriftHeatmap answers the kind "drift_heatmap": per judged window how many
// times its floor each column is away from its reference. Beyond 1 the
// reference's own unrest does not explain it. The worst columns come last,
// which is the top of a heat map.
func (s *Store) DriftHeatmap(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	where, p := verdictFilter(r, from, to)
	cols := []query.Column{col("time", query.Time, ""), col("column", query.Text, ""), col("times", query.Float, "")}
	sql := "SELECT start, toString(name) AS n, max(if(floor > 0, effect / floor, 0)) FROM (SELECT start, `column` AS name, effect, floor, reason FROM " + s.ref("verdicts") +
		" WHERE " + where + newestOf("monitor", "`column`", "detector", "start") + ") WHERE reason = '' GROUP BY start, n ORDER BY start, n"
	if err := s.scan(ctx, cols, sql, p, nil); err != nil {
		return nil, requestError(fmt.Errorf("drift heat map of %s: %w", r.View+r.Model, err))
	}
	return []query.Frame{heatmapOf(cols, r.Limit)}, nil
}

// heatmapOf turns (time, name, value) rows in order of time into a column per
// name, the one with the largest value last.
func heatmapOf(cols []query.Column, most int) query.Frame {
	if most <= 0 {
		most = heatmapColumns
	}
	var times []time.Time
	values := map[string][]*float64{}
	worst := map[string]float64{}
	for i := range cols[0].Len() {
		at, name, v := at[time.Time](cols[0], i), at[string](cols[1], i), at[float64](cols[2], i)
		if len(times) == 0 || !times[len(times)-1].Equal(at) {
			times = append(times, at)
		}
		for len(values[name]) < len(times) {
			values[name] = append(values[name], nil)
		}
		values[name][len(times)-1], worst[name] = &v, max(worst[name], v)
	}
	names := slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		if worst[a] != worst[b] {
			return map[bool]int{true: -1, false: 1}[worst[a] < worst[b]]
		}
		return strings.Compare(b, a)
	})
	f := query.Frame{Name: "drift", Type: query.HeatmapRows, Columns: []query.Column{{Name: "time", Type: query.Time, Values: times}}}
	if times == nil {
		f.Columns[0].Values = []time.Time{}
	}
	if len(names) > most {
		f.Notices = []query.Notice{{Severity: "info", Text: fmt.Sprintf("the worst %d of %d columns are shown", most, len(names))}}
		names = names[len(names)-most:]
	}
	for _, name := range names {
		for len(values[name]) < len(times) {
			values[name] = append(values[name], nil)
		}
		f.Columns = append(f.Columns, query.Column{Name: name, Type: query.Float, Nullable: true, Values: values[name],
			Thresholds: []query.Threshold{{Value: 1, State: "warning"}, {Value: 3, State: "critical"}}})
	}
	return f
}

// DriftMarks are the changes of incidents in a range, for annotations.
func (s *Store) DriftMarks(ctx context.Context, r query.Request) (query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return query.Frame{}, err
	}
	where, p := verdictFilter(r, from, to)
	cols := []query.Column{col("time", query.Time, ""), col("subject", query.Text, ""), col("column", query.Text, ""), col("change", query.Text, ""), col("severity", query.Text, ""), col("sentence", query.Text, "")}
	sql := "SELECT start, subject, name, change, severity, sentence FROM (" + s.newestVerdicts(where) + ") WHERE change IN ('opened', 'worsened', 'resolved', 'accepted', 'lapsed') ORDER BY start DESC LIMIT 500"
	f, err := s.frame(ctx, "drift", query.Table, cols, sql, p)
	if err != nil {
		err = requestError(fmt.Errorf("drift marks: %w", err))
	}
	return f, err
}

// DeadLetterLog answers the kind "dead_letter_log": the newest dead letters as
// lines of a log.
func (s *Store) DeadLetterLog(ctx context.Context, r query.Request) ([]query.Frame, error) {
	p := params{}
	where, err := s.deadFilter(r, p)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	sql := "SELECT known_at, concat(toString(reason), ': ', detail, '  ', " + printable("value") + "), 'warning', concat(toString(topic), '/', toString(partition), '/', toString(offset), '/', toString(`index`)), " +
		"toJSONString(map('topic', toString(topic), 'reason', toString(reason), 'partition', toString(partition))) FROM " + s.ref("dead_letters") + " WHERE " + where + " ORDER BY known_at DESC LIMIT " + limit
	f, err := s.frame(ctx, "dead letters", query.LogLines, []query.Column{
		col("timestamp", query.Time, ""), col("body", query.Text, ""), col("severity", query.Text, ""), col("id", query.Text, ""), col("labels", query.RawJSON, ""),
	}, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("dead letters: %w", err))
	}
	return []query.Frame{f}, nil
}
