package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FuzzRecords decodes arbitrary bytes as record batches whose checksums are
// right, and holds what every delivery promises.
func FuzzRecords(f *testing.F) {
	f.Add(batchOf(3, 0, -1, Message{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{Name: "n", Value: []byte("x")}}}), int64(0))
	f.Add(append(batchOf(0, attrTransactional, 1, Message{Value: []byte("a")}), marker(1, 1, 0)...), int64(1))
	f.Add(stretch(batchOf(10, 0, -1), 4), int64(12))
	for codec := range int16(6) {
		f.Add(reseal(batchOf(0, codec, -1, Message{Value: []byte("compressed?")})), int64(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, from int64) {
		if from < 0 {
			return
		}
		data = bytes.Clone(data)
		for rest := data; len(rest) > batchHeader; { // make the checksums right
			size := int64(int32(binary.BigEndian.Uint32(rest[batchLength:]))) + batchLength + 4
			if size < batchHeader || size > int64(len(rest)) {
				break
			}
			reseal(rest[:size])
			rest = rest[size:]
		}
		checkDelivery(t, data, from)
	})
}

func checkDelivery(t *testing.T, data []byte, from int64) {
	pool, batches := &bufferPool{}, &batchPool{}
	buf := pool.get(len(data))
	copy(buf.bytes, data)
	defer func() {
		if held := pool.held.Load(); held != 0 {
			t.Errorf("%d bytes are held", held)
		}
	}()
	c, err := newCut(&fetched{records: buf, aborted: []abortedTxn{{1, 0}}}, from, math.MaxInt64, castagnoliTable())
	if err != nil {
		buf.release()
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v", err)
		}
		return
	}
	at := from
	err = c.decode(pool, batches, 64, func(b *Batch) error {
		defer b.Release()
		if b.From != at || b.Next < b.From || b.Dropped < 0 || b.Next-b.From != int64(len(b.Records))+b.Dropped {
			t.Errorf("[%d, %d) after %d: %d records, %d dropped", b.From, b.Next, at, len(b.Records), b.Dropped)
		}
		last := b.From - 1
		for i := range b.Records {
			r := &b.Records[i]
			if r.Offset <= last || r.Offset >= b.Next {
				t.Errorf("record %d after %d in [%d, %d)", r.Offset, last, b.From, b.Next)
			}
			last = r.Offset
			for range r.Headers { // ends, whatever it holds
			}
		}
		at = b.Next
		return nil
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

// FuzzFetchResponse reads arbitrary bytes as fetch responses, and agrees with
// franz-go's decoder about those that both accept.
func FuzzFetchResponse(f *testing.F) {
	for _, version := range []int16{4, 5, 7, 11} {
		f.Add(sampleResponse(version), version)
	}
	f.Fuzz(func(t *testing.T, data []byte, version int16) {
		if version < 4 || version > 11 {
			return
		}
		pool := &bufferPool{}
		r := &wireReader{r: bytes.NewReader(data), remain: len(data)}
		parts, err := readFetch(r, version, pool)
		if err == nil {
			agree(t, data, version, parts)
		}
		releaseAll(parts)
		if held := pool.held.Load(); held != 0 {
			t.Errorf("%d bytes are held", held)
		}
	})
}

func sampleResponse(version int16) []byte {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	for range 2 {
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic = "topic"
		for p := range int32(2) {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = p, 9, 8, 7
			at := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			at.ProducerID, at.FirstOffset = 5, 6
			rp.AbortedTransactions = append(rp.AbortedTransactions, at)
			rp.RecordBatches = batchOf(3, 0, -1, Message{Value: []byte("v")})
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp.AppendTo(nil)
}

func agree(t *testing.T, data []byte, version int16, parts []fetched) {
	want := kmsg.NewPtrFetchResponse()
	want.Version = version
	if want.ReadFrom(data) != nil {
		return // stricter about what this reader leaves alone
	}
	i := 0
	for _, topic := range want.Topics {
		for _, p := range topic.Partitions {
			if i >= len(parts) {
				t.Fatalf("%d partitions are missing", len(topic.Partitions))
			}
			got := parts[i]
			i++
			if got.tp != (TopicPartition{topic.Topic, p.Partition}) || got.highWatermark != p.HighWatermark || got.lastStable != p.LastStableOffset {
				t.Errorf("partition %+v, want %+v", got, p)
			}
			if (got.err != nil) != (p.ErrorCode != 0) || len(got.aborted) != len(p.AbortedTransactions) || (got.records == nil) != (len(p.RecordBatches) == 0) {
				t.Errorf("partition %+v, want %+v", got, p)
			}
			if got.records != nil && !bytes.Equal(got.records.bytes, p.RecordBatches) {
				t.Errorf("records %x, want %x", got.records.bytes, p.RecordBatches)
			}
		}
	}
	if i != len(parts) {
		t.Errorf("%d partitions, want %d", len(parts), i)
	}
}

// A length that claims more than there is allocates nothing.
func TestClaimedLengthsAreChecked(t *testing.T) {
	for name, data := range map[string][]byte{
		"topics":  {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff},
		"nothing": {},
	} {
		r := &wireReader{r: bytes.NewReader(data), remain: len(data)}
		parts, err := readFetch(r, 7, &bufferPool{})
		if err == nil || len(parts) != 0 {
			t.Errorf("%s: %v, %v", name, parts, err)
		}
	}
	r := &wireReader{r: bytes.NewReader(sampleResponse(11)[:40]), remain: 4000}
	if _, err := readFetch(r, 11, &bufferPool{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}
