package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// LabelJoin says how labels find their predictions.
type LabelJoin struct {
	By        string        // "id", "key" or "view"
	Tolerance time.Duration // by key and by view: how long after the prediction the label may be true
	View      string        // by view: whose column states the truth
	Column    string
	Silence   string        // the label of a prediction that has none after Delay; [Store.Outcomes] leaves it to its caller
	Delay     time.Duration // with Silence

	ahead bool // by id: labels of the range's beginning or later, of whatever prediction
}

// JoinOf is how a model's definition says that labels find its predictions.
func JoinOf(l event.LabelSpec) LabelJoin {
	return LabelJoin{By: l.By, Tolerance: time.Duration(l.Tolerance), View: l.View, Column: l.Column, Silence: l.Silence, Delay: time.Duration(l.Delay)}
}

// Outcomes are predictions with what turned out true, as columns. NaN and the
// empty string stand for nothing.
type Outcomes struct {
	Time                           []time.Time
	Score, Value, Threshold, Label []float64
	Class, LabelClass              []string
	Scores                         []map[string]float64 // by class; nil where there are none
	There                          []bool               // the label has come and was not withdrawn
	Delay                          []float64            // s from prediction to label, by event time; NaN without one
	Groups                         map[string][]string  // by segment; "version" is one
	Predictions                    uint64               // in the range; the columns may hold a sample of them
}

// Outcomes joins a model's predictions of a range with their labels. At most
// limit rows come back, chosen by a hash of the prediction's id.
func (s *Store) Outcomes(ctx context.Context, sub Subject, j LabelJoin, groups []string, from, to time.Time, limit int) (*Outcomes, error) {
	o, _, err := s.OutcomesWith(ctx, sub, j, groups, nil, nil, from, to, limit)
	return o, err
}

// OutcomesWith is Outcomes with columns of the predictions beside them, row by
// row: numbers, and texts, which may be dimensions.
func (s *Store) OutcomesWith(ctx context.Context, sub Subject, j LabelJoin, groups, numbers, textual []string, from, to time.Time, limit int) (*Outcomes, *RowSample, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, nil, fmt.Errorf("outcomes: %w", err)
	}
	beside, err := t.picked(numbers, textual)
	if err != nil {
		return nil, nil, fmt.Errorf("outcomes of %s: %w", t.schema.Subject, err)
	}
	p := params{"from": micro(from), "to": micro(to), "tolerance": fmt.Sprint(j.Tolerance.Microseconds())}
	grouped := make([]string, len(groups))
	for i, g := range groups {
		if grouped[i], err = t.dimension(g); err != nil {
			return nil, nil, fmt.Errorf("outcomes of %s: %w", t.schema.Subject, err)
		}
	}
	joined, err := s.joinLabels(t, j)
	if err != nil {
		return nil, nil, fmt.Errorf("outcomes of %s: %w", t.schema.Subject, err)
	}
	picked := fmt.Sprintf("(SELECT id, key, event_time, ifNull(score, nan) AS score, ifNull(value, nan) AS value, ifNull(class, '') AS class, ifNull(threshold, nan) AS threshold, mapKeys(scores) AS classes, CAST(mapValues(scores), 'Array(Float64)') AS chances, "+
		"CAST([%s], 'Array(String)') AS grouped, %s FROM %s WHERE %s ORDER BY cityHash64(id) LIMIT %d) AS p", strings.Join(grouped, ", "), beside, s.ref(t.name), inRange("event_time"), limit)
	sql := "SELECT event_time, score, value, class, threshold, grouped, ifNull(label, nan), truth, there, if(there, (toUnixTimestamp64Micro(at) - toUnixTimestamp64Micro(event_time)) / 1e6, nan), classes, chances, numbers, words FROM " +
		"(SELECT p.event_time AS event_time, p.score AS score, p.value AS value, p.class AS class, p.threshold AS threshold, p.grouped AS grouped, p.classes AS classes, p.chances AS chances, p.numbers AS numbers, p.words AS words, l.label AS label, l.truth AS truth, l.at AS at, " +
		joined.there + " AS there FROM " + picked + joined.join + ")"
	out, sample := &Outcomes{Groups: map[string][]string{}}, newRowSample()
	if out.Predictions, err = s.CountRows(ctx, sub, from, to); err != nil {
		return nil, nil, err
	}
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return nil, nil, fmt.Errorf("outcomes of %s: %w", t.schema.Subject, err)
	}
	defer rows.Close()
	for rows.Next() {
		var at time.Time
		var score, value, threshold, label, delay float64
		var class, truth string
		var there bool
		var grouped, classes, words []string
		var chances, xs []float64
		if err := rows.Scan(&at, &score, &value, &class, &threshold, &grouped, &label, &truth, &there, &delay, &classes, &chances, &xs, &words); err != nil {
			return nil, nil, fmt.Errorf("outcomes of %s: %w", t.schema.Subject, err)
		}
		there = there && (truth != "" || !math.IsNaN(label))
		out.Time, out.Score, out.Value, out.Threshold = append(out.Time, at.UTC()), append(out.Score, score), append(out.Value, value), append(out.Threshold, threshold)
		out.Class, out.Label, out.LabelClass = append(out.Class, class), append(out.Label, label), append(out.LabelClass, truth)
		out.There, out.Delay = append(out.There, there), append(out.Delay, delay)
		var scores map[string]float64
		if len(classes) > 0 {
			scores = make(map[string]float64, len(classes))
		}
		for i, c := range classes {
			scores[c] = chances[i]
		}
		out.Scores = append(out.Scores, scores)
		sample.add(numbers, textual, xs, words)
		for i, g := range groups {
			out.Groups[g] = append(out.Groups[g], grouped[i])
		}
	}
	return out, sample, rows.Err()
}

