package stream

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
)

// cut is what one fetch brought for one partition, cut into record batches
// that are checked but not decoded.
type cut struct {
	tp            TopicPartition
	records       *buffer
	batches       []rawBatch // those to decode, in order
	from, next    int64      // the consumed range
	missing       bool       // retention removed all of it
	aborted       int64
	control       int64
	highWatermark int64
	lastStable    int64
	logStart      int64
}

// newCut walks the batches of f from position from up to to (exclusive) and
// drops, exactly, what read_committed must not see. It owns f.records.
//
// The rule is that of Kafka's own consumer: the response names the
// transactions that were aborted by producer and first offset; a producer's
// transactional batches are dropped from that offset on until its abort
// marker.
func newCut(f *fetched, from, to int64, castagnoli *crc32.Table) (*cut, error) {
	c := &cut{tp: f.tp, records: f.records, from: from, next: from,
		highWatermark: f.highWatermark, lastStable: f.lastStable, logStart: f.logStart}
	if f.records == nil {
		return c, nil
	}
	filter := newAbortFilter(f.aborted)
	rest := f.records.bytes
	for c.next < to {
		b, after, ok, err := nextBatch(rest, castagnoli)
		if err != nil {
			return c, fmt.Errorf("read %v at offset %d: %w", f.tp, c.next, err)
		}
		if !ok {
			break
		}
		rest = after
		c.add(b, filter.aborts(&b), to)
	}
	return c, nil
}

func (c *cut) add(b rawBatch, aborted bool, to int64) {
	if b.last < c.next {
		return // broker sent what we already have: batches are sent whole
	}
	start, end := max(b.base, c.next), min(b.last+1, to)
	if start >= to {
		c.next = to
		return
	}
	switch {
	case b.control():
		c.control += end - start
	case aborted:
		c.aborted += end - start
	case b.count > 0:
		c.batches = append(c.batches, b)
	}
	c.next = end
}

// abortFilter says which batches belong to aborted transactions.
type abortFilter struct {
	pending []abortedTxn // ascending first offsets
	active  map[int64]bool
}

// newAbortFilter sorts the list: brokers send it in the order in which the
// transactions ended.
func newAbortFilter(aborted []abortedTxn) abortFilter {
	slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	return abortFilter{pending: aborted}
}

func (f *abortFilter) aborts(b *rawBatch) bool {
	for len(f.pending) > 0 && f.pending[0].first <= b.last {
		if f.active == nil {
			f.active = make(map[int64]bool)
		}
		f.active[f.pending[0].producer] = true
		f.pending = f.pending[1:]
	}
	if b.control() {
		if b.abortMarker() {
			delete(f.active, b.producer)
		}
		return false
	}
	return b.transactional() && f.active[b.producer]
}

// abortMarker reports whether a control batch ends a transaction by abort:
// its record's key is version, type; type 0 is abort, 1 commit.
func (b *rawBatch) abortMarker() bool {
	rs, err := b.appendRecords(nil, b.body, b.base, b.last+1)
	return err == nil && len(rs) > 0 && len(rs[0].Key) >= 4 && rs[0].Key[2] == 0 && rs[0].Key[3] == 0
}

// decode hands the cut's batches on, decompressed and decoded, in pieces of
// about limit bytes. It releases the cut; emit takes each batch over. Its error is emit's.
func (c *cut) decode(buffers *bufferPool, batches *batchPool, limit int64, emit func(*Batch) error) error {
	defer c.records.release()
	out := c.open(batches, c.from)
	size := int64(0)
	for i := range c.batches {
		b := &c.batches[i]
		size += c.read(out, b, buffers)
		if size >= limit && i < len(c.batches)-1 {
			next := b.last + 1
			if err := emit(c.close(out, next, false)); err != nil {
				return err
			}
			out, size = c.open(batches, next), 0
		}
	}
	return emit(c.close(out, c.next, true))
}

// read adds a batch's records, and returns the bytes that they were decompressed
// to. Of a batch that cannot be read, one record is left, with what is wrong: its
// checksum is right, so that asking again would bring the same.
func (c *cut) read(out *Batch, b *rawBatch, buffers *bufferPool) int64 {
	before := len(out.Records)
	data, inflated, err := b.inflate(buffers)
	if err == nil {
		out.Records, err = b.appendRecords(out.Records, data, c.from, c.next)
	}
	if err != nil {
		inflated.release()
		out.Records = out.Records[:before]
		if b.base >= c.from && b.base < c.next {
			out.Records = append(out.Records, Record{Offset: b.base, Time: b.time()})
			out.Faults = append(out.Faults, Fault{Offset: b.base, Err: err, Bytes: b.body})
		}
		return 0
	}
	if inflated != nil {
		out.memory = append(out.memory, inflated)
	}
	return int64(cap(data))
}

func (c *cut) open(batches *batchPool, from int64) *Batch {
	b := batches.get()
	b.TopicPartition, b.From = c.tp, from
	b.HighWatermark, b.LastStable, b.LogStart = c.highWatermark, c.lastStable, c.logStart
	if c.records != nil {
		b.memory = append(b.memory, c.records.retain())
	}
	return b
}

// close completes a batch; what the whole cut dropped is told by the last.
func (c *cut) close(b *Batch, next int64, last bool) *Batch {
	b.Next = next
	b.Dropped = next - b.From - int64(len(b.Records))
	if c.missing {
		b.Dropped, b.Missing = 0, b.Dropped
	}
	if last {
		b.Aborted, b.Control = c.aborted, c.control
	}
	return b
}
