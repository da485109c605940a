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

// Erasing takes rows out of a table for good. What went is noted by position
// (topic, partition, epoch, offset, index), never by content, before it goes:
// the audit then tells an erased row from a lost one, and a run that was cut off
// can be repeated. Only rows that the ledger covers go, because a unit that is
// under way is recognised by what it has stored.

const (
	erasedTable = "erased"
	// position orders the columns by which a row is told from all others.
	position = "_topic, _partition, _epoch, _offset, _index"
	// ofKey is the comparator as one value of the engine.
	ofKey = "(event_time, created, _epoch, _partition, _offset, _index)"
)

func (s *Store) makeErased(ctx context.Context) error {
	return s.exec(ctx, s.fixed(erasedTable, "`table` LowCardinality(String), topic LowCardinality(String), partition Int32, epoch Int32, offset Int64 CODEC(Delta, ZSTD(1)), `index` Int32, "+
		micros("appended_at")+", run Int64, erased_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')", "`table`, topic, partition, epoch, offset", ""))
}

// eraseRows removes the rows of a table of events that a condition picks, as
// far as the ledger covers them, and returns how many. The condition is SQL of
// this package's making over the table's columns, its values bound by p. When it
// returns, no file of the engine holds the rows any more.
func (s *Store) eraseRows(ctx context.Context, table, where string, p params) (int64, error) {
	if err := s.makeErased(ctx); err != nil {
		return 0, err
	}
	run := time.Now().UnixNano()
	covered := fmt.Sprintf("SELECT topic AS _topic, partition AS _partition, epoch AS _epoch, max(to_offset) AS covered FROM %s GROUP BY topic, partition, epoch", s.ref("ledger"))
	note := fmt.Sprintf("INSERT INTO %s (`table`, topic, partition, epoch, offset, `index`, appended_at, run) SELECT '%s', %s, appended_at, %d FROM %s AS r INNER JOIN (%s) AS c USING (_topic, _partition, _epoch) WHERE _offset <= covered AND (%s)",
		s.ref(erasedTable), table, position, run, s.ref(table), covered, where)
	if err := s.conn.Exec(bind(ctx, p), note); err != nil {
		return 0, fmt.Errorf("note what is erased from %s: %w", table, err)
	}
	picked := fmt.Sprintf("FROM %s WHERE `table` = '%s' AND run = %d", s.ref(erasedTable), table, run)
	var n uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() "+picked).Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	return int64(n), s.deleteWhere(ctx, table, fmt.Sprintf("(%s) IN (SELECT topic, partition, epoch, offset, `index` %s)", position, picked))
}

// deleteWhere rewrites the parts that hold picked rows and waits until the old
// ones are off the disk. The engine would keep those for eight minutes.
func (s *Store) deleteWhere(ctx context.Context, table, where string) error {
	return s.rewrite(ctx, table, "DELETE WHERE "+where)
}

// rewrite is deleteWhere for any mutation.
func (s *Store) rewrite(ctx context.Context, table, mutation string) error {
	ref, cluster := s.ref(table), s.opt.onCluster()
	if err := s.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s MODIFY SETTING old_parts_lifetime = 1", ref, cluster)); err != nil {
		return err
	}
	if err := s.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s %s SETTINGS mutations_sync = 2", ref, cluster, mutation)); err != nil {
		return fmt.Errorf("erase from %s: %w", table, err)
	}
	if err := s.awaitCleared(ctx, table); err != nil {
		return fmt.Errorf("erase from %s: %w", table, err)
	}
	return s.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s RESET SETTING old_parts_lifetime", ref, cluster))
}

// awaitCleared waits until a table has no outdated parts. The engine looks for
// them at lengthening intervals, up to ten minutes; dropping a partition, here
// one that cannot exist, makes it look now.
func (s *Store) awaitCleared(ctx context.Context, table string) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s DROP PARTITION ID '000000'", s.ref(table), s.opt.onCluster())); err != nil {
			return err
		}
		var old uint64
		err := s.queryRow(ctx, "SELECT count() FROM system.parts WHERE database = {db:String} AND table = {table:String} AND NOT active", params{"db": s.opt.Database, "table": table}).Scan(&old)
		if err != nil || old == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d outdated parts are still on disk: %w", old, context.Cause(ctx))
		}
	}
}

