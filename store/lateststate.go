package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// LatestMark says what of a view's rows its latest-state table holds: those of
// the log before Ends, by partition, whose event_time is not after At (µs). The
// zero value: no such table was made yet.
type LatestMark struct {
	At    int64
	Ends  map[int32]event.EpochRange
	Ahead int64 // rows before Ends whose event_time is after At: they are left out
}

// latestVersion packs the comparator into one number, which is what the engine
// replaces by: event_time and created 55 bits each, epoch 31, partition 31,
// offset 63, index 21.
const latestVersion = "bitOr(bitOr(bitOr(bitOr(bitOr(" +
	"bitShiftLeft(toUInt256(toUnixTimestamp64Micro(event_time) + 9007199254740992), 201), " +
	"bitShiftLeft(toUInt256(toUnixTimestamp64Micro(created) + 9007199254740992), 146)), " +
	"bitShiftLeft(toUInt256(_epoch), 115)), bitShiftLeft(toUInt256(_partition), 84)), " +
	"bitShiftLeft(toUInt256(_offset), 21)), toUInt256(_index))"

// latestTable is the twin of a view's table that keeps the newest row of each
// key.
func latestTable(t *table) *table {
	twin := *t
	twin.name = "latest_" + strings.TrimPrefix(t.name, "features_")
	return &twin
}

func (t *table) createLatest(o Options) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "CREATE TABLE IF NOT EXISTS %s%s (_version UInt256 MATERIALIZED %s", qualified(o.Database, t.name), o.onCluster(), latestVersion)
	for _, c := range t.columns {
		fmt.Fprintf(&sb, ", %s %s %s", chdb.QuoteIdent(c.name), c.typ, c.codec)
	}
	engine := strings.Replace(o.mergeTree(), "MergeTree", "ReplacingMergeTree(_version)", 1)
	fmt.Fprintf(&sb, ") ENGINE = %s ORDER BY (%s)", engine, strings.TrimSuffix(t.orderBy(), ", event_time"))
	if o.Retention > 0 {
		sb.WriteString(" TTL " + ttl("appended_at", o.Retention))
	}
	return sb.String()
}

// LatestMark reads what a view's latest-state table holds.
func (s *Store) LatestMark(ctx context.Context, schema *event.Schema) (LatestMark, error) {
	m := LatestMark{Ends: map[int32]event.EpochRange{}}
	if err := s.makeMarks(ctx); err != nil {
		return m, err
	}
	sql := fmt.Sprintf("SELECT at, partitions, epochs, nexts, ahead FROM %s WHERE table_id = {id:UInt64} ORDER BY revision DESC LIMIT 1", s.ref("latest_marks"))
	rows, err := s.query(ctx, sql, params{"id": fmt.Sprint(schema.TableID)})
	if err != nil {
		return m, fmt.Errorf("read the latest-state mark of view %s: %w", schema.Subject, err)
	}
	defer rows.Close()
	for rows.Next() {
		var partitions, epochs []int32
		var nexts []int64
		if err := rows.Scan(&m.At, &partitions, &epochs, &nexts, &m.Ahead); err != nil {
			return m, fmt.Errorf("read the latest-state mark of view %s: %w", schema.Subject, err)
		}
		for i, p := range partitions {
			m.Ends[p] = event.EpochRange{Epoch: epochs[i], Next: nexts[i]}
		}
	}
	return m, rows.Err()
}

func (s *Store) makeMarks(ctx context.Context) error {
	return s.exec(ctx, s.fixed("latest_marks", "table_id UInt64, revision Int64, at Int64, partitions Array(Int32), epochs Array(Int32), nexts Array(Int64), ahead Int64", "table_id, revision", ""))
}

// AdvanceLatest brings a view's latest-state table from its mark to ends, as of
// a time (µs) before which the rows' event_time must lie to be taken; others
// are taken later. Ends must be what the ledger holds. It reads the positions
// of all rows of the view and the values of the new ones; what is written
// twice, after a crash, changes nothing.
func (s *Store) AdvanceLatest(ctx context.Context, schema *event.Schema, ends map[int32]event.EpochRange, at int64) error {
	if err := s.Prepare(ctx, []*event.Schema{schema}); err != nil {
		return err
	}
	from, err := s.LatestMark(ctx, schema)
	if err != nil {
		return err
	}
	history := s.known(schema.Table())
	twin := latestTable(history)
	if err := s.conn.Exec(ctx, twin.createLatest(s.opt)); err != nil {
		return fmt.Errorf("create table %s: %w", twin.name, err)
	}
	if err := s.evolve(ctx, twin); err != nil {
		return err
	}
	var names []string
	for _, c := range twin.columns {
		names = append(names, chdb.QuoteIdent(c.name))
	}
	topic := ownTopic(schema)
	list, keys := strings.Join(names, ", "), strings.TrimSuffix(twin.orderBy(), ", event_time")
	sql := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s WHERE (%s) AND (%s) ORDER BY %s, %s LIMIT 1 BY %s SETTINGS max_bytes_before_external_sort = 536870912, max_bytes_ratio_before_external_sort = 0",
		s.ref(twin.name), list, list, s.ref(history.name), from.after(topic), before(topic, ends, at), keys, comparatorDescending, keys)
	if err := s.exec(ctx, sql); err != nil {
		return fmt.Errorf("advance the latest state of view %s: %w", schema.Subject, err)
	}
	var ahead uint64
	count := fmt.Sprintf("SELECT count() FROM %s WHERE event_time > fromUnixTimestamp64Micro(%d) AND (%s)", s.ref(history.name), at, storedBefore(topic, ends))
	if err := s.conn.QueryRow(ctx, count).Scan(&ahead); err != nil {
		return fmt.Errorf("advance the latest state of view %s: %w", schema.Subject, err)
	}
	return s.writeMark(ctx, schema, LatestMark{at, ends, int64(ahead)})
}

