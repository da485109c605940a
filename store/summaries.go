package store

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/query"
)

// derivedTables hold what is computed from rows. Each row has a revision, and
// readers take the newest: recomputing replaces.
func (s *Store) derivedTables() []string {
	subject := []string{"kind UInt8", "table_id UInt64", "`column` LowCardinality(String)"}
	return []string{
		s.fixed("summaries", strings.Join(append(subject, micros("start"), "length_us Int64", "grid UInt64", "revision UInt64",
			"rows UInt64", "missing UInt64", "summary String CODEC(ZSTD(1))"), ", "), "kind, table_id, `column`, start, revision", "toYYYYMM(start)"),
		s.fixed("grids", strings.Join(append(subject, "grid UInt64", "revision UInt64", "spec String CODEC(ZSTD(1))"), ", "), "kind, table_id, `column`, revision", ""),
		s.fixed("verdicts", strings.Join(append([]string{"namespace LowCardinality(String)", "monitor LowCardinality(String)", "subject LowCardinality(String)"}, append(subject,
			"detector LowCardinality(String)", micros("start"), micros("end"), "revision UInt64",
			"effect Float64", "low Float64", "high Float64", "floor Float64", "learnt Bool", "seasonal Bool", "p Float64", "adjusted Float64", "drifted Bool",
			"severity LowCardinality(String)", "change LowCardinality(String)", "reason LowCardinality(String)", "sentence String CODEC(ZSTD(1))",
			"reference_rows UInt64", "rows UInt64")...), ", "), "namespace, monitor, `column`, detector, start, revision", "toYYYYMM(start)"),
	}
}

// SaveSummaries stores windows of one length under a revision.
func (s *Store) SaveSummaries(ctx context.Context, sub Subject, ws []WindowSummary, length time.Duration, revision uint64) error {
	if len(ws) == 0 {
		return nil
	}
	packed := make([]string, len(ws))
	for i, w := range ws {
		b, err := w.Summary.MarshalBinary()
		if err != nil {
			return fmt.Errorf("save summaries: %w", err)
		}
		packed[i] = string(b)
	}
	cols := append(subjectColumns(sub, collect(ws, func(w WindowSummary) string { return w.Column })),
		named{"start", fixed[int64]{timestampType, collect(ws, func(w WindowSummary) int64 { return w.Start.UnixMicro() })}},
		named{"length_us", fixed[int64]{"Int64", collect(ws, func(WindowSummary) int64 { return length.Microseconds() })}},
		named{"grid", fixed[uint64]{"UInt64", collect(ws, func(w WindowSummary) uint64 { return w.Summary.GridID })}},
		named{"revision", fixed[uint64]{"UInt64", collect(ws, func(WindowSummary) uint64 { return revision })}},
		named{"rows", fixed[uint64]{"UInt64", collect(ws, func(w WindowSummary) uint64 { return w.Summary.Rows() })}},
		named{"missing", fixed[uint64]{"UInt64", collect(ws, func(w WindowSummary) uint64 { return w.Summary.Missing })}},
		named{"summary", texts(packed)})
	// one tick may count the same windows twice, on the grids before a promotion
	// and after it
	about := make([]string, 0, 3*len(ws))
	for _, w := range ws {
		about = append(about, w.Column, strconv.FormatInt(w.Start.UnixMicro(), 10), strconv.FormatUint(w.Summary.GridID, 10))
	}
	token := fmt.Sprintf("summaries/%d/%d/%d/%s", sub.Kind, sub.TableID, revision, digestOf(about))
	return s.insertRows(ctx, "summaries", token, len(ws), cols)
}

// subjectColumns repeat a subject for each of its columns.
func subjectColumns(sub Subject, columns []string) []named {
	kinds, ids := make([]uint8, len(columns)), make([]uint64, len(columns))
	for i := range columns {
		kinds[i], ids[i] = uint8(sub.Kind), sub.TableID
	}
	return []named{{"kind", fixed[uint8]{"UInt8", kinds}}, {"table_id", fixed[uint64]{"UInt64", ids}}, {"column", texts(columns)}}
}

