package store

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/kedge-ml/kedge/event"
)

// exactlyOnce are all settings that an exactly-once insert depends on, since
// the engine's defaults changed more than once: one insert is one block,
// sorted into one part per partition, recognised by its token.
func exactlyOnce(o Options) map[string]string {
	settings := map[string]string{
		"async_insert":       "0",
		"insert_deduplicate": "1",
		"deduplicate_insert": "enable",
		"deduplicate_blocks_in_dependent_materialized_views": "1",
		"insert_deduplication_token":                         "",
		"max_insert_threads":                                 "1",
		"max_insert_block_size":                              huge,
		"min_insert_block_size_rows":                         huge,
		"min_insert_block_size_bytes":                        "0",
		"max_partitions_per_insert_block":                    "0",
		"input_format_native_allow_types_conversion":         "1",
		"max_execution_time":                                 strconv.Itoa(int(o.Timeout.Seconds())),
		"priority":                                           "1", // before what yields; see [Store.yield]
	}
	if o.Cluster != "" { // an acknowledged block is on more than half of the replicas
		settings["insert_quorum"], settings["insert_quorum_parallel"] = "auto", "0"
	}
	return settings
}

// newerSettings came to ClickHouse late; what they say was the only way
// before.
func newerSettings() []string {
	return []string{"deduplicate_insert", "input_format_native_allow_types_conversion"}
}

// readSettings leaves out what an older server does not know, and refuses one
// that lacks what exactly-once needs.
func (s *Store) readSettings(ctx context.Context) error {
	var tables uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = 'system' AND name = 'detached_tables'").Scan(&tables); err != nil {
		return fmt.Errorf("read the engine's settings: %w", err)
	}
	s.detached = tables > 0
	want := exactlyOnce(s.opt)
	var known []string
	if err := s.conn.QueryRow(ctx, "SELECT groupArray(name) FROM system.settings").Scan(&known); err != nil {
		return fmt.Errorf("read the engine's settings: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch {
		case slices.Contains(known, name):
		case slices.Contains(newerSettings(), name):
			delete(want, name)
		default:
			return fmt.Errorf("the ClickHouse server is too old: it lacks the setting %s; want 23.8 or newer", name)
		}
	}
	s.settings = want
	s.yielding = clickhouse.Settings{"priority": 2}
	if slices.Contains(known, yieldTime) {
		s.yielding[yieldTime] = yieldMillis
	}
	return nil
}

// How long a statement that yields waits at a time, for each block that it reads:
// under inserts without end it still gets on.
const (
	yieldTime   = "low_priority_query_wait_time_ms"
	yieldMillis = 100
)

// yield makes statements wait while inserts run. What is counted anew in the
// background has time; events that come have not.
func (s *Store) yield(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(s.yielding))
}

func (s *Store) insertSettings(ctx context.Context, token string) map[string]string {
	settings := maps.Clone(s.settings)
	settings["insert_deduplication_token"] = token
	if until, ok := ctx.Deadline(); ok {
		settings["max_execution_time"] = strconv.Itoa(max(1, int(math.Ceil(time.Until(until).Seconds()))))
	}
	return settings
}

// huge is above any batch's rows.
const huge = "1099511627776"

// Insert stores a batch as one block. A second insert with the same token does
// nothing, so the token must stand for the content.
func (s *Store) Insert(ctx context.Context, token string, b *event.Batch) error {
	if b.Rows == 0 {
		return nil
	}
	if err := s.Prepare(ctx, []*event.Schema{b.Schema}); err != nil {
		return err
	}
	t := s.tableOf(b.Schema)
	if t == nil { // another schema of the table came meanwhile
		t = newTable(s.opt.Database, b.Schema)
	}
	cols, err := batchColumns(t, b)
	if err != nil {
		return fmt.Errorf("insert %d rows into %s: %w", b.Rows, t.name, err)
	}
	return s.insertBlock(ctx, t.name, t.insert, token, b.Rows, cols)
}

func batchColumns(t *table, b *event.Batch) ([]named, error) {
	cols := make([]named, 0, len(t.columns)+1)
	cols = append(cols, named{"_topic", constant{b.Topic, b.Rows}})
	for _, c := range t.columns {
		v, err := columnValues(&b.Columns[c.index], b.Rows)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		cols = append(cols, named{c.name, v})
	}
	return cols, nil
}

func (s *Store) insertBlock(ctx context.Context, table, sql, token string, rows int, cols []named) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	buf, _ := s.buffers.Get().(*proto.Buffer)
	if buf == nil {
		buf = new(proto.Buffer)
	}
	defer s.buffers.Put(buf)
	err := s.engine.insert(ctx, sql, s.insertSettings(ctx, token), func(w io.Writer) error {
		return writeBlock(w, buf, rows, cols)
	})
	if err != nil {
		return fmt.Errorf("insert %d rows into %s: %w", rows, table, err)
	}
	return nil
}

