package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a test of both brokers works with: a topic name of its own, a
// client, and franz-go as the independent one to judge by.
type world struct {
	*testing.T
	addr  string
	kafka bool // the real one
	topic string
	c     *stream.Client
}

// TestBothBrokers runs the room's tests against the embedded broker and
// against Kafka, which is started once for all.
func TestBothBrokers(t *testing.T) {
	tests := []struct {
		name string
		run  func(*world)
	}{
		{"produce fetch commit", testProduceFetchCommit},
		{"read committed", testReadCommitted},
		{"read committed in small pieces", testReadCommittedSmall},
		{"codecs", testCodecs},
		{"large record", testLargeRecord},
		{"message shapes", testMessageShapes},
		{"key partitions", testKeyPartitions},
		{"produce errors", testProduceErrors},
		{"produce concurrently", testProduceConcurrently},
		{"fetch range", testFetchRange},
		{"retention overtakes", testRetentionOvertakes},
		{"topic recreated", testTopicRecreated},
		{"compacted", testCompacted},
		{"slow partition", testSlowPartition},
		{"new broken start", testBadStarts},
		{"commit metadata", testCommitMetadata},
		{"zombie is fenced", testZombie},
		{"refused commit", testRefusedCommit},
		{"gives up", testGivesUp},
		{"three members", testThreeMembers},
		{"slow member", testSlowMember},
		{"lease", testLease},
		{"new topics and partitions", testNewTopics},
		{"log", testLog},
		{"log settings", testLogSettings},
		{"offsets", testOffsets},
		{"topics", testTopics},
	}
	kafkatest.Each(t, func(t *testing.T, addr string) {
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				test.run(&world{T: t, addr: addr, kafka: strings.Contains(t.Name(), "/kafka/"),
					topic: fmt.Sprintf("topic-%d", i), c: newClient(t, addr)})
			})
		}
	})
}

func newClient(t *testing.T, addr string) *stream.Client {
	t.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: strings.Split(addr, ",")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) ctx() context.Context { return limit(w.T, 90*time.Second) }

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// create makes the world's topic.
func (w *world) create(partitions int, config map[string]string) {
	w.Helper()
	err := w.c.EnsureTopics(w.ctx(), []stream.TopicSpec{{Name: w.topic, Partitions: partitions, Config: config}})
	if err != nil {
		w.Fatal(err)
	}
}

// franz returns a client of the other library.
func (w *world) franz(opts ...kgo.Opt) *kgo.Client {
	w.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(w.addr, ",")...), kgo.DefaultProduceTopic(w.topic),
		kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

// place is where a record lies.
type place struct {
	partition int32
	offset    int64
}

// record is what must agree between clients.
type record struct {
	time       int64
	key, value string
	headers    string
}

// reference reads a topic with franz-go, up to the given ends.
func (w *world) reference(ends map[stream.TopicPartition]int64, opts ...kgo.Opt) map[place]record {
	w.Helper()
	starts := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	for tp, end := range ends {
		starts[tp.Partition] = kgo.NewOffset().At(0)
		if end > 0 {
			left[tp.Partition] = end
		}
	}
	c := w.franz(append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.topic: starts}))...)
	defer c.Close()
	out := map[place]record{}
	for len(left) > 0 {
		fs := c.PollFetches(w.ctx())
		if err := fs.Err0(); err != nil {
			w.Fatalf("reference: %v, still to read: %v", err, left)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				out[place{r.Partition, r.Offset}] = franzRecord(r)
			}
		})
	}
	return out
}

func franzRecord(r *kgo.Record) record {
	out := record{time: r.Timestamp.UnixMicro(), key: text(r.Key), value: text(r.Value)}
	for _, h := range r.Headers {
		out.headers += fmt.Sprintf("%s=%s;", h.Key, text(h.Value))
	}
	return out
}

func ownRecord(r *stream.Record) record {
	out := record{time: r.Time, key: text(r.Key), value: text(r.Value)}
	for name, value := range r.Headers {
		out.headers += fmt.Sprintf("%s=%s;", name, text(value))
	}
	return out
}

