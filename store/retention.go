package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Kept says how long rows live, and when they move to another volume, counted
// from when the broker appended them, so that a backfill that states an old
// known_at is kept as long as any other row. A part of a table moves, as a whole,
// when its newest row has the age; rows go when the engine next merges them.
type Kept struct {
	For    time.Duration // 0: for ever
	After  time.Duration // when they move
	Volume string        // empty: they stay where they are
}

// Keep says how a table's rows are kept.
type Keep func(*event.Schema) Kept

// clause is what follows TTL; empty where nothing happens to rows.
func (k Kept) clause(column string) string {
	var all []string
	if k.Volume != "" {
		all = append(all, ttl(column, k.After)+" TO VOLUME "+chdb.QuoteString(k.Volume))
	}
	if k.For > 0 {
		all = append(all, ttl(column, k.For))
	}
	return strings.Join(all, ", ")
}

// SetDeadLetterRetention lets dead letters live for d from their known_at, which
// is the broker's append; 0 keeps them for ever.
func (s *Store) SetDeadLetterRetention(ctx context.Context, d time.Duration) error {
	return s.setTTL(ctx, "dead_letters", "known_at", Kept{For: d})
}

func (s *Store) setTTL(ctx context.Context, table, column string, k Kept) error {
	have, err := s.kept(ctx)
	if err != nil || have[table] == k {
		return err
	}
	change := "REMOVE TTL"
	if c := k.clause(column); c != "" {
		change = "MODIFY TTL " + c
	}
	if err := s.conn.Exec(ctx, "ALTER TABLE "+s.ref(table)+s.opt.onCluster()+" "+change); err != nil {
		return fmt.Errorf("set the retention of %s: %w", table, err)
	}
	return nil
}

var ttlPattern = regexp.MustCompile(`toDateTime\(\w+\) \+ toIntervalSecond\((\d+)\)(?: TO VOLUME '(\w+)')?`)

// Retention is how long each table's rows live; tables that keep theirs for
// ever are absent.
func (s *Store) Retention(ctx context.Context) (map[string]time.Duration, error) {
	all, err := s.kept(ctx)
	out := map[string]time.Duration{}
	for table, k := range all {
		if k.For > 0 {
			out[table] = k.For
		}
	}
	return out, err
}

// kept is how the engine keeps the rows of each table.
func (s *Store) kept(ctx context.Context) (map[string]Kept, error) {
	rows, err := s.query(ctx, "SELECT name, engine_full FROM system.tables WHERE database = {db:String} AND engine_full LIKE '% TTL %'", params{"db": s.opt.Database})
	if err != nil {
		return nil, fmt.Errorf("read retention: %w", err)
	}
	defer rows.Close()
	out := map[string]Kept{}
	for rows.Next() {
		var name, engine string
		if err := rows.Scan(&name, &engine); err != nil {
			return nil, fmt.Errorf("read retention: %w", err)
		}
		if out[name], err = parseTTL(engine); err != nil {
			return nil, fmt.Errorf("read retention of %s: %w", name, err)
		}
	}
	return out, rows.Err()
}

// parseTTL reads the clause from the words in which the engine shows a table.
func parseTTL(engine string) (k Kept, err error) {
	_, clause, _ := strings.Cut(engine, " TTL ")
	for _, m := range ttlPattern.FindAllStringSubmatch(clause, -1) {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return k, err
		}
		if d := time.Duration(n) * time.Second; m[2] == "" {
			k.For = d
		} else {
			k.After, k.Volume = d, m[2]
		}
	}
	return k, nil
}

// SetRetentions keeps the rows of the tables of events, and of what is kept beside
// them for restarts, as keep says; the latter hold the newest row of each key and
// move nowhere. Tables that have it already are left alone. What lies on a volume
// that its table does not name any more is moved back before this returns.
func (s *Store) SetRetentions(ctx context.Context, keep Keep) error {
	have, err := s.kept(ctx)
	if err != nil {
		return err
	}
	want := map[string]Kept{}
	var names, twins []string
	for _, t := range s.own() {
		names, want[t.name] = append(names, t.name), keep(t.schema)
		if t.schema.Kind == event.Features {
			twin := latestTable(t).name
			twins, want[twin] = append(twins, twin), Kept{For: want[t.name].For}
		}
	}
	there, err := s.existing(ctx, twins)
	if err != nil {
		return err
	}
	if err := s.setPolicy(ctx, names, want); err != nil {
		return err
	}
	for _, name := range append(names, there...) {
		if have[name] == want[name] {
			continue
		}
		if err := s.setTTL(ctx, name, "appended_at", want[name]); err != nil {
			return err
		}
	}
	return s.moveBack(ctx, names, want)
}

