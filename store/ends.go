package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// TopicEnds say, per topic and partition, the newest epoch and how far its rows
// are stored; rows of older epochs are all stored. A partition without an end
// has nothing stored for certain. Positions mean nothing without their topic.
type TopicEnds map[string]map[int32]event.EpochRange

// Ends are those of the topics that a view's stored rows came by: its own,
// whatever is stored of it, sources', imports'; and of further topics.
func (s *Store) Ends(ctx context.Context, schema *event.Schema, further ...string) (TopicEnds, error) {
	sql := fmt.Sprintf(`SELECT topic, partition, epoch, min(from_offset), if(countIf(gap) > 0, minIf(before, gap), max(to_offset)) + 1
FROM (
  SELECT topic, partition, epoch, from_offset, to_offset,
    row_number() OVER (PARTITION BY topic, partition, epoch ORDER BY from_offset, to_offset) AS nth,
    max(to_offset) OVER (PARTITION BY topic, partition, epoch ORDER BY from_offset, to_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
    nth > 1 AND from_offset > before + 1 AS gap
  FROM %[1]s WHERE has(arrayMap(h -> unhex(h), {topics:Array(String)}), toString(topic)) OR topic IN (
    SELECT topic FROM %[1]s WHERE (NOT startsWith(topic, 'kedge.') OR startsWith(topic, {imports:String})) AND mapContains(tables, {table:String}))
) GROUP BY topic, partition, epoch ORDER BY topic, partition, epoch`, s.ref("ledger"))
	rows, err := s.query(ctx, sql, params{"topics": textList(append(further, ownTopic(schema))), "table": schema.Table(), "imports": event.ImportTopicPrefix(schema.Namespace)})
	if err != nil {
		return nil, fmt.Errorf("read how far rows of %s are stored: %w", schema.Subject, err)
	}
	defer rows.Close()
	out := TopicEnds{}
	for rows.Next() {
		var topic string
		var partition int32
		var e event.EpochRange
		if err := rows.Scan(&topic, &partition, &e.Epoch, &e.First, &e.Next); err != nil {
			return nil, fmt.Errorf("read how far rows of %s are stored: %w", schema.Subject, err)
		}
		if out[topic] == nil {
			out[topic] = map[int32]event.EpochRange{}
		}
		out[topic][partition] = e // the newest epoch comes last
	}
	return out, rows.Err()
}

// Equal reports whether two ends are the same.
func (e TopicEnds) Equal(other TopicEnds) bool {
	return maps.EqualFunc(e, other, func(a, b map[int32]event.EpochRange) bool { return maps.Equal(a, b) })
}

// Hold reports whether a position is stored.
func (e TopicEnds) Hold(topic string, partition, epoch int32, offset int64) bool {
	end, ok := e[topic][partition]
	return ok && (epoch < end.Epoch || epoch == end.Epoch && offset < end.Next)
}

// condition keeps what lies before the ends, and what came by imports. Topics
// of others that have no end here count as beyond theirs: nil keeps all.
func (e TopicEnds) condition() string {
	or, topics := []string{}, []string{}
	for _, topic := range slices.Sorted(maps.Keys(e)) {
		topics = append(topics, chdb.QuoteString(topic))
		or = append(or, "("+storedBefore(topic, e[topic])+")")
	}
	if len(topics) == 0 {
		return "1"
	}
	return strings.Join(append(or, "startsWith(_topic, 'kedge.') AND _topic NOT IN ("+strings.Join(topics, ", ")+")"), " OR ")
}
