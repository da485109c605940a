package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// FetchConfig bounds what a fetcher asks for and holds.
type FetchConfig struct {
	// MinBytes and MaxWait say when a broker answers: when so many bytes are
	// there, or after that time; 256 KiB and 50 ms when zero.
	MinBytes int
	MaxWait  time.Duration
	// PartitionBytes bounds one partition's share of a response (a single
	// larger batch still comes whole). MaxBytes is shared out among them, but
	// not in shares below 64 KiB; 2 MiB and 16 MiB when zero.
	PartitionBytes int
	MaxBytes       int
	// BufferBytes bounds what is held, fetched and delivered but not released
	// yet: above it nothing more is fetched, above twice of it nothing is
	// decompressed; 64 MiB when zero.
	BufferBytes int64
	// Workers decompress and decode; GOMAXPROCS when zero.
	Workers int
}

func (c FetchConfig) withDefaults() FetchConfig {
	if c.MinBytes == 0 {
		c.MinBytes = 256 << 10
	}
	if c.MaxWait == 0 {
		c.MaxWait = 50 * time.Millisecond
	}
	if c.PartitionBytes == 0 {
		c.PartitionBytes = 2 << 20
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = 64 << 20
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	return c
}

// Position is where a fetcher is in one partition, for lag and for the page.
type Position struct {
	Next          int64 // next offset to fetch
	Delivered     int64 // Next of the last batch that the receiver took
	HighWatermark int64
	LastStable    int64
	LogStart      int64
	Paused        bool // the receiver is behind: nothing is fetched
}

// Lag is how many offsets the receiver is behind what it may read.
func (p Position) Lag() int64 { return max(p.LastStable-p.Delivered, 0) }

// Fetcher reads partitions: one loop per leader, one request for all of its
// partitions that are not paused. A Fetcher runs once.
type Fetcher struct {
	c          *Client
	cfg        FetchConfig
	castagnoli *crc32.Table
	buffers    bufferPool
	batches    batchPool
	decoding   chan struct{} // one slot per worker

	mu      sync.Mutex
	changed *sync.Cond // any of the fields below, or the pool's held bytes
	parts   map[TopicPartition]*partition
	serving map[int32]bool // leaders with a loop
	stale   bool           // leaders must be asked for, as at the start
	ended   bool
}

// NewFetcher prepares a fetcher.
func (c *Client) NewFetcher(cfg FetchConfig) *Fetcher {
	cfg = cfg.withDefaults()
	f := &Fetcher{c: c, cfg: cfg, castagnoli: crc32.MakeTable(crc32.Castagnoli),
		decoding: make(chan struct{}, cfg.Workers), parts: map[TopicPartition]*partition{}, serving: map[int32]bool{}, stale: true}
	f.changed = sync.NewCond(&f.mu)
	f.buffers.freed = f.wake
	return f
}

// Run reads each partition from its start offset on and hands the batches to
// deliver: in order and one at a time per partition, concurrently for
// different ones. While deliver runs, its partition is read ahead by at most
// two responses and then paused; the others go on. deliver owns the batch and
// releases it.
//
// Run ends when ctx ends (nil), with deliver's first error, with
// [ErrOffsetBackwards], or with an error that waiting does not heal. Everything
// it started has ended then. Broker restarts and moved leaders are waited for.
func (f *Fetcher) Run(ctx context.Context, starts map[TopicPartition]int64, deliver func(context.Context, *Batch) error) error {
	if err := f.begin(starts); err != nil {
		return err
	}
	g, inner := errgroup.WithContext(ctx)
	stop := context.AfterFunc(inner, f.end)
	defer stop()
	for _, p := range f.parts {
		g.Go(func() error { return f.work(inner, p, deliver) })
	}
	g.Go(func() error { return f.lead(inner, g) })
	err := g.Wait()
	f.discard()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

// begin notes the partitions; Positions may be asked meanwhile.
func (f *Fetcher) begin(starts map[TopicPartition]int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for tp, from := range starts {
		if from < 0 {
			return fmt.Errorf("fetch %v: start offset %d: name an absolute offset", tp, from)
		}
		f.parts[tp] = newPartition(tp, from)
	}
	return nil
}

// Positions returns where the fetcher is in every partition.
func (f *Fetcher) Positions() map[TopicPartition]Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[TopicPartition]Position, len(f.parts))
	for tp, p := range f.parts {
		pos := p.position
		pos.Paused = len(p.queue) >= readAhead
		out[tp] = pos
	}
	return out
}

