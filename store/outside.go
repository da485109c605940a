package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// ErrOutside says that a view's outside table is not allowed, not there, or not
// of the view's shape. Its text names the remedy and may be shown to anybody.
var ErrOutside = errors.New("the outside table does not fit")

// OutsideTable is a table that Kedge did not make and only ever reads. It is
// either a table of the engine, or Parquet files that the engine reaches.
type OutsideTable struct {
	Name       string   // by which definitions name it
	Namespaces []string // that may read it; "*" is all
	Database   string
	Table      string
	Parquet    string // instead: a path of the engine's machine, with * and ?
	S3         string // instead: the address of Parquet objects, with * and ?
	// AccessKey and SecretKey are of those objects; without them nothing is signed.
	AccessKey, SecretKey string
}

// objects are the keys that the embedded engine needs.
func (o Options) objects() (out []chdb.Objects) {
	for _, t := range o.Outside {
		if t.AccessKey != "" {
			out = append(out, chdb.Objects{Name: t.collection(), AccessKey: t.AccessKey, SecretKey: t.SecretKey})
		}
	}
	return out
}

// collection is the name by which statements mean the keys.
func (o *OutsideTable) collection() string {
	sum := sha256.Sum256([]byte(o.Name))
	return "kedge_objects_" + hex.EncodeToString(sum[:8])
}

// ref is the table in SQL.
func (o *OutsideTable) ref() string {
	switch {
	case o.Parquet != "":
		return "file(" + chdb.QuoteString(o.Parquet) + ", 'Parquet')"
	case o.S3 != "" && o.AccessKey != "":
		return "s3(" + o.collection() + ", url = " + chdb.QuoteString(o.S3) + ", format = 'Parquet')"
	case o.S3 != "":
		return "s3(" + chdb.QuoteString(o.S3) + ", NOSIGN, 'Parquet')" // it looks nowhere for keys
	}
	return qualified(o.Database, o.Table)
}

