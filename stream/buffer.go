package stream

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// bufferPool hands out byte buffers in power-of-two sizes and knows how many
// bytes are out.
type bufferPool struct {
	classes [32]sync.Pool
	held    atomic.Int64
	freed   func() // called after a buffer came back; may be nil
}

// buffer is a piece of memory with an owner count.
type buffer struct {
	bytes []byte
	pool  *bufferPool
	refs  atomic.Int32
}

// smallest is the size class below which buffers are not told apart: 4 KiB.
const smallest = 12

func (p *bufferPool) get(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), smallest)
	b, _ := p.classes[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class), pool: p}
	}
	b.bytes = b.bytes[:n]
	b.refs.Store(1)
	p.held.Add(int64(cap(b.bytes)))
	return b
}

// grow returns a buffer of at least n bytes with b's content, and lets b go.
func (b *buffer) grow(n int) *buffer {
	bigger := b.pool.get(n)
	bigger.bytes = bigger.bytes[:copy(bigger.bytes[:cap(bigger.bytes)], b.bytes)]
	b.release()
	return bigger
}

func (b *buffer) retain() *buffer {
	b.refs.Add(1)
	return b
}

func (b *buffer) release() {
	if b == nil || b.refs.Add(-1) > 0 {
		return
	}
	pool := b.pool
	pool.held.Add(-int64(cap(b.bytes)))
	pool.classes[bits.Len(uint(cap(b.bytes)-1))].Put(b)
	if pool.freed != nil {
		pool.freed()
	}
}