// HeldBytes is the memory of fetched and not yet released batches.
func (f *Fetcher) HeldBytes() int64 { return f.buffers.held.Load() }

func (f *Fetcher) wake() {
	f.mu.Lock()
	f.changed.Broadcast()
	f.mu.Unlock()
}

func (f *Fetcher) end() {
	f.mu.Lock()
	f.ended = true
	f.changed.Broadcast()
	f.mu.Unlock()
}

// discard lets go of what was fetched and not delivered.
func (f *Fetcher) discard() {
	f.mu.Lock()
	var queued []*cut
	for _, p := range f.parts {
		queued = append(queued, p.queue...)
		p.queue = nil
	}
	f.mu.Unlock()
	for _, c := range queued {
		c.records.release()
	}
}

// lead keeps the leaders known and a loop running for each.
func (f *Fetcher) lead(ctx context.Context, g *errgroup.Group) error {
	for attempt := 0; ; attempt++ {
		if f.relayout(ctx, g) {
			attempt = 0
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
		f.mu.Lock()
		for !f.stale && !f.ended {
			f.changed.Wait()
		}
		f.mu.Unlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// relayout asks for the leaders, and reports whether every partition has one.
func (f *Fetcher) relayout(ctx context.Context, g *errgroup.Group) bool {
	l, err := f.c.refresh(ctx)
	if err != nil {
		f.c.log.Warn("ask for leaders", "error", err)
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = false
	for tp, p := range f.parts {
		leader, err := l.leader(tp)
		if err != nil || leader < 0 {
			leader, f.stale = -1, true
		}
		p.leader, p.lost = leader, false
		if leader >= 0 && !f.serving[leader] && !f.ended {
			f.serving[leader] = true
			g.Go(func() error { return f.serve(ctx, leader) })
		}
	}
	f.changed.Broadcast()
	return !f.stale
}

// work decodes and delivers one partition's cuts.
func (f *Fetcher) work(ctx context.Context, p *partition, deliver func(context.Context, *Batch) error) error {
	for {
		c := f.take(p)
		if c == nil {
			return ctx.Err()
		}
		err := c.decode(&f.buffers, &f.batches, int64(f.cfg.PartitionBytes), func(b *Batch) error {
			<-f.decoding
			defer func() { f.decoding <- struct{}{} }()
			return f.handOver(ctx, p, b, deliver)
		})
		<-f.decoding
		if err != nil {
			return err
		}
	}
}

func (f *Fetcher) handOver(ctx context.Context, p *partition, b *Batch, deliver func(context.Context, *Batch) error) error {
	next := b.Next
	if err := deliver(ctx, b); err != nil {
		return err
	}
	f.mu.Lock()
	p.position.Delivered = next
	f.mu.Unlock()
	return nil
}

// take waits for the partition's next cut, for memory and for a decoding
// slot; nil at the end. The cut stays queued until the next call, so that a
// partition being delivered counts as read ahead.
func (f *Fetcher) take(p *partition) *cut {
	f.mu.Lock()
	for !f.ended && (len(p.queue) == 0 || f.buffers.held.Load() > 2*f.cfg.BufferBytes) {
		f.changed.Wait()
	}
	if f.ended {
		f.mu.Unlock()
		return nil
	}
	c := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	f.changed.Broadcast()
	f.mu.Unlock()
	f.decoding <- struct{}{}
	return c
}
