package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/compress"
)

// Layout of a record batch, message format 2.
const (
	batchLength     = 8  // int32: bytes after this field
	batchMagic      = 16 // int8
	batchCRC        = 17 // uint32, Castagnoli, of all that follows
	batchAttributes = 21 // int16
	batchLastDelta  = 23 // int32
	batchFirstTime  = 27 // int64, ms
	batchMaxTime    = 35 // int64, ms
	batchProducer   = 43 // int64
	batchEpoch      = 51 // int16
	batchSequence   = 53 // int32
	batchCount      = 57 // int32
	batchHeader     = 61

	attrCodec         = 0x07
	attrAppendTime    = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20

	// maxInflated bounds one batch after decompression, and maxRecords how many
	// records it may say that it has: what is sent is a few kilobytes, whatever it
	// becomes. Producers fill batches of a megabyte or a few.
	maxInflated = 128 << 20
	maxRecords  = 1 << 20
)

// rawBatch is one record batch as it lies in a response.
type rawBatch struct {
	base       int64
	last       int64 // offset of the last record it was written with
	attributes int16
	firstTime  int64
	maxTime    int64
	producer   int64
	count      int32
	body       []byte // records, perhaps compressed
}

func (b *rawBatch) control() bool       { return b.attributes&attrControl != 0 }
func (b *rawBatch) transactional() bool { return b.attributes&attrTransactional != 0 }

// time is when the batch's first record was written, µs, or all were appended.
func (b *rawBatch) time() int64 {
	if b.attributes&attrAppendTime != 0 {
		return b.maxTime * 1000
	}
	return b.firstTime * 1000
}

// nextBatch cuts the first batch off b. ok is false when b holds no complete
// batch: brokers cut the last one of a response where its limit falls.
func nextBatch(b []byte, castagnoli *crc32.Table) (rb rawBatch, rest []byte, ok bool, err error) {
	if len(b) < batchMagic+1 {
		return rb, nil, false, nil
	}
	size := int64(int32(binary.BigEndian.Uint32(b[batchLength:]))) + batchLength + 4
	if magic := b[batchMagic]; magic != 2 {
		return rb, nil, false, fmt.Errorf("%w: message format %d; Kafka 0.11 and newer write format 2", ErrCorrupt, magic)
	}
	if size < batchHeader {
		return rb, nil, false, fmt.Errorf("%w: batch of %d bytes", ErrCorrupt, size)
	}
	if size > int64(len(b)) {
		return rb, nil, false, nil
	}
	b, rest = b[:size], b[size:]
	if sum := binary.BigEndian.Uint32(b[batchCRC:]); sum != crc32.Checksum(b[batchAttributes:], castagnoli) {
		return rb, nil, false, fmt.Errorf("%w: checksum mismatch at offset %d", ErrCorrupt, int64(binary.BigEndian.Uint64(b)))
	}
	rb = rawBatch{
		base:       int64(binary.BigEndian.Uint64(b)),
		attributes: int16(binary.BigEndian.Uint16(b[batchAttributes:])),
		firstTime:  int64(binary.BigEndian.Uint64(b[batchFirstTime:])),
		maxTime:    int64(binary.BigEndian.Uint64(b[batchMaxTime:])),
		producer:   int64(binary.BigEndian.Uint64(b[batchProducer:])),
		count:      int32(binary.BigEndian.Uint32(b[batchCount:])),
		body:       b[batchHeader:],
	}
	delta := int32(binary.BigEndian.Uint32(b[batchLastDelta:]))
	rb.last = rb.base + int64(delta)
	if rb.base < 0 || delta < 0 || rb.last < 0 || rb.count < 0 {
		return rb, nil, false, fmt.Errorf("%w: batch at offset %d with %d records up to %d", ErrCorrupt, rb.base, rb.count, rb.last)
	}
	return rb, rest, true, nil
}

// inflate returns the batch's records, decompressed into a buffer of the pool
// when they are compressed (nil otherwise).
func (b *rawBatch) inflate(pool *bufferPool) ([]byte, *buffer, error) {
	code := compress.Compression(b.attributes & attrCodec)
	if code == compress.None {
		return b.body, nil, nil
	}
	codec := code.Codec()
	if codec == nil {
		return nil, nil, fmt.Errorf("%w: unknown compression %d at offset %d", ErrCorrupt, code, b.base)
	}
	r := codec.NewReader(bytes.NewReader(b.body))
	defer r.Close()
	buf, err := readInto(r, pool, min(4*len(b.body), maxInflated))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: decompress %v batch at offset %d: %w", ErrCorrupt, codec.Name(), b.base, err)
	}
	return buf.bytes, buf, nil
}

// readInto reads all of r into one pooled buffer, guessing its size.
func readInto(r io.Reader, pool *bufferPool, guess int) (*buffer, error) {
	buf := pool.get(guess)
	buf.bytes = buf.bytes[:0]
	for {
		if len(buf.bytes) == cap(buf.bytes) {
			if cap(buf.bytes) >= maxInflated {
				buf.release()
				return nil, fmt.Errorf("more than %d bytes", maxInflated)
			}
			buf = buf.grow(2 * cap(buf.bytes))
		}
		n, err := r.Read(buf.bytes[len(buf.bytes):cap(buf.bytes)])
		buf.bytes = buf.bytes[:len(buf.bytes)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			buf.release()
			return nil, err
		}
	}
}

// appendRecords decodes the batch's records with from ≤ offset < to.
func (b *rawBatch) appendRecords(dst []Record, data []byte, from, to int64) ([]Record, error) {
	if b.count > maxRecords {
		return dst, fmt.Errorf("%w: batch of %d records at offset %d; at most %d are read", ErrCorrupt, b.count, b.base, maxRecords)
	}
	last := int64(-1)
	for range b.count {
		size, rest := varint(data)
		if rest == nil || size < 6 || size > int64(len(rest)) {
			return dst, fmt.Errorf("%w: record of %d bytes in %d, batch at offset %d", ErrCorrupt, size, len(rest), b.base)
		}
		r, ok := b.record(rest[:size:size])
		if !ok || r.Offset <= last {
			return dst, fmt.Errorf("%w: broken record in the batch at offset %d", ErrCorrupt, b.base)
		}
		data, last = rest[size:], r.Offset
		if r.Offset >= from && r.Offset < to {
			dst = append(dst, r)
		}
	}
	return dst, nil
}

// record decodes one record; ok is false when it is broken.
func (b *rawBatch) record(data []byte) (r Record, ok bool) {
	deltaTime, data := varint(data[1:]) // after the unused attributes
	deltaOffset, data := varint(data)
	if data == nil || deltaOffset < 0 || b.base+deltaOffset > b.last {
		return r, false
	}
	r.Offset = b.base + deltaOffset
	r.Time = b.time()
	if b.attributes&attrAppendTime == 0 {
		r.Time += deltaTime * 1000
	}
	r.Key, data = varbytes(data)
	r.Value, data = varbytes(data)
	r.headers = data
	return r, data != nil
}