// labelJoin is the right side of a join whose left one is p, and what says that
// a prediction has its label. Its rows have at, label, truth and there.
type labelJoin struct{ join, there string }

// joinLabels finds each prediction's label among those that were true at the
// prediction or later.
func (s *Store) joinLabels(t *table, j LabelJoin) (labelJoin, error) {
	if j.By == "view" {
		return s.joinView(t, j)
	}
	labels := s.tableFor(event.Labels, t.schema.Namespace, t.schema.Subject)
	if labels == nil {
		return noLabels(), nil
	}
	picked := func(by, at string) string {
		return fmt.Sprintf("SELECT %s, argMax(tuple(x.label), %[2]s).1 AS label, argMax(ifNull(x.label_class, ''), %[2]s) AS truth, NOT argMax(x.withdrawn, %[2]s) AS there, %[3]s AS at FROM %[4]s AS x",
			by, newestLabel, at, s.ref(labels.name))
	}
	switch j.By {
	case "", "id":
		which := fmt.Sprintf("x.prediction_id IN (SELECT id FROM %s WHERE %s)", s.ref(t.name), inRange("event_time"))
		if j.ahead {
			which = "x.event_time >= fromUnixTimestamp64Micro({from:Int64}, 'UTC')"
		}
		return labelJoin{" LEFT ANY JOIN (" + picked("x.prediction_id AS id", "argMax(x.event_time, "+newestLabel+")") +
			" WHERE " + which + " AND x.prediction_id != '' GROUP BY id) AS l ON p.id = l.id", "l.there"}, nil
	case "key":
		return near("("+picked("x.key AS id", "x.event_time")+" WHERE x.key != '' AND "+untilTolerance("x.event_time")+" GROUP BY x.key, x.event_time HAVING there)", "p.key"), nil
	}
	return labelJoin{}, invalid("labels by %q: want id, key or view", j.By)
}

// noLabels joins nothing.
func noLabels() labelJoin {
	return labelJoin{" LEFT ANY JOIN (SELECT '' AS id, CAST(NULL, 'Nullable(Float64)') AS label, '' AS truth, false AS there, toDateTime64(0, 6, 'UTC') AS at WHERE 0) AS l ON p.id = l.id", "l.there"}
}

// newestLabel orders the statements about one thing: the largest wins.
const newestLabel = "(x.event_time, x.created, x._epoch, x._partition, x._offset)"

// untilTolerance bounds what is read of labels that are joined by time.
func untilTolerance(column string) string {
	return column + " >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND " + column + " < fromUnixTimestamp64Micro({to:Int64} + {tolerance:Int64}, 'UTC')"
}

// near joins the first label at or after the prediction, if it is within the
// tolerance. What was withdrawn is none.
func near(inner, key string) labelJoin {
	return labelJoin{" ASOF LEFT JOIN " + inner + " AS l ON " + key + " = l.id AND p.event_time <= l.at",
		"(l.there AND toUnixTimestamp64Micro(l.at) <= toUnixTimestamp64Micro(p.event_time) + {tolerance:Int64})"}
}

// joinView takes the truth from a view's column: the first row of the entity at
// or after the prediction that has one. Of rows of one moment the newest counts.
func (s *Store) joinView(t *table, j LabelJoin) (labelJoin, error) {
	v := s.tableFor(event.Features, t.schema.Namespace, j.View)
	if v == nil {
		return labelJoin{}, fmt.Errorf("%w: labels come from the view %q, of which nothing is stored", ErrUnknown, j.View)
	}
	c, f, ok := v.find(j.Column)
	if !ok || f.Type.List || isMap(f.Type.Elem) {
		return labelJoin{}, fmt.Errorf("%w: view %s has no column %q for labels", ErrUnknown, j.View, j.Column)
	}
	var keys, asked []string
	for _, k := range v.schema.Keys() {
		keys = append(keys, "toString(x."+chdb.QuoteIdent(columnName(k))+")")
		asked = append(asked, "JSON_VALUE(p.key, '$.\""+strings.NewReplacer("'", "", `"`, "", `\\`, "").Replace(k.Name)+"\"')")
	}
	column := "x." + chdb.QuoteIdent(c.name)
	value := "CAST(" + column + ", 'Nullable(String)')"
	number, class := "toFloat64OrNull(ifNull("+value+", ''))", "''"
	if f.Type.Elem == event.String {
		number, class = "CAST(NULL, 'Nullable(Float64)')", "ifNull("+value+", '')"
	}
	if f.Type.Elem == event.Bool {
		number = "CAST(" + column + ", 'Nullable(Float64)')"
	}
	id := strings.Join(keys, ", ")
	inner := fmt.Sprintf("(SELECT [%[1]s] AS id, x.event_time AS at, argMax(tuple(%[2]s), %[5]s).1 AS label, argMax(%[3]s, %[5]s) AS truth, argMax(isNotNull(%[4]s) AND NOT x.deleted, %[5]s) AS there FROM %[6]s AS x WHERE %[7]s GROUP BY %[1]s, x.event_time HAVING there)",
		id, number, class, column, newestLabel, s.ref(v.name), untilTolerance("x.event_time"))
	return near(inner, "["+strings.Join(asked, ", ")+"]"), nil
}

