package features

import (
	"encoding/binary"
	"math/bits"
)

// arena holds variable-length blocks of one shard. Blocks come in size classes,
// four per doubling; a freed block waits in its class's list for the next block
// of that class. When idle blocks outweigh live ones the shard is rebuilt, which
// copies the live blocks into a fresh arena.
type arena struct {
	chunks [][]byte
	used   int                  // bytes handed out of the last chunk
	free   [arenaClasses]uint64 // head of each class's list: a block pointer, 0 is none
	live   int                  // bytes in blocks that rows point to
	idle   int                  // bytes in the free lists
	mapped int                  // bytes allocated
}

const (
	arenaClasses  = 112 // up to 16 << 27 bytes, more than a record can hold
	minChunk      = 1 << 10
	maxChunk      = 4 << 20
	smallestBlock = 16
)

// blockClass returns the class of a block of n bytes, and its size.
func blockClass(n int) (class, size int) {
	if n <= smallestBlock {
		return 0, smallestBlock
	}
	octave := bits.Len(uint(n-1)) - 5 // 17..32 → 0
	base := smallestBlock << octave
	step := base / 4
	quarter := (n - base + step - 1) / step
	if quarter == 4 {
		return (octave + 1) * 4, base * 2
	}
	return octave*4 + quarter, base + quarter*step
}

// put copies b into a block and returns its pointer. An empty b needs none: 0.
func (a *arena) put(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	class, size := blockClass(len(b))
	p := a.take(class, size)
	copy(a.at(p, len(b)), b)
	return p
}

func (a *arena) take(class, size int) uint64 {
	a.live += size
	if p := a.free[class]; p != 0 {
		a.free[class] = binary.LittleEndian.Uint64(a.at(p, 8))
		a.idle -= size
		return p
	}
	last := len(a.chunks) - 1
	if last < 0 || len(a.chunks[last])-a.used < size {
		n := max(size, min(minChunk<<min(len(a.chunks), 12), maxChunk))
		a.chunks = append(a.chunks, allocate(n))
		a.mapped += n
		a.used, last = 0, last+1
	}
	p := uint64(last)<<32 | uint64(a.used)
	a.used += size
	return p + 1
}

// drop returns the block of n used bytes at p to its class's list, wiped: what
// was replaced or deleted is not to be found in memory any more.
func (a *arena) drop(p uint64, n int) {
	if p == 0 {
		return
	}
	class, size := blockClass(n)
	clear(a.at(p, n))
	binary.LittleEndian.PutUint64(a.at(p, 8), a.free[class])
	a.free[class] = p
	a.live -= size
	a.idle += size
}

// at returns the n bytes of the block at p.
func (a *arena) at(p uint64, n int) []byte {
	if p == 0 {
		return nil
	}
	p--
	off := int(uint32(p))
	return a.chunks[p>>32][off : off+n]
}

// wasteful reports whether a rebuild would give back more than it keeps.
func (a *arena) wasteful() bool { return a.idle > a.live+minChunk }

func (a *arena) close() {
	for _, c := range a.chunks {
		release(c)
	}
	*a = arena{}
}
