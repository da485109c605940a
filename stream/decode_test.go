package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchOf encodes a batch with this package's encoder; the length of the set
// is cut off.
func batchOf(base int64, attributes int16, producer int64, msgs ...Message) []byte {
	b := openBatch(nil)
	for i := range msgs {
		b = appendRecord(b, i, 0, &msgs[i])
	}
	sealBatch(b, len(msgs), attributes, 1000, 1000, stamp{producer: producer}, castagnoliTable())
	b = b[4:]
	binary.BigEndian.PutUint64(b, uint64(base)) // outside the checksum
	return b
}

func castagnoliTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// stretch makes a batch end at a later offset, as compaction of its tail
// leaves it.
func stretch(b []byte, lastDelta int32) []byte {
	binary.BigEndian.PutUint32(b[batchLastDelta:], uint32(lastDelta))
	return reseal(b)
}

func reseal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoliTable()))
	return b
}

func marker(base, producer int64, kind byte) []byte {
	return batchOf(base, attrControl|attrTransactional, producer, Message{Key: []byte{0, 0, 0, kind}, Value: []byte{0, 0, 0, 0, 0, 0}})
}

// readAll decodes record data as one delivery and says what it holds.
func readAll(t *testing.T, data []byte, from, to int64, aborted ...abortedTxn) (*Batch, string, error) {
	t.Helper()
	pool, batches := &bufferPool{}, &batchPool{}
	buf := pool.get(len(data))
	copy(buf.bytes, data)
	c, err := newCut(&fetched{records: buf, aborted: aborted}, from, to, castagnoliTable())
	if err != nil {
		return nil, "", err
	}
	var got *Batch
	var values []string
	err = c.decode(pool, batches, math.MaxInt64, func(b *Batch) error {
		got = b
		for i := range b.Records {
			values = append(values, fmt.Sprintf("%d:%s", b.Records[i].Offset, b.Records[i].Value))
		}
		return nil
	})
	return got, fmt.Sprint(values), err
}

func TestAbortedInAnyOrder(t *testing.T) {
	const tx = attrTransactional
	var data []byte
	for _, b := range [][]byte{
		batchOf(0, tx, 1, Message{Value: []byte("a1")}), // aborted, ends last
		batchOf(1, tx, 2, Message{Value: []byte("b1")}), // aborted, ends first
		marker(2, 2, 0),
		batchOf(3, tx, 2, Message{Value: []byte("b2")}), // the same producer's next, committed
		batchOf(4, 0, -1, Message{Value: []byte("plain")}),
		batchOf(5, 0, 1, Message{Value: []byte("idempotent")}), // of an aborting producer, not in its transaction
		marker(6, 2, 1),
		batchOf(7, tx, 1, Message{Value: []byte("a2")}),
		marker(8, 1, 0),
		batchOf(9, tx, 1, Message{Value: []byte("a3")}), // committed
		marker(10, 1, 1),
	} {
		data = append(data, b...)
	}
	a, b := abortedTxn{producer: 1, first: 0}, abortedTxn{producer: 2, first: 1}
	for _, list := range [][]abortedTxn{{a, b}, {b, a}} {
		got, values, err := readAll(t, data, 0, math.MaxInt64, list...)
		if err != nil || values != "[3:b2 4:plain 5:idempotent 9:a3]" {
			t.Errorf("order %v: %s, %v", list, values, err)
		}
		if got.Next != 11 || got.Dropped != 7 || got.Aborted != 3 || got.Control != 4 {
			t.Errorf("order %v: %+v", list, got)
		}
	}
}

func TestGapsBeforeWithinAndBehindBatches(t *testing.T) {
	two := []Message{{Value: []byte("x")}, {Value: []byte("y")}}
	var data []byte
	data = append(data, stretch(batchOf(10, 0, -1, two...), 9)...) // 10, 11 of 10..19
	data = append(data, stretch(batchOf(30, 0, -1), 4)...)         // empty: 30..34
	data = append(data, batchOf(40, 0, -1, two...)...)
	for _, test := range []struct {
		from, to int64
		values   string
		next     int64
	}{
		{5, math.MaxInt64, "[10:x 11:y 40:x 41:y]", 42},
		{11, math.MaxInt64, "[11:y 40:x 41:y]", 42},
		{15, math.MaxInt64, "[40:x 41:y]", 42}, // behind the records of the batch that holds it
		{10, 11, "[10:x]", 11},
		{12, 18, "[]", 18},
		{20, 25, "[]", 25}, // all of it a gap
		{32, 41, "[40:x]", 41},
	} {
		got, values, err := readAll(t, data, test.from, test.to)
		if err != nil || values != test.values || got.Next != test.next || got.From != test.from {
			t.Errorf("[%d, %d): %s to %d, %v; want %s to %d", test.from, test.to, values, got.Next, err, test.values, test.next)
			continue
		}
		if got.Dropped != test.next-test.from-int64(len(got.Records)) {
			t.Errorf("[%d, %d): %d dropped", test.from, test.to, got.Dropped)
		}
	}
}

