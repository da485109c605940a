package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/segmentio/kafka-go/compress"
)

// packed makes a batch of records that are compressed as they lie: any bytes.
func packed(t *testing.T, base int64, code compress.Compression, count int32, write func(w func([]byte))) []byte {
	t.Helper()
	b := batchOf(base, int16(code), -1)[:batchHeader]
	var body bytes.Buffer
	w := code.Codec().NewWriter(&body)
	write(func(p []byte) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b = append(b, body.Bytes()...)
	binary.BigEndian.PutUint32(b[batchLength:], uint32(len(b)-batchLength-4))
	binary.BigEndian.PutUint32(b[batchCount:], uint32(count))
	return stretch(b, count-1)
}

// zeros writes n bytes that compress to nothing.
func zeros(n int) func(func([]byte)) {
	return func(w func([]byte)) {
		for piece := make([]byte, 1<<20); n > 0; n -= len(piece) {
			w(piece[:min(n, len(piece))])
		}
	}
}

// records writes as many records of a value, each a byte or two.
func records(n int) func(func([]byte)) {
	return func(w func([]byte)) {
		b := openBatch(nil)
		at := len(b)
		for i := range n {
			b = appendRecord(b, i, 0, &Message{Value: []byte("v")})
		}
		w(b[at:])
	}
}

// TestBatchBombs: a batch that cannot be read is one record that says so, and
// what stands before and behind it is read. Batches as they should be, of the
// same making, are read, so that the test can see.
func TestBatchBombs(t *testing.T) {
	for name, c := range map[string]struct {
		batch []byte
		good  int
	}{
		"zstd, 3 records":          {packed(t, 10, compress.Zstd, 3, records(3)), 3},
		"gzip, 3 records":          {packed(t, 10, compress.Gzip, 3, records(3)), 3},
		"snappy, 3 records":        {packed(t, 10, compress.Snappy, 3, records(3)), 3},
		"lz4, 3 records":           {packed(t, 10, compress.Lz4, 3, records(3)), 3},
		"zstd, larger than may be": {packed(t, 10, compress.Zstd, 3, zeros(maxInflated+1<<20)), 0},
		"more records than may be": {packed(t, 10, compress.Zstd, maxRecords+1, zeros(1<<20)), 0},
		"records that are not":     {packed(t, 10, compress.Zstd, 3, zeros(1<<20)), 0},
		"fewer than it says":       {packed(t, 10, compress.Gzip, 3, records(2)), 0},
		"no zstd":                  {reseal(batchOf(10, int16(compress.Zstd), -1, Message{Value: []byte("plain")}, Message{}, Message{})), 0},
		"no lz4":                   {reseal(batchOf(10, int16(compress.Lz4), -1, Message{Value: []byte("plain")}, Message{}, Message{})), 0},
	} {
		if c.good == 0 && len(c.batch) > 1<<20 {
			t.Errorf("%s: %d bytes are no bomb", name, len(c.batch))
		}
		last := int64(binary.BigEndian.Uint32(c.batch[batchLastDelta:])) + 10
		data := append(batchOf(9, 0, -1, Message{Value: []byte("before")}), c.batch...)
		data = append(data, batchOf(last+1, 0, -1, Message{Value: []byte("after")})...)
		got, _, err := readAll(t, data, 0, math.MaxInt64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		rs := got.Records
		if string(rs[0].Value) != "before" || string(rs[len(rs)-1].Value) != "after" || got.Next != last+2 || got.Dropped != got.Next-got.From-int64(len(rs)) {
			t.Errorf("%s: %d records up to %d, %d dropped", name, len(rs), got.Next, got.Dropped)
		}
		if c.good > 0 && (len(rs) != c.good+2 || len(got.Faults) > 0) {
			t.Errorf("%s: %d records, faults %v: the test sees nothing", name, len(rs), got.Faults)
		}
		if c.good == 0 && (len(rs) != 3 || got.Fault(10) == nil || !errors.Is(got.Fault(10).Err, ErrCorrupt) || rs[1].Offset != 10 || rs[1].Value != nil || len(got.Fault(10).Bytes) == 0) {
			t.Errorf("%s: %d records, faults %v", name, len(rs), got.Faults)
		}
		if held := got.Bytes(); held > 4<<20 {
			t.Errorf("%s: %d bytes are held", name, held)
		}
		if err := NewChecker().Check(rebased(c.batch)); (err == nil) != (c.good > 0) {
			t.Errorf("%s: checked: %v", name, err)
		}
	}
}

// rebased is a batch as its producer sends it.
func rebased(b []byte) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b, 0)
	return b
}
