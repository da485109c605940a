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

// Keep says how long a table's rows live from when the broker appended them, so
// that a backfill that states an old known_at is kept as long as any other row; 0
// is for ever. Rows go when the engine next merges them.
type Keep func(*event.Schema) time.Duration

// SetRetentions lets the rows of the tables of events, and of what is kept beside
// them for restarts, live as long as keep says. Tables that have it already are
// left alone.
func (s *Store) SetRetentions(ctx context.Context, keep Keep) error {
	have, err := s.Retention(ctx)
	if err != nil {
		return err
	}
	want := map[string]time.Duration{}
	var names, twins []string
	for _, t := range s.own() {
		names, want[t.name] = append(names, t.name), keep(t.schema)
		if t.schema.Kind == event.Features {
			twin := latestTable(t).name
			twins, want[twin] = append(twins, twin), want[t.name]
		}
	}
	there, err := s.existing(ctx, twins)
	if err != nil {
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
	return nil
}

// Expired counts the rows of the tables of events that keep, counted from now,
// would remove. It reads one column of those of which it keeps not all.
func (s *Store) Expired(ctx context.Context, now time.Time, keep Keep) (total int64, err error) {
	for _, t := range s.own() {
		d := keep(t.schema)
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