func (sub Subject) params(p params) params {
	p["kind"], p["table"] = strconv.Itoa(int(sub.Kind)), strconv.FormatUint(sub.TableID, 10)
	return p
}

const ofSubject = "kind = {kind:UInt8} AND table_id = {table:UInt64}"

// SavedSummaries reads the newest revision of the windows of a length that start
// in [from, to), by column and time; on each grid that they were counted on.
func (s *Store) SavedSummaries(ctx context.Context, sub Subject, from, to time.Time, length time.Duration) ([]WindowSummary, error) {
	p := sub.params(params{"from": micro(from), "to": micro(to), "length": strconv.FormatInt(length.Microseconds(), 10)})
	rows, err := s.query(ctx, "SELECT `column`, start, base64Encode(argMax(summary, revision)) FROM "+s.ref("summaries")+
		" WHERE "+ofSubject+" AND length_us = {length:Int64} AND "+inRange("start")+" GROUP BY `column`, start, grid ORDER BY `column`, start", p)
	if err != nil {
		return nil, fmt.Errorf("read summaries: %w", err)
	}
	defer rows.Close()
	var out []WindowSummary
	for rows.Next() {
		var w WindowSummary
		var packed string
		if err := rows.Scan(&w.Column, &w.Start, &packed); err != nil {
			return nil, fmt.Errorf("read summaries: %w", err)
		}
		if w.Summary, err = unpack(packed); err != nil {
			return nil, fmt.Errorf("read summary of %s at %s: %w", w.Column, w.Start, err)
		}
		w.Start = w.Start.UTC()
		out = append(out, w)
	}
	return out, rows.Err()
}

// SaveGrids stores the grids that columns are counted on from now on.
func (s *Store) SaveGrids(ctx context.Context, sub Subject, columns []SummaryColumn, revision uint64) error {
	if len(columns) == 0 {
		return nil
	}
	specs := make([]string, len(columns))
	for i, c := range columns {
		b, err := json.Marshal(c.Grid)
		if err != nil {
			return fmt.Errorf("save grid of %s: %w", c.Name, err)
		}
		specs[i] = string(b)
	}
	cols := append(subjectColumns(sub, collect(columns, func(c SummaryColumn) string { return c.Name })),
		named{"grid", fixed[uint64]{"UInt64", collect(columns, func(c SummaryColumn) uint64 { return c.Grid.ID() })}},
		named{"revision", fixed[uint64]{"UInt64", collect(columns, func(SummaryColumn) uint64 { return revision })}},
		named{"spec", texts(specs)})
	return s.insertRows(ctx, "grids", fmt.Sprintf("grids/%d/%d/%d/%s", sub.Kind, sub.TableID, revision, digestOf(specs)), len(columns), cols)
}

