package stream

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Message is one record to produce.
type Message struct {
	Key     []byte // messages with equal keys go to the same partition; nil: any partition
	Value   []byte // nil is a tombstone
	Headers []Header
	Time    int64 // µs since the Unix epoch; 0: now. Topics that stamp the append time ignore it.
	// Partition is where the message goes when Pinned is set; otherwise the
	// key decides, as it does for Java clients.
	Partition int32
	Pinned    bool
}

// Header is a record header.
type Header struct {
	Name  string
	Value []byte
}

// size is an upper bound of the message's bytes in a batch.
func (m *Message) size() int {
	n := 5*binary.MaxVarintLen32 + 1 + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += 2*binary.MaxVarintLen32 + len(m.Headers[i].Name) + len(m.Headers[i].Value)
	}
	return n
}

// openBatch begins a record batch: four bytes for the length of the record
// set, then the header, filled in by sealBatch.
func openBatch(dst []byte) []byte {
	return append(dst, make([]byte, 4+batchHeader)...)
}

// appendRecord encodes a record with its index in the batch; ms is its time
// after the batch's first.
func appendRecord(dst []byte, index int, ms int64, m *Message) []byte {
	n := 1 + varintSize(ms) + varintSize(int64(index)) + varbytesSize(m.Key) + varbytesSize(m.Value) + varintSize(int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		n += varintSize(int64(len(h.Name))) + len(h.Name) + varbytesSize(h.Value)
	}
	dst = binary.AppendVarint(dst, int64(n))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, ms)
	dst = binary.AppendVarint(dst, int64(index))
	dst = appendVarbytes(dst, m.Key)
	dst = appendVarbytes(dst, m.Value)
	dst = binary.AppendVarint(dst, int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Name)))
		dst = append(dst, h.Name...)
		dst = appendVarbytes(dst, h.Value)
	}
	return dst
}

// stamp identifies a batch to the broker, which drops a second copy.
type stamp struct {
	producer int64
	epoch    int16
	sequence int32
}

// sealBatch fills in the header of a batch of n records.
func sealBatch(b []byte, n int, attributes int16, firstMS, maxMS int64, s stamp, castagnoli *crc32.Table) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	b = b[4:]
	binary.BigEndian.PutUint64(b, 0) // base offset: the broker's
	binary.BigEndian.PutUint32(b[batchLength:], uint32(len(b)-batchLength-4))
	binary.BigEndian.PutUint32(b[12:], math.MaxUint32) // leader epoch: none
	b[batchMagic] = 2
	binary.BigEndian.PutUint16(b[batchAttributes:], uint16(attributes))
	binary.BigEndian.PutUint32(b[batchLastDelta:], uint32(n-1))
	binary.BigEndian.PutUint64(b[batchFirstTime:], uint64(firstMS))
	binary.BigEndian.PutUint64(b[batchMaxTime:], uint64(maxMS))
	binary.BigEndian.PutUint64(b[batchProducer:], uint64(s.producer))
	binary.BigEndian.PutUint16(b[batchEpoch:], uint16(s.epoch))
	binary.BigEndian.PutUint32(b[batchSequence:], uint32(s.sequence))
	binary.BigEndian.PutUint32(b[batchCount:], uint32(n))
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
}

func varintSize(x int64) int {
	u := uint64(x<<1) ^ uint64(x>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

func varbytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

func appendVarbytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// KeyPartition returns the partition of n that a key belongs to, as Kafka's
// Java client decides it: murmur2 of the key, made positive, modulo n.
func KeyPartition(key []byte, n int) int32 {
	return int32(murmur2(key)&0x7fffffff) % int32(n)
}

// murmur2 is the 32-bit hash by Austin Appleby with the seed of Kafka's
// clients.
func murmur2(b []byte) uint32 {
	const seed, m = 0x9747b28c, 0x5bd1e995
	h := uint32(seed) ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b) * m
		k ^= k >> 24
		h = h*m ^ k*m
		b = b[4:]
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
