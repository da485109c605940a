package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kedge-ml/kedge/stream"
)

func testProduceFetchCommit(w *world) {
	w.create(3, nil)
	ctx := w.ctx()
	p := w.c.Producer(stream.ProducerConfig{})
	defer p.Close()
	var msgs []stream.Message
	for i := range 1000 {
		msgs = append(msgs, stream.Message{Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "v%d", i)})
	}
	if err := p.Produce(ctx, w.topic, msgs...); err != nil {
		w.Fatal(err)
	}
	ends := w.ends(3)
	w.same(w.fetch(stream.FetchConfig{}, w.starts(3), ends).records, w.reference(ends))
}

func testCodecs(w *world) {
	w.create(1, nil)
	ctx := w.ctx()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		c := w.franz(kgo.ProducerBatchCompression(codec))
		for _, size := range []int{0, 1, 1000, 300_000} {
			var rs []*kgo.Record
			for i := range 3 {
				value := make([]byte, size)
				for j := range value {
					value[j] = byte(rng.IntN(4)) // compresses, but not to nothing
				}
				rs = append(rs, &kgo.Record{Key: fmt.Appendf(nil, "%s-%d-%d", name, size, i), Value: value})
			}
			if err := c.ProduceSync(ctx, rs...).FirstErr(); err != nil {
				w.Fatal(err)
			}
		}
	}
	ends := w.ends(1)
	want := w.reference(ends)
	w.same(w.fetch(stream.FetchConfig{}, w.starts(1), ends).records, want)
	w.same(w.fetch(stream.FetchConfig{PartitionBytes: 1000, BufferBytes: 1 << 20}, w.starts(1), ends).records, want)
}

func testLargeRecord(w *world) {
	w.create(1, map[string]string{"max.message.bytes": "12000000"})
	ctx := w.ctx()
	p := w.c.Producer(stream.ProducerConfig{})
	defer p.Close()
	big := bytes.Repeat([]byte("0123456789"), 1_000_000)
	msgs := []stream.Message{{Value: []byte("before")}, {Value: big}, {Value: []byte("after")}}
	if err := p.Produce(ctx, w.topic, msgs...); err != nil {
		w.Fatal(err)
	}
	got := w.fetch(stream.FetchConfig{}, w.starts(1), map[stream.TopicPartition]int64{w.tp(0): 3})
	for i, m := range msgs {
		if got.records[place{0, int64(i)}].value != text(m.Value) {
			w.Errorf("record %d differs", i)
		}
	}
	tooLarge := bytes.Repeat(big, 2)
	err := p.Produce(ctx, w.topic, stream.Message{Value: []byte("fits")}, stream.Message{Value: tooLarge}, stream.Message{Value: []byte("fits, too")})
	var failed *stream.ProduceError
	if !errors.As(err, &failed) || !errors.Is(err, stream.ErrTooLarge) {
		w.Fatalf("error %v", err)
	}
	if failed.Errs[0] != nil || !errors.Is(failed.Errs[1], stream.ErrTooLarge) || failed.Errs[2] != nil {
		w.Fatalf("errors %v", failed.Errs)
	}
	if end := w.ends(1)[w.tp(0)]; end != 5 {
		w.Fatalf("%d records are stored, want 5", end)
	}
}

func testMessageShapes(w *world) {
	w.create(1, nil)
	at := time.Date(2024, 2, 29, 12, 0, 0, 123_000_000, time.UTC)
	msgs := []stream.Message{
		{},
		{Value: []byte{}},
		{Key: []byte{}, Value: []byte("v"), Time: at.UnixMicro()},
		{Key: []byte("k"), Value: nil, Time: at.Add(-time.Hour).UnixMicro()}, // older than the batch's first
		{Key: []byte("k"), Value: []byte("v"), Headers: []stream.Header{{Name: "traceparent", Value: []byte("00-1-2-01")},
			{Name: "", Value: nil}, {Name: "x", Value: []byte{}}, {Name: "x", Value: []byte("last")}}},
	}
	p := w.c.Producer(stream.ProducerConfig{})
	defer p.Close()
	if err := p.Produce(w.ctx(), w.topic, msgs...); err != nil {
		w.Fatal(err)
	}
	ends := w.ends(1)
	want := w.reference(ends)
	w.same(w.fetch(stream.FetchConfig{}, w.starts(1), ends).records, want)
	for i, m := range msgs {
		got := want[place{0, int64(i)}]
		if got.key != text(m.Key) || got.value != text(m.Value) || (m.Time != 0 && got.time != m.Time) {
			w.Errorf("message %d is stored as %+v", i, got)
		}
	}
	if h := want[place{0, 4}].headers; h != `traceparent="00-1-2-01";=nil;x="";x="last";` {
		w.Errorf("headers %s", h)
	}
	w.headers()
}