// Relabelled are the windows of a length, counted from the epoch, of the
// predictions in [from, to) about which the ledger says that labels came,
// changed or were withdrawn after a moment, and the moment to ask from next
// time. A window may be named whose labels are as they were.
func (s *Store) Relabelled(ctx context.Context, sub Subject, j LabelJoin, from, to time.Time, length time.Duration, since time.Time) ([]time.Time, time.Time, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, since, fmt.Errorf("corrected labels: %w", err)
	}
	source := s.tableFor(event.Labels, t.schema.Namespace, t.schema.Subject)
	if j.By == "view" {
		source = s.tableFor(event.Features, t.schema.Namespace, j.View)
	}
	if source == nil {
		return nil, since, nil
	}
	minutes, _, until, err := s.DirtyMinutes(ctx, Subject{source.schema.Kind, source.schema.TableID}, since)
	if err != nil || len(minutes) == 0 {
		return nil, until, err
	}
	if j.By == "view" {
		return windowsBefore(minutes, from, to, length, j.Tolerance), until, nil
	}
	numbers := make([]uint64, len(minutes))
	for i, m := range minutes {
		numbers[i] = uint64(m.Unix() / 60)
	}
	p := params{"from": micro(from), "to": micro(to), "step": fmt.Sprint(length.Microseconds()), "minutes": wordList(numbers)}
	mine, theirs := "id", "prediction_id"
	if j.By == "key" {
		mine, theirs = "key", "key"
	}
	sql := fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE %s AND %s IN (SELECT %s FROM %s WHERE has({minutes:Array(UInt64)}, toUInt64(intDiv(toUnixTimestamp64Micro(event_time), 60000000))))",
		windowNumber, s.ref(t.name), inRange("event_time"), mine, theirs, s.ref(source.name))
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return nil, since, fmt.Errorf("corrected labels of %s: %w", t.schema.Subject, err)
	}
	defer rows.Close()
	var out []time.Time
	for rows.Next() {
		var w int64
		if err := rows.Scan(&w); err != nil {
			return nil, since, fmt.Errorf("corrected labels of %s: %w", t.schema.Subject, err)
		}
		out = append(out, time.UnixMicro(w*length.Microseconds()).UTC())
	}
	return out, until, rows.Err()
}

// windowsBefore are the windows in [from, to) whose predictions may take their
// label from one of some minutes.
func windowsBefore(minutes []time.Time, from, to time.Time, length, tolerance time.Duration) []time.Time {
	seen := map[int64]bool{}
	var out []time.Time
	for _, m := range minutes {
		for start := m.Add(-tolerance).Truncate(length); !start.After(m.Add(time.Minute)); start = start.Add(length) {
			if !start.Before(from) && start.Before(to) && !seen[start.UnixMicro()] {
				seen[start.UnixMicro()] = true
				out = append(out, start)
			}
		}
	}
	return out
}

// tableFor finds a subject's table, of the newest version of its newest
// definition, or nil.
func (s *Store) tableFor(kind event.Kind, namespace, subject string) *table {
	var newest *table
	for _, t := range s.tables() {
		if t.schema.Kind != kind || t.schema.Subject != subject || t.schema.Namespace != namespace {
			continue
		}
		if newest == nil || cmp.Or(cmp.Compare(definitionOf(t.schema), definitionOf(newest.schema)), cmp.Compare(t.schema.TableID, newest.schema.TableID)) > 0 {
			newest = t
		}
	}
	return newest
}

// SegmentNames are the segments that a model's predictions of a range carry,
// the most frequent first.
func (s *Store) SegmentNames(ctx context.Context, sub Subject, from, to time.Time) ([]string, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("segments: %w", err)
	}
	var names []string
	sql := fmt.Sprintf("SELECT arraySlice(arrayMap(x -> x.1, arrayReverseSort(x -> x.2, groupArray((k, n)))), 1, 8) FROM (SELECT arrayJoin(mapKeys(segments)) AS k, count() AS n FROM %s WHERE %s GROUP BY k)", s.ref(t.name), inRange("event_time"))
	if err := s.queryRow(ctx, sql, params{"from": micro(from), "to": micro(to)}).Scan(&names); err != nil {
		return nil, fmt.Errorf("segments of %s: %w", t.schema.Subject, err)
	}
	slices.Sort(names)
	return names, nil
}
