package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// maxResponse bounds one fetch response, so that a broken length cannot take
// the machine's memory.
const maxResponse = 1 << 30

// fetchCall sends one fetch request and reads the response's records into
// buffers of their own, one per partition, without decoding them. The
// library's decoder would copy every record through pages and forget where a
// batch ends, which is what a position behind a compacted tail needs.
type fetchCall struct {
	call
	buffers *bufferPool
}

// fetched is what a fetch brought for one partition.
type fetched struct {
	tp            TopicPartition
	err           error
	highWatermark int64
	lastStable    int64
	logStart      int64
	aborted       []abortedTxn
	records       *buffer // nil when there are none
}

// abortedTxn says that from first on, records of this producer are aborted,
// until its abort marker.
type abortedTxn struct{ producer, first int64 }

// fetchAnswer is the response as the transport passes it on.
type fetchAnswer struct {
	answer
	parts []fetched
}

// ApiKey makes the answer a message.
func (*fetchAnswer) ApiKey() protocol.ApiKey { return protocol.Fetch }

// RawExchange sends the request and reads its response.
func (c *fetchCall) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if c.version < 4 {
		return nil, fmt.Errorf("the broker speaks fetch version %d; Kafka 0.11 or newer is needed", c.version)
	}
	req := c.Message.(*fetch.Request)
	if err := protocol.WriteRequest(rw, c.version, correlation, c.clientID, req); err != nil {
		return nil, err
	}
	r := &wireReader{r: rw, remain: 4}
	size := r.int32()
	if r.err == nil && (size < 4 || size > maxResponse) {
		return nil, fmt.Errorf("%w: fetch response of %d bytes", ErrCorrupt, size)
	}
	r.remain = int(size)
	if id := r.int32(); r.err == nil && id != correlation {
		return nil, fmt.Errorf("%w: response %d answers another request", ErrCorrupt, id)
	}
	parts, err := readFetch(r, c.version, c.buffers)
	if err != nil {
		releaseAll(parts)
		return nil, err
	}
	return &fetchAnswer{parts: parts}, nil
}

func releaseAll(parts []fetched) {
	for i := range parts {
		parts[i].records.release()
	}
}

// readFetch reads the body of a fetch response, versions 4 to 11.
func readFetch(r *wireReader, version int16, buffers *bufferPool) ([]fetched, error) {
	r.int32() // throttle time
	if version >= 7 {
		if err := codeErr(r.int16()); err != nil {
			return nil, err
		}
		r.int32() // session
	}
	var parts []fetched
	for range r.count(6) {
		topic := r.string()
		for range r.count(14) {
			p := fetched{tp: TopicPartition{Topic: topic}}
			readPartition(r, version, buffers, &p)
			parts = append(parts, p)
			if r.err != nil {
				return parts, r.err
			}
		}
	}
	if r.err == nil && r.remain > 0 {
		r.skip(r.remain)
	}
	return parts, r.err
}

func readPartition(r *wireReader, version int16, buffers *bufferPool, p *fetched) {
	p.tp.Partition = r.int32()
	p.err = codeErr(r.int16())
	p.highWatermark = r.int64()
	p.lastStable = r.int64()
	p.logStart = -1
	if version >= 5 {
		p.logStart = r.int64()
	}
	for range r.count(16) {
		p.aborted = append(p.aborted, abortedTxn{producer: r.int64(), first: r.int64()})
	}
	if version >= 11 {
		r.int32() // preferred read replica: only sent to clients that name a rack
	}
	p.records = r.buffer(buffers)
}

// wireReader reads the primitive types of the protocol from a stream of
// remain bytes; the first error sticks.
type wireReader struct {
	r      io.Reader
	remain int
	err    error
	tmp    [8]byte
}

func (w *wireReader) read(b []byte) bool {
	if w.err != nil {
		return false
	}
	if len(b) > w.remain {
		w.err = fmt.Errorf("%w: %d bytes wanted, %d left in the response", ErrCorrupt, len(b), w.remain)
		return false
	}
	n, err := io.ReadFull(w.r, b)
	w.remain -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	w.err = err
	return err == nil
}

func (w *wireReader) int16() int16 {
	if !w.read(w.tmp[:2]) {
		return 0
	}
	return int16(binary.BigEndian.Uint16(w.tmp[:2]))
}

func (w *wireReader) int32() int32 {
	if !w.read(w.tmp[:4]) {
		return 0
	}
	return int32(binary.BigEndian.Uint32(w.tmp[:4]))
}

func (w *wireReader) int64() int64 {
	if !w.read(w.tmp[:8]) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(w.tmp[:8]))
}

// count reads an array's length, which is 0 for null, and refuses one whose
// elements of at least size bytes cannot fit into the rest.
func (w *wireReader) count(size int) int {
	n := int(w.int32())
	if w.err != nil || n <= 0 {
		return 0
	}
	if n > w.remain/size {
		w.err = fmt.Errorf("%w: array of %d elements in %d bytes", ErrCorrupt, n, w.remain)
		return 0
	}
	return n
}

func (w *wireReader) string() string {
	n := int(w.int16())
	if w.err != nil || n <= 0 {
		return ""
	}
	b := make([]byte, n)
	w.read(b)
	return string(b)
}

func (w *wireReader) skip(n int) {
	if w.err == nil {
		_, w.err = io.CopyN(io.Discard, w.r, int64(n))
		w.remain -= n
	}
}

// buffer reads a length and that many bytes; nil for none.
func (w *wireReader) buffer(pool *bufferPool) *buffer {
	n := int(w.int32())
	if w.err != nil || n <= 0 {
		return nil
	}
	if n > w.remain {
		w.err = fmt.Errorf("%w: %d bytes of records in %d bytes", ErrCorrupt, n, w.remain)
		return nil
	}
	b := pool.get(n)
	if !w.read(b.bytes) {
		b.release()
		return nil
	}
	return b
}
