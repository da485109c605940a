package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/kedge-ml/kedge/event"
)

// span is a part of one partition's offsets, as parameters.
func span(topic string, partition, epoch int32, from, to int64) params {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return params{"topic": topic, "partition": n(int64(partition)), "epoch": n(int64(epoch)), "from": n(from), "to": n(to)}
}

// Epochs says what the ledger holds of a partition, oldest epoch first. Rows
// beyond a gap do not count.
func (s *Store) Epochs(ctx context.Context, topic string, partition int32) ([]event.EpochRange, error) {
	sql := fmt.Sprintf(`SELECT epoch, min(from_offset), if(countIf(gap) > 0, minIf(before, gap), max(to_offset)) + 1
FROM (
  SELECT epoch, from_offset, to_offset,
    row_number() OVER (PARTITION BY epoch ORDER BY from_offset, to_offset) AS nth,
    max(to_offset) OVER (PARTITION BY epoch ORDER BY from_offset, to_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
    nth > 1 AND from_offset > before + 1 AS gap
  FROM %s WHERE topic = {topic:String} AND partition = {partition:Int32}
) GROUP BY epoch ORDER BY epoch`, s.ref("ledger"))
	rows, err := s.query(ctx, sql, params{"topic": topic, "partition": strconv.Itoa(int(partition))})
	if err != nil {
		return nil, fmt.Errorf("read the ledger of %s/%d: %w", topic, partition, err)
	}
	defer rows.Close()
	var out []event.EpochRange
	for rows.Next() {
		var e event.EpochRange
		if err := rows.Scan(&e.Epoch, &e.First, &e.Next); err != nil {
			return nil, fmt.Errorf("read the ledger of %s/%d: %w", topic, partition, err)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// dataTables lists the tables that hold events, Prepared by this process or
// not. One that the engine is loading anew is listed, too, so that to ask for
// its rows is an error, and not an answer without them.
func (s *Store) dataTables(ctx context.Context) ([]string, error) {
	all := "SELECT name, database FROM system.tables WHERE engine != 'View'"
	if s.detached {
		all += " UNION ALL SELECT table, database FROM system.detached_tables WHERE NOT is_permanently"
	}
	rows, err := s.query(ctx, "SELECT DISTINCT name FROM ("+all+") WHERE database = {db:String} AND match(name, '^(features|predictions|labels)_[0-9]+$') ORDER BY name", params{"db": s.opt.Database})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		out = append(out, name)
	}
	return out, rows.Err()
}

// beyond is, per table that holds records' outcomes, the condition for those
// at or beyond an offset.
func (s *Store) beyond(ctx context.Context) (tables, conditions []string, err error) {
	tables, err = s.dataTables(ctx)
	for range tables {
		conditions = append(conditions, "_topic = {topic:String} AND _partition = {partition:Int32} AND _epoch = {epoch:Int32} AND _offset >= {from:Int64}")
	}
	tables = append(tables, "dead_letters", "ledger")
	conditions = append(conditions,
		"topic = {topic:String} AND partition = {partition:Int32} AND epoch = {epoch:Int32} AND offset >= {from:Int64}",
		"topic = {topic:String} AND partition = {partition:Int32} AND epoch = {epoch:Int32} AND to_offset >= {from:Int64}")
	return tables, conditions, err
}

// Beyond counts the rows and dead letters of a partition and epoch at or
// beyond an offset, in all tables, and the ledger rows.
func (s *Store) Beyond(ctx context.Context, topic string, partition, epoch int32, from int64) (rows, ledger int64, err error) {
	counts, err := s.countBeyond(ctx, span(topic, partition, epoch, from, 0))
	for name, n := range counts {
		if name == "ledger" {
			ledger = n
		} else {
			rows += n
		}
	}
	return rows, ledger, err
}

func (s *Store) countBeyond(ctx context.Context, p params) (map[string]int64, error) {
	tables, conditions, err := s.beyond(ctx)
	if err != nil {
		return nil, err
	}
	var parts []string
	for i, t := range tables {
		parts = append(parts, fmt.Sprintf("SELECT '%s' AS name, toInt64(count()) AS n FROM %s WHERE %s", t, s.ref(t), conditions[i]))
	}
	rows, err := s.query(ctx, strings.Join(parts, " UNION ALL "), p)
	if err != nil {
		return nil, fmt.Errorf("count rows beyond an offset: %w", err)
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, fmt.Errorf("count rows beyond an offset: %w", err)
		}
		out[name] = n
	}
	return out, rows.Err()
}

// Trim removes what [Store.Beyond] counts and returns when it is gone. The
// engine still knows the removed blocks' tokens: what replaces them needs
// tokens of its own.
func (s *Store) Trim(ctx context.Context, topic string, partition, epoch int32, from int64) error {
	p := span(topic, partition, epoch, from, 0)
	counts, err := s.countBeyond(ctx, p)
	if err != nil {
		return err
	}
	tables, conditions, err := s.beyond(ctx)
	if err != nil {
		return err
	}
	wait := clickhouse.Context(bind(ctx, p), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	for i, t := range tables {
		if counts[t] == 0 {
			continue
		}
		if err := s.conn.Exec(wait, fmt.Sprintf("ALTER TABLE %s%s DELETE WHERE %s", s.ref(t), s.opt.onCluster(), conditions[i])); err != nil {
			return fmt.Errorf("remove rows of %s beyond offset %d of %s/%d: %w", t, from, topic, partition, err)
		}
	}
	return nil
}

// SeenIDs yields the non-empty ids of stored rows of a partition and epoch
// with from ≤ offset < to, in any order: one question for all tables, for a
// consumer asks it for each of its partitions before it starts.
func (s *Store) SeenIDs(ctx context.Context, topic string, partition, epoch int32, from, to int64) iter.Seq2[event.SeenID, error] {
	return func(yield func(event.SeenID, error) bool) {
		if err := s.seenIDs(ctx, span(topic, partition, epoch, from, to), yield); err != nil {
			yield(event.SeenID{}, fmt.Errorf("read event ids of %s/%d: %w", topic, partition, err))
		}
	}
}

func (s *Store) seenIDs(ctx context.Context, p params, yield func(event.SeenID, error) bool) error {
	tables, err := s.dataTables(ctx)
	if err != nil || len(tables) == 0 {
		return err
	}
	var parts []string
	for _, t := range tables {
		kind, id, err := parseTable(t)
		if err != nil {
			return err
		}
		parts = append(parts, fmt.Sprintf("SELECT toUInt8(%d), toUInt64(%d), id, _offset, _index FROM %s WHERE _topic = {topic:String} AND _partition = {partition:Int32} "+
			"AND _epoch = {epoch:Int32} AND _offset >= {from:Int64} AND _offset < {to:Int64} AND id != ''", kind, id, s.ref(t)))
	}
	rows, err := s.query(ctx, strings.Join(parts, " UNION ALL "), p)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seen event.SeenID
		var kind uint8
		var id string
		if err := rows.Scan(&kind, &seen.TableID, &id, &seen.Offset, &seen.Index); err != nil {
			return err
		}
		seen.Kind, seen.ID = event.Kind(kind), []byte(id)
		if !yield(seen, nil) {
			return nil
		}
	}
	return rows.Err()
}

// parseTable reads what [event.Schema.Table] writes.
func parseTable(name string) (event.Kind, uint64, error) {
	kind, id, _ := strings.Cut(name, "_")
	k, err := event.ParseKind(kind)
	if err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(id, 10, 64)
	return k, n, err
}
