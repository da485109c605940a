package ingest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// neighbours are two namespaces in one process: a noisy one with many
// partitions, and a quiet one.
type neighbours struct {
	t        *testing.T
	store    *store.Store
	reg      *registry.Registry
	client   *stream.Client
	producer *stream.Producer
	consumer *ingest.Consumer
	sink     *gatedSink
	sent     atomic.Int64
}

const noisyPartitions = 8

// gatedSink lets an insert of the namespace noisy happen for each token that it
// is given; nil tokens: at once.
type gatedSink struct {
	*store.Store
	tokens chan struct{}
	quiet  atomic.Int64 // ledger rows of the namespace quiet
	told   chan struct{}
}

func (s *gatedSink) gate(ctx context.Context, noisy bool) error {
	if !noisy || s.tokens == nil {
		return nil
	}
	select {
	case <-s.tokens:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *gatedSink) Insert(ctx context.Context, token string, b *event.Batch) error {
	if err := s.gate(ctx, b.Schema.Namespace == "noisy"); err != nil {
		return err
	}
	return s.Store.Insert(ctx, token, b)
}

func (s *gatedSink) InsertLedger(ctx context.Context, token string, r event.LedgerRow) error {
	noisy := r.Topic == "kedge.noisy.features"
	if err := s.gate(ctx, noisy); err != nil {
		return err
	}
	err := s.Store.InsertLedger(ctx, token, r)
	if err == nil && !noisy {
		s.quiet.Add(r.Records)
		s.told <- struct{}{}
	}
	return err
}

func newNeighbours(t *testing.T, tokens chan struct{}, cfg ingest.Config, guards ingest.Guards, quota int64) *neighbours {
	t.Helper()
	b, err := broker.Start(broker.Config{})
	check(t, err)
	t.Cleanup(b.Close)
	client, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	check(t, err)
	t.Cleanup(func() { _ = client.Close() })
	check(t, client.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: "kedge.noisy.features", Partitions: noisyPartitions}, {Name: "kedge.quiet.features", Partitions: 1}}))
	st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	check(t, err)
	t.Cleanup(func() { _ = st.Close() })
	n := &neighbours{t: t, store: st, reg: runRegistry(t), client: client, producer: client.Producer(stream.ProducerConfig{}),
		sink: &gatedSink{Store: st, tokens: tokens, told: make(chan struct{}, 1000)}}
	t.Cleanup(func() { _ = n.producer.Close() })
	if quota > 0 {
		_, err = n.reg.Apply(t.Context(), registry.Entry{Kind: event.NamespaceKind, Namespace: "noisy", Name: "noisy", Op: registry.Put,
			Spec: fmt.Appendf(nil, `{"quotas":{"events_per_second":%d}}`, quota)})
		check(t, err)
	}
	n.consumer, err = ingest.New(cfg, client, n.reg, n.sink, telemetry.Discard())
	check(t, err)
	n.consumer.Without(guards)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.consumer.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

// send produces events of a namespace.
func (n *neighbours) send(namespace string, events int) {
	n.t.Helper()
	msgs := make([]stream.Message, events)
	for i := range msgs {
		id := n.sent.Add(1)
		msgs[i] = stream.Message{Key: fmt.Append(nil, id), Value: fmt.Appendf(nil, `{"view":"v","key":{"id":%d},"event_time":"2026-03-01T00:00:00Z","values":{"x":%d.5}}`, id, id%100)}
	}
	check(n.t, n.producer.Produce(n.t.Context(), "kedge."+namespace+".features", msgs...))
}

// TestNeighbour lets one namespace have an insert waiting in each of eight
// partitions, all the time, and counts its inserts that go before both inserts
// of a unit of the other: a few by turns, whatever the neighbour has queued. In
// the order of arrival the other waits behind all of them.
func TestNeighbour(t *testing.T) {
	for _, fair := range []bool{true, false} {
		t.Run(fmt.Sprintf("fair=%v", fair), func(t *testing.T) {
			tokens := make(chan struct{})
			cfg := ingest.DefaultConfig()
			cfg.Writers, cfg.MinDelay, cfg.IDWindow, cfg.InsertTimeout = 1, 0, 0, time.Hour // an insert waits for its token
			n := newNeighbours(t, tokens, cfg, ingest.Guards{NoFair: !fair}, 0)
			before := 0
			const rounds = 4
			for round := range rounds {
				n.send("noisy", 80*noisyPartitions) // some for each partition
				n.lined(noisyPartitions - 1)        // one insert is under way, one waits in each other partition
				n.send("quiet", 1)
				n.lined(noisyPartitions)
				for stored := false; !stored; {
					select {
					case tokens <- struct{}{}:
						before++
						n.send("noisy", 10*noisyPartitions)
					case <-n.sink.told:
						stored = true
					case <-time.After(2 * time.Minute):
						t.Fatalf("round %d: nothing goes on", round)
					}
				}
			}
			if mean := float64(before) / rounds; fair && mean > 4 || !fair && mean < noisyPartitions-1 {
				t.Errorf("%.1f inserts of the neighbour before a unit", mean)
			}
		})
	}
}

