package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// tablesOf are the names of a namespace's tables of events and of their
// latest-state twins, those that hold rows.
func (s *Store) tablesOf(namespace string) (names, twins []string) {
	p := s.prepared.Load()
	if p == nil {
		return nil, nil
	}
	for _, t := range p.bySchema {
		if t.schema.Namespace != namespace || t.schema.From != nil {
			continue
		}
		names = append(names, t.name)
		if t.schema.Kind == event.Features {
			twins = append(twins, latestTable(t).name)
		}
	}
	slices.Sort(names)
	return names, twins
}

// Stored counts the rows and compressed bytes of a namespace's tables of events.
// Bytes include what is kept beside them for restarts.
func (s *Store) Stored(ctx context.Context, namespace string) (event.Stored, error) {
	names, twins := s.tablesOf(namespace)
	if len(names) == 0 {
		return event.Stored{}, nil
	}
	var rows, bytes uint64
	sql := fmt.Sprintf("SELECT sumIf(rows, table IN (%[1]s)), sum(bytes_on_disk) FROM system.parts WHERE database = {db:String} AND active AND table IN (%[1]s, %[2]s)",
		quotedList(names), quotedList(append(twins, "")))
	if err := s.queryRow(ctx, sql, params{"db": s.opt.Database}).Scan(&rows, &bytes); err != nil {
		return event.Stored{}, fmt.Errorf("count what namespace %s holds: %w", namespace, err)
	}
	return event.Stored{Rows: int64(rows), Bytes: int64(bytes)}, nil
}

// quotedList writes names of this package's making for IN.
func quotedList(names []string) string { return "'" + strings.Join(names, "','") + "'" }

// SetNamespaceRetention lets the rows of a namespace's tables live for d from
// when the broker appended them; 0 keeps them for ever. Tables that have it
// already are left alone.
func (s *Store) SetNamespaceRetention(ctx context.Context, namespace string, d time.Duration) error {
	have, err := s.Retention(ctx)
	if err != nil {
		return err
	}
	names, twins := s.tablesOf(namespace)
	there, err := s.existing(ctx, twins)
	if err != nil {
		return err
	}
	for _, name := range append(names, there...) {
		if have[name] == d {
			continue
		}
		if err := s.setTTL(ctx, name, "appended_at", d); err != nil {
			return err
		}
	}
	return nil
}

// Expired counts the rows of a namespace's tables of events that a retention of d,
// counted from now, would remove. It reads one column.
func (s *Store) Expired(ctx context.Context, namespace string, now time.Time, d time.Duration) (int64, error) {
	names, _ := s.tablesOf(namespace)
	var total int64
	for _, name := range names {
		var n uint64
		sql := "SELECT count() FROM " + s.ref(name) + " WHERE appended_at < fromUnixTimestamp64Micro({before:Int64}, 'UTC')"
		if err := s.queryRow(ctx, sql, params{"before": micro(now.Add(-d))}).Scan(&n); err != nil {
			return 0, fmt.Errorf("count the rows of namespace %s beyond a retention of %v: %w", namespace, d, err)
		}
		total += int64(n)
	}
	return total, nil
}

// existing are those of some tables that there are.
func (s *Store) existing(ctx context.Context, names []string) (out []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	err = s.queryRow(ctx, "SELECT groupArray(name) FROM system.tables WHERE database = {db:String} AND name IN ("+quotedList(names)+")", params{"db": s.opt.Database}).Scan(&out)
	return out, err
}
