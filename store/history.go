package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// HistoryQuery asks for the rows of a view that can matter to a point-in-time
// join.
type HistoryQuery struct {
	Schema   *event.Schema
	Columns  []string // value columns; nil: all
	From, To int64    // bounds of event_time, µs, both included
	// FirstKeys bounds the rows by key, if that is worth it: the values of the first
	// key column, as text, sorted; rows of other keys are left out.
	FirstKeys []string
	Memory    int64 // bytes that the engine may take; 0: its own limit
	// Sorted orders the rows on disk, however many there are, where else the parts
	// of the table are merged: faster, but each part takes memory. An outside table's
	// rows always are.
	Sorted bool
	Until  Bounds
	Before TopicEnds // of these topics only what lies before their ends
	// Addressed adds the value column [AddressColumn].
	Addressed bool
	// Topics adds the value column [TopicColumn]. Not for outside tables.
	Topics bool
	// Among leaves out rows whose addresses it does not have. The rows then come
	// in no order, which costs a half of ordered ones. Not for outside tables.
	Among *Addresses
}

// AddressColumn is an Int64 column by which [HistoryQuery.Among] finds a row
// again: a hash of its key and event_time. A dot keeps it apart from features.
const AddressColumn = ".address"

// TopicColumn is a String column with the topic that brought the row: a position
// says nothing without it.
const TopicColumn = ".topic"

