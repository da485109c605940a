package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// monitorTables hold what monitors remember and what they found beside single
// verdicts. Newest revisions win.
func (s *Store) monitorTables() []string {
	return []string{
		strings.Replace(s.fixed("monitor_states", "namespace LowCardinality(String), monitor LowCardinality(String), part String, revision UInt64, state String CODEC(ZSTD(3))",
			"namespace, monitor, part", ""), "MergeTree", "ReplacingMergeTree(revision)", 1),
		s.fixed("incidents", strings.Join([]string{"namespace LowCardinality(String)", "id String", "revision UInt64",
			"monitor LowCardinality(String)", "subject LowCardinality(String)", "`column` LowCardinality(String)", "detector LowCardinality(String)",
			micros("opened"), micros("ended"), micros("until"), "state LowCardinality(String)", "severity LowCardinality(String)", "told Bool",
			"sentence String CODEC(ZSTD(1))", "who String", "why String"}, ", "), "namespace, id, revision", "toYYYYMM(opened)"),
		s.fixed("performance", strings.Join([]string{"namespace LowCardinality(String)", "model LowCardinality(String)", "segment LowCardinality(String)",
			"metric LowCardinality(String)", micros("start"), micros("end"), "revision UInt64",
			"value Float64", "stderr Float64", "estimate Float64", "lower Float64", "upper Float64", "reference Float64",
			"predictions UInt64", "labelled UInt64", "mature Bool", "reason String"}, ", "), "namespace, model, segment, metric, start, revision", "toYYYYMM(start)"),
	}
}

// SaveMonitorState replaces parts of what a monitor remembers. No states
// removes nothing; an empty text stands for "forgotten".
func (s *Store) SaveMonitorState(ctx context.Context, namespace, monitor string, parts map[string]string, revision uint64) error {
	if len(parts) == 0 {
		return nil
	}
	names := sortedKeys(parts)
	cols := []named{
		{"namespace", texts(collect(names, func(string) string { return namespace }))},
		{"monitor", texts(collect(names, func(string) string { return monitor }))},
		{"part", texts(names)},
		{"revision", fixed[uint64]{"UInt64", collect(names, func(string) uint64 { return revision })}},
		{"state", texts(collect(names, func(n string) string { return parts[n] }))},
	}
	return s.insertRows(ctx, "monitor_states", fmt.Sprintf("state/%s/%s/%s/%d", namespace, monitor, names[0], revision), len(names), cols)
}

