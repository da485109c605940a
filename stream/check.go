package stream

import (
	"fmt"
	"hash/crc32"
)

// checking is how many compressed batches are looked at by a [Checker] at a
// time, each of which may become maxInflated bytes.
const checking = 2

// Checker looks at record batches as producers send them, for a broker that
// keeps what it is sent. It may be used by several goroutines.
type Checker struct {
	buffers bufferPool
	slots   chan struct{}
}

// NewChecker returns a checker.
func NewChecker() *Checker { return &Checker{slots: make(chan struct{}, checking)} }

// Check reports what is wrong with one record batch: consumers would meet an
// [ErrCorrupt] at it. As Kafka's own broker it wants consecutive records, as many
// as the batch says, that can be decompressed.
func (c *Checker) Check(batch []byte) error {
	b, rest, ok, err := nextBatch(batch, crc32.MakeTable(crc32.Castagnoli))
	switch {
	case err != nil:
		return err
	case !ok || len(rest) > 0:
		return fmt.Errorf("%w: %d bytes are not one batch", ErrCorrupt, len(batch))
	case b.count < 1 || b.count > maxRecords || b.last != b.base+int64(b.count)-1:
		return fmt.Errorf("%w: batch of %d records up to %d; want 1 to %d", ErrCorrupt, b.count, b.last-b.base, maxRecords)
	}
	if b.attributes&attrCodec != 0 {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
	}
	data, inflated, err := b.inflate(&c.buffers)
	if err != nil {
		return err
	}
	defer inflated.release()
	for i := range int64(b.count) {
		size, rest := varint(data)
		if rest == nil || size < 6 || size > int64(len(rest)) {
			return fmt.Errorf("%w: record %d of %d bytes in %d", ErrCorrupt, i, size, len(rest))
		}
		if r, ok := b.record(rest[:size:size]); !ok || r.Offset != b.base+i {
			return fmt.Errorf("%w: record %d is broken, or none of it", ErrCorrupt, i)
		}
		data = rest[size:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: %d bytes behind the last record", ErrCorrupt, len(data))
	}
	return nil
}
