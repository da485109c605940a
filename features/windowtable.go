package features

import (
	"container/heap"
	"hash/maphash"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kedge-ml/kedge/event"
)

// windowTable is the online side of a window view: per key, the tiles of its
// windows. Rows must be given in the log's order per partition; every row is
// folded in once, however often it is given.
type windowTable struct {
	plan   *windowPlan
	live   atomic.Bool // stored rows are folded in; until then nothing is served
	seed   maphash.Seed
	shift  uint
	shards []shard
	stored *layout     // of the shards: the key and the state as a text
	mixed  atomic.Bool // rows of a topic of others were folded in
	// reached says of each shard how far the parts are folded into it; of its lock
	reached [][]reached

	mu      sync.Mutex            // folding
	logs    map[string]*windowLog // by topic: the view's own, and those that sources map
	parts   []*windowPart         // of the logs, in the order in which they were met
	ids     int64                 // offsets of a partition that an event's id is remembered for; 0: ids do not matter
	folder  *windowFolder
	columns []int // plan column → batch column, for schema
	schema  *event.Schema
	key     []byte
	slot    []byte
	block   []byte
	future  windowHeap
	due     atomic.Int64 // event_time of the earliest that waits; maxTime when none does

	folders sync.Pool // of readers
	folded  atomic.Int64
	skipped atomic.Int64 // duplicates, and events that a delete covers
	swept   int64
}

// windowLog is what a window table took of one topic. The partitions of two
// topics have the same numbers, so no position means anything without it.
type windowLog struct {
	next map[partitionEpoch]int64 // rows before it are folded in
	ids  idMemory
}

type partitionEpoch struct {
	partition, epoch int32
}

// newWindowTable makes an empty table. ids is how many offsets of a partition
// an event's id is remembered for; 0: ids do not matter.
func newWindowTable(p *windowPlan, ids int64) *windowTable {
	n := 1 << bits.Len(uint(16*runtime.GOMAXPROCS(0)-1))
	state := []event.Field{{Name: "state", Type: event.ColumnType{Elem: event.Bytes}}}
	stored := newLayout(event.NewSchema(event.Features, p.schema.Namespace, p.schema.Subject, p.schema.TableID, slices.Clone(p.schema.Keys()), state))
	t := &windowTable{plan: p, seed: maphash.MakeSeed(), shift: uint(64 - bits.TrailingZeros(uint(n))), shards: make([]shard, n), reached: make([][]reached, n), stored: stored,
		logs: map[string]*windowLog{}, ids: ids, folder: newFolder(p), slot: make([]byte, stored.stride)}
	for i := range t.shards {
		t.shards[i].layout = stored
	}
	t.due.Store(maxTime)
	t.folders.New = func() any { return newFolder(p) }
	return t
}

// log is what the table took of a topic; t.mu is held.
func (t *windowTable) log(topic string) *windowLog {
	l := t.logs[topic]
	if l == nil {
		l = &windowLog{map[partitionEpoch]int64{}, newIDMemory(t.ids)}
		t.logs[topic] = l
	}
	return l
}

// start says from which offset on rows of a partition's epoch count; those
// before it were folded in from what is stored.
func (t *windowTable) start(topic string, partition, epoch int32, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := partitionEpoch{partition, epoch}
	t.log(topic).next[at] = next
	t.begin(t.part(topic, at), next)
}

// apply folds a batch of the source view's rows in.
func (t *windowTable) apply(b *event.Batch, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.admitDue(now)
	t.locate(b.Schema)
	log, ends := t.log(b.Topic), map[partitionEpoch]int64{}
	part, partOf := noPart, partitionEpoch{}
	for row := range b.Rows {
		v := batchVersion(b, row)
		at := partitionEpoch{v.Partition, v.Epoch}
		if v.Offset < log.next[at] {
			continue
		}
		ends[at] = max(ends[at], v.Offset+1)
		if part == noPart || at != partOf {
			part, partOf = t.part(b.Topic, at), at
		}
		if id := b.Columns[event.ColID].Str(row); len(id) > 0 && log.ids.seen(v.Partition, id, v.Offset) {
			t.skipped.Add(1)
			continue
		}
		deleted := b.Columns[event.FeatureDelete].Bools[row] != 0
		t.key = AppendKey(t.key[:0], b.Columns[b.Schema.KeyStart():b.Schema.ValueStart()], row)
		t.read(b, row)
		if v.EventTime > now {
			t.wait(v, deleted, part)
			continue
		}
		t.fold(v, deleted, part, now)
	}
	for at, next := range ends {
		log.next[at] = next
	}
}