// headers looks at the last record's headers by name.
func (w *world) headers() {
	for b, err := range w.c.FetchRange(w.ctx(), w.tp(0), 4, 4) {
		if err != nil {
			w.Fatal(err)
		}
		r := &b.Records[0]
		if v, ok := r.Header("x"); !ok || string(v) != "last" {
			w.Errorf("header x is %q, %v", v, ok)
		}
		if v, ok := r.Header("y"); ok {
			w.Errorf("header y is %q", v)
		}
		if string(r.TraceParent()) != "00-1-2-01" {
			w.Errorf("traceparent %q", r.TraceParent())
		}
		b.Release()
	}
}

func testKeyPartitions(w *world) {
	const partitions = 7
	w.create(partitions, nil)
	ctx := w.ctx()
	p := w.c.Producer(stream.ProducerConfig{})
	defer p.Close()
	var own []stream.Message
	var other []*kgo.Record
	for i := range 200 {
		key := bytes.Repeat([]byte{byte(i), 'x'}, i%9)
		own = append(own, stream.Message{Key: key, Value: fmt.Appendf(nil, "%d", i)})
		other = append(other, &kgo.Record{Key: key, Value: fmt.Appendf(nil, "%d", i)})
	}
	if err := p.Produce(ctx, w.topic, own...); err != nil {
		w.Fatal(err)
	}
	if err := w.franz(kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))).ProduceSync(ctx, other...).FirstErr(); err != nil {
		w.Fatal(err)
	}
	where := map[string][]int32{}
	for at, r := range w.reference(w.ends(partitions)) {
		where[r.value] = append(where[r.value], at.partition)
	}
	for value, ps := range where {
		if len(ps) != 2 || ps[0] != ps[1] {
			w.Errorf("message %s went to partitions %v", value, ps)
		}
	}
}

func testProduceErrors(w *world) {
	w.create(2, nil)
	ctx := w.ctx()
	p := w.c.Producer(stream.ProducerConfig{})
	if err := p.Produce(ctx, w.topic+"-missing", stream.Message{Value: []byte("x")}); !errors.Is(err, stream.ErrUnknownTopic) {
		w.Errorf("missing topic: %v", err)
	}
	err := p.Produce(ctx, w.topic, stream.Message{Pinned: true, Partition: 1}, stream.Message{Pinned: true, Partition: 2}, stream.Message{Pinned: true, Partition: -1})
	var failed *stream.ProduceError
	if !errors.As(err, &failed) || failed.Errs[0] != nil || !errors.Is(failed.Errs[1], stream.ErrUnknownTopic) || !errors.Is(failed.Errs[2], stream.ErrUnknownTopic) {
		w.Errorf("partitions that do not exist: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.Produce(cancelled, w.topic, stream.Message{Value: []byte("x")}); !errors.Is(err, context.Canceled) {
		w.Errorf("cancelled: %v", err)
	}
	if err := p.Close(); err != nil {
		w.Fatal(err)
	}
	if err := p.Produce(ctx, w.topic, stream.Message{Value: []byte("x")}); !errors.Is(err, stream.ErrClosed) {
		w.Errorf("closed: %v", err)
	}
	if err := p.Produce(ctx, w.topic); err != nil {
		w.Errorf("nothing: %v", err)
	}
}

// Several goroutines share a producer whose buffer is small: every message is
// stored once, and each goroutine's in its order.
func testProduceConcurrently(w *world) {
	w.create(3, nil)
	p := w.c.Producer(stream.ProducerConfig{BatchBytes: 2000, BufferBytes: 10_000, Senders: 2})
	defer p.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if err := p.Produce(w.ctx(), w.topic, stream.Message{Key: fmt.Appendf(nil, "%d", g), Value: fmt.Appendf(nil, "%d", i)},
					stream.Message{Value: make([]byte, 300)}); err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ends := w.ends(3)
	total := int64(0)
	for _, end := range ends {
		total += end
	}
	if total != 1600 {
		w.Errorf("%d records are stored, want 1600", total)
	}
	records := w.fetch(stream.FetchConfig{}, w.starts(3), ends).records
	next := map[string]int{}
	for p := range 3 {
		for off := range ends[w.tp(p)] {
			r := records[place{int32(p), off}]
			if r.key == "nil" {
				continue
			}
			if want := fmt.Sprintf("%q", fmt.Sprint(next[r.key])); r.value != want {
				w.Fatalf("key %s: %s follows %s", r.key, r.value, want)
			}
			next[r.key]++
		}
	}
}