// InsertDeadLetters stores the dead letters of a unit as one block.
func (s *Store) InsertDeadLetters(ctx context.Context, token string, d []event.DeadLetter) error {
	if len(d) == 0 {
		return nil
	}
	cols := []named{
		{"topic", texts(collect(d, func(x event.DeadLetter) string { return x.Topic }))},
		{"partition", fixed[int32]{"Int32", collect(d, func(x event.DeadLetter) int32 { return x.Partition })}},
		{"offset", fixed[int64]{"Int64", collect(d, func(x event.DeadLetter) int64 { return x.Offset })}},
		{"index", fixed[int32]{"Int32", collect(d, func(x event.DeadLetter) int32 { return x.Index })}},
		{"epoch", fixed[int32]{"Int32", collect(d, func(x event.DeadLetter) int32 { return x.Epoch })}},
		{"known_at", fixed[int64]{timestampType, collect(d, func(x event.DeadLetter) int64 { return x.KnownAt })}},
		{"reason", texts(collect(d, func(x event.DeadLetter) string { return string(x.Reason) }))},
		{"detail", texts(collect(d, func(x event.DeadLetter) string { return x.Detail }))},
		{"key", texts(collect(d, func(x event.DeadLetter) string { return string(x.Key) }))},
		{"value", texts(collect(d, func(x event.DeadLetter) string { return string(x.Value) }))},
		{"size", fixed[int64]{"Int64", collect(d, func(x event.DeadLetter) int64 { return x.Size })}},
	}
	return s.insertRows(ctx, "dead_letters", token, len(d), cols)
}

func collect[T, V any](rows []T, get func(T) V) []V {
	out := make([]V, len(rows))
	for i, r := range rows {
		out[i] = get(r)
	}
	return out
}

// insertRows stores a block in a fixed table.
func (s *Store) insertRows(ctx context.Context, table, token string, rows int, cols []named) error {
	sql := "INSERT INTO " + s.ref(table) + " ("
	for i, c := range cols {
		if i > 0 {
			sql += ", "
		}
		sql += "`" + c.name + "`"
	}
	return s.insertBlock(ctx, table, sql+")", token, rows, cols)
}

// InsertLedger stores a unit's ledger row. It must come after everything that
// the row counts.
func (s *Store) InsertLedger(ctx context.Context, token string, r event.LedgerRow) error {
	one := func(name string, v int64) named { return named{name, fixed[int64]{"Int64", []int64{v}}} }
	at := func(name string, v int64) named { return named{name, fixed[int64]{timestampType, []int64{v}}} }
	small := func(name string, v int32) named { return named{name, fixed[int32]{"Int32", []int32{v}}} }
	cols := []named{
		{"topic", texts{r.Topic}}, small("partition", r.Partition), small("epoch", r.Epoch),
		one("from_offset", r.From), one("to_offset", r.To),
		one("records", r.Records), one("rows", r.Rows), one("dead_letters", r.DeadLetters), one("duplicates", r.Duplicates),
		one("tombstoned", r.Tombstoned), one("silent", r.Silent), one("dropped", r.Dropped), one("missing", r.Missing),
		small("decoder", int32(r.Decoder)), one("registry", r.Registry),
		{"tables", tableCounts(r.Tables)}, {"windows", windowList(r.Windows)},
		at("max_event_time", r.MaxEventTime), at("min_known_at", r.MinKnownAt), at("max_known_at", r.MaxKnownAt),
		at("min_appended_at", r.MinAppended), at("max_appended_at", r.MaxAppended),
	}
	return s.insertRows(ctx, "ledger", token, 1, cols)
}

func tableCounts(m map[string]int64) values {
	names := slices.Sorted(maps.Keys(m))
	counts := collect(names, func(n string) int64 { return m[n] })
	return mapping{[]uint64{uint64(len(names))}, texts(names), fixed[int64]{"Int64", counts}}
}

func windowList(ws []event.DirtyWindow) values {
	return array{[]uint64{uint64(len(ws))}, tuple{"Tuple(kind UInt8, table_id UInt64, minute Int64)", []values{
		fixed[uint8]{"UInt8", collect(ws, func(w event.DirtyWindow) uint8 { return uint8(w.Kind) })},
		fixed[uint64]{"UInt64", collect(ws, func(w event.DirtyWindow) uint64 { return w.TableID })},
		fixed[int64]{"Int64", collect(ws, func(w event.DirtyWindow) int64 { return w.Minute })},
	}}}
}