func (t *windowTable) locate(s *event.Schema) {
	if s == t.schema {
		return
	}
	t.schema, t.columns = s, t.columns[:0]
	for _, c := range t.plan.columns {
		at := slices.IndexFunc(s.Values(), func(f event.Field) bool { return f.Name == c.name && widens(f.Type, c.typ) })
		if at >= 0 {
			at += s.ValueStart()
		}
		t.columns = append(t.columns, at)
	}
}

// read takes a row's values into the folder.
func (t *windowTable) read(b *event.Batch, row int) {
	for i, at := range t.columns {
		if at < 0 {
			t.folder.values[i] = windowValue{}
			continue
		}
		t.folder.values[i].read(&b.Columns[at], row)
	}
}

// fold adds the event that the folder holds to t.key's state; t.mu is held.
func (t *windowTable) fold(v Version, deleted bool, part int, now int64) {
	h := hashKey(t.seed, t.key)
	s := &t.shards[h>>t.shift]
	s.mu.Lock()
	defer s.mu.Unlock()
	t.reach(h>>t.shift, part, v)
	old, at := s.find(uint32(h), t.key)
	var state []byte
	if old != nil {
		state = t.state(s, old)
	} else {
		state = t.folder.emptyState(t.block[:0])
		t.block = state
	}
	next, changed := t.folder.fold(state, v, deleted, now)
	if !changed {
		t.skipped.Add(1)
		return
	}
	t.folded.Add(1)
	if old != nil {
		if had := slotVersion(old); had.Partition == v.Partition && (had.Epoch > v.Epoch || had.Epoch == v.Epoch && had.Offset > v.Offset) {
			v = had // an event that had to wait
		}
		if &next[0] == &state[0] {
			setSlotVersion(old, v, false)
			return
		}
	}
	t.write(s, uint32(h), old, at, next, v)
}

// state is the part of a row's block behind its key.
func (t *windowTable) state(s *shard, slot []byte) []byte {
	l := t.stored
	block := s.blocks.at(l.block(slot), l.blockLen(slot))
	return l.variable(slot, block, l.columns[0].variable)
}

func (t *windowTable) write(s *shard, tag uint32, old []byte, at int, state []byte, v Version) {
	l := t.stored
	clear(t.slot)
	setSlotVersion(t.slot, v, false)
	block := make([]byte, 0, len(t.key)+len(state))
	if l.keyWidth > 0 {
		copy(t.slot[l.keyAt:], t.key)
	} else {
		block = append(block, t.key...)
		l.setEnd(t.slot, 0, len(block))
	}
	block = append(block, state...)
	l.setEnd(t.slot, l.columns[0].variable, len(block))
	if old != nil {
		s.overwrite(old, t.slot, block)
		return
	}
	s.insert(tag, at, t.slot, block)
}

// get computes a key's features as of now and adds the row to rows. A key
// without events has a row too: nothing happened to it.
func (t *windowTable) get(key []byte, now int64, rows *Rows) {
	if now >= t.due.Load() {
		t.admit(now)
	}
	f := t.folders.Get().(*windowFolder)
	defer t.folders.Put(f)
	h := hashKey(t.seed, key)
	s := &t.shards[h>>t.shift]
	v := Version{Offset: -1} // nothing was folded in
	s.mu.RLock()
	var state []byte
	if slot, _ := s.find(uint32(h), key); slot != nil {
		v, state = slotVersion(slot), t.state(s, slot)
	}
	f.gather(state, now)
	v.EventTime = f.newestAt(state, now)
	rows.noteReached(t.reached[h>>t.shift])
	s.mu.RUnlock()
	if v.EventTime == noTime {
		v.EventTime = 0
	}
	rows.refs = append(rows.refs, rowRef{t.plan.layout, len(rows.data)})
	rows.data = f.row(rows.data, key, v)
}

