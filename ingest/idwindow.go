package ingest

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/kedge-ml/kedge/event"
)

// idWindow remembers the ids of one partition's stored rows over the last size
// offsets. It decides by offsets alone, never by how many ids it holds, so the
// same records give the same answers whenever they are read again.
//
// Ids are kept as 96-bit digests under seeds of this process: a false match
// among a million ids is a matter of one in 10^22 per event, and nobody can
// prepare one. Entries lie in offset order in chunks; an open-addressing table
// with linear probing points to them and holds the upper half of each digest's
// low word, so that an id never met costs one look at memory. That is 16 bytes per id and 10 to
// 20 for the table.
//
// The entries since the last begin belong to the unit being decoded and can be
// taken back.
type idWindow struct {
	size   int64
	seeds  [2]maphash.Seed
	chunks []*idChunk // by entry number >> idChunkBits, modulo the length
	spare  *idChunk
	table  []uint64 // entry number, and above it the upper half of low; 0: free
	shift  uint8    // 64 − log2(len(table)), at least 32

	tail, head uint32 // entry numbers [tail, head); 0 is never one
	count      int
	mark       uint32 // head at the last begin
	staged     int    // entries since then
	replaced   []idReplacement
}

type idEntry struct {
	low    uint64
	high   uint32
	offset uint32 // modulo 2^32: distances are what counts
}

const idChunkBits = 12

type idChunk [1 << idChunkBits]idEntry

// idReplacement is an entry that took the place of an older one whose id had
// left the window.
type idReplacement struct{ now, before uint32 }

func newIDWindow(size int64) *idWindow {
	w := &idWindow{size: size, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, tail: 1, head: 1, mark: 1}
	w.chunks = make([]*idChunk, 2)
	w.resize(64)
	return w
}

// bytes is the memory the window holds.
func (w *idWindow) bytes() int {
	n := len(w.table)*8 + len(w.chunks)*8
	for _, c := range w.chunks {
		if c != nil {
			n += 16 << idChunkBits
		}
	}
	return n
}

// digest hashes an id within its table; the versions of a view are one.
func (w *idWindow) digest(kind event.Kind, tableID uint64, id []byte) (low uint64, high uint32) {
	if kind == event.Features {
		tableID = event.ViewUID(tableID)
	}
	table := (tableID<<2 | uint64(kind)) * 0x9e3779b97f4a7c15 // odd: distinct tables stay distinct
	low = maphash.Bytes(w.seeds[0], id) ^ bits.RotateLeft64(table, 32)
	return low, uint32(maphash.Bytes(w.seeds[1], id)>>32) ^ uint32(table)
}

// seen reports whether the id stands at one of the size offsets before this
// one, or earlier in the same record, and remembers it here if not.
func (w *idWindow) seen(kind event.Kind, tableID uint64, id []byte, offset int64) bool {
	low, high := w.digest(kind, tableID, id)
	slot, number := w.find(low, high)
	if number != 0 && int64(uint32(offset)-w.entry(number).offset) <= w.size {
		return true
	}
	w.add(slot, number, idEntry{low, high, uint32(offset)})
	return false
}

// begin settles what was added so far and forgets what no record from offset
// on can meet.
func (w *idWindow) begin(offset int64) {
	w.mark, w.staged, w.replaced = w.head, 0, w.replaced[:0]
	for w.count > 0 && int64(uint32(offset)-w.entry(w.tail).offset) > w.size {
		w.dropTail()
	}
}

// rollback takes back what was added since begin.
func (w *idWindow) rollback() {
	for ; w.staged > 0; w.staged-- {
		w.head = before(w.head)
		w.count--
		e := w.entry(w.head)
		slot, number := w.find(e.low, e.high)
		if number != w.head {
			panic("ingest: the id window lost an entry")
		}
		if n := len(w.replaced); n > 0 && w.replaced[n-1].now == number {
			w.table[slot] = w.table[slot]>>32<<32 | uint64(w.replaced[n-1].before)
			w.replaced = w.replaced[:n-1]
			continue
		}
		w.remove(slot)
	}
}

// load fills an empty window with stored ids.
func (w *idWindow) load(ids []loadedID) {
	slices.SortFunc(ids, func(a, b loadedID) int { return cmp.Compare(a.offset, b.offset) })
	for _, id := range ids {
		slot, number := w.find(id.low, id.high)
		w.add(slot, number, idEntry{id.low, id.high, uint32(id.offset)})
	}
	w.mark, w.staged, w.replaced = w.head, 0, w.replaced[:0]
}

