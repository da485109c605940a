package stream

import (
	"encoding/binary"
	"sync"
)

// Record is one record of a partition. Its slices point into the batch's
// memory and are valid until [Batch.Release].
type Record struct {
	Offset  int64
	Time    int64  // µs since the Unix epoch: append time or creation time, as the topic is set
	Key     []byte // nil when the record has none
	Value   []byte // nil for a tombstone
	headers []byte // as on the wire: count, then key and value of each
}

// Header returns the value of the last header of that name, without
// allocating.
func (r *Record) Header(name string) ([]byte, bool) {
	var found []byte
	ok := false
	for k, v := range r.Headers {
		if string(k) == name {
			found, ok = v, true
		}
	}
	return found, ok
}

// Headers yields the headers in order; it is an iterator.
func (r *Record) Headers(yield func(name, value []byte) bool) {
	b := r.headers
	n, b := varint(b)
	for ; n > 0; n-- {
		var name, value []byte
		name, b = varbytes(b)
		value, b = varbytes(b)
		if b == nil || !yield(name, value) {
			return
		}
	}
}

// TraceParent returns the W3C trace context that the producer attached, nil
// when there is none.
func (r *Record) TraceParent() []byte {
	v, _ := r.Header("traceparent")
	return v
}

// Batch is what a partition brought: the records of the consumed range
// [From, Next).
//
//	Next − From = len(Records) + Dropped + Missing
type Batch struct {
	TopicPartition
	Records []Record // ascending offsets
	From    int64
	Next    int64
	Dropped int64 // offsets without a record to read: control and aborted records, and compacted ones
	Aborted int64 // of Dropped: records of aborted transactions
	Control int64 // of Dropped: transaction markers
	Missing int64 // offsets that retention removed before they were read
	Faults  []Fault

	HighWatermark int64 // the partition's end when the batch was fetched
	LastStable    int64 // end of what read_committed may see
	LogStart      int64 // first offset that exists

	memory []*buffer
	pool   *batchPool
}

// Fault says why nothing of a record batch could be read: it cannot be
// decompressed, would become too large, or does not hold the records that it says.
// One of [Batch].Records, without a key and a value, stands for all of it; its
// other offsets are Dropped.
type Fault struct {
	Offset int64  // of that record
	Err    error  // an [ErrCorrupt]
	Bytes  []byte // the records as they came; valid until [Batch.Release]
}

// Fault returns what is wrong with the record at an offset, nil for one that
// was read.
func (b *Batch) Fault(offset int64) *Fault {
	for i := range b.Faults {
		if b.Faults[i].Offset == offset {
			return &b.Faults[i]
		}
	}
	return nil
}

// Bytes returns the memory that the batch holds until it is released.
func (b *Batch) Bytes() int64 {
	n := int64(0)
	for _, m := range b.memory {
		n += int64(cap(m.bytes))
	}
	return n
}

// Release gives the batch's memory back; its records are invalid from then
// on. A batch is released once; nil is allowed.
func (b *Batch) Release() {
	if b == nil {
		return
	}
	for _, m := range b.memory {
		m.release()
	}
	if b.pool != nil {
		b.pool.put(b)
	}
}

// maxKept bounds the records of a batch whose memory is kept for the next.
const maxKept = 1 << 18

// batchPool reuses batches and their record slices.
type batchPool struct{ pool sync.Pool }

func (p *batchPool) get() *Batch {
	if b, _ := p.pool.Get().(*Batch); b != nil {
		b.pool = p
		return b
	}
	return &Batch{pool: p}
}

func (p *batchPool) put(b *Batch) {
	clear(b.Records)
	clear(b.memory)
	if cap(b.Records) > maxKept {
		b.Records = nil // a batch of very many records was met: rare
	}
	*b = Batch{Records: b.Records[:0], memory: b.memory[:0]}
	p.pool.Put(b)
}

// varint reads a zigzag varint; a broken one reads as 0 with nothing left.
func varint(b []byte) (int64, []byte) {
	x, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil
	}
	return x, b[n:]
}

// varbytes reads a length and that many bytes; nil for a negative length.
func varbytes(b []byte) ([]byte, []byte) {
	n, b := varint(b)
	if n < 0 {
		return nil, b
	}
	if n > int64(len(b)) {
		return nil, nil
	}
	return b[:n:n], b[n:]
}
