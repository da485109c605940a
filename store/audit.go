package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// PartitionAudit is what the ledger says of one partition and epoch, and
// whether the tables agree.
type PartitionAudit struct {
	Topic            string
	Partition, Epoch int64
	Units            int64
	First, Next      int64 // consumed offsets are First..Next−1

	Records, Rows, DeadLetters, Duplicates, Tombstoned, Silent, Dropped, Missing int64

	GapRecords     int64 // offsets between units that no unit covers
	OverlapRecords int64 // offsets that two units cover
	Unbalanced     int64 // offsets that their own unit does not account for
	GapRows        int64 // rows the ledger counts and no table holds
	DuplicateRows  int64 // rows a table holds and the ledger does not count
	Unledgered     int64 // rows behind the last unit: in flight, or left by a crash until their unit is repeated
}

// Finding is one unit and table that disagree.
type Finding struct {
	Topic            string
	Partition, Epoch int64
	From, To         int64 // the unit's offsets, inclusive
	Table            string
	Expected, Actual int64 // rows
}

// AuditLedger compares the ledger with itself and with the tables, for units
// stored since a time (zero: all). Rows that retention may have removed are
// left out. It reads the offsets of every row concerned.
func (s *Store) AuditLedger(ctx context.Context, namespace string, since time.Time) ([]PartitionAudit, []Finding, error) {
	p := params{"since": micro(maxTime(since, time.UnixMicro(0)))}
	where := s.inNamespace(namespace, p) + " AND inserted_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
	parts, err := s.auditRanges(ctx, where, p)
	if err != nil {
		return nil, nil, fmt.Errorf("audit the ledger: %w", err)
	}
	findings, err := s.auditRows(ctx, where, p, parts)
	if err != nil {
		return nil, nil, fmt.Errorf("audit the tables: %w", err)
	}
	return parts, findings, nil
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// auditRanges looks at the ledger alone.
func (s *Store) auditRanges(ctx context.Context, where string, p params) ([]PartitionAudit, error) {
	sql := fmt.Sprintf(`SELECT topic, toInt64(partition), toInt64(epoch), toInt64(count()), min(from_offset), max(to_offset) + 1,
  sum(records), sum(rows), sum(dead_letters), sum(duplicates), sum(tombstoned), sum(silent), sum(dropped), sum(missing),
  sumIf(from_offset - before - 1, nth > 1 AND from_offset > before + 1),
  sumIf(least(before, to_offset) - from_offset + 1, nth > 1 AND from_offset <= before),
  sum(abs(to_offset - from_offset + 1 - records - dropped - missing))
FROM (
  SELECT *, row_number() OVER (PARTITION BY topic, partition, epoch ORDER BY from_offset, to_offset) AS nth,
    max(to_offset) OVER (PARTITION BY topic, partition, epoch ORDER BY from_offset, to_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM %s WHERE %s
) GROUP BY topic, partition, epoch ORDER BY topic, partition, epoch`, s.ref("ledger"), where)
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []PartitionAudit
	for rows.Next() {
		var a PartitionAudit
		var unbalanced uint64
		err := rows.Scan(&a.Topic, &a.Partition, &a.Epoch, &a.Units, &a.First, &a.Next, &a.Records, &a.Rows, &a.DeadLetters,
			&a.Duplicates, &a.Tombstoned, &a.Silent, &a.Dropped, &a.Missing, &a.GapRecords, &a.OverlapRecords, &unbalanced)
		if err != nil {
			return nil, err
		}
		a.Unbalanced = int64(unbalanced)
		out = append(out, a)
	}
	return out, rows.Err()
}

// counted is one table as the audit sees it.
type counted struct {
	table, expected              string // expected: its rows, from a ledger row
	topic, partition, epoch, off string // its columns
	index, appended              string
	ttl                          time.Duration
	erased                       bool // rows were erased from it
}

func (s *Store) countedTables(ctx context.Context) ([]counted, error) {
	tables, err := s.dataTables(ctx)
	if err != nil {
		return nil, err
	}
	ttls, err := s.Retention(ctx)
	if err != nil {
		return nil, err
	}
	erased, err := s.erasedFrom(ctx)
	if err != nil {
		return nil, err
	}
	out := []counted{{"dead_letters", "dead_letters", "topic", "partition", "epoch", "offset", "`index`", "known_at", ttls["dead_letters"], slices.Contains(erased, "dead_letters")}}
	for _, t := range tables {
		out = append(out, counted{t, "tables['" + t + "']", "_topic", "_partition", "_epoch", "_offset", "_index", "appended_at", ttls[t], slices.Contains(erased, t)})
	}
	return out, nil
}

// rows selects the positions that a table accounts for: its rows, and those
// that were erased from it and are not there any more.
func (t counted) rows(s *Store) string {
	have := fmt.Sprintf("SELECT %s, %s, %s, %s FROM %s WHERE %s", t.topic, t.partition, t.epoch, t.off, s.ref(t.table), unexpired(t.appended, t.ttl))
	if !t.erased {
		return have
	}
	gone := fmt.Sprintf("FROM %s WHERE `table` = '%s' AND %s", s.ref(erasedTable), t.table, unexpired("appended_at", t.ttl))
	const place = "topic, partition, epoch, offset, `index`"
	columns := strings.Join([]string{t.topic, t.partition, t.epoch, t.off, t.index}, ", ")
	return fmt.Sprintf("%s UNION ALL SELECT topic, partition, epoch, offset FROM (SELECT DISTINCT %s %s AND (%s) NOT IN (SELECT %s FROM %s WHERE (%s) IN (SELECT %s %s)))",
		have, place, gone, place, columns, s.ref(t.table), columns, place, gone)
}

// auditRows counts rows per unit: each row meets the last unit that begins at
// or before its offset.
func (s *Store) auditRows(ctx context.Context, where string, p params, parts []PartitionAudit) ([]Finding, error) {
	tables, err := s.countedTables(ctx)
	if err != nil {
		return nil, err
	}
	byKey := map[string]*PartitionAudit{}
	for i, a := range parts {
		byKey[fmt.Sprint(a.Topic, a.Partition, a.Epoch)] = &parts[i]
	}
	var found []Finding
	for _, t := range tables {
		if err := s.auditTable(ctx, t, where, p, func(f Finding, unledgered int64) {
			a := byKey[fmt.Sprint(f.Topic, f.Partition, f.Epoch)]
			if a == nil {
				return // a unit stored since the ranges were read
			}
			a.GapRows += max(0, f.Expected-f.Actual)
			a.DuplicateRows += max(0, f.Actual-f.Expected)
			a.Unledgered += unledgered
			if f.Expected != f.Actual && len(found) < maxFindings {
				found = append(found, f)
			}
		}); err != nil {
			return nil, fmt.Errorf("%s: %w", t.table, err)
		}
	}
	return found, nil
}

const maxFindings = 1000

func (s *Store) auditTable(ctx context.Context, t counted, where string, p params, report func(Finding, int64)) error {
	units := fmt.Sprintf("SELECT topic, partition, epoch, from_offset, to_offset, toInt64(%s) AS want FROM %s WHERE %s AND %s",
		t.expected, s.ref("ledger"), where, unexpired("min_appended_at", t.ttl))
	sql := fmt.Sprintf(`SELECT topic, toInt64(partition), toInt64(epoch), from_offset, to_offset, sum(want), toInt64(sum(have)), toInt64(sum(late)) FROM (
  SELECT l.topic AS topic, l.partition AS partition, l.epoch AS epoch, l.from_offset AS from_offset, any(l.to_offset) AS to_offset, 0 AS want,
    countIf(r.%[4]s <= l.to_offset) AS have, countIf(r.%[4]s > l.to_offset) AS late
  FROM (%[5]s) AS r
  ASOF INNER JOIN (%[6]s) AS l ON r.%[1]s = l.topic AND r.%[2]s = l.partition AND r.%[3]s = l.epoch AND r.%[4]s >= l.from_offset
  GROUP BY topic, partition, epoch, from_offset
  UNION ALL
  SELECT topic, partition, epoch, from_offset, to_offset, want, 0, 0 FROM (%[6]s)
) GROUP BY topic, partition, epoch, from_offset, to_offset HAVING sum(want) != sum(have) OR sum(late) > 0 ORDER BY topic, partition, epoch, from_offset`,
		t.topic, t.partition, t.epoch, t.off, t.rows(s), units)
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		f := Finding{Table: t.table}
		var late int64
		if err := rows.Scan(&f.Topic, &f.Partition, &f.Epoch, &f.From, &f.To, &f.Expected, &f.Actual, &late); err != nil {
			return err
		}
		report(f, late)
	}
	return rows.Err()
}

