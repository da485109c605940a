package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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

// RecordCounts says what became of predictions' records, in predictions.
type RecordCounts struct {
	Recorded uint64 // acknowledged by the broker
	Dropped  uint64 // no room, by policy drop
	Sampled  uint64 // left out by policy sample
	Failed   uint64 // the broker refused for good, or the process ended first
}

// produce sends messages to a topic and returns when they are acknowledged;
// stream.Producer.Produce is the one.
type produce func(ctx context.Context, topic string, msgs ...stream.Message) error

// parcel is one record on its way and how many predictions it holds.
type parcel struct {
	msg  stream.Message
	rows int
	in   *block // the ring's memory that the record is in
}

func (p *parcel) bytes() int { return len(p.msg.Key) + len(p.msg.Value) }

// recorder carries predictions from request goroutines to the broker through
// a ring that is bounded in records and bytes; what is under way counts.
//
// The requests of some milliseconds leave together: handing each over would wake
// the deliverer once per request, which costs more than a small model. A delivery
// takes some 1 to 2 ms of processor time, nearly all of it to wake those who send and
// to ask each leader, and 2 µs a record: at 15,000 a second 20 ms were twice as dear as 50.
type recorder struct {
	topic  string
	send   produce
	log    *slog.Logger
	turn   atomic.Uint64 // of policy sample
	counts struct{ recorded, dropped, sampled, failed atomic.Uint64 }

	mu           sync.Mutex
	memory       arena
	waiting      []parcel
	records      int // waiting and under way
	bytes        int
	room         chan struct{} // closed when there is room; nil while nobody waits for that
	closed       bool
	most         int
	mostBytes    int
	wake         chan struct{} // holds one: something waits
	taken, spare []parcel      // the deliverer's
	msgs         []stream.Message
}

// Bounds of one hand-over to the producer.
const (
	recordBatch  = 4096
	recordLinger = 50 * time.Millisecond
	retryFirst   = 50 * time.Millisecond
	retryLongest = 2 * time.Second
	sampleEvery  = 10
)

func newRecorder(records, bytes int, topic string, send produce, log *slog.Logger) *recorder {
	return &recorder{most: records, mostBytes: bytes, topic: topic, send: send, log: log, wake: make(chan struct{}, 1)}
}

// put hands a copy of a record over, or counts why not. It waits only under
// Block, and then no longer than ctx; the error is the context's.
func (r *recorder) put(ctx context.Context, p Policy, one parcel) error {
	for {
		room := r.offer(p, one)
		if room == nil {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			r.counts.dropped.Add(uint64(one.rows))
			return context.Cause(ctx)
		}
	}
}

// offer takes a record, or settles that it will not be, or returns what is closed
// when there may be room.
func (r *recorder) offer(p Policy, one parcel) (room <-chan struct{}) {
	size := one.bytes()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		r.counts.failed.Add(uint64(one.rows))
		return nil
	case p == Sample && (r.records > r.most/2 || r.bytes > r.mostBytes/2) && r.turn.Add(1)%sampleEvery != 0:
		r.counts.sampled.Add(uint64(one.rows))
		return nil
	case r.records == 0, r.records < r.most && r.bytes+size <= r.mostBytes: // a record beyond all bounds goes alone
		one.msg.Key, one.msg.Value, one.in = r.memory.keep(one.msg.Key, one.msg.Value)
		r.waiting = append(r.waiting, one)
		r.records++
		r.bytes += size
		if len(r.waiting) == 1 {
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
		return nil
	case p != Block:
		r.counts.dropped.Add(uint64(one.rows))
		return nil
	}
	if r.room == nil {
		r.room = make(chan struct{})
	}
	return r.room
}

// run delivers until ctx ends, then what is left in the ring within drain.
func (r *recorder) run(ctx context.Context, drain time.Duration) {
	linger := time.NewTimer(0)
	defer linger.Stop()
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.drain(drain)
			return
		}
		linger.Reset(recordLinger)
		select {
		case <-linger.C:
		case <-ctx.Done():
		}
		for batch := r.take(); len(batch) > 0; batch = r.take() {
			r.deliver(ctx, batch)
		}
	}
}

