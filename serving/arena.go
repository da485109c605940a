package serving

// arena keeps the bytes of records that wait for the broker in blocks that are
// used again: an allocation per record would be most of what recording leaves to
// the garbage collector. Not safe for concurrent use.
type arena struct {
	open *block // records are added to it
	free []*block
}

// block is memory of several records; it is free when none of them is held.
type block struct {
	bytes []byte
	held  int
}

// Sizes of blocks, and how many free ones are kept for the next burst.
const (
	blockBytes = 1 << 20
	blocksKept = 8
)

// keep copies a record's key and value, and returns the copies, which are valid
// until their block is given to release.
func (a *arena) keep(key, value []byte) (k, v []byte, in *block) {
	in = a.blockFor(len(key) + len(value))
	at := len(in.bytes)
	in.bytes = append(append(in.bytes, key...), value...)
	in.held++
	mid, end := at+len(key), len(in.bytes)
	return in.bytes[at:mid:mid], in.bytes[mid:end:end], in
}

// blockFor returns a block with room. A record of a quarter of a block has one of
// its own, so that no more than a quarter of any is left empty.
func (a *arena) blockFor(size int) *block {
	if size > blockBytes/4 {
		return &block{bytes: make([]byte, 0, size)}
	}
	if a.open != nil && len(a.open.bytes)+size <= blockBytes {
		return a.open
	}
	if last := len(a.free) - 1; last >= 0 {
		a.open, a.free = a.free[last], a.free[:last]
	} else {
		a.open = &block{bytes: make([]byte, 0, blockBytes)}
	}
	return a.open
}

// release gives up one record of a block.
func (a *arena) release(b *block) {
	b.held--
	if b.held > 0 || cap(b.bytes) != blockBytes {
		return
	}
	b.bytes = b.bytes[:0]
	if b != a.open && len(a.free) < blocksKept {
		a.free = append(a.free, b)
	}
}
