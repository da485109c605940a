package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// revised are the derived tables in which a higher revision replaces a row, and
// what a row is about. Summaries are about a grid and a length, too: a window
// that was counted on another grid, or in another length, is not replaced. Nor
// is a verdict with which an incident began or ended: one that late rows led to
// has no change of its own, see [Store.newestVerdicts].
func revised() []derivedRows {
	return []derivedRows{
		{"summaries", "kind, table_id, `column`, start, length_us, grid", "1"},
		{"verdicts", "namespace, monitor, `column`, detector, start", "change = 'same'"},
		{"segment_verdicts", "namespace, monitor, segment, `column`, detector, start", "1"},
		{"performance", "namespace, model, segment, metric, start", "1"},
	}
}

// derivedRows are a table, what its rows are about, and which may go at all.
type derivedRows struct{ table, about, may string }

// DropReplaced removes rows of derived tables that a higher revision has
// replaced, where their own revision is older than before; the newest of each
// stays, and so does every answer. It looks at the days of which something was
// stored since a time (zero: all), and answers how many rows went.
func (s *Store) DropReplaced(ctx context.Context, since, before time.Time) (uint64, error) {
	removed := uint64(0)
	for _, t := range revised() {
		days, err := s.revisedDays(ctx, t.table, since)
		if err != nil {
			return removed, fmt.Errorf("drop replaced %s: %w", t.table, err)
		}
		for _, day := range days {
			n, err := s.dropReplacedOf(ctx, t, day, before)
			if removed += n; err != nil {
				return removed, fmt.Errorf("drop replaced %s of %s: %w", t.table, day.Format(time.DateOnly), err)
			}
		}
	}
	return removed, nil
}

// revisedDays are the days that rows stored since a time are about.
func (s *Store) revisedDays(ctx context.Context, table string, since time.Time) ([]time.Time, error) {
	revision := int64(0)
	if !since.IsZero() {
		revision = since.UnixMicro()
	}
	rows, err := s.query(ctx, "SELECT DISTINCT toStartOfDay(start) AS d FROM "+s.ref(table)+" WHERE revision >= {since:UInt64} ORDER BY d", params{"since": strconv.FormatInt(revision, 10)})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []time.Time
	for rows.Next() {
		var day time.Time
		if err := rows.Scan(&day); err != nil {
			return nil, err
		}
		out = append(out, day.UTC())
	}
	return out, rows.Err()
}

// dropReplacedOf goes day by day, so that what the engine has to hold is bounded.
// A mutation is asked for only where it would remove something: it writes the
// parts anew that it touches.
func (s *Store) dropReplacedOf(ctx context.Context, t derivedRows, day, before time.Time) (uint64, error) {
	of := fmt.Sprintf("start >= fromUnixTimestamp64Micro(%d, 'UTC') AND start < fromUnixTimestamp64Micro(%d, 'UTC')", day.UnixMicro(), day.Add(24*time.Hour).UnixMicro())
	replaced := fmt.Sprintf("SELECT %[1]s, r FROM (SELECT %[1]s, max(revision) AS newest, groupUniqArray(revision) AS revisions FROM %[2]s WHERE %[3]s GROUP BY %[1]s HAVING min(revision) < newest)"+
		" ARRAY JOIN revisions AS r WHERE r < newest AND r < %[4]d", t.about, s.ref(t.table), of, before.UnixMicro())
	gone := fmt.Sprintf("%s AND %s AND (%s, revision) IN (%s)", of, t.may, t.about, replaced)
	var n uint64
	if err := s.queryRow(ctx, "SELECT count() FROM "+s.ref(t.table)+" WHERE "+gone, nil).Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	return n, s.exec(ctx, strings.Join([]string{"ALTER TABLE", s.ref(t.table) + s.opt.onCluster(), "DELETE WHERE", gone, "SETTINGS mutations_sync = 2"}, " "))
}
