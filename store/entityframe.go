package store

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// PredictionFrame says which predictions to list.
type PredictionFrame struct {
	Namespace, Model string
	From, To         int64         // of event_time, µs: from ≤ t < to
	Keys             []event.Field // parts of the entity key that become columns
	Labels           bool          // with label, label_class and weight; predictions without a label are left out
	Until            Bounds
	Sample           Sample
}

// Predictions streams what was served, oldest first, as Arrow streams one after
// another: prediction_id, event_timestamp, version, the key's parts, the inputs
// as input__NAME, score, class, value; and with labels the newest one that was
// not withdrawn and the product of both weights.
func (s *Store) Predictions(ctx context.Context, f PredictionFrame, read func(io.Reader) error) error {
	var tables []*table
	for _, t := range s.tables() {
		if t.schema.Kind == event.Predictions && t.schema.Subject == f.Model && t.schema.Namespace == f.Namespace {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 {
		return fmt.Errorf("%w: no predictions of model %q are stored", ErrUnknown, f.Model)
	}
	slices.SortFunc(tables, func(a, b *table) int { return strings.Compare(a.name, b.name) })
	inputs := inputColumns(tables)
	var parts []string
	for _, t := range tables {
		parts = append(parts, s.predictionPart(t, f, inputs))
	}
	sql := "SELECT * EXCEPT (_weight) FROM (" + strings.Join(parts, " UNION ALL ") + ")"
	if f.Labels {
		labels, err := s.newestLabels(f)
		if err != nil {
			return err
		}
		sql = "SELECT p.* EXCEPT (_weight), l.label AS label, l.label_class AS label_class, p._weight * l.weight AS weight FROM (" +
			strings.Join(parts, " UNION ALL ") + ") AS p INNER JOIN (" + labels + ") AS l ON p.prediction_id = l.prediction_id"
	}
	p := params{"from": micro64(f.From), "to": micro64(f.To)}
	return s.arrow(ctx, sql+" ORDER BY event_timestamp, prediction_id", p, read)
}

// inputColumns are the inputs of all signatures, the first type of each.
func inputColumns(tables []*table) (out []event.Field) {
	for _, t := range tables {
		for _, c := range t.columns {
			f := t.schema.Fields[c.index]
			if f.Role == event.ValueRole && !slices.ContainsFunc(out, func(o event.Field) bool { return o.Name == f.Name }) {
				out = append(out, f)
			}
		}
	}
	return out
}

const framed = "event_time >= fromUnixTimestamp64Micro({from:Int64}) AND event_time < fromUnixTimestamp64Micro({to:Int64})"

// predictionPart names the table's columns by the table: a part of the key may be
// called "id" or "version" too, and its alias would be taken for them.
func (s *Store) predictionPart(t *table, f PredictionFrame, inputs []event.Field) string {
	cols := []string{"t.id AS prediction_id", "t.event_time AS event_timestamp", "toString(t.version) AS version", "t.weight AS _weight"}
	for _, k := range f.Keys {
		typ := elementType(k.Type.Elem)
		extract := fmt.Sprintf("JSONExtract(t.key, %s, '%s')", chdb.QuoteString(k.Name), typ)
		if k.Type.Elem == event.Timestamp {
			extract = fmt.Sprintf("parseDateTime64BestEffort(JSONExtractString(t.key, %s), 6, 'UTC')", chdb.QuoteString(k.Name))
		}
		cols = append(cols, extract+" AS "+chdb.QuoteIdent(k.Name))
	}
	for _, in := range inputs {
		expr := "CAST(NULL, '" + clickhouseType(in) + "')"
		if in.Type.List {
			expr = "CAST([], '" + clickhouseType(in) + "')"
		}
		if c, stored, ok := t.find(in.Name); ok && stored.Role == event.ValueRole {
			expr = fmt.Sprintf("CAST(t.%s, '%s')", chdb.QuoteIdent(c.name), clickhouseType(in))
		}
		cols = append(cols, expr+" AS "+chdb.QuoteIdent("input__"+in.Name))
	}
	cols = append(cols, "t.score AS score", "t.class AS class", "t.value AS value")
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + s.ref(t.name) + " AS t WHERE " + framed + " AND " + f.Until.condition() + " AND " + f.Sample.condition("t.id")
}

// newestLabels are the newest labels by prediction id, those withdrawn left out.
func (s *Store) newestLabels(f PredictionFrame) (string, error) {
	for name, t := range s.tables() {
		if t.schema.Kind == event.Labels && t.schema.Subject == f.Model && t.schema.Namespace == f.Namespace {
			newest := "(event_time, created, _epoch, _partition, _offset)"
			return fmt.Sprintf("SELECT prediction_id, argMax(tuple(label), %[1]s).1 AS label, argMax(tuple(label_class), %[1]s).1 AS label_class, argMax(weight, %[1]s) AS weight "+
				"FROM %[2]s WHERE prediction_id != '' AND %[3]s GROUP BY prediction_id HAVING NOT argMax(withdrawn, %[1]s)", newest, s.ref(name), f.Until.condition()), nil
		}
	}
	return "", fmt.Errorf("%w: no labels of model %q are stored", ErrUnknown, f.Model)
}

// Entities streams every key that views have rows of, once per time (µs), as
// Arrow streams one after another: the key's parts and event_timestamp. The
// views' keys must be the same.
func (s *Store) Entities(ctx context.Context, views []*event.Schema, times []int64, read func(io.Reader) error) error {
	var parts []string
	for _, v := range views {
		if err := s.Prepare(ctx, []*event.Schema{v}); err != nil {
			return err
		}
		var cols []string
		for _, k := range v.Keys() {
			cols = append(cols, chdb.QuoteIdent(columnName(k))+" AS "+chdb.QuoteIdent(k.Name))
		}
		parts = append(parts, "SELECT DISTINCT "+strings.Join(cols, ", ")+" FROM "+s.ref(v.Table()))
	}
	var names, at []string
	for _, k := range views[0].Keys() {
		names = append(names, chdb.QuoteIdent(k.Name))
	}
	for _, t := range times {
		at = append(at, micro64(t))
	}
	list := strings.Join(names, ", ")
	sql := fmt.Sprintf("SELECT %s, fromUnixTimestamp64Micro(arrayJoin([%s]), 'UTC') AS event_timestamp FROM (%s) ORDER BY %s, event_timestamp",
		list, strings.Join(at, ","), strings.Join(parts, " UNION DISTINCT "), list)
	return s.arrow(ctx, sql, nil, read)
}

func (s *Store) arrow(ctx context.Context, sql string, p params, read func(io.Reader) error) error {
	settings := map[string]string{"output_format_arrow_compression_method": "none", "output_format_arrow_string_as_string": "1",
		"output_format_arrow_low_cardinality_as_dictionary": "0", "output_format_arrow_date_as_uint16": "0"}
	return s.engine.query(ctx, sql+" FORMAT ArrowStream", p, settings, read)
}
