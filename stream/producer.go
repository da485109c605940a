package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// ProducerConfig bounds what a producer holds and for how long it tries.
type ProducerConfig struct {
	// BatchBytes bounds one batch; a larger message goes alone. Keep it below
	// the topics' max.message.bytes; 900 KiB when zero.
	BatchBytes int
	// BufferBytes bounds the messages accepted and not yet acknowledged;
	// Produce waits above it. 32 MiB when zero.
	BufferBytes int64
	// Timeout is how long a batch is tried; 60 s when zero.
	Timeout time.Duration
	// Senders bounds the requests under way; 8 when zero.
	Senders int
}

func (c ProducerConfig) withDefaults() ProducerConfig {
	if c.BatchBytes == 0 {
		c.BatchBytes = 900 << 10
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = 32 << 20
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.Senders == 0 {
		c.Senders = 8
	}
	return c
}

// Producer writes messages with acknowledgement by all replicas in sync. It
// is safe for concurrent use: what several goroutines produce while a batch is
// under way makes up the next one. Messages of one partition are stored in
// the order in which they were produced, and a batch that is sent again after
// a lost answer is stored once.
type Producer struct {
	c       *Client
	cfg     ProducerConfig
	space   *semaphore.Weighted
	senders chan struct{}

	memory sync.Pool // of batches that were sent: *[]byte

	mu     sync.Mutex
	lanes  map[TopicPartition]*outbox
	turn   uint32 // where the next keyless message goes
	closed bool
	busy   sync.WaitGroup
}

// Producer prepares a producer.
func (c *Client) Producer(cfg ProducerConfig) *Producer {
	cfg = cfg.withDefaults()
	return &Producer{c: c, cfg: cfg, space: semaphore.NewWeighted(cfg.BufferBytes),
		senders: make(chan struct{}, cfg.Senders), lanes: map[TopicPartition]*outbox{}}
}

// ProduceError says which messages of a [Producer.Produce] failed.
type ProduceError struct {
	Errs []error // by message; nil for those that are stored
}

func (e *ProduceError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("%d of %d messages were not produced: %v", n, len(e.Errs), first)
}

// Unwrap lets errors.Is look at the messages' errors.
func (e *ProduceError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// outbox holds what waits for one partition.
type outbox struct {
	lane    *lane
	pending []*parcel
	now     *parcel // under way
	sending bool
	expect  int // bytes of a batch, as the last one: growing costs more than filling
}

// parcel is one batch and those who wait for it.
type parcel struct {
	sealed
	weight int64
	err    error
	done   chan struct{}
}

// ticket is one message's place in a parcel.
type ticket struct {
	parcel *parcel
	err    error
}

// Produce writes the messages and returns when all are acknowledged or have
// failed; the error is a [*ProduceError] then. When ctx ends first, its error
// is returned, and messages already accepted may still be stored.
func (p *Producer) Produce(ctx context.Context, topic string, msgs ...Message) error {
	partitions, err := p.partitions(ctx, topic)
	if err != nil {
		return err
	}
	tickets := make([]ticket, len(msgs))
	var idle []*outbox // with messages of this call, and nobody who sends them yet
	for i := range msgs {
		tp := TopicPartition{topic, p.partition(&msgs[i], partitions)}
		if tp.Partition < 0 || int(tp.Partition) >= partitions {
			tickets[i].err = fmt.Errorf("%v: %w", tp, ErrUnknownTopic)
			continue
		}
		tickets[i].parcel, idle, tickets[i].err = p.accept(ctx, tp, &msgs[i], idle)
	}
	p.start(idle)
	return p.await(ctx, tickets)
}

func (p *Producer) partitions(ctx context.Context, topic string) (int, error) {
	l, err := p.c.cached(ctx)
	if err == nil && len(l.topics[topic].leaders) == 0 {
		l, err = p.c.refresh(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("produce to %s: %w", topic, err)
	}
	n := len(l.topics[topic].leaders)
	if n == 0 {
		return 0, fmt.Errorf("produce to %s: %w", topic, ErrUnknownTopic)
	}
	return n, nil
}

// partition decides where a message goes. Keyless messages fill one
// partition's batch before they move on.
func (p *Producer) partition(m *Message, n int) int32 {
	switch {
	case m.Pinned:
		return m.Partition
	case m.Key != nil:
		return KeyPartition(m.Key, n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return int32(p.turn % uint32(n))
}

// accept puts a message into its partition's open batch, waiting for space. Who finds
// a partition that nobody sends for adds it to idle and starts those: at the latest
// when it waits, and when a batch is full.
func (p *Producer) accept(ctx context.Context, tp TopicPartition, m *Message, idle []*outbox) (*parcel, []*outbox, error) {
	size := m.size()
	weight := min(int64(size), p.cfg.BufferBytes)
	if !p.space.TryAcquire(weight) {
		p.start(idle)
		idle = nil
		if err := p.space.Acquire(ctx, weight); err != nil {
			return nil, idle, err
		}
	}
	b, idle, full, err := p.add(tp, m, size, weight, idle)
	if err != nil {
		p.space.Release(weight)
		return nil, idle, err
	}
	if full {
		p.start(idle)
		idle = nil
	}
	return b, idle, nil
}

func (p *Producer) add(tp TopicPartition, m *Message, size int, weight int64, idle []*outbox) (b *parcel, still []*outbox, full bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, idle, false, fmt.Errorf("producer: %w", ErrClosed)
	}
	box := p.lanes[tp]
	if box == nil {
		box = &outbox{lane: p.c.newLane(tp)}
		p.lanes[tp] = box
	}
	last := len(box.pending) - 1
	if last < 0 || len(box.pending[last].bytes)+size > p.cfg.BatchBytes {
		p.turn++
		full = last >= 0
		box.pending = append(box.pending, &parcel{done: make(chan struct{}), sealed: sealed{bytes: openBatch(p.room(box.expect))}})
		last++
	}
	box.pending[last].add(m, weight)
	if !box.sending {
		box.sending = true
		p.busy.Add(1)
		idle = append(idle, box)
	}
	return box.pending[last], idle, full, nil
}

// room returns memory for a batch, of one that was sent if there is any: batches are
// most of what a busy producer would leave to the garbage collector.
func (p *Producer) room(expect int) []byte {
	if used, ok := p.memory.Get().(*[]byte); ok {
		return (*used)[:0]
	}
	return make([]byte, 0, expect)
}

// reuse gives a batch's memory to those that come. Not after a second attempt: the
// first one's connection may still be reading it.
func (p *Producer) reuse(b *parcel) {
	if b.attempts == 1 && b.err == nil {
		used := b.bytes[:0]
		p.memory.Put(&used)
	}
	b.bytes = nil
}

func (b *parcel) add(m *Message, weight int64) {
	ms := m.Time / 1000
	if m.Time == 0 {
		ms = time.Now().UnixMilli()
	}
	if b.records == 0 {
		b.firstMS, b.maxMS = ms, ms
	}
	b.maxMS = max(b.maxMS, ms)
	b.bytes = appendRecord(b.bytes, b.records, ms-b.firstMS, m)
	b.records++
	b.weight += weight
}

// start sends what waits for partitions, a goroutine for those of one leader.
func (p *Producer) start(boxes []*outbox) {
	if len(boxes) == 0 {
		return
	}
	byLeader := map[int32][]*outbox{}
	for _, box := range boxes {
		leader := p.c.leads(box.lane.tp)
		byLeader[leader] = append(byLeader[leader], box)
	}
	for leader, boxes := range byLeader {
		slices.SortFunc(boxes, func(a, b *outbox) int { return cmp.Compare(a.lane.tp.Topic, b.lane.tp.Topic) })
		go p.drain(leader, boxes)
	}
}

// drain sends partitions' batches until there are none. Each box counts as busy and
// belongs to one drain alone, which keeps its order.
func (p *Producer) drain(leader int32, boxes []*outbox) {
	for len(boxes) > 0 {
		p.senders <- struct{}{}
		load, rest := p.next(leader, boxes)
		if len(rest) > 0 {
			go p.drain(leader, rest)
		}
		if len(load) > 0 {
			load = p.ship(leader, load)
		}
		<-p.senders
		boxes = load
	}
}

// next closes the first waiting batches of as many partitions as fit into one request
// to further messages. Those that do not fit are the rest, and those with nothing left
// are let go. A partition without a leader or a producer id goes alone.
func (p *Producer) next(leader int32, boxes []*outbox) (load, rest []*outbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := 0
	for i, box := range boxes {
		if len(box.pending) == 0 {
			box.sending = false
			p.busy.Done()
			continue
		}
		alone := leader < 0 || box.lane.id.producer < 0
		size := len(box.pending[0].bytes)
		if len(load) > 0 && (alone || bytes+size > p.cfg.BatchBytes) {
			rest = append(rest, box)
			continue
		}
		bytes += size
		box.now = box.pending[0]
		box.pending = box.pending[1:]
		box.expect = size
		load = append(load, box)
		if alone {
			return load, append(rest, boxes[i+1:]...)
		}
	}
	return load, rest
}

// ship sends a batch of each partition in one request and returns the partitions that
// are done with theirs. Those that were not stored go on by themselves: their lanes
// know what may be tried again, and the broker what it has already.
func (p *Producer) ship(leader int32, load []*outbox) (done []*outbox) {
	deadline := time.Now().Add(p.cfg.Timeout)
	if len(load) == 1 {
		p.alone(deadline, load[0])
		return load
	}
	stored := p.together(deadline, leader, load)
	done = load[:0]
	for _, box := range load {
		if _, err := place(stored, box.lane.tp); err == nil {
			box.lane.sent(&box.now.sealed)
			p.settle(box)
			done = append(done, box)
			continue
		}
		go func() {
			p.senders <- struct{}{}
			p.alone(deadline, box)
			<-p.senders
			p.drain(leader, []*outbox{box})
		}()
	}
	return done
}

// together tries the batches once, and returns nothing where no answer came.
func (p *Producer) together(deadline time.Time, leader int32, load []*outbox) map[TopicPartition]produced {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	sets := make([]recordSet, len(load))
	for i, box := range load {
		box.lane.stamp(&box.now.sealed)
		box.now.attempts++
		sets[i] = recordSet{box.lane.tp, box.now.bytes}
	}
	stored, err := p.c.produce(ctx, leader, sets)
	if err != nil {
		p.c.log.Debug("produce", "leader", leader, "partitions", len(load), "error", err)
	}
	return stored
}

// alone sends a partition's batch by itself, as often as it takes.
func (p *Producer) alone(deadline time.Time, box *outbox) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	_, box.now.err = box.lane.send(ctx, &box.now.sealed)
	p.settle(box)
}

// settle tells those who wait what became of a batch.
func (p *Producer) settle(box *outbox) {
	b := box.now
	box.now = nil
	p.reuse(b)
	p.space.Release(b.weight)
	close(b.done)
}

func (p *Producer) await(ctx context.Context, tickets []ticket) error {
	errs := make([]error, len(tickets))
	failed := false
	for i, t := range tickets {
		errs[i] = t.err
		if t.parcel != nil {
			select {
			case <-t.parcel.done:
				errs[i] = t.parcel.err
			case <-ctx.Done():
				return fmt.Errorf("produce: %w", ctx.Err())
			}
		}
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return &ProduceError{Errs: errs}
}

// Close waits for what was accepted and refuses more.
func (p *Producer) Close() error {
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.mu.Unlock()
	if already {
		return errors.New("producer: closed twice")
	}
	p.busy.Wait()
	return nil
}
