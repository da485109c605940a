package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
)

// live is the condition that leaves tombstones out.
func (t *table) live() string {
	if t.schema.Kind == event.Features {
		return "NOT deleted"
	}
	return "1"
}

// Extent is what a subject's first rows span: [From, To) of event_time.
type Extent struct {
	From, To time.Time
	Rows     uint64
}

// FirstRows is the span of a subject's first n rows by event_time, not before a
// time. To lies just behind the last of them.
func (s *Store) FirstRows(ctx context.Context, sub Subject, after time.Time, n int) (Extent, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return Extent{}, fmt.Errorf("first rows: %w", err)
	}
	sql := fmt.Sprintf("SELECT min(e), max(e), count() FROM (SELECT event_time AS e FROM %s WHERE %s AND event_time >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') ORDER BY event_time LIMIT %d)", s.ref(t.name), t.live(), n)
	var out Extent
	if err := s.queryRow(ctx, sql, params{"from": micro(after)}).Scan(&out.From, &out.To, &out.Rows); err != nil {
		return Extent{}, fmt.Errorf("first rows of %s: %w", t.schema.Subject, err)
	}
	out.From, out.To = out.From.UTC(), out.To.UTC().Add(time.Microsecond)
	return out, nil
}

// LastRows is the span of a subject's rows by event_time that are at most a
// length older than its newest one, and how many they are. Without rows it is
// empty.
func (s *Store) LastRows(ctx context.Context, sub Subject, length time.Duration) (Extent, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return Extent{}, fmt.Errorf("last rows: %w", err)
	}
	table, live := s.ref(t.name), t.live()
	sql := fmt.Sprintf("SELECT min(event_time), max(event_time), count() FROM %s WHERE %s AND event_time > (SELECT max(event_time) FROM %s WHERE %s) - toIntervalMicrosecond({length:Int64})", table, live, table, live)
	var out Extent
	if err := s.queryRow(ctx, sql, params{"length": strconv.FormatInt(length.Microseconds(), 10)}).Scan(&out.From, &out.To, &out.Rows); err != nil {
		return Extent{}, fmt.Errorf("last rows of %s: %w", t.schema.Subject, err)
	}
	out.From, out.To = out.From.UTC(), out.To.UTC().Add(time.Microsecond)
	return out, nil
}

// CountRows counts a subject's rows with event_time in [from, to).
func (s *Store) CountRows(ctx context.Context, sub Subject, from, to time.Time) (uint64, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	var n uint64
	sql := fmt.Sprintf("SELECT count() FROM %s WHERE %s AND %s", s.ref(t.name), t.live(), inRange("event_time"))
	if err := s.queryRow(ctx, sql, params{"from": micro(from), "to": micro(to)}).Scan(&n); err != nil {
		return 0, fmt.Errorf("count rows of %s: %w", t.schema.Subject, err)
	}
	return n, nil
}

// NextSummary is the start of the first derived window of a length that starts
// at a time or later and has rows. It is the zero time when there is none.
func (s *Store) NextSummary(ctx context.Context, sub Subject, from time.Time, length time.Duration) (time.Time, error) {
	p := sub.params(params{"from": micro(from), "length": strconv.FormatInt(length.Microseconds(), 10)})
	var at time.Time
	var n uint64
	sql := "SELECT min(start), count() FROM " + s.ref("summaries") + " WHERE " + ofSubject + " AND length_us = {length:Int64} AND rows > 0 AND start >= fromUnixTimestamp64Micro({from:Int64}, 'UTC')"
	if err := s.queryRow(ctx, sql, p).Scan(&at, &n); err != nil {
		return time.Time{}, fmt.Errorf("next summary: %w", err)
	}
	if n == 0 {
		return time.Time{}, nil
	}
	return at.UTC(), nil
}

// ColumnCategories counts a column's values, the most frequent first, with
// event_time in [from, to).
func (s *Store) ColumnCategories(ctx context.Context, sub Subject, column string, from, to time.Time, limit int) (map[string]uint64, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("categories of %s: %w", column, err)
	}
	p := params{"from": micro(from), "to": micro(to)}
	c, err := t.quantity(column, dist.Anchor{}, "anchor", p)
	if err != nil {
		return nil, fmt.Errorf("categories of %s: %w", column, err)
	}
	sql := fmt.Sprintf("SELECT CAST(x, 'String') AS v, count() AS n FROM (SELECT CAST(%s, 'Nullable(String)') AS x FROM %s WHERE %s AND %s%s) WHERE isNotNull(x) GROUP BY v ORDER BY n DESC, v LIMIT %d",
		c.value, s.ref(t.name), t.live(), inRange("event_time"), c.where, limit)
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return nil, fmt.Errorf("categories of %s: %w", column, err)
	}
	defer rows.Close()
	out := map[string]uint64{}
	for rows.Next() {
		var name string
		var n uint64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, fmt.Errorf("categories of %s: %w", column, err)
		}
		out[name] = n
	}
	return out, rows.Err()
}
