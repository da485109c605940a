package serving

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/stream"
)

// Policy says what happens to a prediction's record when the broker is slower
// than the model.
type Policy string

// Policies. Each is counted, so a record is never lost in silence.
const (
	Block  Policy = "block"  // the request waits for room: no record is lost, latency is
	Sample Policy = "sample" // above half full, every tenth record is kept
	Drop   Policy = "drop"   // the record is dropped when there is no room
)

// ParsePolicy reads a policy's name; empty means Block.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case "":
		return Block, nil
	case Block, Sample, Drop:
		return p, nil
	}
	return "", fmt.Errorf("unknown record policy %q: want block, sample or drop", s)
}

// RecordCounts says what became of predictions' records.
type RecordCounts struct {
	Recorded uint64 // acknowledged by the broker
	Dropped  uint64 // no room, by policy drop
	Sampled  uint64 // left out by policy sample
	Failed   uint64 // the broker refused for good, or the process ended first
}

// produce sends messages to a topic and returns when they are acknowledged;
// stream.Producer.Produce is the one.
type produce func(ctx context.Context, topic string, msgs ...stream.Message) error

// recorder carries predictions from request goroutines to the broker through
// a bounded ring.
type recorder struct {
	ring   chan stream.Message
	topic  string
	send   produce
	log    *slog.Logger
	turn   atomic.Uint64 // of policy sample
	counts struct{ recorded, dropped, sampled, failed atomic.Uint64 }
}

// Bounds of one hand-over to the producer.
const (
	recordBatch  = 1024
	recordLinger = 5 * time.Millisecond
	retryFirst   = 50 * time.Millisecond
	retryLongest = 2 * time.Second
	sampleEvery  = 10
)

func newRecorder(capacity int, topic string, send produce, log *slog.Logger) *recorder {
	return &recorder{ring: make(chan stream.Message, capacity), topic: topic, send: send, log: log}
}

// put hands a record over, or counts why not. It waits only under Block, and
// then no longer than ctx; the error is the context's.
func (r *recorder) put(ctx context.Context, p Policy, m stream.Message) error {
	if p == Sample && len(r.ring) > cap(r.ring)/2 && r.turn.Add(1)%sampleEvery != 0 {
		r.counts.sampled.Add(1)
		return nil
	}
	select {
	case r.ring <- m:
		return nil
	default:
	}
	if p != Block {
		r.counts.dropped.Add(1)
		return nil
	}
	select {
	case r.ring <- m:
		return nil
	case <-ctx.Done():
		r.counts.dropped.Add(1)
		return context.Cause(ctx)
	}
}

// run delivers until ctx ends, then what is left in the ring within drain.
func (r *recorder) run(ctx context.Context, drain time.Duration) {
	batch := make([]stream.Message, 0, recordBatch)
	for {
		select {
		case m := <-r.ring:
			batch = r.gather(ctx, append(batch[:0], m))
			r.deliver(ctx, batch)
		case <-ctx.Done():
			r.drain(drain)
			return
		}
	}
}

// gather fills a batch until it is full or the linger is over.
func (r *recorder) gather(ctx context.Context, batch []stream.Message) []stream.Message {
	linger := time.NewTimer(recordLinger)
	defer linger.Stop()
	for len(batch) < recordBatch {
		select {
		case m := <-r.ring:
			batch = append(batch, m)
		case <-linger.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// deliver tries until the broker has the batch or ctx ends: the ring fills
// meanwhile, and the policies of the models decide who waits.
func (r *recorder) deliver(ctx context.Context, batch []stream.Message) {
	wait := retryFirst
	for {
		err := r.send(ctx, r.topic, batch...)
		if err == nil {
			r.counts.recorded.Add(uint64(len(batch)))
			return
		}
		r.log.Warn("record predictions: the broker did not take them, trying again", "topic", r.topic, "records", len(batch), "error", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, retryLongest)
		case <-ctx.Done():
			r.last(batch)
			return
		}
	}
}

// last gives a batch that was under way at shutdown one more try.
func (r *recorder) last(batch []stream.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), retryLongest)
	defer cancel()
	if err := r.send(ctx, r.topic, batch...); err != nil {
		r.counts.failed.Add(uint64(len(batch)))
		r.log.Error("record predictions: lost at shutdown", "topic", r.topic, "records", len(batch), "error", err)
		return
	}
	r.counts.recorded.Add(uint64(len(batch)))
}

func (r *recorder) drain(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		batch := r.left()
		if len(batch) == 0 {
			return
		}
		r.last(batch)
	}
	if n := len(r.left()); n > 0 {
		r.counts.failed.Add(uint64(n))
	}
}

// left takes up to a batch of what is in the ring now.
func (r *recorder) left() (batch []stream.Message) {
	for len(batch) < recordBatch {
		select {
		case m := <-r.ring:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// Counts returns what became of the records so far.
func (r *recorder) Counts() RecordCounts {
	return RecordCounts{
		Recorded: r.counts.recorded.Load(), Dropped: r.counts.dropped.Load(),
		Sampled: r.counts.sampled.Load(), Failed: r.counts.failed.Load(),
	}
}