func (s *Store) writeMark(ctx context.Context, schema *event.Schema, m LatestMark) error {
	var partitions, epochs, nexts []string
	for _, p := range sortedPartitions(m.Ends) {
		partitions, epochs, nexts = append(partitions, fmt.Sprint(p)), append(epochs, fmt.Sprint(m.Ends[p].Epoch)), append(nexts, fmt.Sprint(m.Ends[p].Next))
	}
	return s.exec(ctx, fmt.Sprintf("INSERT INTO %s VALUES (%d, %d, %d, [%s], [%s], [%s], %d)", s.ref("latest_marks"), schema.TableID, time.Now().UnixNano(), m.At,
		strings.Join(partitions, ","), strings.Join(epochs, ","), strings.Join(nexts, ","), m.Ahead))
}

func sortedPartitions(ends map[int32]event.EpochRange) (out []int32) {
	for p := range ends {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// after is the condition of rows that a mark does not hold.
// Those that did not come by the view's own topic it never holds: its ends say
// nothing of their offsets.
func (m LatestMark) after(topic string) string {
	if m.At == 0 {
		return "1"
	}
	known := []string{"-1"}
	or := []string{fmt.Sprintf("event_time > fromUnixTimestamp64Micro(%d)", m.At)}
	for _, p := range sortedPartitions(m.Ends) {
		e := m.Ends[p]
		known = append(known, fmt.Sprint(p))
		or = append(or, fmt.Sprintf("_partition = %d AND (_epoch > %d OR _epoch = %d AND _offset >= %d)", p, e.Epoch, e.Epoch, e.Next))
	}
	return strings.Join(append(or, "_partition NOT IN ("+strings.Join(known, ",")+")", elsewhere(topic)), " OR ")
}

// before is the condition of rows that lie before ends and whose time has come.
func before(topic string, ends map[int32]event.EpochRange, at int64) string {
	return fmt.Sprintf("event_time <= fromUnixTimestamp64Micro(%d) AND (%s)", at, storedBefore(topic, ends))
}

// elsewhere is the condition of rows that came by another topic: a source's, or
// an import.
func elsewhere(topic string) string { return "_topic != " + chdb.QuoteString(topic) }

// ownTopic is the topic that a view's events come by.
func ownTopic(schema *event.Schema) string {
	return "kedge." + schema.Namespace + "." + schema.Kind.String()
}

func storedBefore(topic string, ends map[int32]event.EpochRange) string {
	or := []string{"0"}
	for _, p := range sortedPartitions(ends) {
		e := ends[p]
		or = append(or, fmt.Sprintf("_partition = %d AND (_epoch < %d OR _epoch = %d AND _offset < %d)", p, e.Epoch, e.Epoch, e.Next))
	}
	return "_topic = " + chdb.QuoteString(topic) + " AND (" + strings.Join(or, " OR ") + ")"
}

// mixed says whether rows of a table came by other topics than its own.
func (s *Store) mixed(ctx context.Context, t *table) (bool, error) {
	var n uint64
	err := s.queryRow(ctx, "SELECT count() FROM "+s.ref("ledger")+" WHERE topic != {topic:String} AND mapContains(tables, {table:String})",
		params{"topic": ownTopic(t.schema), "table": t.name}).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("read the ledger of %s: %w", t.name, err)
	}
	return n > 0, nil
}

// LatestState yields, in no order, rows among which is every key's newest: the
// latest-state table up to its mark, the view's rows that came by other topics
// than its own and, if beyond is set, those behind the mark, for which the
// positions of all rows are read. The caller lets the comparator decide.
func (s *Store) LatestState(ctx context.Context, schema *event.Schema, m LatestMark, beyond bool, memory int64) iter.Seq2[*event.Batch, error] {
	history := s.known(schema.Table())
	if history == nil {
		return nothing
	}
	twin := latestTable(history)
	if err := s.evolve(ctx, twin); err != nil { // columns that were added since
		return func(yield func(*event.Batch, error) bool) { yield(nil, err) }
	}
	exprs, columns := history.selected(schema)
	list := strings.Join(exprs, ", ")
	sql := "SELECT " + list + " FROM " + s.ref(twin.name)
	rest := ""
	if beyond {
		rest = m.after(ownTopic(schema))
	} else if mixed, err := s.mixed(ctx, history); err != nil {
		return func(yield func(*event.Batch, error) bool) { yield(nil, err) }
	} else if mixed {
		rest = elsewhere(ownTopic(schema))
	}
	if rest != "" {
		sql += " UNION ALL SELECT " + list + " FROM " + s.ref(history.name) + " WHERE " + rest
	}
	return s.selectBlocks(ctx, sql, nil, withMemory(memory, map[string]string{"max_block_size": "65536"}), event.NewBatch(schema, ""), columns)
}
