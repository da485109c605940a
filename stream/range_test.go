package stream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// fill produces n keyed records to partition 0 in batches of some.
func (w *world) fill(n int) {
	w.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	c := w.franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := 0; i < n; {
		var rs []*kgo.Record
		for range 1 + rng.IntN(5) {
			if i < n {
				rs = append(rs, &kgo.Record{Key: fmt.Appendf(nil, "%d", i%7), Value: fmt.Appendf(nil, "value %d", i)})
				i++
			}
		}
		if err := c.ProduceSync(w.ctx(), rs...).FirstErr(); err != nil {
			w.Fatal(err)
		}
	}
}

// replay reads [a, b] exactly.
func (w *world) replay(a, b int64) (*collected, error) {
	w.Helper()
	got := &collected{records: map[place]record{}, next: map[int32]int64{0: a}}
	for batch, err := range w.c.FetchRange(w.ctx(), w.tp(0), a, b) {
		if err != nil {
			return got, err
		}
		got.take(w, batch)
		batch.Release()
	}
	if got.next[0] != b+1 {
		w.Errorf("range [%d, %d] ended at %d", a, b, got.next[0])
	}
	return got, nil
}

func testFetchRange(w *world) {
	w.create(transactionPartitions, nil)
	w.transact(8)
	ends := w.stable(transactionPartitions)
	want := w.reference(ends)
	end := ends[w.tp(0)]
	for a := int64(0); a < end; a += 2 {
		for b := a; b < end; b += 5 {
			got, err := w.replay(a, b)
			if err != nil {
				w.Fatalf("range [%d, %d]: %v", a, b, err)
			}
			part := map[place]record{}
			for at, r := range want {
				if at.partition == 0 && at.offset >= a && at.offset <= b {
					part[at] = r
				}
			}
			w.same(got.records, part)
		}
	}
	if _, err := w.replay(0, w.ends(transactionPartitions)[w.tp(0)]); !errors.Is(err, stream.ErrOffsetBackwards) {
		w.Errorf("beyond the end: %v", err)
	}
	for range w.c.FetchRange(w.ctx(), w.tp(0), 0, end-1) {
		break // leaves the memory of one batch to the collector, and no goroutine
	}
}

// deleteRecords removes what lies below an offset, as retention does.
func (w *world) deleteRecords(below int64) {
	w.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 5000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = w.topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = below
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(w.ctx(), w.franz())
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		w.Fatal(err)
	}
}

func testRetentionOvertakes(w *world) {
	w.create(1, nil)
	w.fill(100)
	w.deleteRecords(40)
	ends := w.ends(1)
	got := w.fetch(stream.FetchConfig{}, map[stream.TopicPartition]int64{w.tp(0): 10}, ends)
	if got.missing != 30 || len(got.records) != 60 {
		w.Errorf("%d missing, %d records", got.missing, len(got.records))
	}
	got = w.fetch(stream.FetchConfig{}, map[stream.TopicPartition]int64{w.tp(0): 40}, ends)
	if got.missing != 0 || len(got.records) != 60 {
		w.Errorf("from the start: %d missing, %d records", got.missing, len(got.records))
	}
	_, err := w.replay(39, 50)
	var gone *stream.RetentionError
	if !errors.Is(err, stream.ErrRetention) || !errors.As(err, &gone) || gone.LogStart != 40 {
		w.Errorf("range: %v", err)
	}
	if got, err := w.replay(40, 50); err != nil || len(got.records) != 11 {
		w.Errorf("range: %v", err)
	}
	w.overtakenWhileReading()
}

// overtakenWhileReading deletes what a paused reader has not read yet.
func (w *world) overtakenWhileReading() {
	w.fill(300)
	got := &collected{records: map[place]record{}, next: map[int32]int64{0: 40}}
	done, reading := errors.New("done"), make(chan struct{})
	var once sync.Once
	go func() {
		<-reading
		w.deleteRecords(390)
	}()
	err := w.c.NewFetcher(stream.FetchConfig{PartitionBytes: 100, MaxBytes: 100, BufferBytes: 10_000}).Run(w.ctx(),
		map[stream.TopicPartition]int64{w.tp(0): 40}, func(_ context.Context, b *stream.Batch) error {
			defer b.Release()
			once.Do(func() {
				close(reading)
				testenv.Eventually(w.T, 10*time.Second, func() error {
					offs, err := w.c.Offsets(w.ctx(), w.tp(0))
					if err == nil && offs[w.tp(0)].First != 390 {
						err = errors.New("not deleted yet")
					}
					return err
				})
			})
			got.take(w, b)
			if b.Next == 400 {
				return done
			}
			return nil
		})
	if !errors.Is(err, done) {
		w.Fatal(err)
	}
	if got.missing == 0 || int64(len(got.records))+got.missing != 360 {
		w.Errorf("%d records, %d missing, want 360 together", len(got.records), got.missing)
	}
}