// allowed finds an outside table that a namespace may read.
func (s *Store) allowed(namespace, name string) (*OutsideTable, error) {
	i := slices.IndexFunc(s.opt.Outside, func(o OutsideTable) bool {
		return o.Name == name && (slices.Contains(o.Namespaces, namespace) || slices.Contains(o.Namespaces, "*"))
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: namespace %s may read no outside table %q: an administrator names it under outside.tables of the configuration", ErrOutside, namespace, name)
	}
	return &s.opt.Outside[i], nil
}

// CheckOutside reports whether a view over an outside table can be read: that
// the table is allowed and there, and has the columns in types that fit. A view
// that stores rows passes.
func (s *Store) CheckOutside(ctx context.Context, schema *event.Schema) error {
	if schema.From == nil {
		return nil
	}
	_, err := s.outsideSelect(ctx, schema)
	return err
}

// prepareOutside makes the view over an outside table, under the name that the
// table of a view has, with the very columns that one has. All that reads
// tables of views reads it unchanged; nothing writes.
func (s *Store) prepareOutside(ctx context.Context, t *table) error {
	if old := s.known(t.name); old != nil && reflect.DeepEqual(old.schema, t.schema) {
		return nil
	}
	body, err := s.outsideSelect(ctx, t.schema)
	if err != nil {
		return err
	}
	if err := s.onlyView(ctx, t.name); err != nil {
		return err
	}
	if err := s.conn.Exec(ctx, fmt.Sprintf("CREATE OR REPLACE VIEW %s%s AS %s", s.ref(t.name), s.opt.onCluster(), body)); err != nil {
		return fmt.Errorf("create the view %s: %w", t.name, err)
	}
	return nil
}

// explained says of a failed read of an outside table what is wrong with the
// table, if that is it.
func (s *Store) explained(ctx context.Context, schema *event.Schema, rows iter.Seq2[*event.Batch, error]) iter.Seq2[*event.Batch, error] {
	if schema.From == nil {
		return rows
	}
	return func(yield func(*event.Batch, error) bool) {
		for b, err := range rows {
			if err != nil && ctx.Err() == nil {
				if why := s.CheckOutside(ctx, schema); errors.Is(why, ErrOutside) {
					err = why
				}
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// onlyView refuses to replace a table of stored rows.
func (s *Store) onlyView(ctx context.Context, name string) error {
	var tables uint64
	err := s.queryRow(ctx, "SELECT count() FROM system.tables WHERE database = {db:String} AND name = {table:String} AND engine != 'View'", params{"db": s.opt.Database, "table": name}).Scan(&tables)
	if err == nil && tables > 0 {
		err = fmt.Errorf("%w: %s holds stored rows: define a view of another name", ErrOutside, name)
	}
	return err
}

// DropOutside drops the views over outside tables that none of the schemas
// names any more, and nothing else: the outside tables stay as they are.
func (s *Store) DropOutside(ctx context.Context, schemas []*event.Schema) error {
	s.prepareMu.Lock()
	defer s.prepareMu.Unlock()
	var names []string
	err := s.queryRow(ctx, "SELECT groupArray(name) FROM system.tables WHERE database = {db:String} AND engine = 'View' AND match(name, '^features_[0-9]+$')", params{"db": s.opt.Database}).Scan(&names)
	if err != nil {
		return fmt.Errorf("list the views over outside tables: %w", err)
	}
	for _, sc := range schemas {
		if _, err := s.outsideAllowed(sc); err == nil {
			names = slices.DeleteFunc(names, func(n string) bool { return n == sc.Table() })
		}
	}
	for _, name := range names {
		if err := s.exec(ctx, "DROP VIEW IF EXISTS "+s.ref(name)+s.opt.onCluster()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) outsideAllowed(sc *event.Schema) (*OutsideTable, error) {
	if sc.From == nil {
		return nil, ErrOutside
	}
	return s.allowed(sc.Namespace, sc.From.Table)
}

// outsideSelect is the statement that gives an outside table's rows a view's
// columns. Rows without a time or with a part of the key that is null are left
// out: they would be dead letters as events.
func (s *Store) outsideSelect(ctx context.Context, schema *event.Schema) (string, error) {
	o, err := s.outsideAllowed(schema)
	if err != nil {
		return "", err
	}
	have, err := s.describe(ctx, o)
	if err != nil {
		return "", err
	}
	q := &outsideQuery{view: schema, have: have}
	body := q.columns()
	if q.errs != nil {
		return "", fmt.Errorf("%w: outside table %q: %w", ErrOutside, o.Name, errors.Join(q.errs...))
	}
	return "SELECT " + body + " FROM " + o.ref() + " AS " + outsideAlias + " WHERE " + strings.Join(q.where, " AND "), nil
}

// describe reads the columns of an outside table and their types.
func (s *Store) describe(ctx context.Context, o *OutsideTable) (map[string]string, error) {
	fault := func(err error) error {
		why := fmt.Sprintf("the engine cannot read its columns (error %d)", Code(err))
		switch Code(err) {
		case 60, 81: // UNKNOWN_TABLE, UNKNOWN_DATABASE
			why = "it is not there: make it, or correct outside.tables of the configuration"
		case 497: // ACCESS_DENIED
			why = "the engine does not let Kedge's user read it: grant it SELECT"
		case 107, 636: // FILE_DOESNT_EXIST, CANNOT_EXTRACT_TABLE_STRUCTURE
			why = "there are no Parquet files there: put some, or correct outside.tables of the configuration"
		case 499: // S3_ERROR
			why = "the object storage refuses to answer: correct its address and keys under outside.tables of the configuration, or what the keys may read"
		case 0:
			return fmt.Errorf("describe outside table %s: %w", o.Name, err)
		}
		return fmt.Errorf("%w: outside table %q: %s", ErrOutside, o.Name, why)
	}
	rows, err := s.conn.Query(ctx, "DESCRIBE TABLE "+o.ref()+" SETTINGS describe_compact_output = 1")
	if err != nil {
		return nil, fault(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			return nil, fault(err)
		}
		out[name] = typ
	}
	if err := rows.Err(); err != nil {
		return nil, fault(err)
	}
	return out, nil
}

// outsideAlias qualifies the outside table's columns, so that none is taken for
// a column of the view that has its name.
const outsideAlias = "`kedge_outside`"

// outsideQuery builds the select list and collects what does not fit.
type outsideQuery struct {
	view  *event.Schema
	have  map[string]string
	where []string
	errs  []error
}

func (q *outsideQuery) columns() string {
	from := q.view.From
	timeOf := func(member, name string) string {
		return q.column("from."+member, name, event.Field{Type: event.ColumnType{Elem: event.Timestamp}})
	}
	at := "assumeNotNull(" + timeOf("event_time", from.EventTime) + ")"
	created, known := at, at
	if from.Created != "" {
		created = q.orElse(timeOf("created", from.Created), at)
		known = created
	}
	if from.KnownAt != "" {
		known = q.orElse(timeOf("known_at", from.KnownAt), known)
	}
	q.where = append(q.where, "isNotNull("+q.raw(from.EventTime)+")")
	system := map[string]string{"event_time": at, "created": created, "known_at": known, "appended_at": known}
	exprs := []string{"CAST(" + chdb.QuoteString("outside") + ", 'LowCardinality(String)') AS `_topic`"}
	for _, f := range q.view.Fields {
		expr := ""
		switch f.Role {
		case event.KeyRole:
			expr = q.column("key part "+f.Name, from.Column(f.Name), f)
			q.where = append(q.where, "isNotNull("+q.raw(from.Column(f.Name))+")")
		case event.ValueRole:
			expr = q.column("column "+f.Name, from.Column(f.Name), f)
		default:
			if expr = system[f.Name]; expr == "" {
				expr = "defaultValueOfTypeName(" + chdb.QuoteString(clickhouseType(f)) + ")"
			}
			if f.Name == "_offset" {
				expr = q.tie()
			}
		}
		exprs = append(exprs, expr+" AS "+chdb.QuoteIdent(columnName(f)))
	}
	return strings.Join(exprs, ", ")
}

// tie orders rows of one key, event_time and created, always in the same way: by
// a hash of all that the view reads of them.
func (q *outsideQuery) tie() string {
	names := map[string]bool{}
	for _, f := range append(slices.Clone(q.view.Keys()), q.view.Values()...) {
		names[q.view.From.Column(f.Name)] = true
	}
	var raws []string
	for _, n := range slices.Sorted(maps.Keys(names)) {
		raws = append(raws, q.raw(n))
	}
	return "toInt64(bitAnd(cityHash64(toString(tuple(" + strings.Join(raws, ", ") + "))), 9223372036854775807))"
}

// orElse takes another expression where the first is null.
func (q *outsideQuery) orElse(expr, other string) string {
	return "ifNull(" + expr + ", " + other + ")"
}

// raw is a column of the outside table.
func (q *outsideQuery) raw(name string) string { return outsideAlias + "." + chdb.QuoteIdent(name) }

// column converts a column of the outside table to a field's type; where says
// in an error what wants it.
func (q *outsideQuery) column(where, name string, f event.Field) string {
	typ, ok := q.have[name]
	if !ok {
		q.errs = append(q.errs, fmt.Errorf("%s: there is no column %q: name the right one in the definition (from.columns, event_time, created, known_at)", where, name))
		return "NULL"
	}
	wants := outsideTypes(f.Type.Elem)
	if elem := bareType(typ, f.Type.List); !slices.ContainsFunc(wants, func(w string) bool { return elem == w || strings.HasPrefix(elem, w+"(") }) {
		q.errs = append(q.errs, fmt.Errorf("%s: column %q is %s, which is no %s: that is read from %s", where, name, typ, f.Type, strings.Join(wants, ", ")))
		return "NULL"
	}
	if f.Role == event.System && strings.Contains(typ, "Nullable(") { // created and known_at; a null event_time is left out
		return "CAST(" + q.raw(name) + ", " + chdb.QuoteString("Nullable("+timestampType+")") + ")"
	}
	raw := q.raw(name)
	if f.Role == event.KeyRole {
		raw = "assumeNotNull(" + raw + ")"
	}
	if f.Type.Elem == event.Int64 && strings.Contains(typ, "UInt64") { // one that does not fit is an error, not another number
		return "accurateCast(" + raw + ", " + chdb.QuoteString(clickhouseType(f)) + ")"
	}
	return "CAST(" + raw + ", " + chdb.QuoteString(clickhouseType(f)) + ")"
}

// bareType is a type without what says how it is kept, or its elements' of an
// array; "" where the one is an array and the other is not.
func bareType(typ string, list bool) string {
	typ = unwrapped(typ)
	inner, ok := strings.CutPrefix(typ, "Array(")
	switch {
	case ok != list:
		return ""
	case list:
		return unwrapped(strings.TrimSuffix(inner, ")"))
	}
	return typ
}

func unwrapped(typ string) string {
	for _, outer := range []string{"LowCardinality(", "Nullable("} {
		if inner, ok := strings.CutPrefix(typ, outer); ok {
			typ = strings.TrimSuffix(inner, ")")
		}
	}
	return typ
}

// outsideTypes are the engine's types that are read as an element type without
// changing a value.
func outsideTypes(t event.Type) []string {
	small := []string{"Int8", "Int16", "Int32", "UInt8", "UInt16"}
	switch t {
	case event.Bool:
		return []string{"Bool"}
	case event.Int32:
		return small
	case event.Int64:
		return append(small, "Int64", "UInt32", "UInt64")
	case event.Float32:
		return []string{"Float32", "Int8", "Int16", "UInt8", "UInt16"}
	case event.Float64:
		return append(small, "Float64", "Float32", "UInt32", "Decimal")
	case event.Timestamp:
		return []string{"DateTime", "DateTime64", "Date", "Date32"}
	case event.String:
		return []string{"String", "Enum8", "Enum16", "UUID"}
	case event.Bytes:
		return []string{"String", "FixedString"}
	}
	return []string{"String"}
}

// Outside is what an outside table holds of an entity, which its owner has to
// remove.
type Outside struct {
	View  string `json:"view"`
	Table string `json:"table" doc:"Its name in the configuration"`
	Rows  int64  `json:"rows"`
}

// HoldsOutside says which outside tables hold rows about an entity, through
// views of a namespace. Nothing is removed from them: see [Store.Forget].
func (s *Store) HoldsOutside(ctx context.Context, namespace string, parts map[string]string) ([]Outside, error) {
	out := []Outside{}
	for _, t := range s.tables() {
		where := ""
		if t.schema.Namespace == namespace && t.schema.From != nil {
			where = columnsHave(t.schema, parts)
		}
		if where == "" {
			continue
		}
		n, err := s.countWhere(ctx, t.name, where)
		if err != nil {
			return nil, fmt.Errorf("look for an entity in the outside table of view %s: %w", t.schema.Subject, err)
		}
		if n > 0 {
			out = append(out, Outside{View: t.schema.Subject, Table: t.schema.From.Table, Rows: n})
		}
	}
	slices.SortFunc(out, func(a, b Outside) int { return strings.Compare(a.View, b.View) })
	return out, nil
}
