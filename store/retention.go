package store

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// SetDeadLetterRetention lets dead letters live for d from their known_at, which
// is the broker's append; 0 keeps them for ever.
func (s *Store) SetDeadLetterRetention(ctx context.Context, d time.Duration) error {
	return s.setTTL(ctx, "dead_letters", "known_at", d)
}

func (s *Store) setTTL(ctx context.Context, table, column string, d time.Duration) error {
	have, err := s.Retention(ctx)
	if err != nil || have[table] == d {
		return err
	}
	change := "REMOVE TTL"
	if d > 0 {
		change = "MODIFY TTL " + ttl(column, d)
	}
	if err := s.conn.Exec(ctx, "ALTER TABLE "+s.ref(table)+s.opt.onCluster()+" "+change); err != nil {
		return fmt.Errorf("set the retention of %s: %w", table, err)
	}
	return nil
}

var ttlPattern = regexp.MustCompile(`TTL toDateTime\(\w+\) \+ toIntervalSecond\((\d+)\)`)

// Retention is how long each table's rows live; tables that keep theirs for
// ever are absent.
func (s *Store) Retention(ctx context.Context) (map[string]time.Duration, error) {
	rows, err := s.query(ctx, "SELECT name, engine_full FROM system.tables WHERE database = {db:String} AND engine_full LIKE '% TTL %'", params{"db": s.opt.Database})
	if err != nil {
		return nil, fmt.Errorf("read retention: %w", err)
	}
	defer rows.Close()
	out := map[string]time.Duration{}
	for rows.Next() {
		var name, engine string
		if err := rows.Scan(&name, &engine); err != nil {
			return nil, fmt.Errorf("read retention: %w", err)
		}
		if m := ttlPattern.FindStringSubmatch(engine); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read retention of %s: %w", name, err)
			}
			out[name] = time.Duration(n) * time.Second
		}
	}
	return out, rows.Err()
}
