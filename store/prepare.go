package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// ErrIncompatible says that a stored column cannot become what a schema wants.
var ErrIncompatible = errors.New("stored column has another type")

// Prepare makes tables that hold at least the schemas' columns: it creates,
// adds columns, and widens Int64 to Float64 (refused with [ErrIncompatible]
// where a stored integer exceeds 2^53). It is idempotent, and free for schemas
// that it has seen.
func (s *Store) Prepare(ctx context.Context, schemas []*event.Schema) error {
	for _, sc := range schemas {
		if s.tableOf(sc) != nil {
			continue
		}
		if err := s.prepare(ctx, sc); err != nil {
			return fmt.Errorf("prepare the table of %s %s/%s: %w", sc.Kind, sc.Namespace, sc.Subject, err)
		}
	}
	return nil
}

func (s *Store) prepare(ctx context.Context, sc *event.Schema) error {
	s.prepareMu.Lock()
	defer s.prepareMu.Unlock()
	t := newTable(s.opt.Database, sc)
	if sc.From != nil {
		if err := s.prepareOutside(ctx, t); err != nil {
			return err
		}
	} else if old := s.known(t.name); old == nil || !slices.Equal(old.columns, t.columns) {
		if err := s.conn.Exec(ctx, t.create(s.opt)); err != nil {
			return fmt.Errorf("create table %s: %w", t.name, err)
		}
		if err := s.evolve(ctx, t); err != nil {
			return err
		}
	}
	s.remember(t)
	return nil
}

// remember makes t the table of its name. The caller holds prepareMu.
func (s *Store) remember(t *table) {
	next := &prepared{byName: map[string]*table{}, older: map[string]*table{}, bySchema: map[*event.Schema]*table{}}
	if p := s.prepared.Load(); p != nil {
		maps.Copy(next.byName, p.byName)
		maps.Copy(next.byName, p.older)
	}
	next.byName[t.name] = t
	for _, t := range next.byName {
		next.bySchema[t.schema] = t
	}
	next.split()
	s.prepared.Store(next)
}

// Keep forgets the tables of other schemas than these: questions about a view or
// model whose definition was deleted then find nothing, as after a restart. Rows
// stay; a schema that is prepared again is known again.
func (s *Store) Keep(schemas []*event.Schema) {
	s.prepareMu.Lock()
	defer s.prepareMu.Unlock()
	old := s.prepared.Load()
	if old == nil {
		return
	}
	next := &prepared{byName: map[string]*table{}, older: map[string]*table{}, bySchema: map[*event.Schema]*table{}}
	for _, sc := range schemas {
		if t := s.known(sc.Table()); t != nil {
			next.byName[t.name] = t
			next.bySchema[t.schema] = t
		}
	}
	next.split()
	s.prepared.Store(next)
}

// known is the table of a name, or nil.
func (s *Store) known(name string) *table {
	p := s.prepared.Load()
	if p == nil {
		return nil
	}
	if t := p.byName[name]; t != nil {
		return t
	}
	return p.older[name]
}

// evolve adds and widens columns of a table that existed before.
func (s *Store) evolve(ctx context.Context, t *table) error {
	stored, err := s.storedColumns(ctx, t.name)
	if err != nil {
		return err
	}
	var changes []string
	for _, c := range t.columns {
		have, ok := stored[c.name]
		switch {
		case !ok:
			changes = append(changes, fmt.Sprintf("ADD COLUMN IF NOT EXISTS %s %s %s", chdb.QuoteIdent(c.name), c.typ, c.codec))
		case have == c.typ || wider(have, c.typ):
		case wider(c.typ, have):
			if err := s.widenable(ctx, t, c); err != nil {
				return err
			}
			changes = append(changes, fmt.Sprintf("MODIFY COLUMN %s %s %s", chdb.QuoteIdent(c.name), c.typ, c.codec))
		default:
			return fmt.Errorf("%w: column %s of %s is %s, the definition wants %s; publish a new version of the definition", ErrIncompatible, c.name, t.name, have, c.typ)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	sql := "ALTER TABLE " + s.ref(t.name) + s.opt.onCluster() + " " + strings.Join(changes, ", ")
	if s.opt.Cluster == "" {
		// Rows that stand are converted as they are read, and rewritten when the
		// engine gets to it. It says nothing while it cannot, as on a full disk,
		// so nobody waits. A replica, which alone knows when it takes the new
		// columns, is waited for.
		sql += " SETTINGS alter_sync = 0"
	}
	if err := s.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("change table %s: %w", t.name, err)
	}
	return nil
}

func (s *Store) storedColumns(ctx context.Context, table string) (map[string]string, error) {
	rows, err := s.query(ctx, "SELECT name, type FROM system.columns WHERE database = {db:String} AND table = {table:String}",
		params{"db": s.opt.Database, "table": table})
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			return nil, err
		}
		out[name] = typ
	}
	return out, rows.Err()
}

// wider reports whether to is from with Float64 in place of Int64.
func wider(to, from string) bool {
	return to != from && to == strings.ReplaceAll(from, "Int64", "Float64")
}

func (s *Store) widenable(ctx context.Context, t *table, c column) error {
	col := chdb.QuoteIdent(c.name)
	test := fmt.Sprintf("%[1]s > 9007199254740992 OR %[1]s < -9007199254740992", col)
	if strings.HasPrefix(c.typ, "Array") {
		test = fmt.Sprintf("arrayExists(x -> x > 9007199254740992 OR x < -9007199254740992, %s)", col)
	}
	var n uint64
	if err := s.conn.QueryRow(ctx, fmt.Sprintf("SELECT count() FROM %s WHERE %s", s.ref(t.name), test)).Scan(&n); err != nil {
		return fmt.Errorf("check column %s of %s: %w", c.name, t.name, err)
	}
	if n > 0 {
		return fmt.Errorf("%w: column %s of %s holds %d integers beyond 2^53, which Float64 would round; publish a new version of the definition", ErrIncompatible, c.name, t.name, n)
	}
	return nil
}
