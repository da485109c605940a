package features

import (
	"context"
	"fmt"
	"iter"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// LatestFrom reads stored rows for a tail. partitions is the topic's partition
// count; memory bounds what the engine takes, 0: its own limit.
func LatestFrom(st *store.Store, partitions func(ctx context.Context, topic string) (int, error), memory int64, now func() int64) LatestFunc {
	return func(ctx context.Context, s *event.Schema, topic string, apply func(*event.Batch)) (map[int32]int64, error) {
		n, err := partitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		next, err := st.LatestOffsets(ctx, topic, n)
		if err != nil {
			return nil, err
		}
		if err := st.Prepare(ctx, []*event.Schema{s}); err != nil {
			return nil, fmt.Errorf("view %s: %w", s.Subject, err)
		}
		at := now()
		later := store.HistoryQuery{Schema: s, From: at + 1, To: event.MaxTime, Memory: memory} // their time is yet to come
		for _, rows := range []iter.Seq2[*event.Batch, error]{st.Latest(ctx, s, at, memory), st.History(ctx, later)} {
			for b, err := range rows {
				if err != nil {
					return nil, fmt.Errorf("read the newest rows of view %s: %w", s.Subject, err)
				}
				apply(b)
			}
		}
		return next, nil
	}
}
