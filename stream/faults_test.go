package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// load is produced and consumed at once while brokers come and go.
type load struct {
	t     *testing.T
	c     *stream.Client
	topic string

	mu        sync.Mutex
	acked     map[string]bool  // by value
	failed    int              // whose outcome is unknown
	delivered map[string]int   // by value, how often
	next      map[int32]int64  // where each partition's consumer is
	order     map[string]int64 // by producer, the last number seen
}

const loadPartitions, loadProducers = 4, 3

func newLoad(t *testing.T, addr string, replication int) *load {
	t.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: strings.Split(addr, ","), RequestTimeout: 3 * time.Second, DialTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	l := &load{t: t, c: c, topic: "load", acked: map[string]bool{}, delivered: map[string]int{}, next: map[int32]int64{}, order: map[string]int64{}}
	err = c.EnsureTopics(limit(t, time.Minute), []stream.TopicSpec{{Name: l.topic, Partitions: loadPartitions, Replication: replication}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// produce writes numbered messages until stop is closed.
func (l *load) produce(ctx context.Context, stop <-chan struct{}) {
	p := l.c.Producer(stream.ProducerConfig{Timeout: 30 * time.Second})
	defer p.Close()
	var wg sync.WaitGroup
	for i := range loadProducers {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				value := fmt.Sprintf("%d %d", i, n)
				err := p.Produce(ctx, l.topic, stream.Message{Key: fmt.Appendf(nil, "%d", i), Value: []byte(value)})
				l.mu.Lock()
				if err == nil {
					l.acked[value] = true
				} else {
					l.failed++
				}
				l.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// consume reads as a member of a group, committing as it goes, until ctx ends.
// Like a sink that keeps its own ledger, it goes on from what it has seen.
func (l *load) consume(ctx context.Context) {
	g, err := l.c.JoinGroup(ctx, stream.GroupConfig{ID: "g", Topics: []string{l.topic}, Heartbeat: 200 * time.Millisecond, Session: 6 * time.Second})
	if err != nil {
		l.t.Error(err)
		return
	}
	defer g.Close()
	for ctx.Err() == nil {
		gen, err := g.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				l.t.Error(err)
			}
			return
		}
		l.generation(ctx, gen)
	}
}

func (l *load) generation(ctx context.Context, gen *stream.Generation) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-gen.Done:
			cancel()
		case <-ctx.Done():
		}
	}()
	starts := map[stream.TopicPartition]int64{}
	l.mu.Lock()
	for tp, at := range gen.Assigned {
		starts[tp] = l.next[tp.Partition]
		if at.Offset > starts[tp] {
			l.t.Errorf("%v: committed %d, consumed %d", tp, at.Offset, starts[tp])
		}
	}
	l.mu.Unlock()
	err := l.c.NewFetcher(stream.FetchConfig{}).Run(ctx, starts, func(ctx context.Context, b *stream.Batch) error {
		defer b.Release()
		l.take(b)
		return gen.Commit(ctx, []stream.OffsetCommit{{TopicPartition: b.TopicPartition, Offset: b.Next, Metadata: fmt.Sprint(b.From)}})
	})
	if err != nil && !errors.Is(err, stream.ErrFenced) && ctx.Err() == nil {
		l.t.Error(err)
	}
}

func (l *load) take(b *stream.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.From != l.next[b.Partition] || b.Missing != 0 {
		l.t.Errorf("%v: [%d, %d) follows %d, %d missing", b.TopicPartition, b.From, b.Next, l.next[b.Partition], b.Missing)
	}
	l.next[b.Partition] = b.Next
	for i := range b.Records {
		r := &b.Records[i]
		l.delivered[string(r.Value)]++
		var producer, n int64
		fmt.Sscanf(string(r.Value), "%d %d", &producer, &n)
		if last, ok := l.order[string(r.Key)]; ok && n <= last {
			l.t.Errorf("%v: %q after %d", b.TopicPartition, r.Value, last)
		}
		l.order[string(r.Key)] = n
	}
}

// progress waits until many more messages were acknowledged and delivered.
func (l *load) progress(what string) {
	l.t.Helper()
	l.mu.Lock()
	acked, delivered := len(l.acked)+300, len(l.delivered)+300
	l.mu.Unlock()
	began := time.Now()
	testenv.Eventually(l.t, 2*time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.acked) < acked || len(l.delivered) < delivered {
			return fmt.Errorf("%s: %d acknowledged of %d, %d delivered of %d", what, len(l.acked), acked, len(l.delivered), delivered)
		}
		return nil
	})
	l.t.Logf("%s: went on after %v", what, time.Since(began).Round(time.Millisecond))
}

