package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// crafted is a record batch made by hand: its header says count records, and
// body is what follows, compressed.
func crafted(t *testing.T, code compress.Compression, count int32, body []byte) []byte {
	t.Helper()
	if code != compress.None {
		var b bytes.Buffer
		w := code.Codec().NewWriter(&b)
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = b.Bytes()
	}
	return sealed(int16(code), count, body)
}

// sealed has the checksum right, whatever it holds.
func sealed(attributes int16, count int32, body []byte) []byte {
	rb := kmsg.RecordBatch{Length: int32(49 + len(body)), Magic: 2, Attributes: attributes, LastOffsetDelta: count - 1,
		FirstTimestamp: 1, MaxTimestamp: 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: count, Records: body}
	b := rb.AppendTo(nil)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// oneRecord is a record with the value v at an offset.
func oneRecord(delta int32, v string) []byte {
	r := kmsg.Record{OffsetDelta: delta, Value: []byte(v)}
	r.Length = int32(len(r.AppendTo(nil)) - 1)
	return r.AppendTo(nil)
}

// hostile are batches whose checksums are right and that no consumer can read.
func hostile(t *testing.T) map[string][]byte {
	two := append(oneRecord(0, "a"), oneRecord(1, "b")...)
	return map[string][]byte{
		"a bomb":                     crafted(t, compress.Zstd, 1, make([]byte, 130<<20)),
		"records that are not there": crafted(t, compress.Zstd, 1<<30, two),
		"no records":                 crafted(t, compress.None, 0, nil),
		"fewer than none":            crafted(t, compress.None, -5, two),
		"one too few":                crafted(t, compress.Gzip, 3, two),
		"one too many":               crafted(t, compress.Snappy, 1, two),
		"the same offset twice":      crafted(t, compress.None, 2, append(oneRecord(0, "a"), oneRecord(0, "b")...)),
		"no zstd":                    sealed(int16(compress.Zstd), 2, two),
		"no lz4":                     sealed(int16(compress.Lz4), 2, two),
		"no gzip":                    sealed(int16(compress.Gzip), 2, two),
		"cut off":                    crafted(t, compress.None, 2, two[:len(two)-1]),
		"nothing but noise":          crafted(t, compress.None, 2, bytes.Repeat([]byte{0xff}, 100)),
	}
}

// send produces one batch as it is, and returns the broker's code.
func send(t *testing.T, c *kgo.Client, partition int32, batch []byte) int16 {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Records = "t", partition, batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	ctx := within(t, time.Minute)
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c)
	if err != nil || len(meta.Brokers) != 1 {
		t.Fatal(meta, err)
	}
	res, err := c.Broker(int(meta.Brokers[0].NodeID)).Request(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write adds to it.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestHostileBatchesAreRefused sends batches that kfake itself takes, and after
// which every reader of the topic would stand still.
func TestHostileBatchesAreRefused(t *testing.T) {
	var log lines
	cfg := config(t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := start(t, cfg)
	alone, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(20, "t")) // the open one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(alone.Close)
	c, open := client(t, b.Addr()), client(t, alone.ListenAddrs()[0])
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", 1, 1
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = append(create.Topics, topic)
	if _, err := create.RequestWith(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
	sent := 0
	good := func() {
		for _, code := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
			if got := send(t, c, 0, crafted(t, code, 2, append(oneRecord(0, fmt.Sprint("good ", sent)), oneRecord(1, fmt.Sprint("good ", sent+1))...))); got != 0 {
				t.Errorf("a good batch of %v: code %d", code, got)
			}
			sent += 2
		}
	}
	good()
	taken, tried := 0, int32(0)
	for name, batch := range hostile(t) {
		if got := send(t, c, 0, batch); got != kerr.InvalidRecord.Code && got != kerr.CorruptMessage.Code {
			t.Errorf("%s: code %d", name, got)
		}
		if send(t, open, tried, batch) == 0 {
			taken++
		}
		tried++
	}
	if taken < len(hostile(t))-1 {
		t.Errorf("the control is blind: without the check %d of %d are refused anyway", len(hostile(t))-taken, len(hostile(t)))
	}
	good()
	reader := client(t, b.Addr(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	for at := 0; at < sent; {
		fetched := reader.PollFetches(within(t, time.Minute))
		if err := fetched.Err(); err != nil {
			t.Fatalf("read after %d of %d: %v", at, sent, err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			if r.Offset != int64(at) || string(r.Value) != fmt.Sprint("good ", at) {
				t.Errorf("offset %d: %q, want %d", r.Offset, r.Value, at)
			}
			at++
		})
	}
	if got := strings.Count(log.String(), "a record batch is refused"); got < len(hostile(t)) {
		t.Errorf("the log names %d of %d:\n%s", got, len(hostile(t)), log.String())
	}
}
