package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/stream"
)

// Several writers and tails at once: every entry has one offset, and every
// tail sees the same order.
func testLog(w *world) {
	ctx := w.ctx()
	const writers, each, tails = 4, 50, 3
	appended := make([]string, writers*each)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make([][]string, tails)
	for i := range tails {
		l, err := newClient(w.T, w.addr).OpenLog(ctx, w.topic)
		if err != nil {
			w.Fatal(err)
		}
		wg.Go(func() { seen[i] = w.tail(ctx, l, writers*each) })
	}
	for i := range writers {
		l, err := newClient(w.T, w.addr).OpenLog(ctx, w.topic)
		if err != nil {
			w.Fatal(err)
		}
		wg.Go(func() {
			for n := range each {
				value := fmt.Sprintf("%d/%d", i, n)
				offset, err := l.Append(ctx, []byte(value))
				if err != nil {
					w.Error(err)
					return
				}
				mu.Lock()
				appended[offset] = value
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range tails {
		if fmt.Sprint(seen[i]) != fmt.Sprint(appended) {
			w.Errorf("tail %d saw %.200v, appended was %.200v", i, seen[i], appended)
		}
	}
	l, err := w.c.OpenLog(ctx, w.topic)
	if err != nil {
		w.Fatal(err)
	}
	if end, err := l.End(ctx); err != nil || end != writers*each {
		w.Errorf("end %d, %v", end, err)
	}
	if err := l.Tail(ctx, writers*each+1, nil); !errors.Is(err, stream.ErrOffsetBackwards) {
		w.Errorf("tail beyond the end: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	// A request that the deadline cuts off may say so in the network's words.
	if err := l.Tail(short, writers*each, nil); err == nil || short.Err() == nil {
		w.Errorf("tail at the end: %v before the deadline", err)
	}
}

func (w *world) tail(ctx context.Context, l *stream.Log, n int) []string {
	var out []string
	done := errors.New("done")
	err := l.Tail(ctx, 0, func(offset, at int64, value []byte) error {
		if offset != int64(len(out)) || time.Since(time.UnixMicro(at)).Abs() > time.Minute {
			w.Errorf("entry %d at %d after %d entries", offset, at, len(out))
		}
		if out = append(out, string(value)); len(out) == n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		w.Error(err)
	}
	return out
}

func testLogSettings(w *world) {
	for name, spec := range map[string]stream.TopicSpec{
		"retention.ms":    {Partitions: 1, Config: map[string]string{"retention.ms": "1000", "retention.bytes": "-1"}},
		"retention.bytes": {Partitions: 1, Config: map[string]string{"retention.ms": "-1", "retention.bytes": "1000"}},
		"cleanup.policy":  {Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}},
		"partitions":      {Partitions: 2, Config: map[string]string{"retention.ms": "-1"}},
	} {
		spec.Name = w.topic + "-" + strings.ReplaceAll(name, ".", "-")
		if err := w.c.EnsureTopics(w.ctx(), []stream.TopicSpec{spec}); err != nil {
			w.Fatal(err)
		}
		if _, err := w.c.OpenLog(w.ctx(), spec.Name); !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), name) {
			w.Errorf("%s: %v", name, err)
		}
	}
}

func testOffsets(w *world) {
	w.create(2, nil)
	p := w.c.Producer(stream.ProducerConfig{})
	defer p.Close()
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		at := day.AddDate(0, 0, i).UnixMicro()
		if err := p.Produce(w.ctx(), w.topic, stream.Message{Value: []byte("x"), Time: at, Pinned: true}); err != nil {
			w.Fatal(err)
		}
	}
	offs, err := w.c.Offsets(w.ctx(), w.tp(0), w.tp(1))
	if err != nil || offs[w.tp(0)] != (stream.Offsets{Last: 10}) || offs[w.tp(1)] != (stream.Offsets{}) {
		w.Errorf("offsets %v, %v", offs, err)
	}
	at, err := w.c.OffsetsAt(w.ctx(), day.AddDate(0, 0, 3).Add(time.Hour), w.tp(0), w.tp(1))
	if err != nil || at[w.tp(0)] != 4 || at[w.tp(1)] != 0 {
		w.Errorf("offsets at a time %v, %v", at, err)
	}
	if _, err := w.c.Offsets(w.ctx(), w.tp(2)); !errors.Is(err, stream.ErrUnknownTopic) {
		w.Errorf("missing partition: %v", err)
	}
}

func testTopics(w *world) {
	w.create(3, map[string]string{"retention.ms": "12345"})
	w.create(5, nil) // exists: stays as it is
	topics, err := w.c.Topics(w.ctx(), w.topic, w.topic+"-missing", w.topic)
	if err != nil || len(topics) != 1 {
		w.Fatalf("topics %v, %v", topics, err)
	}
	if got := topics[0]; got.Name != w.topic || got.Partitions != 3 || got.Config["retention.ms"] != "12345" || got.Config["cleanup.policy"] != "delete" {
		w.Errorf("topic %+v", got)
	}
	counts, err := w.c.Partitions(w.ctx(), w.topic, w.topic+"-missing")
	if err != nil || len(counts) != 1 || counts[w.topic] != 3 {
		w.Errorf("partitions %v, %v", counts, err)
	}
	names, err := w.c.TopicNames(w.ctx())
	if err != nil || !strings.Contains(fmt.Sprint(names), w.topic) {
		w.Errorf("names %v, %v", names, err)
	}
	err = w.c.EnsureTopics(w.ctx(), []stream.TopicSpec{{Name: "no topic name!"}, {Name: w.topic + "-bad", Config: map[string]string{"retention.ms": "soon"}}})
	if !w.kafka { // which takes both
		return
	}
	if err == nil || !strings.Contains(err.Error(), "no topic name!") {
		w.Errorf("bad topics: %v", err)
	}
}