// EraseDeleted removes, for good, the rows of a view that tombstones with an
// event_time up to at (µs) have deleted: those of the same key that the
// comparator puts before one. Tombstones stay, so that what comes late is
// recognised by the next call. It returns how many rows went; the view's
// latest-state table is cleared of them too. One call waits for another: two at
// once would count the same rows, and the first to end would make the second's
// old parts stay.
func (s *Store) EraseDeleted(ctx context.Context, schema *event.Schema, at int64) (int64, error) {
	if schema.From != nil {
		return 0, nil // nothing of it is Kedge's
	}
	select {
	case s.erasing <- struct{}{}:
		defer func() { <-s.erasing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for another erasure: %w", context.Cause(ctx))
	}
	if err := s.Prepare(ctx, []*event.Schema{schema}); err != nil {
		return 0, err
	}
	history := s.known(schema.Table())
	keys := strings.TrimSuffix(history.orderBy(), ", event_time")
	p := params{"at": micro64(at)}
	var tombstones uint64
	if err := s.queryRow(ctx, fmt.Sprintf("SELECT count() FROM %s WHERE deleted AND event_time <= fromUnixTimestamp64Micro({at:Int64})", s.ref(history.name)), p).Scan(&tombstones); err != nil {
		return 0, fmt.Errorf("find deleted entities of view %s: %w", schema.Subject, err)
	}
	if tombstones == 0 {
		return 0, nil
	}
	// the twin first: should this be cut off, the history still says what to do
	twin := latestTable(history)
	if err := s.eraseFromTwin(ctx, twin, history, keys, at); err != nil {
		return 0, err
	}
	n, err := s.eraseRows(ctx, history.name, fmt.Sprintf("NOT deleted AND (%s, %s) IN (%s)", keys, position, s.doomed(history.name, history.name, keys, ", "+position)), p)
	if err != nil {
		return 0, fmt.Errorf("erase deleted entities of view %s: %w", schema.Subject, err)
	}
	for _, t := range s.superseded(schema) { // what its rows were converted from
		m, err := s.eraseRows(ctx, t.name, fmt.Sprintf("NOT deleted AND (%s, %s) IN (%s)", keys, position, s.doomed(t.name, history.name, keys, ", "+position)), p)
		if n += m; err != nil {
			return n, fmt.Errorf("erase deleted entities of an older version of view %s: %w", schema.Subject, err)
		}
	}
	return n, nil
}

// doomed selects the keys and further columns of the rows of a table that a
// tombstone of history is newer than.
func (s *Store) doomed(table, history, keys, further string) string {
	return fmt.Sprintf("SELECT %[1]s%[2]s FROM %[3]s AS r INNER JOIN (SELECT %[1]s, max(%[4]s) AS gone FROM %[5]s WHERE deleted AND event_time <= fromUnixTimestamp64Micro({at:Int64}) GROUP BY %[1]s) AS d USING (%[1]s) WHERE NOT r.deleted AND %[4]s < gone",
		keys, further, s.ref(table), ofKey, s.ref(history))
}

func (s *Store) eraseFromTwin(ctx context.Context, twin, history *table, keys string, at int64) error {
	var there, doomed uint64
	if err := s.queryRow(ctx, "SELECT count() FROM system.tables WHERE database = {db:String} AND name = {table:String}", params{"db": s.opt.Database, "table": twin.name}).Scan(&there); err != nil || there == 0 {
		return err
	}
	const place = ", _partition, _epoch, _offset, _index"
	pick := strings.ReplaceAll(s.doomed(twin.name, history.name, keys, place), "{at:Int64}", micro64(at))
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM ("+pick+")").Scan(&doomed); err != nil || doomed == 0 {
		return err
	}
	return s.deleteWhere(ctx, twin.name, fmt.Sprintf("NOT deleted AND (%s%s) IN (%s)", keys, place, pick))
}

// Keys yields the distinct keys of a view whose parts equal given values, by
// the name of the key column; batches hold the key columns alone.
func (s *Store) Keys(ctx context.Context, schema *event.Schema, parts map[string]string) iter.Seq2[*event.Batch, error] {
	t := s.known(schema.Table())
	if t == nil {
		return nothing
	}
	p, where := params{}, []string{"1"}
	for i, f := range schema.Keys() {
		if v, ok := parts[f.Name]; ok {
			name := fmt.Sprintf("k%d", i)
			p[name] = v
			where = append(where, fmt.Sprintf("%s = {%s:%s}", chdb.QuoteIdent(columnName(f)), name, elementType(f.Type.Elem)))
		}
	}
	keys := strings.TrimSuffix(t.orderBy(), ", event_time")
	at := make([]int, len(schema.Keys()))
	for i := range at {
		at[i] = schema.KeyStart() + i
	}
	sql := fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE %s", keys, s.ref(t.name), strings.Join(where, " AND "))
	return s.selectBlocks(ctx, sql, p, nil, event.NewBatch(narrowed(schema, []string{}), ""), at)
}

// erasedFrom lists the tables that rows were erased from.
func (s *Store) erasedFrom(ctx context.Context) ([]string, error) {
	if err := s.makeErased(ctx); err != nil {
		return nil, err
	}
	var names []string
	if err := s.conn.QueryRow(ctx, "SELECT groupUniqArray(toString(`table`)) FROM "+s.ref(erasedTable)).Scan(&names); err != nil {
		return nil, fmt.Errorf("read what was erased: %w", err)
	}
	slices.Sort(names)
	return names, nil
}