// unexpired is the condition that retention cannot have removed a row.
func unexpired(column string, ttl time.Duration) string {
	if ttl == 0 {
		return "1"
	}
	return fmt.Sprintf("%s >= now64(6, 'UTC') - INTERVAL %d SECOND", column, int64(ttl.Seconds()))
}

// Ledger answers the kind "ledger": per partition and epoch what was consumed,
// what became of it, and what is missing or doubled; then the units at fault.
func (s *Store) Ledger(ctx context.Context, r query.Request) ([]query.Frame, error) {
	parts, findings, err := s.AuditLedger(ctx, r.Namespace, r.From)
	if err != nil {
		return nil, err
	}
	text := func(name string, get func(PartitionAudit) string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: collect(parts, get)}
	}
	num := func(name string, get func(PartitionAudit) int64) query.Column {
		return query.Column{Name: name, Type: query.Int, Values: collect(parts, get)}
	}
	bad := func(name string, get func(PartitionAudit) int64) query.Column {
		c := num(name, get)
		c.Thresholds = []query.Threshold{{Value: 0, State: "ok"}, {Value: 1, State: "critical"}}
		return c
	}
	sums := query.Frame{Name: "ledger", Type: query.Table, Columns: []query.Column{
		text("topic", func(a PartitionAudit) string { return a.Topic }),
		num("partition", func(a PartitionAudit) int64 { return a.Partition }),
		num("epoch", func(a PartitionAudit) int64 { return a.Epoch }),
		num("first", func(a PartitionAudit) int64 { return a.First }),
		num("next", func(a PartitionAudit) int64 { return a.Next }),
		num("units", func(a PartitionAudit) int64 { return a.Units }),
		num("records", func(a PartitionAudit) int64 { return a.Records }),
		num("rows", func(a PartitionAudit) int64 { return a.Rows }),
		num("dead_letters", func(a PartitionAudit) int64 { return a.DeadLetters }),
		num("duplicates", func(a PartitionAudit) int64 { return a.Duplicates }),
		num("tombstoned", func(a PartitionAudit) int64 { return a.Tombstoned }),
		num("silent", func(a PartitionAudit) int64 { return a.Silent }),
		num("dropped", func(a PartitionAudit) int64 { return a.Dropped }),
		bad("missing", func(a PartitionAudit) int64 { return a.Missing }),
		bad("gap_records", func(a PartitionAudit) int64 { return a.GapRecords }),
		bad("overlap_records", func(a PartitionAudit) int64 { return a.OverlapRecords }),
		bad("unbalanced", func(a PartitionAudit) int64 { return a.Unbalanced }),
		bad("gap_rows", func(a PartitionAudit) int64 { return a.GapRows }),
		bad("duplicate_rows", func(a PartitionAudit) int64 { return a.DuplicateRows }),
		num("unledgered_rows", func(a PartitionAudit) int64 { return a.Unledgered }),
	}}
	return []query.Frame{sums, findingsFrame(findings)}, nil
}

func findingsFrame(found []Finding) query.Frame {
	num := func(name string, get func(Finding) int64) query.Column {
		return query.Column{Name: name, Type: query.Int, Values: collect(found, get)}
	}
	f := query.Frame{Name: "findings", Type: query.Table, Columns: []query.Column{
		{Name: "topic", Type: query.Text, Values: collect(found, func(f Finding) string { return f.Topic })},
		num("partition", func(f Finding) int64 { return f.Partition }),
		num("epoch", func(f Finding) int64 { return f.Epoch }),
		num("from", func(f Finding) int64 { return f.From }),
		num("to", func(f Finding) int64 { return f.To }),
		{Name: "table", Type: query.Text, Values: collect(found, func(f Finding) string { return f.Table })},
		num("expected_rows", func(f Finding) int64 { return f.Expected }),
		num("actual_rows", func(f Finding) int64 { return f.Actual }),
	}}
	if len(found) == maxFindings {
		f.Notices = []query.Notice{{Severity: "warning", Text: fmt.Sprintf("only the first %d findings are listed", maxFindings)}}
	}
	return f
}