func text(b []byte) string {
	if b == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", b)
}

// collected is what a fetcher delivered.
type collected struct {
	mu      sync.Mutex
	records map[place]record
	next    map[int32]int64
	dropped int64
	aborted int64
	control int64
	missing int64
}

// fetch reads from the starts until the ends are reached.
func (w *world) fetch(cfg stream.FetchConfig, starts, ends map[stream.TopicPartition]int64) *collected {
	w.Helper()
	got := &collected{records: map[place]record{}, next: map[int32]int64{}}
	for tp, at := range starts {
		got.next[tp.Partition] = at
	}
	done := errors.New("done")
	f := w.c.NewFetcher(cfg)
	err := f.Run(w.ctx(), starts, func(_ context.Context, b *stream.Batch) error {
		defer b.Release()
		got.take(w, b)
		if got.reached(ends) {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		w.Fatalf("fetch: %v; at %v of %v", err, got.next, ends)
	}
	if held := f.HeldBytes(); held != 0 {
		w.Errorf("%d bytes are held after the end", held)
	}
	return got
}

func (g *collected) take(w *world, b *stream.Batch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.From != g.next[b.Partition] || b.Next <= b.From {
		w.Errorf("partition %d: batch [%d, %d) follows %d", b.Partition, b.From, b.Next, g.next[b.Partition])
	}
	if b.Next-b.From != int64(len(b.Records))+b.Dropped+b.Missing {
		w.Errorf("batch [%d, %d): %d records, %d dropped, %d missing", b.From, b.Next, len(b.Records), b.Dropped, b.Missing)
	}
	if b.Next > b.LastStable && b.Missing == 0 || b.LastStable > b.HighWatermark {
		w.Errorf("batch [%d, %d) exceeds the last stable offset %d of %d", b.From, b.Next, b.LastStable, b.HighWatermark)
	}
	last := b.From - 1
	for i := range b.Records {
		r := &b.Records[i]
		if r.Offset <= last || r.Offset >= b.Next {
			w.Errorf("record %d after %d in [%d, %d)", r.Offset, last, b.From, b.Next)
		}
		last = r.Offset
		g.records[place{b.Partition, r.Offset}] = ownRecord(r)
	}
	g.next[b.Partition] = b.Next
	g.dropped, g.missing = g.dropped+b.Dropped, g.missing+b.Missing
	g.aborted, g.control = g.aborted+b.Aborted, g.control+b.Control
}

func (g *collected) reached(ends map[stream.TopicPartition]int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp, end := range ends {
		if g.next[tp.Partition] < end {
			return false
		}
	}
	return true
}

// starts is position 0 of n partitions.
func (w *world) starts(n int) map[stream.TopicPartition]int64 {
	out := map[stream.TopicPartition]int64{}
	for p := range n {
		out[w.tp(p)] = 0
	}
	return out
}

func (w *world) tp(p int) stream.TopicPartition {
	return stream.TopicPartition{Topic: w.topic, Partition: int32(p)}
}

// ends asks where n partitions end.
func (w *world) ends(n int) map[stream.TopicPartition]int64 {
	w.Helper()
	var tps []stream.TopicPartition
	for p := range n {
		tps = append(tps, w.tp(p))
	}
	offs, err := w.c.Offsets(w.ctx(), tps...)
	if err != nil {
		w.Fatal(err)
	}
	out := map[stream.TopicPartition]int64{}
	for tp, o := range offs {
		out[tp] = o.Last
	}
	return out
}

func (w *world) same(got, want map[place]record) {
	w.Helper()
	wrong := 0
	for at, r := range want {
		if got[at] != r && wrong < 5 {
			wrong++
			w.Errorf("%v: %.200v, want %.200v", at, got[at], r)
		}
	}
	for at, r := range got {
		if _, ok := want[at]; !ok && wrong < 5 {
			wrong++
			w.Errorf("%v: %.200v, want nothing", at, r)
		}
	}
	if len(got) != len(want) {
		w.Errorf("%d records, want %d", len(got), len(want))
	}
}
