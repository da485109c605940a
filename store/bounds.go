package store

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Bounds say, per topic and partition, the first offset whose rows a question
// leaves out. Asked again with the same bounds it answers the same, whatever
// has landed since; rows of outside tables are not bounded. Nil leaves nothing out.
type Bounds map[string]map[int32]int64

// Positions are the bounds of what has landed of a namespace's rows by now.
func (s *Store) Positions(ctx context.Context, namespace string) (Bounds, error) {
	rows, err := s.query(ctx, "SELECT topic, partition, max(to_offset) + 1 FROM "+s.ref("ledger")+
		" WHERE startsWith(topic, {ours:String}) OR NOT startsWith(topic, 'kedge.') GROUP BY topic, partition", params{"ours": "kedge." + namespace + "."})
	if err != nil {
		return nil, fmt.Errorf("read the ledger's positions: %w", err)
	}
	defer rows.Close()
	out := Bounds{}
	for rows.Next() {
		var topic string
		var partition int32
		var next int64
		if err := rows.Scan(&topic, &partition, &next); err != nil {
			return nil, fmt.Errorf("read the ledger's positions: %w", err)
		}
		if out[topic] == nil {
			out[topic] = map[int32]int64{}
		}
		out[topic][partition] = next
	}
	return out, rows.Err()
}

// condition keeps the rows below the bounds.
func (b Bounds) condition() string {
	if b == nil {
		return "1"
	}
	parts := []string{"0"}
	for _, topic := range slices.Sorted(maps.Keys(b)) {
		var ends []string
		for p := int32(0); p <= maxKey(b[topic]); p++ {
			ends = append(ends, strconv.FormatInt(b[topic][p], 10))
		}
		if ends != nil {
			parts = append(parts, "_topic = "+chdb.QuoteString(topic)+" AND _offset < ["+strings.Join(ends, ",")+"][_partition + 1]")
		}
	}
	return "((" + strings.Join(parts, ") OR (") + "))"
}

// until is the condition of bounds on a table. Of rows that Kedge did not store
// it cannot know what was there when.
func (t *table) until(b Bounds) string {
	if t.schema.From != nil {
		return "1"
	}
	return b.condition()
}

func maxKey(m map[int32]int64) int32 {
	out := int32(-1)
	for k := range m {
		out = max(out, k)
	}
	return out
}

// Sample keeps a share of rows, always the same ones for a seed. The zero value
// keeps all.
type Sample struct {
	Share float64
	Seed  uint64
}

// condition keeps a row by a hash of what identifies it.
func (x Sample) condition(identity string) string {
	if x.Share <= 0 || x.Share >= 1 {
		return "1"
	}
	return fmt.Sprintf("cityHash64(%s, %d) %% 1000000 < %d", identity, x.Seed, int64(x.Share*1e6))
}

// LabelFrame says which rows of a view are labels.
type LabelFrame struct {
	Schema   *event.Schema
	Label    string // column
	Weight   string // column; empty: every row weighs 1
	From, To int64  // of event_time, µs: from ≤ t < to
	Lead     int64  // µs by which features must have been known before the label's time
	Until    Bounds
	Sample   Sample
}

// LabelRows streams a view's rows as an entity frame, by key and then time, as
// Arrow streams one after another: the key's parts, event_timestamp (the row's
// time less the lead), label and weight. Of rows of one key and time the newest
// counts; rows that were deleted or have no label are left out. The order is the
// tables' own, so that nothing is sorted here, and a join that holds a part of
// the frame at a time reads each view's rows once in all: a part is a range of keys.
func (s *Store) LabelRows(ctx context.Context, f LabelFrame, read func(io.Reader) error) error {
	if err := s.Prepare(ctx, []*event.Schema{f.Schema}); err != nil {
		return err
	}
	t := s.known(f.Schema.Table())
	if t == nil {
		return fmt.Errorf("%w: no rows of view %q are stored", ErrUnknown, f.Schema.Subject)
	}
	value := func(name string) (string, error) {
		c, field, ok := t.find(name)
		if !ok || field.Role != event.ValueRole || field.Type.List || isMap(field.Type.Elem) {
			return "", fmt.Errorf("%w: view %s has no column %q that can be a label or a weight", ErrUnknown, f.Schema.Subject, name)
		}
		return chdb.QuoteIdent(c.name), nil
	}
	label, err := value(f.Label)
	if err != nil {
		return err
	}
	weight := "1."
	if f.Weight != "" {
		if weight, err = value(f.Weight); err != nil {
			return err
		}
	}
	var keys, shown []string
	for _, k := range f.Schema.Keys() {
		keys = append(keys, chdb.QuoteIdent(columnName(k)))
		shown = append(shown, chdb.QuoteIdent(columnName(k))+" AS "+chdb.QuoteIdent(k.Name))
	}
	identity := strings.Join(append(slices.Clone(keys), "event_time"), ", ")
	inner := fmt.Sprintf("SELECT %s, event_time, deleted, %s AS __label, toFloat64(ifNull(%s, 1)) AS __weight FROM %s WHERE %s AND %s AND %s ORDER BY %s, created DESC, _epoch DESC, _partition DESC, _offset DESC LIMIT 1 BY %s",
		strings.Join(keys, ", "), label, weight, s.ref(t.name), framed, t.until(f.Until), f.Sample.condition(identity), identity, identity)
	sql := fmt.Sprintf("SELECT %s, fromUnixTimestamp64Micro(toUnixTimestamp64Micro(event_time) - %d, 'UTC') AS event_timestamp, __label AS label, __weight AS weight FROM (%s) WHERE NOT deleted AND isNotNull(__label) ORDER BY %s",
		strings.Join(shown, ", "), f.Lead, inner, identity)
	return s.arrow(ctx, sql, params{"from": micro64(f.From), "to": micro64(f.To)}, read)
}