func TestCutOffBatchIsLeftForLater(t *testing.T) {
	whole := batchOf(0, 0, -1, Message{Value: []byte("x")})
	cut := batchOf(1, 0, -1, Message{Value: []byte("y")})
	for n := range cut {
		got, values, err := readAll(t, append(bytes.Clone(whole), cut[:n]...), 0, math.MaxInt64)
		if err != nil || values != "[0:x]" || got.Next != 1 {
			t.Fatalf("%d bytes of the second batch: %s, %v", n, values, err)
		}
	}
}

// Every changed byte is noticed, except in the fields that the broker fills
// in and the checksum leaves out.
func TestChangedBytesAreNoticed(t *testing.T) {
	good := batchOf(7, 0, -1, Message{Key: []byte("k"), Value: []byte("v")})
	for i := batchMagic; i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 0x55
		if _, values, err := readAll(t, bad, 7, math.MaxInt64); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: %s, %v", i, values, err)
		}
	}
}

// The encoder's bytes are what another library reads.
func TestEncodedBatchesAreReadByFranz(t *testing.T) {
	msgs := []Message{{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{Name: "h", Value: []byte("x")}, {Name: "n"}}}, {}, {Value: []byte{}}}
	var rb kmsg.RecordBatch
	if err := rb.ReadFrom(batchOf(0, 0, -1, msgs...)); err != nil {
		t.Fatal(err)
	}
	rs, err := kfake.BatchRecords(rb)
	if err != nil || len(rs) != len(msgs) {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	for i, r := range rs {
		if (r.Key == nil) != (msgs[i].Key == nil) || !bytes.Equal(r.Key, msgs[i].Key) || !bytes.Equal(r.Value, msgs[i].Value) || len(r.Headers) != len(msgs[i].Headers) {
			t.Errorf("record %d is %+v", i, r)
		}
	}
}

func TestKeyPartitionAgreesWithFranz(t *testing.T) {
	other := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for n := 1; n < 40; n++ {
		for size := range 20 {
			key := bytes.Repeat([]byte{byte(n), 0xff, 'x'}, size)[:size]
			if got, want := KeyPartition(key, n), other.Partition(&kgo.Record{Key: key}, n); int(got) != want {
				t.Fatalf("key %x of %d partitions: %d, want %d", key, n, got, want)
			}
		}
	}
}

func TestSequencesWrapToZero(t *testing.T) {
	for _, test := range []struct{ at, n, want int32 }{{0, 5, 5}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 3, 1}} {
		if got := next(test.at, int(test.n)); got != test.want {
			t.Errorf("%d after %d: %d, want %d", test.n, test.at, got, test.want)
		}
	}
}

func TestHeaderLookupDoesNotAllocate(t *testing.T) {
	data := batchOf(0, 0, -1, Message{Value: []byte("v"), Headers: []Header{{Name: "a", Value: []byte("1")}, {Name: "traceparent", Value: []byte("00-1")}}})
	got, _, err := readAll(t, data, 0, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	r := &got.Records[0]
	if string(r.TraceParent()) != "00-1" {
		t.Fatalf("traceparent %q", r.TraceParent())
	}
	if n := testing.AllocsPerRun(100, func() { r.TraceParent() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOldBatchesDoNotMoveThePositionBack(t *testing.T) {
	const tx = attrTransactional
	data := append(batchOf(10, tx, 1, Message{Value: []byte("old")}), marker(11, 1, 0)...)
	c, err := newCut(&fetched{records: bufferOf(data), aborted: []abortedTxn{{producer: 1, first: 10}}}, 32, math.MaxInt64, castagnoliTable())
	if err != nil || c.next != 32 || c.aborted != 0 || c.control != 0 {
		t.Errorf("position %d, %d aborted, %d control, %v", c.next, c.aborted, c.control, err)
	}
}

func bufferOf(data []byte) *buffer {
	b := (&bufferPool{}).get(len(data))
	copy(b.bytes, data)
	return b
}

// While a request to the old leader is under way, the new one is not asked:
// both answers would be delivered.
func TestPartitionIsAskedOnceAtATime(t *testing.T) {
	f := (&Client{}).NewFetcher(FetchConfig{})
	moved, other := newPartition(TopicPartition{"t", 0}, 5), newPartition(TopicPartition{"t", 1}, 6)
	moved.leader, moved.asked, other.leader = 2, true, 2
	f.parts[moved.tp], f.parts[other.tp] = moved, other
	req := f.plan(2, 0)
	if len(req.Topics) != 1 || len(req.Topics[0].Partitions) != 1 || req.Topics[0].Partitions[0].Partition != 1 {
		t.Fatalf("asked for %+v", req.Topics)
	}
	f.answered(req)
	moved.asked = false
	if req = f.plan(2, 0); len(req.Topics[0].Partitions) != 2 {
		t.Fatalf("asked for %+v", req.Topics)
	}
}
