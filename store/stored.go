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
	for _, t := range s.own() {
		if t.schema.Namespace != namespace {
			continue
		}
		names = append(names, t.name)
		if t.schema.Kind == event.Features {
			twins = append(twins, latestTable(t).name)
		}
	}
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

// own are the prepared tables of events, by name; outside ones are not Kedge's.
func (s *Store) own() (out []*table) {
	p := s.prepared.Load()
	if p == nil {
		return nil
	}
	for _, t := range p.bySchema {
		if t.schema.From == nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *table) int { return strings.Compare(a.name, b.name) })
	return out
}

// quotedList writes names of this package's making for IN.
func quotedList(names []string) string { return "'" + strings.Join(names, "','") + "'" }

// Expired counts the rows of the tables of events that keep, counted from now,
// would remove. It reads one column of those of which it keeps not all.
func (s *Store) Expired(ctx context.Context, now time.Time, keep Keep) (total int64, err error) {
	for _, t := range s.own() {
		d := keep(t.schema).For
		if d <= 0 {
			continue
		}
		var n uint64
		sql := "SELECT count() FROM " + s.ref(t.name) + " WHERE appended_at < fromUnixTimestamp64Micro({before:Int64}, 'UTC')"
		if err := s.queryRow(ctx, sql, params{"before": micro(now.Add(-d))}).Scan(&n); err != nil {
			return 0, fmt.Errorf("count the rows of %s beyond a retention of %v: %w", t.name, d, err)
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