// run lets faults happen under load, and compares at the end: every
// acknowledged message was delivered, and none twice.
func (l *load) run(faults func()) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var producing, consuming sync.WaitGroup
	consumer, end := context.WithCancel(ctx)
	producing.Go(func() { l.produce(ctx, stop) })
	consuming.Go(func() { l.consume(consumer) })
	l.progress("start")
	faults()
	close(stop)
	producing.Wait()
	testenv.Eventually(l.t, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for value := range l.acked {
			if l.delivered[value] == 0 {
				return fmt.Errorf("message %q was acknowledged and is not delivered", value)
			}
		}
		return nil
	})
	end()
	consuming.Wait()
	for _, value := range slices.Sorted(maps.Keys(l.delivered)) {
		if n := l.delivered[value]; n != 1 {
			l.t.Errorf("message %q was delivered %d times", value, n)
		}
	}
	l.t.Logf("%d messages acknowledged, %d delivered, %d of unknown outcome", len(l.acked), len(l.delivered), l.failed)
}

func TestEmbeddedBrokerRestartsUnderLoad(t *testing.T) {
	cfg := broker.Config{DataDir: t.TempDir()}
	b, err := broker.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cfg.Addr = b.Addr()
	l := newLoad(t, b.Addr(), 1)
	l.run(func() {
		for i := range 3 {
			b.Close()
			if b, err = broker.Start(cfg); err != nil {
				t.Fatal(err)
			}
			l.progress(fmt.Sprintf("restart %d", i))
		}
	})
}

func TestKafkaBrokerIsKilledUnderLoad(t *testing.T) {
	k := kafkatest.Start(t, 1)
	l := newLoad(t, k.Addr(), 1)
	l.run(func() {
		for i := range 2 {
			k.Kill(t, 0)
			k.Restart(t, 0)
			l.progress(fmt.Sprintf("kill %d", i))
		}
	})
}

// One broker is killed and another paused.
func TestThreeBrokersFailUnderLoad(t *testing.T) { failBrokers(t, []int{0}, []int{1}) }

// Each broker is killed and then paused, three times over.
func TestTortureThreeBrokers(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "takes minutes; make torture runs it")
	}
	for range 3 {
		failBrokers(t, []int{0, 1, 2}, []int{0, 1, 2})
	}
}

func failBrokers(t *testing.T, kill, pause []int) {
	k := kafkatest.Start(t, 3)
	l := newLoad(t, k.Addr(), 3)
	l.run(func() {
		for _, i := range kill {
			k.Kill(t, i)
			l.progress(fmt.Sprintf("broker %d killed", i))
			k.Restart(t, i)
			k.Ready(t)
			l.progress(fmt.Sprintf("broker %d restarted", i))
		}
		for _, i := range pause {
			k.Pause(t, i)
			l.progress(fmt.Sprintf("broker %d paused", i))
			k.Resume(t, i)
			k.Ready(t)
			l.progress(fmt.Sprintf("broker %d resumed", i))
		}
	})
}

// A fetcher that cannot learn who leads when it starts asks again.
func TestFetcherStartsWhileTheBrokerIsAway(t *testing.T) {
	dir, topic := t.TempDir(), "early"
	start := func(addr string) *broker.Broker {
		b, err := broker.Start(broker.Config{Addr: addr, DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := start("127.0.0.1:0")
	addr := b.Addr()
	refused := make(notices, 100)
	c, err := stream.NewClient(stream.Config{Brokers: []string{addr}, RequestTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(refused, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := limit(t, time.Minute)
	if err := c.EnsureTopics(ctx, []stream.TopicSpec{{Name: topic, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	p := c.Producer(stream.ProducerConfig{})
	if err := p.Produce(ctx, topic, stream.Message{Value: []byte("here")}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	b.Close()

	got := make(chan struct{})
	fetching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- c.NewFetcher(stream.FetchConfig{}).Run(fetching, map[stream.TopicPartition]int64{{Topic: topic}: 0}, func(_ context.Context, b *stream.Batch) error {
			b.Release()
			close(got)
			return nil
		})
	}()
	refused.await(ctx, t, "ask for leaders")
	b = start(addr)
	defer b.Close()
	select {
	case <-got:
	case <-ctx.Done():
		t.Error("nothing is fetched although the broker is back")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// notices passes a log's lines on.
type notices chan string

func (n notices) Write(b []byte) (int, error) {
	select {
	case n <- string(b):
	default:
	}
	return len(b), nil
}

func (n notices) await(ctx context.Context, t *testing.T, what string) {
	t.Helper()
	for {
		select {
		case line := <-n:
			if strings.Contains(line, what) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no line says %q", what)
		}
	}
}
