package features

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"
	"unsafe"
)

// shard is one part of a table: an open-addressing index over slots. The lock
// is held for one row at a time; readers copy the row out.
type shard struct {
	mu     sync.RWMutex
	layout *layout
	mem    []byte   // behind index
	index  []uint64 // tag<<32 | slot+1; 0 is empty
	rows   [][]byte // chunk c holds firstRows<<c slots
	n      int      // slots in use
	dead   int      // of them tombstones
	blocks arena
	_      [64]byte // keeps neighbours' locks off this line
}

const firstRows = 8

func (s *shard) slot(i uint32) []byte {
	n := int(i) + firstRows
	c := bits.Len(uint(n)) - bits.Len(firstRows)
	at := (n - firstRows<<c) * s.layout.stride
	return s.rows[c][at : at+s.layout.stride : at+s.layout.stride]
}

// find returns the slot that holds key, or the index position to put it at.
func (s *shard) find(tag uint32, key []byte) (slot []byte, at int) {
	if len(s.index) == 0 {
		return nil, -1
	}
	mask := uint32(len(s.index) - 1)
	for i := tag & mask; ; i = (i + 1) & mask {
		e := s.index[i]
		if e == 0 {
			return nil, int(i)
		}
		if uint32(e>>32) == tag {
			if slot := s.slot(uint32(e) - 1); s.hasKey(slot, key) {
				return slot, int(i)
			}
		}
	}
}

func (s *shard) hasKey(slot, key []byte) bool {
	l := s.layout
	if l.keyWidth > 0 {
		return bytes.Equal(slot[l.keyAt:l.keyAt+l.keyWidth], key)
	}
	return l.end(slot, 0) == len(key) && bytes.Equal(s.blocks.at(l.block(slot), len(key)), key)
}

// outcome says what became of an applied row.
type outcome uint8

const (
	outcomeAdded outcome = iota
	outcomeReplaced
	outcomeLate // an equal or newer row was there
)

// put stores a row unless the shard holds a newer one. slot and block are
// copied.
func (s *shard) put(tag uint32, key, slot, block []byte, v Version) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, at := s.find(tag, key)
	if old != nil {
		if v.Compare(slotVersion(old)) <= 0 {
			return outcomeLate
		}
		s.overwrite(old, slot, block)
		return outcomeReplaced
	}
	s.insert(tag, at, slot, block)
	return outcomeAdded
}

func (s *shard) insert(tag uint32, at int, slot, block []byte) {
	if (s.n+1)*4 > len(s.index)*3 {
		s.grow()
		at = s.vacant(tag)
	}
	i := uint32(s.n)
	if c := bits.Len(uint(s.n)+firstRows) - bits.Len(firstRows); c == len(s.rows) {
		s.rows = append(s.rows, allocate(firstRows<<c*s.layout.stride))
	}
	s.n++
	s.index[at] = uint64(tag)<<32 | uint64(i+1)
	s.fill(s.slot(i), slot, block)
}

func (s *shard) fill(dst, slot, block []byte) {
	copy(dst, slot)
	s.layout.setBlock(dst, s.blocks.put(block))
	if slotDeleted(slot) {
		s.dead++
	}
}

func (s *shard) overwrite(dst, slot, block []byte) {
	l := s.layout
	if slotDeleted(dst) {
		s.dead--
	}
	if l.blockAt == 0 {
		copy(dst, slot)
		if slotDeleted(slot) {
			s.dead++
		}
		return
	}
	p, n := l.block(dst), l.blockLen(dst)
	if p != 0 && sameClass(n, len(block)) {
		copy(dst, slot)
		l.setBlock(dst, p)
		copy(s.blocks.at(p, len(block)), block)
		if slotDeleted(slot) {
			s.dead++
		}
		return
	}
	s.blocks.drop(p, n)
	s.fill(dst, slot, block)
	if s.blocks.wasteful() {
		s.rebuild(l, nil)
	}
}

func sameClass(a, b int) bool {
	if b == 0 {
		return false
	}
	ca, _ := blockClass(a)
	cb, _ := blockClass(b)
	return ca == cb
}

// vacant returns the first empty index position for tag.
func (s *shard) vacant(tag uint32) int {
	mask := uint32(len(s.index) - 1)
	i := tag & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	return int(i)
}

func (s *shard) grow() {
	old, oldMem := s.index, s.mem
	s.index, s.mem = newIndex(max(16, 2*len(old)))
	for _, e := range old {
		if e != 0 {
			s.index[s.vacant(uint32(e>>32))] = e
		}
	}
	release(oldMem)
}

func newIndex(n int) ([]uint64, []byte) {
	mem := allocate(8 * n)
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), n), mem
}

// rebuild moves every row that keep accepts (nil: all) into fresh memory under
// a layout. It holds twice the shard's memory while it runs.
func (s *shard) rebuild(to *layout, keep func(slot []byte) bool) {
	from := shard{layout: s.layout, mem: s.mem, index: s.index, rows: s.rows, n: s.n, blocks: s.blocks}
	s.layout, s.mem, s.index, s.rows, s.blocks = to, nil, nil, nil, arena{}
	s.n, s.dead = 0, 0
	slot, block := make([]byte, to.stride), []byte(nil)
	for _, e := range from.index {
		if e == 0 {
			continue
		}
		old := from.slot(uint32(e) - 1)
		if keep != nil && !keep(old) {
			continue
		}
		clear(slot)
		oldBlock := from.blocks.at(from.layout.block(old), from.layout.blockLen(old))
		block = convertRow(from.layout, to, old, oldBlock, slot, block[:0])
		tag := uint32(e >> 32)
		at := -1
		if len(s.index) > 0 {
			at = s.vacant(tag)
		}
		s.insert(tag, at, slot, block)
	}
	from.close()
}

func (s *shard) close() {
	release(s.mem)
	for _, c := range s.rows {
		release(c)
	}
	s.blocks.close()
	s.mem, s.index, s.rows, s.n, s.dead = nil, nil, nil, 0, 0
}

// bytes is the memory allocated and the part of it that rows use: slots, index
// and live blocks.
func (s *shard) bytes() (allocated, used int) {
	for _, c := range s.rows {
		allocated += len(c)
	}
	allocated += len(s.mem) + s.blocks.mapped
	return allocated, s.n*s.layout.stride + len(s.mem) + s.blocks.live
}

// copyRow appends the slot and the block of a row to dst.
func (s *shard) copyRow(dst, slot []byte) []byte {
	dst = append(dst, slot...)
	if n := s.layout.blockLen(slot); n > 0 {
		dst = append(dst, s.blocks.at(binary.LittleEndian.Uint64(slot[s.layout.blockAt:]), n)...)
	}
	return dst
}
