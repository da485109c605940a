package features

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// rowTable keeps the newest row of every key of one view. There are two: Table
// is in this process's memory, sharedTable in a Redis or Valkey that a fleet of
// processes shares. One suite of tests holds both to the same answers.
type rowTable interface {
	// apply folds the rows of a batch in. Applying a row twice changes nothing,
	// so after an error the batch is applied again.
	apply(ctx context.Context, b *event.Batch, now int64) error
	// look looks keys up as of now. rows are there when r is done.
	look(keys *Keys, now int64, rows *Rows, r *Round)
	// tidy lets in rows that became due; rows that are older than the ttl by
	// more than keepDead may go.
	tidy(ctx context.Context, now int64, keepDead time.Duration) error
	Evolve(s *event.Schema) error
	Stats() Stats
	Close()
	state() *tableState
}

// tableState is what a view's table has in this process wherever its rows are.
type tableState struct {
	layout  atomic.Pointer[layout]
	ttl     atomic.Int64 // µs; 0: rows do not expire
	writers sync.Pool
	future  waiting
	applied atomic.Int64
	late    atomic.Int64
	newest  atomic.Int64 // largest event_time applied
	mixed   atomic.Bool  // rows of foreign topics came: an offset does not say of which topic it is
}

func (t *tableState) start(s *event.Schema, ttl time.Duration) {
	t.layout.Store(newLayout(s))
	t.SetTTL(ttl)
	t.newest.Store(minTime)
	t.future.due.Store(maxTime)
	t.writers.New = func() any { return &rowWriter{} }
}

func (t *tableState) state() *tableState { return t }

// Schema is the shape that rows are kept in.
func (t *tableState) Schema() *event.Schema { return t.layout.Load().schema }

// SetTTL changes the ttl; rows are judged by it when they are read.
func (t *tableState) SetTTL(ttl time.Duration) { t.ttl.Store(ttl.Microseconds()) }

// TTL is how long after its event_time a row is served; zero means for ever.
func (t *tableState) TTL() time.Duration { return time.Duration(t.ttl.Load()) * time.Microsecond }

// Expired reports whether a row of event_time is older than the ttl at now.
func (t *tableState) Expired(eventTime, now int64) bool {
	ttl := t.ttl.Load()
	return ttl > 0 && eventTime < now-ttl
}

// writer returns memory to encode rows of a schema in; it goes back to writers.
func (t *tableState) writer(s *event.Schema) *rowWriter {
	w := t.writers.Get().(*rowWriter)
	w.plan(t.layout.Load(), s)
	return w
}

// evolved gives the table a new shape and returns it, or nil if it has that
// shape or cannot have it.
func (t *tableState) evolved(s *event.Schema) (*layout, error) {
	old := t.layout.Load()
	if sameShape(old.schema, s) {
		return nil, nil
	}
	if err := checkEvolution(old.schema, s); err != nil {
		return nil, fmt.Errorf("evolve online table: %w", err)
	}
	l := newLayout(s)
	t.layout.Store(l)
	t.future.convert(l)
	return l, nil
}

func (t *tableState) count(rows int, late, newest int64) {
	t.applied.Add(int64(rows))
	t.late.Add(late)
	for old := t.newest.Load(); newest > old && !t.newest.CompareAndSwap(old, newest); old = t.newest.Load() {
	}
}

func (t *tableState) counts(st *Stats) {
	st.Waiting = t.future.len()
	st.Applied, st.Late = t.applied.Load(), t.late.Load()
	if newest := t.newest.Load(); newest != minTime {
		st.Newest = newest
	}
}

// Keys are encoded keys to look up, one after another. Reset keeps the memory.
type Keys struct {
	data []byte
	ends []int
}

// Reset empties the collection.
func (k *Keys) Reset() { k.data, k.ends = k.data[:0], k.ends[:0] }

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.ends) }

// Add adds a key as [AppendKey] encodes it.
func (k *Keys) Add(key []byte) {
	k.data = append(k.data, key...)
	k.ends = append(k.ends, len(k.data))
}

func (k *Keys) at(i int) []byte {
	from := 0
	if i > 0 {
		from = k.ends[i-1]
	}
	return k.data[from:k.ends[i]:k.ends[i]]
}

// Round gathers look-ups of several views, so that those of a shared store take
// one round trip together. The zero Round is empty; it is not used again.
type Round struct {
	store *SharedStore
	asks  []ask
}

// ask is a look-up that is on its way.
type ask struct {
	table *sharedTable
	keys  *Keys
	rows  *Rows
}

// Do waits for the answers. It returns [ErrStoreAway] when the shared store
// gives none; what is in memory was answered at once.
func (r *Round) Do(ctx context.Context, now int64) error {
	if len(r.asks) == 0 {
		return nil
	}
	return r.store.read(ctx, r.asks, now)
}
