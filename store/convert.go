package store

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Unconverted lists, in order, units of the ledger with rows of an older version
// of a view that no ledger row of its conversion covers; those of conversions
// begin with prefix and go on with the topic converted. It returns at most limit.
func (s *Store) Unconverted(ctx context.Context, former *event.Schema, prefix string, limit int) ([]event.ConvertUnit, error) {
	sql := fmt.Sprintf(`SELECT l.topic, l.partition, l.epoch, l.from_offset, l.to_offset, l.n, if(d.topic = '', toInt64(-1), d.done)
FROM (SELECT topic, partition, epoch, from_offset, to_offset, tables[{table:String}] AS n, concat({prefix:String}, topic) AS converted FROM %[1]s WHERE tables[{table:String}] > 0) AS l
LEFT JOIN (SELECT topic, partition, epoch, max(to_offset) AS done FROM %[1]s WHERE startsWith(topic, {prefix:String}) GROUP BY topic, partition, epoch) AS d
  ON d.topic = l.converted AND d.partition = l.partition AND d.epoch = l.epoch
WHERE d.topic = '' OR l.to_offset > d.done
ORDER BY l.topic, l.partition, l.epoch, l.from_offset LIMIT %[2]d`, s.ref("ledger"), limit)
	rows, err := s.query(ctx, sql, params{"table": former.Table(), "prefix": prefix})
	if err != nil {
		return nil, fmt.Errorf("find rows of view %s to convert: %w", former.Subject, err)
	}
	defer rows.Close()
	var out []event.ConvertUnit
	for rows.Next() {
		var u event.ConvertUnit
		if err := rows.Scan(&u.Topic, &u.Partition, &u.Epoch, &u.From, &u.To, &u.Rows, &u.Done); err != nil {
			return nil, fmt.Errorf("find rows of view %s to convert: %w", former.Subject, err)
		}
		out = append(out, u)
	}
	return out, rows.Err()
}

// RowsOf yields the rows of a table that came by a range of a partition's
// offsets (both included), in the order of the log, with all columns but where
// they came from; a batch is valid until the next one.
func (s *Store) RowsOf(ctx context.Context, schema *event.Schema, u event.ConvertUnit) iter.Seq2[*event.Batch, error] {
	return s.allColumns(ctx, schema, "_topic = {topic:String} AND _partition = {partition:Int32} AND _epoch = {epoch:Int32} AND _offset >= {from:Int64} AND _offset <= {to:Int64} ORDER BY _offset, _index",
		span(u.Topic, u.Partition, u.Epoch, u.From, u.To))
}

// NewestRows yields the newest rows of a table, at most limit.
func (s *Store) NewestRows(ctx context.Context, schema *event.Schema, limit int) iter.Seq2[*event.Batch, error] {
	return s.allColumns(ctx, schema, fmt.Sprintf("1 ORDER BY event_time DESC LIMIT %d", limit), nil)
}

func (s *Store) allColumns(ctx context.Context, schema *event.Schema, rest string, p params) iter.Seq2[*event.Batch, error] {
	if err := s.Prepare(ctx, []*event.Schema{schema}); err != nil {
		return func(yield func(*event.Batch, error) bool) { yield(nil, err) }
	}
	t := newTable(s.opt.Database, schema)
	var exprs []string
	var at []int
	for _, c := range t.columns {
		exprs, at = append(exprs, "CAST("+chdb.QuoteIdent(c.name)+", '"+strings.ReplaceAll(c.typ, "'", "\\'")+"')"), append(at, c.index)
	}
	sql := "SELECT " + strings.Join(exprs, ", ") + " FROM " + s.ref(t.name) + " WHERE " + rest
	return s.selectBlocks(ctx, sql, p, map[string]string{"max_block_size": "16384"}, event.NewBatch(schema, ""), at)
}

// superseded are the tables of older versions of a view, oldest first.
func (s *Store) superseded(schema *event.Schema) (out []*table) {
	p := s.prepared.Load()
	if p == nil || schema.Kind != event.Features {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.older)) {
		if t := p.older[name]; event.ViewUID(t.schema.TableID) == event.ViewUID(schema.TableID) && t.schema.TableID < schema.TableID {
			out = append(out, t)
		}
	}
	return out
}

// split takes the tables of views of which a newer version is there out of
// byName: questions are about the newest.
func (p *prepared) split() {
	newest := map[uint64]uint64{}
	for _, t := range p.byName {
		if sc := t.schema; sc.Kind == event.Features {
			newest[event.ViewUID(sc.TableID)] = max(newest[event.ViewUID(sc.TableID)], sc.TableID)
		}
	}
	for name, t := range p.byName {
		if sc := t.schema; sc.Kind == event.Features && sc.TableID < newest[event.ViewUID(sc.TableID)] {
			p.older[name] = t
			delete(p.byName, name)
		}
	}
}
