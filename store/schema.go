package store

import (
	"fmt"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// table is a schema with what inserting into it needs.
type table struct {
	schema  *event.Schema
	name    string
	columns []column
	insert  string // INSERT statement, without settings and format
}

// column is one stored column. Index counts [event.Schema.Fields], and so the
// batch's columns.
type column struct {
	index int
	name  string // in the table
	typ   string // ClickHouse type
	codec string
}

// columnName is a field's name in its table. A dot would make ClickHouse take
// the column for a part of a nested one, or meet a subcolumn ("x.null"), so it
// is written as %2E; a percent sign as %25 keeps that reversible.
func columnName(f event.Field) string {
	return strings.NewReplacer("%", "%25", ".", "%2E").Replace(f.ColumnName())
}

// clickhouseType is a field's type in its table.
func clickhouseType(f event.Field) string {
	elem := elementType(f.Type.Elem)
	switch {
	case f.Type.List:
		return "Array(Nullable(" + elem + "))"
	case f.Role == event.System && (f.Name == "version" || f.Name == "variant"):
		return "LowCardinality(String)"
	case f.Nullable && !isMap(f.Type.Elem):
		return "Nullable(" + elem + ")"
	}
	return elem
}

func isMap(t event.Type) bool {
	return t == event.FloatMap || t == event.StringMap || t == event.TimeMap
}

const timestampType = "DateTime64(6, 'UTC')"

func elementType(t event.Type) string {
	switch t {
	case event.Bool, event.Int32, event.Int64, event.Float32, event.Float64:
		return t.String()
	case event.Timestamp:
		return timestampType
	case event.FloatMap:
		return "Map(String, Float64)"
	case event.StringMap:
		return "Map(String, String)"
	case event.TimeMap:
		return "Map(String, " + timestampType + ")"
	}
	return "String"
}

// codecOf chooses compression. Steadily growing numbers go as differences;
// floats get no float codec, for on real data those lose to plain ZSTD.
func codecOf(f event.Field) string {
	if f.Role == event.System && !f.Type.List {
		if f.Type.Elem == event.Timestamp || f.Name == "_offset" {
			return "CODEC(Delta, ZSTD(1))"
		}
	}
	return "CODEC(ZSTD(1))"
}

func newTable(database string, s *event.Schema) *table {
	t := &table{schema: s, name: s.Table()}
	var names strings.Builder
	names.WriteString("`_topic`")
	for i, f := range s.Fields {
		if f.Type.Elem == event.Unknown {
			continue
		}
		c := column{index: i, name: columnName(f), typ: clickhouseType(f), codec: codecOf(f)}
		t.columns = append(t.columns, c)
		names.WriteString(", " + chdb.QuoteIdent(c.name))
	}
	t.insert = fmt.Sprintf("INSERT INTO %s (%s)", qualified(database, t.name), names.String())
	return t
}

func qualified(database, table string) string {
	return chdb.QuoteIdent(database) + "." + chdb.QuoteIdent(table)
}

// create is the table's DDL.
func (t *table) create(o Options) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "CREATE TABLE IF NOT EXISTS %s%s (\n  `_topic` LowCardinality(String) CODEC(ZSTD(1))", qualified(o.Database, t.name), o.onCluster())
	for _, c := range t.columns {
		fmt.Fprintf(&sb, ",\n  %s %s %s", chdb.QuoteIdent(c.name), c.typ, c.codec)
	}
	sb.WriteString(t.indexes())
	fmt.Fprintf(&sb, "\n) ENGINE = %s\nPARTITION BY toYYYYMM(event_time)\nORDER BY (%s)", o.mergeTree(), t.orderBy())
	if o.Retention > 0 {
		sb.WriteString("\nTTL " + ttl("appended_at", o.Retention))
	}
	sb.WriteString("\n" + o.tableSettings())
	return sb.String()
}

// orderBy serves the table's main reader: history per key for features, scans
// of a time range for the others.
func (t *table) orderBy() string {
	if t.schema.Kind != event.Features {
		return "event_time, _partition, _offset"
	}
	var names []string
	for _, f := range t.schema.Keys() {
		names = append(names, chdb.QuoteIdent(columnName(f)))
	}
	return strings.Join(append(names, "event_time"), ", ")
}

// indexes help the joins of labels and predictions, which arrive far apart.
func (t *table) indexes() string {
	switch t.schema.Kind {
	case event.Predictions:
		return ",\n  INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1"
	case event.Labels:
		return ",\n  INDEX by_prediction prediction_id TYPE bloom_filter(0.01) GRANULARITY 1"
	}
	return ""
}

func (o Options) onCluster() string {
	if o.Cluster == "" {
		return ""
	}
	return " ON CLUSTER " + chdb.QuoteIdent(o.Cluster)
}

func (o Options) mergeTree() string {
	if o.Cluster == "" {
		return "MergeTree"
	}
	return "ReplicatedMergeTree"
}

// window is how many blocks per table a repeated token is recognised within.
const window = 10_000

func (o Options) tableSettings() string {
	s := fmt.Sprintf("SETTINGS non_replicated_deduplication_window = %d", window)
	if o.Cluster != "" {
		s = fmt.Sprintf("SETTINGS replicated_deduplication_window = %d, replicated_deduplication_window_seconds = 604800", window)
	}
	if o.Durability == PowerLoss {
		s += ", fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1"
	}
	return s
}
