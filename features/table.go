package features

import (
	"context"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Table is the online table of one view in this process's memory: the newest
// row of every key. Rows are applied and read concurrently; a read never sees
// half a row.
type Table struct {
	tableState
	mu      sync.RWMutex // Apply shares it, Evolve and Close exclude
	horizon atomic.Int64 // rows with an older event_time were evicted and are refused
	swept   atomic.Int64 // when rows were evicted last
	seed    maphash.Seed
	shift   uint
	shards  []shard
	closed  bool
}

// NewTable makes an empty table. ttl is how long after its event_time a row is
// served; zero means for ever.
func NewTable(s *event.Schema, ttl time.Duration) *Table {
	n := 1 << bits.Len(uint(16*runtime.GOMAXPROCS(0)-1))
	t := &Table{seed: maphash.MakeSeed(), shards: make([]shard, n), shift: uint(64 - bits.TrailingZeros(uint(n)))}
	t.start(s, ttl)
	t.horizon.Store(minTime)
	for i := range t.shards {
		t.shards[i].layout = t.layout.Load()
	}
	return t
}

const (
	minTime = -1 << 63
	maxTime = 1<<63 - 1
)

// Apply folds the rows of a batch in. A row whose event_time is after now waits
// until then, as the point-in-time rule wants. The batch may have fewer columns
// than the table (they become null) and is not kept.
func (t *Table) Apply(b *event.Batch, now int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return
	}
	w := t.writer(b.Schema)
	defer t.writers.Put(w)
	horizon, late, newest := t.horizon.Load(), int64(0), int64(minTime)
	for row := range b.Rows {
		v := batchVersion(b, row)
		if v.EventTime < horizon {
			late++
			continue
		}
		newest = max(newest, v.EventTime)
		w.encodeKey(b, row)
		w.encode(b, row, v)
		if v.EventTime > now {
			t.future.add(w, v)
			continue
		}
		if t.put(w.key, w.slot, w.block, v) == outcomeLate {
			late++
		}
	}
	t.count(b.Rows, late, newest)
}

func (t *Table) apply(_ context.Context, b *event.Batch, now int64) error {
	t.Apply(b, now)
	return nil
}

func (t *Table) put(key, slot, block []byte, v Version) outcome {
	h := hashKey(t.seed, key)
	return t.shards[h>>t.shift].put(uint32(h), key, slot, block, v)
}

// Evolve gives the table a new schema: added columns are null in the rows that
// are there, Int64 becomes Float64, columns that are gone are dropped. The rows
// of one shard at a time are out of reach meanwhile. It refuses a change that
// cannot keep the values.
func (t *Table) Evolve(s *event.Schema) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	l, err := t.evolved(s)
	if l == nil {
		return err
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		sh.rebuild(l, nil)
		sh.mu.Unlock()
	}
	return nil
}

// Evict forgets rows, tombstones included, whose event_time is before a time,
// and refuses such rows from now on. It returns how many it forgot.
func (t *Table) Evict(before int64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if before <= t.horizon.Load() || t.closed {
		return 0
	}
	t.horizon.Store(before)
	gone := 0
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		n := sh.n
		sh.rebuild(sh.layout, func(slot []byte) bool { return slotVersion(slot).EventTime >= before })
		gone += n - sh.n
		sh.mu.Unlock()
	}
	return gone
}

// tidy lets rows in that became due, and now and then evicts what is so much
// older than the ttl that nobody will read it again.
func (t *Table) tidy(_ context.Context, now int64, keepDead time.Duration) error {
	t.admit(now)
	ttl := t.TTL()
	if every := max(ttl/4, time.Hour).Microseconds(); ttl > 0 && now-t.swept.Load() > every {
		t.swept.Store(now)
		t.Evict(now - (ttl + keepDead).Microseconds())
	}
	return nil
}

// Close gives the memory back; the table then holds nothing and takes nothing.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for i := range t.shards {
		t.shards[i].mu.Lock()
		t.shards[i].close()
		t.shards[i].mu.Unlock()
	}
}

// Stats describes a table's size.
type Stats struct {
	Rows       int   // keys with values
	Tombstones int   // keys that were deleted
	Waiting    int   // rows whose event_time is yet to come
	Allocated  int   // bytes taken from the system; untouched pages of growing chunks included
	Used       int   // bytes in slots, index and blocks
	Applied    int64 // rows given to Apply
	Late       int64 // of them older than, or the same as, what was there
	Newest     int64 // largest event_time applied, µs; 0 before the first row
}

// Stats counts; it locks one shard at a time.
func (t *Table) Stats() Stats {
	var st Stats
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.RLock()
		allocated, used := sh.bytes()
		st.Rows += sh.n - sh.dead
		st.Tombstones += sh.dead
		st.Allocated += allocated
		st.Used += used
		sh.mu.RUnlock()
	}
	t.counts(&st)
	return st
}
