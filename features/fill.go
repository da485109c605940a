package features

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
)

// LatestFrom reads stored rows for a tail. first is, by partition, the first
// offset that a topic still holds; memory bounds what the engine takes, 0: its
// own limit.
func LatestFrom(st *store.Store, first func(ctx context.Context, topic string) (map[int32]int64, error), memory int64, now func() int64) LatestFunc {
	return func(ctx context.Context, s *event.Schema, topic string, apply func(*event.Batch) error) (map[int32]int64, error) {
		starts, err := first(ctx, topic)
		if err != nil {
			return nil, err
		}
		next, err := st.LatestOffsets(ctx, topic, len(starts))
		if err != nil {
			return nil, err
		}
		if err := st.Prepare(ctx, []*event.Schema{s}); err != nil {
			return nil, fmt.Errorf("view %s: %w", s.Subject, err)
		}
		mark, err := st.LatestMark(ctx, s)
		if err != nil {
			return nil, err
		}
		if mark.At != 0 {
			beyond := true
			epochs, err := newestEpochs(ctx, st, topic, starts)
			if err != nil {
				return nil, err
			}
			if marked := logHolds(mark, starts, epochs); marked != nil {
				next, beyond = marked, false
			}
			return next, applyAll(st.LatestState(ctx, s, mark, beyond, memory), s, apply)
		}
		at := now()
		later := store.HistoryQuery{Schema: s, From: at + 1, To: event.MaxTime, Memory: memory} // their time is yet to come
		for _, rows := range []iter.Seq2[*event.Batch, error]{st.Latest(ctx, s, at, memory), st.History(ctx, later)} {
			if err := applyAll(rows, s, apply); err != nil {
				return nil, err
			}
		}
		return next, nil
	}
}

func newestEpochs(ctx context.Context, st *store.Store, topic string, partitions map[int32]int64) (map[int32]int32, error) {
	out := map[int32]int32{}
	for p := range partitions {
		epochs, err := st.Epochs(ctx, topic, p)
		if err != nil {
			return nil, err
		}
		if n := len(epochs); n > 0 {
			out[p] = epochs[n-1].Epoch
		}
	}
	return out, nil
}

// logHolds is from where the log goes on behind a mark, if it holds all of that
// and the mark left nothing out; else nil. An epoch that was opened since may
// claim offsets before the mark anew.
func logHolds(m store.LatestMark, starts map[int32]int64, epochs map[int32]int32) map[int32]int64 {
	next := map[int32]int64{}
	for p, first := range starts {
		if next[p] = m.Ends[p].Next; next[p] < first || m.Ends[p].Epoch != epochs[p] {
			return nil
		}
	}
	if m.Ahead > 0 {
		return nil
	}
	return next
}

func applyAll(rows iter.Seq2[*event.Batch, error], s *event.Schema, apply func(*event.Batch) error) error {
	for b, err := range rows {
		if err != nil {
			return fmt.Errorf("read the newest rows of view %s: %w", s.Subject, err)
		}
		if err := apply(b); err != nil {
			return fmt.Errorf("fill the online table of view %s: %w", s.Subject, err)
		}
	}
	return nil
}

// LatestKeeper keeps, in the store, the newest row of every key of each online
// view, so that a restart reads those instead of the whole history. One process
// that has the store runs it; two do no harm.
type LatestKeeper struct {
	store  *store.Store
	online *Online
	source *EventSource
	scope  telemetry.Scope
	done   map[uint64]time.Time
}

// Bounds between which a view's latest state lags behind its rows.
const (
	keepEvery = 30 * time.Second
	keepRows  = 1_000_000
	keepIdle  = 10 * time.Minute
)

// NewLatestKeeper makes a keeper for the views of o.
func NewLatestKeeper(o *Online, src *EventSource, scope telemetry.Scope) *LatestKeeper {
	return &LatestKeeper{store: src.store, online: o, source: src, scope: scope, done: map[uint64]time.Time{}}
}

// Run keeps the tables until ctx ends.
func (k *LatestKeeper) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := k.Tick(ctx, now); err != nil && ctx.Err() == nil {
				k.scope.Log.Warn("latest state is behind: a restart takes longer meanwhile", telemetry.LogError, err)
			}
		}
	}
}

// Tick advances the views that have a million new rows, or any and ten minutes.
func (k *LatestKeeper) Tick(ctx context.Context, now time.Time) error {
	var errs []error
	for _, v := range k.online.Views("") {
		if v.table != nil {
			errs = append(errs, k.keep(ctx, v, now))
		}
	}
	return errors.Join(errs...)
}

func (k *LatestKeeper) keep(ctx context.Context, v *View, now time.Time) error {
	mark, err := k.store.LatestMark(ctx, v.Schema)
	if err != nil {
		return err
	}
	topics, err := k.store.Ends(ctx, v.Schema)
	if err != nil {
		return err
	}
	ends, news := topics[FeatureTopic(v.Schema.Namespace)], int64(0)
	for p, e := range ends {
		news += e.Next - mark.Ends[p].Next
	}
	if last, ok := k.done[v.UID]; news == 0 || news < keepRows && ok && now.Sub(last) < keepIdle {
		return nil
	}
	if err := k.store.AdvanceLatest(ctx, v.Schema, ends, now.UnixMicro()); err != nil {
		return err
	}
	k.done[v.UID] = now
	return nil
}
