package ingest

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// large lets partitions that are far behind fill their units in turns. The store
// takes a large block for much less than many small ones, which it then merges:
// eight partitions that fill units at the same time, each with its share of the
// memory, cost it twice what they do one after the other. Half of the memory for
// units is put by for such turns, each as much as a full unit; they are had in the
// order in which they were asked for.
type large struct {
	turns *semaphore.Weighted
	size  int64         // bytes of a turn
	wait  time.Duration // how long to wait for one; then a unit takes its share, as others do
	stuck atomic.Bool   // somebody has waited in vain since a turn ended last: nobody waits then
}

func newLarge(cfg Config) *large {
	half := cfg.MemoryBytes / 2
	return &large{turns: semaphore.NewWeighted(half), size: min(cfg.MaxBytes, half/2, int64(cfg.MaxRows)<<10), wait: 10 * cfg.MaxDelay}
}

// wantsLarge says whether the log has a good part of a full unit from an offset
// on. A namespace with quotas gets no turn: its unit may wait for them, and nobody
// is to wait with it.
func (p *partition) wantsLarge(from int64) bool {
	if p.end-from < int64(p.c.cfg.MaxRows/4) {
		return false
	}
	q := p.c.defs.space(p.c.reg.State(), p.route.Namespace).Quotas
	return q.EventsPerSecond <= 0 && q.Rows <= 0 && q.StorageBytes <= 0
}

// enter waits for a turn for a unit. False: there was none in time.
func (l *large) enter(ctx context.Context, w *work) bool {
	if !l.turns.TryAcquire(l.size) {
		if l.stuck.Load() {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, l.wait)
		defer cancel()
		if l.turns.Acquire(ctx, l.size) != nil {
			l.stuck.Store(true)
			return false
		}
	}
	w.large = l.size
	return true
}

// leave ends the turn of a unit that is stored.
func (l *large) leave(w *work) {
	if w.large > 0 {
		l.turns.Release(w.large)
		w.large = 0
		l.stuck.Store(false)
	}
}
