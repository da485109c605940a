package features

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Table is the online table of one view: the newest row of every key. Rows are
// applied and read concurrently; a read never sees half a row.
type Table struct {
	mu      sync.RWMutex // Apply shares it, Evolve and Close exclude
	layout  atomic.Pointer[layout]
	ttl     atomic.Int64 // µs; 0: rows do not expire
	horizon atomic.Int64 // rows with an older event_time were evicted and are refused
	seed    maphash.Seed
	shift   uint
	shards  []shard
	writers sync.Pool
	future  waiting
	applied atomic.Int64
	late    atomic.Int64
	newest  atomic.Int64 // largest event_time applied
	mixed   atomic.Bool  // rows of foreign topics came: an offset does not say of which topic it is
	closed  bool
}

// NewTable makes an empty table. ttl is how long after its event_time a row is
// served; zero means for ever.
func NewTable(s *event.Schema, ttl time.Duration) *Table {
	n := 1 << bits.Len(uint(16*runtime.GOMAXPROCS(0)-1))
	t := &Table{seed: maphash.MakeSeed(), shards: make([]shard, n), shift: uint(64 - bits.TrailingZeros(uint(n)))}
	l := newLayout(s)
	t.layout.Store(l)
	t.SetTTL(ttl)
	t.horizon.Store(minTime)
	t.newest.Store(minTime)
	t.future.due.Store(maxTime)
	t.writers.New = func() any { return &rowWriter{} }
	for i := range t.shards {
		t.shards[i].layout = l
	}
	return t
}

const (
	minTime = -1 << 63
	maxTime = 1<<63 - 1
)

// Schema is the shape that rows are kept in.
func (t *Table) Schema() *event.Schema { return t.layout.Load().schema }

// SetTTL changes the ttl; rows are judged by it when they are read.
func (t *Table) SetTTL(ttl time.Duration) { t.ttl.Store(ttl.Microseconds()) }

// TTL is how long after its event_time a row is served; zero means for ever.
func (t *Table) TTL() time.Duration { return time.Duration(t.ttl.Load()) * time.Microsecond }

// Apply folds the rows of a batch in. A row whose event_time is after now waits
// until then, as the point-in-time rule wants. The batch may have fewer columns
// than the table (they become null) and is not kept.
func (t *Table) Apply(b *event.Batch, now int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return
	}
	w := t.writers.Get().(*rowWriter)
	defer t.writers.Put(w)
	w.plan(t.layout.Load(), b.Schema)
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
	t.applied.Add(int64(b.Rows))
	t.late.Add(late)
	for old := t.newest.Load(); newest > old && !t.newest.CompareAndSwap(old, newest); old = t.newest.Load() {
	}
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
	old := t.layout.Load()
	if sameShape(old.schema, s) || t.closed {
		return nil
	}
	if err := checkEvolution(old.schema, s); err != nil {
		return fmt.Errorf("evolve online table: %w", err)
	}
	l := newLayout(s)
	t.layout.Store(l)
	t.future.convert(l)
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
	st.Waiting = t.future.len()
	st.Applied, st.Late = t.applied.Load(), t.late.Load()
	if newest := t.newest.Load(); newest != minTime {
		st.Newest = newest
	}
	return st
}