// loadedID is a stored id on its way into a window.
type loadedID struct {
	low    uint64
	high   uint32
	offset int64
}

// add appends an entry and points the slot at it; number is the entry that the
// slot pointed to, 0 if none.
func (w *idWindow) add(slot uint64, number uint32, e idEntry) {
	if number == 0 && (w.count+1)*5 > len(w.table)*4 {
		w.resize(len(w.table) * 2)
		slot, _ = w.find(e.low, e.high)
	}
	now := w.head
	*w.room(now) = e
	w.table[slot] = e.low>>32<<32 | uint64(now)
	if number != 0 {
		w.replaced = append(w.replaced, idReplacement{now, number})
	}
	w.head = after(now)
	w.count++
	w.staged++
}

// find returns the slot of a digest and the entry it points to, or the free
// slot where it belongs and 0.
func (w *idWindow) find(low uint64, high uint32) (slot uint64, number uint32) {
	mask := uint64(len(w.table) - 1)
	for slot = low >> w.shift; ; slot = (slot + 1) & mask {
		at := w.table[slot]
		if at == 0 {
			return slot, 0
		}
		if at>>32 == low>>32 {
			if e := w.entry(uint32(at)); e.low == low && e.high == high {
				return slot, uint32(at)
			}
		}
	}
}

// remove frees a slot and moves back those behind it that probed past it.
func (w *idWindow) remove(slot uint64) {
	mask := uint64(len(w.table) - 1)
	hole := slot
	for next := (slot + 1) & mask; w.table[next] != 0; next = (next + 1) & mask {
		home := w.table[next] >> w.shift
		if (next-home)&mask >= (next-hole)&mask {
			w.table[hole] = w.table[next]
			hole = next
		}
	}
	w.table[hole] = 0
}

func (w *idWindow) dropTail() {
	e := w.entry(w.tail)
	if slot, number := w.find(e.low, e.high); number == w.tail {
		w.remove(slot)
	}
	old := w.tail
	w.tail = after(w.tail)
	w.count--
	if at := old >> idChunkBits; at != w.tail>>idChunkBits {
		i := int(at) & (len(w.chunks) - 1)
		w.spare, w.chunks[i] = w.chunks[i], nil
	}
}

func (w *idWindow) entry(number uint32) *idEntry {
	return &w.chunks[int(number>>idChunkBits)&(len(w.chunks)-1)][number&(1<<idChunkBits-1)]
}

// room returns where an entry goes, making its chunk.
func (w *idWindow) room(number uint32) *idEntry {
	at := number >> idChunkBits
	used := int(at-w.tail>>idChunkBits)&(1<<(32-idChunkBits)-1) + 1
	if used > len(w.chunks) {
		w.spread(len(w.chunks) * 2)
	}
	i := int(at) & (len(w.chunks) - 1)
	if w.chunks[i] == nil {
		if w.chunks[i], w.spare = w.spare, nil; w.chunks[i] == nil {
			w.chunks[i] = new(idChunk)
		}
	}
	return w.entry(number)
}

// spread moves the chunks to a longer list.
func (w *idWindow) spread(n int) {
	old := w.chunks
	w.chunks = make([]*idChunk, n)
	first := w.tail >> idChunkBits
	for k := range uint32(len(old)) {
		at := (first + k) & (1<<(32-idChunkBits) - 1)
		w.chunks[int(at)&(n-1)] = old[int(at)&(len(old)-1)]
	}
}

// resize makes a new table; a power of two.
func (w *idWindow) resize(n int) {
	old := w.table
	w.table, w.shift = make([]uint64, n), uint8(64-bits.TrailingZeros(uint(n)))
	for _, at := range old {
		if at != 0 {
			slot := at >> w.shift
			for w.table[slot] != 0 {
				slot = (slot + 1) & uint64(n-1)
			}
			w.table[slot] = at
		}
	}
}

// after and before step an entry number, leaving out 0.
func after(n uint32) uint32 {
	if n++; n == 0 {
		n = 1
	}
	return n
}

func before(n uint32) uint32 {
	if n--; n == 0 {
		n--
	}
	return n
}