// lined waits until so many inserts wait for a place.
func (n *neighbours) lined(want int) {
	n.t.Helper()
	testenv.Eventually(n.t, 2*time.Minute, func() error {
		if got := n.consumer.Queued(); got != want {
			return fmt.Errorf("%d inserts wait, want %d: %+v", got, want, n.consumer.Status())
		}
		return nil
	})
}

// TestQuotaHoldsBackItsNamespaceAlone: what is beyond the quota waits in its
// topic and is not lost; the neighbour does not wait with it; a changed quota
// holds at once.
func TestQuotaHoldsBackItsNamespaceAlone(t *testing.T) {
	cfg := ingest.DefaultConfig()
	cfg.MaxRows, cfg.MinDelay = 50, 0
	n := newNeighbours(t, nil, cfg, ingest.Guards{}, 1)
	const noisy, quiet = 2000, 500
	n.send("noisy", noisy)
	n.send("quiet", quiet)
	testenv.Eventually(t, 2*time.Minute, func() error {
		if got := n.sink.quiet.Load(); got != quiet {
			return fmt.Errorf("%d of %d events of the quiet namespace stored", got, quiet)
		}
		return nil
	})
	stored, throttled := n.noisy()
	if stored == noisy || throttled == 0 {
		t.Errorf("%d events of the noisy namespace stored, %d partitions held back: the quota of 1 a second holds nothing back", stored, throttled)
	}
	if s := n.consumer.Status(); !s.Ready {
		t.Errorf("a quota makes the member not ready: %+v", s)
	}
	_, err := n.reg.Apply(t.Context(), registry.Entry{Kind: event.NamespaceKind, Namespace: "noisy", Name: "noisy", Op: registry.Put, Expect: 1, Spec: []byte(`{"quotas":{"events_per_second":1000000}}`)})
	check(t, err)
	testenv.Eventually(t, 2*time.Minute, func() error {
		if got, _ := n.noisy(); got != noisy {
			return fmt.Errorf("%d of %d events stored", got, noisy)
		}
		return nil
	})
	parts, _, err := n.store.AuditLedger(t.Context(), "", time.Time{})
	check(t, err)
	total := int64(0)
	for _, a := range parts {
		total += a.Rows
		if a.GapRows+a.DuplicateRows+a.GapRecords+a.Unbalanced != 0 {
			t.Errorf("ledger: %+v", a)
		}
	}
	if total != noisy+quiet {
		t.Errorf("%d rows, want %d", total, noisy+quiet)
	}
}

// noisy is how many events of the noisy namespace are stored, and how many of
// its partitions wait for their quota.
func (n *neighbours) noisy() (stored int64, throttled int) {
	for _, p := range n.consumer.Status().Partitions {
		if p.Topic == "kedge.noisy.features" {
			stored += p.Records
			if p.Throttled != "" {
				throttled++
			}
		}
	}
	return stored, throttled
}

// TestTortureNeighbour measures the lag of a quiet namespace, from the broker's
// answer until its record is stored, alone and beside a neighbour that sends ten
// times its quota: the median is to be within 20 %.
func TestTortureNeighbour(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "measures two minutes; make torture runs it")
	}
	const quota, length = 2000, 30 * time.Second
	for range 3 {
		t.Run("", func(t *testing.T) { besideNeighbour(t, quota, length) })
	}
}

func besideNeighbour(t *testing.T, quota int, length time.Duration) {
	n := newNeighbours(t, nil, ingest.DefaultConfig(), ingest.Guards{}, int64(quota))
	n.send("noisy", 100)
	measure := func() (median time.Duration) {
		var lags []time.Duration
		for end := time.Now().Add(length); time.Now().Before(end); {
			before := n.sink.quiet.Load()
			n.send("quiet", 20)
			sent := time.Now()
			for n.sink.quiet.Load() < before+20 {
				<-n.sink.told
			}
			lags = append(lags, time.Since(sent))
		}
		slices.Sort(lags)
		return lags[len(lags)/2]
	}
	measure()
	alone := measure()
	ctx, stop := context.WithCancel(t.Context())
	var noise sync.WaitGroup
	noise.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			n.send("noisy", quota) // ten times a second
			<-tick.C
		}
	})
	beside := measure()
	stored, throttled := n.noisy()
	stop()
	noise.Wait()
	t.Logf("median lag alone %v, beside a neighbour at ten times its quota %v: ratio %.2f (%d of its events stored, %d of its partitions held back)",
		alone, beside, float64(beside)/float64(alone), stored, throttled)
	if throttled == 0 {
		t.Error("the neighbour was not held back: this measures nothing")
	}
	if ratio := float64(beside) / float64(alone); ratio > 1.2 {
		t.Errorf("ratio %.2f", ratio)
	}
}