// take removes up to a batch from the ring. The batch counts as held until it is
// settled, and is valid until the next take.
func (r *recorder) take() []parcel {
	if len(r.taken) == 0 {
		clear(r.spare)
		r.mu.Lock()
		r.taken, r.waiting = r.waiting, r.spare[:0]
		r.mu.Unlock()
		r.spare = r.taken
	}
	batch := r.taken[:min(len(r.taken), recordBatch)]
	r.taken = r.taken[len(batch):]
	return batch
}

// settle counts what became of records and gives their room back.
func (r *recorder) settle(batch []parcel, became *atomic.Uint64) {
	rows, bytes := 0, 0
	for i := range batch {
		rows += batch[i].rows
		bytes += batch[i].bytes()
	}
	became.Add(uint64(rows))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		r.memory.release(batch[i].in)
	}
	r.records -= len(batch)
	r.bytes -= bytes
	if r.room != nil {
		close(r.room)
		r.room = nil
	}
}

// deliver tries until the broker has the batch or ctx ends: the ring fills
// meanwhile, and the policies of the models decide who waits.
func (r *recorder) deliver(ctx context.Context, batch []parcel) {
	wait := retryFirst
	for {
		left, err := r.attempt(ctx, batch)
		if batch = left; len(batch) == 0 {
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

// attempt sends a batch once, settles what is stored and what the broker will
// never take, and returns the rest, in its order.
func (r *recorder) attempt(ctx context.Context, batch []parcel) ([]parcel, error) {
	r.msgs = r.msgs[:0]
	for i := range batch {
		r.msgs = append(r.msgs, batch[i].msg)
	}
	err := r.send(ctx, r.topic, r.msgs...)
	clear(r.msgs)
	var each *stream.ProduceError
	switch {
	case err == nil:
		r.settle(batch, &r.counts.recorded)
		return nil, nil
	case !errors.As(err, &each) || len(each.Errs) != len(batch):
		return batch, err
	}
	var stored, refused, left []parcel
	for i, err := range each.Errs {
		switch {
		case err == nil:
			stored = append(stored, batch[i])
		case errors.Is(err, stream.ErrTooLarge) && batch[i].bytes() > tooLarge:
			r.log.Error("record predictions: lost, larger than the broker takes: raise max.message.bytes of the topic", "topic", r.topic, "key", string(batch[i].msg.Key), "bytes", batch[i].bytes(), "error", err)
			refused = append(refused, batch[i])
		default:
			left = append(left, batch[i])
		}
	}
	r.settle(stored, &r.counts.recorded)
	r.settle(refused, &r.counts.failed)
	return left, err
}

// tooLarge is from where on a refusal for size is for the record's own: smaller
// ones share batches of that size with others.
const tooLarge = 512 << 10

// last gives a batch that was under way at shutdown one more try.
func (r *recorder) last(batch []parcel) {
	ctx, cancel := context.WithTimeout(context.Background(), retryLongest)
	defer cancel()
	left, err := r.attempt(ctx, batch)
	if len(left) > 0 {
		r.log.Error("record predictions: lost at shutdown", "topic", r.topic, "records", len(left), "error", err)
		r.settle(left, &r.counts.failed)
	}
}

func (r *recorder) drain(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		batch := r.take()
		if len(batch) == 0 {
			break
		}
		r.last(batch)
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for batch := r.take(); len(batch) > 0; batch = r.take() {
		r.settle(batch, &r.counts.failed)
	}
}

// Counts returns what became of the records so far.
func (r *recorder) Counts() RecordCounts {
	return RecordCounts{
		Recorded: r.counts.recorded.Load(), Dropped: r.counts.dropped.Load(),
		Sampled: r.counts.sampled.Load(), Failed: r.counts.failed.Load(),
	}
}