// History yields a view's rows ordered by key and then event_time, with the
// columns that say which row is newer. The batches' schema has the asked
// columns only; a batch is valid until the next one.
func (s *Store) History(ctx context.Context, q HistoryQuery) iter.Seq2[*event.Batch, error] {
	if q.Schema.From != nil { // not stored: that it cannot be read is no empty answer
		if err := s.Prepare(ctx, []*event.Schema{q.Schema}); err != nil {
			return func(yield func(*event.Batch, error) bool) { yield(nil, err) }
		}
	}
	t := s.known(q.Schema.Table())
	if t == nil {
		return nothing // no row was ever stored
	}
	narrow := narrowed(q.Schema, q.Columns)
	exprs, at := t.selected(narrow)
	add := func(name string, typ event.Type, expr string) {
		narrow = with(narrow, name, typ)
		exprs, at = append(exprs, expr), append(at, len(narrow.Fields)-1)
	}
	if q.Addressed {
		add(AddressColumn, event.Int64, "reinterpretAsInt64("+t.address()+")")
	}
	if q.Topics {
		add(TopicColumn, event.String, "CAST(_topic, 'String')")
	}
	b := event.NewBatch(narrow, "")
	p := params{"from": micro64(q.From), "to": micro64(q.To)}
	where := "event_time >= fromUnixTimestamp64Micro({from:Int64}) AND event_time <= fromUnixTimestamp64Micro({to:Int64}) AND " + t.until(q.Until) + " AND (" + q.Before.condition() + ")"
	if len(q.FirstKeys) > 0 {
		where += " AND " + firstKeyIn(q, p)
	}
	from, order, settings := s.ref(t.name), " ORDER BY "+t.orderBy(), map[string]string{"optimize_read_in_order": "1", "max_block_size": "65536"}
	if q.Sorted || q.Schema.From != nil { // runs on disk are merged a block of each at a time
		settings["optimize_read_in_order"], settings["max_block_size"] = "0", "8192"
	}
	if q.Among != nil {
		from, order = from+" PREWHERE "+q.Among.condition(t.address()), ""
		settings["max_query_size"] = fmt.Sprint(4*len(q.Among.bits) + 1<<20)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s%s", strings.Join(exprs, ", "), from, where, order)
	return s.explained(ctx, q.Schema, s.selectBlocks(ctx, sql, p, withMemory(q.Memory, settings), b, at))
}

// address is the expression of [AddressColumn].
func (t *table) address() string { return "cityHash64(" + t.orderBy() + ")" }

// with is a schema with a column that has no nulls behind its others.
func with(s *event.Schema, name string, typ event.Type) *event.Schema {
	values := append(slices.Clone(s.Values()), event.Field{Name: name, Type: event.ColumnType{Elem: typ}})
	out := event.NewSchema(s.Kind, s.Namespace, s.Subject, s.TableID, s.Keys(), values)
	out.Fields[len(out.Fields)-1].Nullable = false
	return out
}

// Addresses is a set of rows' addresses, as a map of bits: of rows that were
// never added it has some.
type Addresses struct{ bits []byte }

// NewAddresses makes an empty set with room for n. Of other rows one in sixteen
// is in it when it is full.
func NewAddresses(n int) *Addresses {
	size := 1 << 10
	for size < 2*n && size < 16<<20 { // bytes: 16 bits for each
		size *= 2
	}
	return &Addresses{make([]byte, size)}
}

// Add takes an address in.
func (a *Addresses) Add(address int64) {
	at := uint64(address) & uint64(8*len(a.bits)-1)
	a.bits[at>>3] |= 1 << (at & 7)
}

// condition says in SQL whether an address is in the set. The bits travel in the
// statement: a server takes them as the embedded engine does, and leaves no
// table behind when either side dies.
func (a *Addresses) condition(address string) string {
	return fmt.Sprintf("bitTest(reinterpretAsUInt8(substring(unhex('%s'), 1 + bitShiftRight(bitAnd(%s, %d), 3), 1)), bitAnd(%s, 7))",
		hex.EncodeToString(a.bits), address, 8*len(a.bits)-1, address)
}

func nothing(func(*event.Batch, error) bool) {}

// narrowed is a view's schema with some of its value columns.
func narrowed(s *event.Schema, columns []string) *event.Schema {
	if columns == nil {
		return s
	}
	var values []event.Field
	for _, f := range s.Values() {
		if slices.Contains(columns, f.Name) {
			values = append(values, f)
		}
	}
	return event.NewSchema(s.Kind, s.Namespace, s.Subject, s.TableID, s.Keys(), values)
}

// ordersRows tells the columns that order the rows of a key or say what a row
// is from those that nobody reads here.
func ordersRows(column int) bool {
	switch column {
	case event.ColID, event.ColTrace, event.ColOverflow, event.ColAppended:
		return false
	}
	return true
}

// selected are the expressions for the columns of a schema that can be narrower
// or wider in type than the table, and where in a batch each goes.
func (t *table) selected(s *event.Schema) (exprs []string, at []int) {
	for i, f := range s.Fields {
		if f.Role == event.System && !ordersRows(i) {
			continue
		}
		expr := chdb.QuoteIdent(columnName(f))
		if c, stored, ok := t.find(f.Name); f.Role == event.ValueRole && (!ok || stored.Role != f.Role) {
			expr = "CAST(NULL, '" + clickhouseType(f) + "')"
			if f.Type.List {
				expr = "CAST([], '" + clickhouseType(f) + "')"
			}
		} else if typ := clickhouseType(f); ok && f.Role == event.ValueRole && c.typ != typ {
			expr = "CAST(" + expr + ", '" + typ + "')"
		}
		exprs, at = append(exprs, expr), append(at, i)
	}
	return exprs, at
}

// firstKeyIn bounds rows by the first key column: a list when it is short,
// else its ends.
func firstKeyIn(q HistoryQuery, p params) string {
	f := q.Schema.Keys()[0]
	name, typ := chdb.QuoteIdent(columnName(f)), elementType(f.Type.Elem)
	if len(q.FirstKeys) > 1000 {
		p["first"], p["last"] = q.FirstKeys[0], q.FirstKeys[len(q.FirstKeys)-1]
		return fmt.Sprintf("%s >= {first:%s} AND %s <= {last:%s}", name, typ, name, typ)
	}
	var in []string
	for i, k := range q.FirstKeys {
		key := fmt.Sprintf("k%d", i)
		p[key] = k
		in = append(in, "{"+key+":"+typ+"}")
	}
	return name + " IN (" + strings.Join(in, ", ") + ")"
}