// MonitorState reads the newest text of every part that a monitor saved.
func (s *Store) MonitorState(ctx context.Context, namespace, monitor string) (map[string]string, error) {
	rows, err := s.query(ctx, "SELECT part, argMax(state, revision) FROM "+s.ref("monitor_states")+
		" WHERE namespace = {namespace:String} AND monitor = {monitor:String} GROUP BY part", params{"namespace": namespace, "monitor": monitor})
	if err != nil {
		return nil, fmt.Errorf("read the state of monitor %s: %w", monitor, err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var part, state string
		if err := rows.Scan(&part, &state); err != nil {
			return nil, fmt.Errorf("read the state of monitor %s: %w", monitor, err)
		}
		if state != "" {
			out[part] = state
		}
	}
	return out, rows.Err()
}

// Incident is one stretch of time in which a column (or a whole subject) is not
// as it should be. Its identity is ID; a higher revision replaces it.
type Incident struct {
	Namespace, ID, Monitor, Subject string
	Column, Detector                string
	Opened, Ended, Until            time.Time // Ended is zero while open; Until: when a snooze ends, or what was accepted
	State                           string    // open, silenced, acknowledged, snoozed, accepted, lapsed (it was accepted until a time that has passed), resolved
	Severity                        string
	Told                            bool // somebody was notified
	Sentence, Who, Why              string
}

// SaveIncidents stores incidents under a revision.
func (s *Store) SaveIncidents(ctx context.Context, is []Incident, revision uint64) error {
	if len(is) == 0 {
		return nil
	}
	var cols []named
	add := func(name string, get func(Incident) string) {
		cols = append(cols, named{name, texts(collect(is, get))})
	}
	at := func(name string, get func(Incident) time.Time) {
		cols = append(cols, named{name, fixed[int64]{timestampType, collect(is, func(i Incident) int64 { return microsOf(get(i)) })}})
	}
	add("namespace", func(i Incident) string { return i.Namespace })
	add("id", func(i Incident) string { return i.ID })
	add("monitor", func(i Incident) string { return i.Monitor })
	add("subject", func(i Incident) string { return i.Subject })
	add("column", func(i Incident) string { return i.Column })
	add("detector", func(i Incident) string { return i.Detector })
	add("state", func(i Incident) string { return i.State })
	add("severity", func(i Incident) string { return i.Severity })
	add("sentence", func(i Incident) string { return i.Sentence })
	add("who", func(i Incident) string { return i.Who })
	add("why", func(i Incident) string { return i.Why })
	at("opened", func(i Incident) time.Time { return i.Opened })
	at("ended", func(i Incident) time.Time { return i.Ended })
	at("until", func(i Incident) time.Time { return i.Until })
	cols = append(cols, named{"told", fixed[bool]{"Bool", collect(is, func(i Incident) bool { return i.Told })}},
		named{"revision", fixed[uint64]{"UInt64", collect(is, func(Incident) uint64 { return revision })}})
	return s.insertRows(ctx, "incidents", fmt.Sprintf("incidents/%s/%d/%d", is[0].ID, revision, len(is)), len(is), cols)
}

// microsOf is 0 for the zero time.
func microsOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// newestIncidents is one row per incident, at its newest revision.
func (s *Store) newestIncidents(where string) string {
	fields := []string{"monitor", "subject", "`column`", "detector", "opened", "ended", "until", "state", "severity", "told", "sentence", "who", "why"}
	var picked []string
	for _, f := range fields {
		picked = append(picked, "argMax("+f+", revision) AS "+f)
	}
	inner := "SELECT id, max(revision) AS rev, " + strings.ReplaceAll(strings.Join(picked, ", "), "argMax(", "argMax(i.") + " FROM " + s.ref("incidents") +
		" AS i WHERE namespace = {namespace:String} GROUP BY id"
	return "(SELECT * FROM (" + inner + ") WHERE " + where + ")"
}

// Incidents answers the kind "incidents": what was opened in a range (default:
// the last week) or is open still, worst and newest first.
func (s *Store) Incidents(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 7*24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "subject": r.View + r.Model}
	open := "toUnixTimestamp64Micro(ended) = 0"
	where := "((" + inRange("opened") + ") OR " + open + ")"
	if r.View+r.Model != "" {
		where += " AND subject = {subject:String}"
	}
	cols := []query.Column{col("id", query.Text, ""), col("state", query.Text, ""), col("severity", query.Text, ""), col("subject", query.Text, ""),
		col("column", query.Text, ""), col("detector", query.Text, ""), col("opened", query.Time, ""), maybe("ended", query.Time, ""), maybe("until", query.Time, ""),
		col("told", query.Bool, ""), col("sentence", query.Text, ""), col("who", query.Text, ""), col("why", query.Text, ""), col("monitor", query.Text, "")}
	sql := "SELECT id, toString(state), toString(severity), toString(subject), toString(`column`), toString(detector), opened, " +
		"if(" + open + ", NULL, ended), if(toUnixTimestamp64Micro(until) = 0, NULL, until), told, sentence, who, why, toString(monitor) FROM " + s.newestIncidents(where) +
		" ORDER BY " + open + " DESC, indexOf(['critical','warning','notice'], toString(severity)), opened DESC LIMIT " + limit
	f, err := s.frame(ctx, "incidents", query.Table, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("incidents: %w", err))
	}
	return []query.Frame{f}, nil
}