// Grids reads the newest grid of each column of a subject.
func (s *Store) Grids(ctx context.Context, sub Subject) ([]SummaryColumn, error) {
	rows, err := s.query(ctx, "SELECT `column`, argMax(spec, revision) FROM "+s.ref("grids")+" WHERE "+ofSubject+" GROUP BY `column` ORDER BY `column`", sub.params(params{}))
	if err != nil {
		return nil, fmt.Errorf("read grids: %w", err)
	}
	defer rows.Close()
	var out []SummaryColumn
	for rows.Next() {
		c := SummaryColumn{Grid: new(dist.Grid)}
		var spec string
		if err := rows.Scan(&c.Name, &spec); err != nil {
			return nil, fmt.Errorf("read grids: %w", err)
		}
		if err := json.Unmarshal([]byte(spec), c.Grid); err != nil {
			return nil, fmt.Errorf("read grid of %s: %w", c.Name, err)
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// DirtyMinutes are the minutes of event_time of a subject to which ledger rows
// written after a moment added rows, those of them to which imports did, and the
// moment to ask from next time.
func (s *Store) DirtyMinutes(ctx context.Context, sub Subject, since time.Time) (minutes, imported []time.Time, until time.Time, err error) {
	p := sub.params(params{"since": micro(since)})
	rows, err := s.query(ctx, "SELECT w.minute, max(inserted_at), max("+importedTopic+") FROM "+s.ref("ledger")+" ARRAY JOIN windows AS w"+
		" WHERE inserted_at > fromUnixTimestamp64Micro({since:Int64}, 'UTC') AND w.kind = {kind:UInt8} AND w.table_id = {table:UInt64} GROUP BY w.minute ORDER BY w.minute", p)
	if err != nil {
		return nil, nil, since, fmt.Errorf("read dirty windows: %w", err)
	}
	defer rows.Close()
	until = since
	for rows.Next() {
		var minute int64
		var at time.Time
		var past uint8
		if err := rows.Scan(&minute, &at, &past); err != nil {
			return nil, nil, since, fmt.Errorf("read dirty windows: %w", err)
		}
		minutes = append(minutes, time.Unix(minute*60, 0).UTC())
		if past != 0 {
			imported = append(imported, minutes[len(minutes)-1])
		}
		if at.After(until) {
			until = at.UTC()
		}
	}
	return minutes, imported, until, rows.Err()
}

// Arrival is what the ledger says of a range of event_time: when rows of it were
// last written, when the last ones of an import were (zero: never), and whether
// rows at the range's end or behind it are there.
type Arrival struct {
	Last, Imported time.Time
	Beyond         bool
}

// Arrived reads the [Arrival] of a subject's rows in [from, to), by minutes.
func (s *Store) Arrived(ctx context.Context, sub Subject, from, to time.Time) (Arrival, error) {
	p := sub.params(params{"first": strconv.FormatInt(from.Unix()/60, 10), "end": strconv.FormatInt((to.Unix()+59)/60, 10)})
	const within = "minute >= {first:Int64} AND minute < {end:Int64}"
	var a Arrival
	var of, imports, beyond uint64
	sql := "SELECT countIf(" + within + "), maxIf(at, " + within + "), countIf(" + within + " AND past), maxIf(at, " + within + " AND past), countIf(minute >= {end:Int64})" +
		" FROM (SELECT toInt64(w.minute) AS minute, inserted_at AS at, " + importedTopic + " AS past FROM " + s.ref("ledger") + " ARRAY JOIN windows AS w WHERE w.kind = {kind:UInt8} AND w.table_id = {table:UInt64})"
	if err := s.queryRow(ctx, sql, p).Scan(&of, &a.Last, &imports, &a.Imported, &beyond); err != nil {
		return Arrival{}, fmt.Errorf("read when rows came: %w", err)
	}
	if of == 0 {
		a.Last = time.Time{}
	}
	if imports == 0 {
		a.Imported = time.Time{}
	}
	a.Beyond = beyond > 0
	return a, nil
}

// importedTopic is the condition of ledger rows of imports: see
// [event.ImportTopicPrefix].
const importedTopic = `match(topic, '^kedge\\.[^.]+\\.import\\.')`

// Verdict is one stored judgement. Its identity is (namespace, monitor, column,
// detector, start); a higher revision replaces it.
type Verdict struct {
	Namespace, Monitor, Subject string
	Column, Detector            string
	Start, End                  time.Time
	Effect, Low, High, Floor    float64
	Learnt, Seasonal, Drifted   bool
	P, Adjusted                 float64
	Severity, Change            string
	Reason                      string // why there is no answer; empty when there is one
	Sentence                    string
	ReferenceRows, Rows         uint64
	Reference                   string // what the window was held against
}

// digestOf is short and the same for the same words.
func digestOf(words []string) string {
	h := fnv.New64a()
	for _, w := range words {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// SaveVerdicts stores verdicts about one subject under a revision.
func (s *Store) SaveVerdicts(ctx context.Context, sub Subject, vs []Verdict, revision uint64) error {
	if len(vs) == 0 {
		return nil
	}
	cols := append(subjectColumns(sub, collect(vs, func(v Verdict) string { return v.Column })),
		named{"revision", fixed[uint64]{"UInt64", collect(vs, func(Verdict) uint64 { return revision })}})
	add := func(name string, get func(Verdict) string) { cols = append(cols, named{name, texts(collect(vs, get))}) }
	number := func(name string, get func(Verdict) float64) {
		cols = append(cols, named{name, fixed[float64]{"Float64", collect(vs, get)}})
	}
	flag := func(name string, get func(Verdict) bool) {
		cols = append(cols, named{name, fixed[bool]{"Bool", collect(vs, get)}})
	}
	add("namespace", func(v Verdict) string { return v.Namespace })
	add("monitor", func(v Verdict) string { return v.Monitor })
	add("subject", func(v Verdict) string { return v.Subject })
	add("detector", func(v Verdict) string { return v.Detector })
	add("severity", func(v Verdict) string { return v.Severity })
	add("change", func(v Verdict) string { return v.Change })
	add("reason", func(v Verdict) string { return v.Reason })
	add("sentence", func(v Verdict) string { return v.Sentence })
	add("reference", func(v Verdict) string { return v.Reference })
	number("effect", func(v Verdict) float64 { return v.Effect })
	number("low", func(v Verdict) float64 { return v.Low })
	number("high", func(v Verdict) float64 { return v.High })
	number("floor", func(v Verdict) float64 { return v.Floor })
	number("p", func(v Verdict) float64 { return v.P })
	number("adjusted", func(v Verdict) float64 { return v.Adjusted })
	flag("learnt", func(v Verdict) bool { return v.Learnt })
	flag("seasonal", func(v Verdict) bool { return v.Seasonal })
	flag("drifted", func(v Verdict) bool { return v.Drifted })
	cols = append(cols,
		named{"start", fixed[int64]{timestampType, collect(vs, func(v Verdict) int64 { return v.Start.UnixMicro() })}},
		named{"end", fixed[int64]{timestampType, collect(vs, func(v Verdict) int64 { return v.End.UnixMicro() })}},
		named{"reference_rows", fixed[uint64]{"UInt64", collect(vs, func(v Verdict) uint64 { return v.ReferenceRows })}},
		named{"rows", fixed[uint64]{"UInt64", collect(vs, func(v Verdict) uint64 { return v.Rows })}})
	// One tick may save twice about one window: of its distributions, of what came
	// late, of the model's performance. A token names what it covers, else the
	// second save would be taken for a repeat of the first.
	var about []string
	for _, v := range vs {
		about = append(about, v.Column, v.Detector, strconv.FormatInt(v.Start.UnixMicro(), 10))
	}
	token := fmt.Sprintf("verdicts/%s/%s/%d/%s", vs[0].Namespace, vs[0].Monitor, revision, digestOf(about))
	return s.insertRows(ctx, "verdicts", token, len(vs), cols)
}

// Verdicts answers the kind "verdicts": what monitors judged about a view or
// model in a range (default: the last day), newest first, each window once.
func (s *Store) Verdicts(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "subject": r.View + r.Model}
	where := "namespace = {namespace:String} AND " + inRange("start")
	if r.View+r.Model != "" {
		where += " AND subject = {subject:String}"
	}
	cols := []query.Column{col("time", query.Time, ""), col("end", query.Time, ""), col("monitor", query.Text, ""), col("subject", query.Text, ""),
		col("column", query.Text, ""), col("detector", query.Text, ""), col("drifted", query.Bool, ""), col("severity", query.Text, ""), col("change", query.Text, ""),
		col("effect", query.Float, ""), col("low", query.Float, ""), col("high", query.Float, ""), col("floor", query.Float, ""), col("learnt", query.Bool, ""),
		col("p", query.Float, ""), col("adjusted", query.Float, ""), col("reason", query.Text, ""), col("sentence", query.Text, ""),
		col("rows", query.Uint, ""), col("revision", query.Uint, ""), col("reference", query.Text, "")}
	sql := "SELECT start, end, toString(monitor), toString(subject), toString(`column`), toString(detector), drifted, toString(severity), toString(change), " +
		"effect, low, high, floor, learnt, p, adjusted, toString(reason), sentence, rows, revision, toString(reference) FROM " + s.ref("verdicts") + " WHERE " + where +
		" ORDER BY start DESC, monitor, `column`, detector, revision DESC LIMIT 1 BY start, monitor, `column`, detector LIMIT " + limit
	f, err := s.frame(ctx, "verdicts", query.Table, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("verdicts: %w", err))
	}
	return []query.Frame{f}, nil
}