func testTopicRecreated(w *world) {
	w.create(1, nil)
	w.fill(50)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 5000
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = kmsg.StringPtr(w.topic)
	req.Topics, req.TopicNames = append(req.Topics, rt), []string{w.topic}
	if _, err := req.RequestWith(w.ctx(), w.franz()); err != nil {
		w.Fatal(err)
	}
	testenv.Eventually(w.T, 20*time.Second, func() error {
		names, err := w.c.Partitions(w.ctx(), w.topic)
		if err == nil && len(names) > 0 {
			err = errors.New("the topic is still there")
		}
		return err
	})
	w.create(1, nil)
	w.fill(20)
	err := w.c.NewFetcher(stream.FetchConfig{}).Run(w.ctx(), map[stream.TopicPartition]int64{w.tp(0): 50},
		func(_ context.Context, b *stream.Batch) error {
			return fmt.Errorf("delivered [%d, %d)", b.From, b.Next)
		})
	var back *stream.OffsetBackwardsError
	if !errors.Is(err, stream.ErrOffsetBackwards) || !errors.As(err, &back) || back.Position != 50 || back.End != 20 {
		w.Fatalf("error %v", err)
	}
}

// Compaction leaves gaps within batches and removes whole ones; the embedded
// broker does not compact.
func testCompacted(w *world) {
	if !w.kafka {
		return // the embedded broker does not compact
	}
	w.create(1, map[string]string{"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"})
	w.fill(400)
	testenv.Eventually(w.T, 60*time.Second, func() error {
		w.fill(3) // rolls the segment, so that the one before can be cleaned
		ends := w.ends(1)
		if got := len(w.reference(ends)); int64(got) > ends[w.tp(0)]/2 {
			return fmt.Errorf("%d records of %d are left", got, ends[w.tp(0)])
		}
		return nil
	})
	ends := w.ends(1)
	want := w.reference(ends)
	got := w.fetch(stream.FetchConfig{}, w.starts(1), ends)
	for again := w.reference(ends); len(again) != len(want); again = w.reference(ends) { // the cleaner went on meanwhile
		want, got = again, w.fetch(stream.FetchConfig{}, w.starts(1), ends)
	}
	w.same(got.records, want)
	if got.dropped != ends[w.tp(0)]-int64(len(want)) {
		w.Errorf("dropped %d", got.dropped)
	}
	for from := int64(0); from < ends[w.tp(0)]; from += 7 {
		w.fetch(stream.FetchConfig{}, map[stream.TopicPartition]int64{w.tp(0): from}, ends)
		if _, err := w.replay(from, min(from+5, ends[w.tp(0)]-1)); err != nil {
			w.Fatal(err)
		}
	}
}

// A receiver that does not take its batch stops its own partition only, and
// not more is read for it than the read-ahead.
func testSlowPartition(w *world) {
	w.create(2, nil)
	p := w.c.Producer(stream.ProducerConfig{BatchBytes: 20_000})
	defer p.Close()
	produce := func(partition int32, n int) {
		var msgs []stream.Message
		for range n {
			msgs = append(msgs, stream.Message{Value: make([]byte, 10_000), Partition: partition, Pinned: true})
		}
		if err := p.Produce(w.ctx(), w.topic, msgs...); err != nil {
			w.Fatal(err)
		}
	}
	produce(0, 500)
	produce(1, 500)
	f := w.c.NewFetcher(stream.FetchConfig{PartitionBytes: 50_000, MaxBytes: 100_000, BufferBytes: 1 << 20, MinBytes: 1})
	release, done := make(chan struct{}), errors.New("done")
	var slow, fast, most atomic.Int64
	err := f.Run(w.ctx(), w.starts(2), func(ctx context.Context, b *stream.Batch) error {
		defer b.Release()
		most.Store(max(most.Load(), f.HeldBytes()))
		if b.Partition == 0 {
			<-release
			if slow.Store(b.Next); b.Next == 500 {
				return done
			}
			return nil
		}
		if fast.Store(b.Next); b.Next == 500 {
			at := f.Positions()[w.tp(0)]
			if slow.Load() != 0 || !at.Paused || at.Next > 20 || at.Delivered != 0 || at.Lag() != 500 {
				w.Errorf("slow partition: received %d, position %+v", slow.Load(), at)
			}
			close(release)
		}
		return nil
	})
	if !errors.Is(err, done) || fast.Load() != 500 {
		w.Fatalf("error %v, fast partition at %d", err, fast.Load())
	}
	if most.Load() > 2<<20 {
		w.Errorf("%d bytes were held", most.Load())
	}
}

func testBadStarts(w *world) {
	w.create(1, nil)
	err := w.c.NewFetcher(stream.FetchConfig{}).Run(w.ctx(), map[stream.TopicPartition]int64{w.tp(0): -1}, nil)
	if err == nil {
		w.Error("a negative start was taken")
	}
	ctx, cancel := context.WithTimeout(w.ctx(), 200*time.Millisecond)
	defer cancel()
	missing := stream.TopicPartition{Topic: w.topic + "-missing"}
	if err := w.c.NewFetcher(stream.FetchConfig{}).Run(ctx, map[stream.TopicPartition]int64{missing: 0, w.tp(0): 0}, nil); err != nil {
		w.Errorf("a topic that does not exist yet is waited for: %v", err)
	}
	if err := w.c.NewFetcher(stream.FetchConfig{}).Run(ctx, nil, nil); err != nil {
		w.Errorf("nothing to read: %v", err)
	}
}
