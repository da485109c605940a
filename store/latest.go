package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/event"
)

// comparatorDescending puts the newest row of a key first.
const comparatorDescending = "event_time DESC, created DESC, _epoch DESC, _partition DESC, _offset DESC, _index DESC"

// LatestOffsets says, for each partition of a topic, up to which offset the
// stored rows are complete: the end of what the ledger holds without a gap.
// Partitions without a ledger row are missing. Ask for it before [Store.Latest]:
// the rows then hold at least that much.
func (s *Store) LatestOffsets(ctx context.Context, topic string, partitions int) (map[int32]int64, error) {
	out := map[int32]int64{}
	for p := range int32(partitions) {
		epochs, err := s.Epochs(ctx, topic, p)
		if err != nil {
			return nil, err
		}
		if n := len(epochs); n > 0 {
			out[p] = epochs[n-1].Next
		}
	}
	return out, nil
}

// Latest yields the newest row of every key of a view with an event_time at or
// before a time (µs), tombstones included, each batch valid until the next. It
// reads the whole history of the view: see docs for what that takes.
func (s *Store) Latest(ctx context.Context, schema *event.Schema, at int64, memory int64) iter.Seq2[*event.Batch, error] {
	t := s.known(schema.Table())
	if t == nil {
		return nothing
	}
	exprs, columns := t.selected(schema)
	keys := strings.TrimSuffix(t.orderBy(), ", event_time")
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE event_time <= fromUnixTimestamp64Micro({at:Int64}) ORDER BY %s, %s LIMIT 1 BY %s",
		strings.Join(exprs, ", "), s.ref(t.name), keys, comparatorDescending, keys)
	settings := withMemory(memory, map[string]string{"optimize_read_in_order": "1", "max_block_size": "65536"})
	return s.selectBlocks(ctx, sql, params{"at": micro64(at)}, settings, event.NewBatch(schema, ""), columns)
}

func micro64(t int64) string { return strconv.FormatInt(max(event.MinTime, min(event.MaxTime, t)), 10) }