// setPolicy gives tables whose rows are to move the storage policy that has the
// volumes; those of the embedded engine all have it.
func (s *Store) setPolicy(ctx context.Context, names []string, want map[string]Kept) error {
	if s.opt.Policy == "" {
		return nil
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return want[n].Volume == "" })
	if len(names) == 0 {
		return nil
	}
	var other []string
	err := s.queryRow(ctx, "SELECT groupArray(name) FROM system.tables WHERE database = {db:String} AND storage_policy != {policy:String} AND name IN ("+quotedList(names)+")",
		params{"db": s.opt.Database, "policy": s.opt.Policy}).Scan(&other)
	if err != nil {
		return fmt.Errorf("read the storage policies of tables: %w", err)
	}
	for _, name := range other {
		if err := s.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s MODIFY SETTING storage_policy = %s", s.ref(name), s.opt.onCluster(), chdb.QuoteString(s.opt.Policy))); err != nil {
			return fmt.Errorf("give %s the storage policy %s, which must have all disks of the one before: %w", name, s.opt.Policy, err)
		}
	}
	return nil
}

// Volumes names the volumes to which rows may move, in the engine's order, without
// the one where they begin.
func (s *Store) Volumes(ctx context.Context) (names []string, err error) {
	err = s.queryRow(ctx, "SELECT arraySlice(arrayMap(v -> v.2, arraySort(groupArray((volume_priority, volume_name)))), 2) FROM system.storage_policies WHERE policy_name = {policy:String}",
		params{"policy": s.policy()}).Scan(&names)
	if err != nil {
		return nil, fmt.Errorf("read the volumes of the storage policy %s: %w", s.policy(), err)
	}
	return names, nil
}

func (s *Store) policy() string {
	if s.opt.Policy == "" {
		return "default"
	}
	return s.opt.Policy
}

// moveBack moves parts of the tables whose rows move nowhere to where they began.
func (s *Store) moveBack(ctx context.Context, names []string, want map[string]Kept) error {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return want[n].Volume != "" })
	volumes, err := s.Volumes(ctx)
	if err != nil || len(names) == 0 || len(volumes) == 0 {
		return err
	}
	rows, err := s.query(ctx, fmt.Sprintf("SELECT table, name, (SELECT argMin(volume_name, volume_priority) FROM system.storage_policies WHERE policy_name = {policy:String}) FROM system.parts WHERE database = {db:String} AND active AND table IN (%s)"+
		" AND disk_name IN (SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name = {policy:String} AND volume_name IN (%s))", quotedList(names), quotedList(volumes)), params{"db": s.opt.Database, "policy": s.policy()})
	if err != nil {
		return fmt.Errorf("look for rows to move back: %w", err)
	}
	defer rows.Close()
	var moves []string
	for rows.Next() {
		var table, part, first string
		if err := rows.Scan(&table, &part, &first); err != nil {
			return fmt.Errorf("look for rows to move back: %w", err)
		}
		moves = append(moves, fmt.Sprintf("ALTER TABLE %s MOVE PART %s TO VOLUME %s", s.ref(table), chdb.QuoteString(part), chdb.QuoteString(first)))
	}
	for _, move := range moves {
		if err := s.exec(ctx, move); err != nil && Code(err) != noSuchPart {
			return fmt.Errorf("move rows back to the data directory: %w", err)
		}
	}
	return rows.Err()
}

// noSuchPart is the engine's NO_SUCH_DATA_PART: it was merged meanwhile.
const noSuchPart = 232

// Moving is what would move to a volume now.
type Moving struct{ Rows, Bytes int64 }

// Moves counts the rows, and their compressed bytes, of the tables of events that
// keep, counted from now, would move to a volume on which they are not yet: of
// the parts whose newest row has the age, and which retention does not remove as
// a whole. It reads one column.
func (s *Store) Moves(ctx context.Context, now time.Time, keep Keep) (total Moving, err error) {
	for _, t := range s.own() {
		k := keep(t.schema)
		if k.Volume == "" {
			continue
		}
		oldest := int64(0)
		if k.For > 0 {
			oldest = now.Add(-k.For).UnixMicro()
		}
		var rows, bytes int64
		sql := fmt.Sprintf(`SELECT toInt64(sum(p.rows)), toInt64(sum(bytes_on_disk)) FROM (SELECT _part AS name, toUnixTimestamp64Micro(max(appended_at)) AS newest FROM %s GROUP BY name) AS r
INNER JOIN (SELECT name, rows, bytes_on_disk FROM system.parts WHERE database = {db:String} AND table = {table:String} AND active
  AND disk_name NOT IN (SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name = {policy:String} AND volume_name = {volume:String})) AS p USING (name)
WHERE newest < {before:Int64} AND newest >= {oldest:Int64}`, s.ref(t.name))
		err := s.queryRow(ctx, sql, params{"db": s.opt.Database, "table": t.name, "policy": s.policy(), "volume": k.Volume, "before": fmt.Sprint(now.Add(-k.After).UnixMicro()), "oldest": fmt.Sprint(oldest)}).Scan(&rows, &bytes)
		if err != nil {
			return total, fmt.Errorf("count the rows of %s that move to %s: %w", t.name, k.Volume, err)
		}
		total.Rows, total.Bytes = total.Rows+rows, total.Bytes+bytes
	}
	return total, nil
}
