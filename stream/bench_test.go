package stream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kedge-ml/kedge/stream"
)

// cpu is the process's CPU time so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFetch fetches 460-byte values from four partitions that a broker in
// this process answers from one prepared batch, so that cpu-s/million is the
// client's work plus the broker's copying. franz-go does the same beside it.
func BenchmarkFetch(b *testing.B) {
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "bench"),
			kfake.SyntheticFetch(kfake.SyntheticBatch{RecordBytes: 460, Records: 1000, RandomFrac: 0.5, Compression: codec}))
		if err != nil {
			b.Fatal(err)
		}
		b.Run("kedge/"+name, func(b *testing.B) { benchFetch(b, k.ListenAddrs()) })
		b.Run("franz/"+name, func(b *testing.B) { benchFranz(b, k.ListenAddrs()) })
		k.Close()
	}
}

func benchFetch(b *testing.B, brokers []string) {
	c, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	starts := map[stream.TopicPartition]int64{}
	for p := range int32(4) {
		starts[stream.TopicPartition{Topic: "bench", Partition: p}] = 0
	}
	var records, bytes atomic.Int64
	done := errors.New("done")
	before := cpu()
	b.ResetTimer()
	err = c.NewFetcher(stream.FetchConfig{}).Run(b.Context(), starts, func(_ context.Context, batch *stream.Batch) error {
		defer batch.Release()
		n := 0
		for i := range batch.Records {
			n += len(batch.Records[i].Value)
		}
		bytes.Add(int64(n))
		if records.Add(int64(len(batch.Records))) >= int64(b.N) {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		b.Fatal(err)
	}
	report(b, records.Load(), bytes.Load(), before)
}

func benchFranz(b *testing.B, brokers []string) {
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("bench"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var records, bytes int64
	before := cpu()
	b.ResetTimer()
	for records < int64(b.N) {
		c.PollFetches(b.Context()).EachRecord(func(r *kgo.Record) {
			records++
			bytes += int64(len(r.Value))
		})
	}
	report(b, records, bytes, before)
}

func report(b *testing.B, records, bytes int64, before time.Duration) {
	b.StopTimer()
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric((cpu()-before).Seconds()/float64(records)*1e6, "cpu-s/million")
	b.ReportMetric(float64(bytes)/float64(records), "bytes/record")
}

// BenchmarkProduce writes 460-byte values in calls of 500 to a broker that
// throws them away.
func BenchmarkProduce(b *testing.B) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "bench"), kfake.BlackholeProduce())
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	c, err := stream.NewClient(stream.Config{Brokers: k.ListenAddrs()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := c.Producer(stream.ProducerConfig{})
	defer p.Close()
	msgs := make([]stream.Message, 500)
	for i := range msgs {
		value := make([]byte, 460)
		for j := range value {
			value[j] = byte(rand.Uint32())
		}
		msgs[i] = stream.Message{Key: value[:8], Value: value}
	}
	before, n := cpu(), int64(0)
	for b.Loop() {
		if err := p.Produce(b.Context(), "bench", msgs...); err != nil {
			b.Fatal(err)
		}
		n += int64(len(msgs))
	}
	report(b, n, n*460, before)
}
