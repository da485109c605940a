package features

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// sharedRetry is between two tries to reach a shared store.
const sharedRetry = 500 * time.Millisecond

// outlast runs the tail again whenever the shared store is away at its start or
// has lost rows, until ctx ends.
func (t *Tail) outlast(ctx context.Context) error {
	for told := ""; ; {
		err := t.run(ctx)
		if !errors.Is(err, ErrStoreAway) || ctx.Err() != nil {
			return err
		}
		if text := err.Error(); text != told {
			t.cfg.Scope.Log.Warn("the online tables are filled again as soon as the shared store can take them", telemetry.LogError, err)
			told = text
		}
		t.mu.Lock()
		t.positions, t.filled, t.pending = map[stream.TopicPartition]*position{}, false, nil
		t.wake()
		t.mu.Unlock()
		pause(ctx, sharedRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// held is what a shared store holds of what this process serves. What it holds
// of views that are no more is removed.
func (t *Tail) held(ctx context.Context, state *registry.State) (held, error) {
	shared := t.online.shared
	if shared == nil {
		return held{}, nil
	}
	h, err := shared.open(ctx)
	if err != nil {
		return h, err
	}
	for id := range h.views {
		_, live := state.ByUID(event.ViewUID(id))
		if !live && int64(event.ViewUID(id))-1 <= state.Offset() { // not one that others know first
			shared.forget(id)
		}
	}
	t.complete = map[uint64]int64{}
	return h, nil
}

// has reports whether every stored row of a view is held, for as long as its
// ttl asks.
func (h *held) has(v *View) bool {
	recorded, ok := h.views[v.Schema.TableID]
	return ok && shorter(recorded, v.table.state().ttl.Load()) != recorded || ok && recorded == v.table.state().ttl.Load()
}

// shorter is the smaller of two ttls; 0 is none.
func shorter(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// resume is where a log goes on behind what is held.
func (h *held) resume(offsets map[stream.TopicPartition]stream.Offsets) map[int32]int64 {
	next := map[int32]int64{}
	for tp := range offsets {
		next[tp.Partition] = h.next[tp.String()]
	}
	return next
}

// behind is where a foreign topic goes on: behind what is stored, or before
// that, where less is held.
func (h *held) behind(topic string, stored map[int32]int64) map[int32]int64 {
	if len(h.next) == 0 {
		return stored
	}
	next := map[int32]int64{}
	for p, at := range stored {
		next[p] = min(at, h.next[stream.TopicPartition{Topic: topic, Partition: p}.String()])
	}
	return next
}

// earliest is the smaller of two positions, by partition; nil is none.
func earliest(a, b map[int32]int64) map[int32]int64 {
	if a == nil {
		return b
	}
	for p, next := range b {
		a[p] = min(a[p], next)
	}
	return a
}

// overtaken reports whether a log has dropped records that the store lacks.
func (h *held) overtaken(offsets map[stream.TopicPartition]stream.Offsets) bool {
	for tp, o := range offsets {
		if h.next[tp.String()] < o.First {
			return true
		}
	}
	return false
}

// applyRows folds a batch in, however long the shared store is away.
func (t *Tail) applyRows(ctx context.Context, b *event.Batch, now int64) error {
	for told := false; ; told = true {
		err := t.online.Apply(ctx, b, now)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if !told {
			t.cfg.Scope.Log.Warn("rows wait until the shared online store takes them", telemetry.LogTopic, b.Topic, telemetry.LogError, err)
		}
		pause(ctx, sharedRetry)
	}
}

// pending is a state of the tail that is recorded once the rows that waited for
// their event_time then are written too.
type pending struct {
	held
	due int64
}

// record notes in the shared store how far it is filled, so that the next start
// begins there.
func (t *Tail) record(ctx context.Context) error {
	if t.online.shared == nil || !t.Progress().Ready {
		return nil
	}
	var tables []*sharedTable
	due := int64(minTime)
	for _, v := range t.online.Views("") {
		table, ok := v.table.(*sharedTable)
		if !ok {
			continue
		}
		tables = append(tables, table)
		due = max(due, table.future.latest())
		if ttl, ok := t.complete[v.Schema.TableID]; ok {
			t.complete[v.Schema.TableID] = shorter(ttl, table.ttl.Load())
		}
	}
	if t.pending == nil {
		t.pending = &pending{held{views: t.complete, next: map[string]int64{}}, due}
		t.mu.Lock()
		for tp, p := range t.positions {
			t.pending.next[tp.String()] = p.next
		}
		t.mu.Unlock()
	}
	for _, table := range tables {
		if table.waitsUntil(t.pending.due) {
			return nil
		}
	}
	if err := t.online.shared.record(ctx, t.pending.held); err != nil {
		return fmt.Errorf("record how far the log is read: %w", err)
	}
	t.pending = nil
	return nil
}
