package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

func startBroker(t *testing.T) string {
	t.Helper()
	b, err := broker.Start(broker.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Addr()
}

func newClient(t *testing.T, addr string) *stream.Client {
	t.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestProduceFetchCommit(t *testing.T) {
	addr := startBroker(t)
	ctx := testContext(t)
	c := newClient(t, addr)
	if err := c.EnsureTopics(ctx, []stream.TopicSpec{{Name: "events", Partitions: 3}}); err != nil {
		t.Fatal(err)
	}
	p := c.Producer(stream.ProducerConfig{})
	defer p.Close()
	var msgs []stream.Message
	for i := range 1000 {
		msgs = append(msgs, stream.Message{Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "v%d", i),
			Headers: []stream.Header{{Name: "traceparent", Value: []byte("00-x")}}})
	}
	if err := p.Produce(ctx, "events", msgs...); err != nil {
		t.Fatal(err)
	}
	g, err := c.JoinGroup(ctx, stream.GroupConfig{ID: "g", Topics: []string{"events"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	gen, err := g.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	starts := map[stream.TopicPartition]int64{}
	for tp, at := range gen.Assigned {
		if at.Offset != -1 {
			t.Errorf("%v committed %+v before any commit", tp, at)
		}
		starts[tp] = 0
	}
	var mu sync.Mutex
	seen := map[string]int{}
	done := errors.New("done")
	err = c.NewFetcher(stream.FetchConfig{}).Run(ctx, starts, func(ctx context.Context, b *stream.Batch) error {
		defer b.Release()
		mu.Lock()
		defer mu.Unlock()
		for i := range b.Records {
			seen[string(b.Records[i].Key)+"="+string(b.Records[i].Value)]++
			if string(b.Records[i].TraceParent()) != "00-x" {
				t.Errorf("traceparent %q", b.Records[i].TraceParent())
			}
		}
		if err := gen.Commit(ctx, []stream.OffsetCommit{{TopicPartition: b.TopicPartition, Offset: b.Next, Metadata: "m"}}); err != nil {
			return err
		}
		if len(seen) == 1000 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	at, err := c.Committed(ctx, "g", stream.TopicPartition{Topic: "events"})
	if err != nil || at[stream.TopicPartition{Topic: "events"}].Metadata != "m" {
		t.Fatal(at, err)
	}
}

func TestLogAppendTail(t *testing.T) {
	addr := startBroker(t)
	ctx := testContext(t)
	c := newClient(t, addr)
	l, err := c.OpenLog(ctx, "log")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		off, err := l.Append(ctx, fmt.Appendf(nil, "%d", i))
		if err != nil || off != int64(i) {
			t.Fatal(off, err)
		}
	}
	end, err := l.End(ctx)
	if err != nil || end != 10 {
		t.Fatal(end, err)
	}
	done := errors.New("done")
	next := int64(3)
	err = l.Tail(ctx, next, func(off, at int64, v []byte) error {
		if off != next || string(v) != fmt.Sprint(off) || at == 0 {
			t.Errorf("%d %d %q", off, at, v)
		}
		if next++; next == 10 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
}