// wait keeps an event until its time comes; t.mu is held.
func (t *windowTable) wait(v Version, deleted bool, part int) {
	e := waitingEvent{v: v, deleted: deleted, part: part, key: slices.Clone(t.key), values: slices.Clone(t.folder.values)}
	for i := range e.values {
		e.values[i].text = slices.Clone(e.values[i].text)
	}
	heap.Push(&t.future, e)
	t.due.Store(t.future[0].v.EventTime)
}

// admit folds the events in whose time has come.
func (t *windowTable) admit(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.admitDue(now)
}

// admitDue is admit with t.mu held.
func (t *windowTable) admitDue(now int64) {
	for len(t.future) > 0 && t.future[0].v.EventTime <= now {
		e := heap.Pop(&t.future).(waitingEvent)
		t.key = append(t.key[:0], e.key...)
		copy(t.folder.values, e.values)
		t.fold(e.v, e.deleted, e.part, now)
	}
	t.due.Store(maxTime)
	if len(t.future) > 0 {
		t.due.Store(t.future[0].v.EventTime)
	}
}

// sweep forgets keys whose events and deletes no window reaches any more. It
// does so at most once per tenth of the longest window.
func (t *windowTable) sweep(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now-t.swept < t.plan.reach()/10 {
		return
	}
	t.swept = now
	least := now - t.plan.reach()
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		from := s.blocks // what rebuild moves the rows out of
		s.rebuild(t.stored, func(slot []byte) bool {
			l := t.stored
			state := l.variable(slot, from.at(l.block(slot), l.blockLen(slot)), l.columns[0].variable)
			return getTime(state) >= least || getVersion(state[8:]).EventTime >= least
		})
		s.mu.Unlock()
	}
}

// stats are the table's size: keys, bytes taken from the system and bytes in
// use.
func (t *windowTable) stats() (st Stats) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		allocated, used := s.bytes()
		st.Rows += s.n
		st.Allocated += allocated
		st.Used += used
		s.mu.RUnlock()
	}
	st.Applied, st.Late = t.folded.Load(), t.skipped.Load()
	return st
}

func (t *windowTable) close() {
	t.live.Store(false)
	for i := range t.shards {
		t.shards[i].mu.Lock()
		t.shards[i].close()
		t.shards[i].mu.Unlock()
	}
}

type waitingEvent struct {
	v       Version
	deleted bool
	part    int
	key     []byte
	values  []windowValue
}

type windowHeap []waitingEvent

func (h windowHeap) Len() int { return len(h) }
func (h windowHeap) Less(i, j int) bool {
	if h[i].v.EventTime != h[j].v.EventTime {
		return h[i].v.EventTime < h[j].v.EventTime
	}
	return h[i].v.Compare(h[j].v) < 0
}
func (h windowHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *windowHeap) Push(x any)   { *h = append(*h, x.(waitingEvent)) }
func (h *windowHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = waitingEvent{}
	*h = old[:len(old)-1]
	return last
}

// idMemory knows the ids of the last events of each partition of a topic, by the rule
// that ingest has: an event is a duplicate if its id stands at a smaller offset
// of its partition, at most size before it.
type idMemory struct {
	size int64
	seed maphash.Seed
	at   map[int32]map[uint64]int64
}

func newIDMemory(size int64) idMemory {
	return idMemory{size: size, seed: maphash.MakeSeed(), at: map[int32]map[uint64]int64{}}
}

// seen reports whether an event is a duplicate, and remembers it if not.
func (m *idMemory) seen(partition int32, id []byte, offset int64) bool {
	if m.size == 0 {
		return false
	}
	known := m.at[partition]
	if known == nil {
		known = map[uint64]int64{}
		m.at[partition] = known
	}
	h := maphash.Bytes(m.seed, id)
	if first, ok := known[h]; ok && offset-first <= m.size {
		return true
	}
	if known[h] = offset; int64(len(known)) > 2*m.size {
		for k, o := range known {
			if offset-o > m.size {
				delete(known, k)
			}
		}
	}
	return false
}
