package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// readAhead is how many responses of a partition may wait for its receiver.
const readAhead = 2

// shortWait is how long a broker may hold a request that leaves out a paused
// partition: its receiver may be ready again any moment.
const shortWait = 5 * time.Millisecond

// partition is the fetcher's state of one partition; Fetcher.mu guards it.
type partition struct {
	tp       TopicPartition
	position Position
	leader   int32
	lost     bool // its leader refused: wait for the new layout
	asked    bool // a request is under way: the asking loop owns the position
	maxBytes int  // raised when a batch does not fit; 0: the configured one
	queue    []*cut
}

func newPartition(tp TopicPartition, from int64) *partition {
	return &partition{tp: tp, leader: -1, position: Position{Next: from, Delivered: from, HighWatermark: -1, LastStable: -1, LogStart: -1}}
}

// serve fetches from one leader until it leads none of the partitions.
func (f *Fetcher) serve(ctx context.Context, leader int32) error {
	for turn, failures := 0, 0; ; turn++ {
		req := f.plan(leader, turn)
		if req == nil {
			return ctx.Err()
		}
		parts, err := f.c.fetch(ctx, leader, req, &f.buffers)
		if err == nil {
			err = f.acceptAll(ctx, parts)
			failures = 0
		}
		f.answered(req)
		if err != nil {
			failures++
			if !transient(err) && ctx.Err() == nil {
				return err
			}
			f.c.log.Warn("fetch", "broker", leader, "attempt", failures, "error", err)
			if err := f.lose(ctx, leader, failures); err != nil {
				return err
			}
		}
	}
}

// answered gives the partitions of a request back to whoever leads them now.
func (f *Fetcher) answered(req *fetch.Request) {
	f.mu.Lock()
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			f.parts[TopicPartition{t.Topic, p.Partition}].asked = false
		}
	}
	f.changed.Broadcast()
	f.mu.Unlock()
}

// plan waits until something can be fetched from the leader and returns the
// request; nil when there is nothing left to do for it.
func (f *Fetcher) plan(leader int32, turn int) *fetch.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		var ready []*partition
		mine, paused := 0, false
		for _, p := range f.parts {
			if p.leader != leader {
				continue
			}
			mine++
			if len(p.queue) >= readAhead {
				paused = true
			} else if !p.lost && !p.asked {
				ready = append(ready, p)
			}
		}
		if mine == 0 || f.ended {
			delete(f.serving, leader)
			return nil
		}
		free := f.cfg.BufferBytes - f.buffers.held.Load()
		if len(ready) > 0 && free > 0 {
			return f.request(ready, turn, paused, free)
		}
		f.changed.Wait()
	}
}

// leastShare is the smallest share of a response that a partition is given
// when there are many.
const leastShare = 64 << 10

// request asks for the partitions, starting with another one each turn, since
// brokers fill a response in the request's order, and with no more of them
// than there is memory for.
//
// Each partition's share bounds the response, not the response's own limit:
// where that one ends a response within a partition, the embedded broker
// leaves out which of its transactions were aborted.
func (f *Fetcher) request(ready []*partition, turn int, paused bool, free int64) *fetch.Request {
	wait := f.cfg.MaxWait
	if paused {
		wait = min(wait, shortWait)
	}
	slices.SortFunc(ready, func(a, b *partition) int {
		return cmp.Or(strings.Compare(a.tp.Topic, b.tp.Topic), cmp.Compare(a.tp.Partition, b.tp.Partition))
	})
	turn %= len(ready)
	ready = append(ready[turn:], ready[:turn]...)
	share := max(min(f.cfg.PartitionBytes, f.cfg.MaxBytes/len(ready)), min(f.cfg.PartitionBytes, leastShare))
	req := fetchRequest(wait, f.cfg.MinBytes)
	for _, p := range ready[:min(len(ready), int(max(free/int64(share), 1)))] {
		p.asked = true
		addPartition(req, p.tp, p.position.Next, max(share, p.maxBytes))
	}
	return req
}

// lose marks a leader's partitions as waiting for a new layout, and waits a
// little before it is tried again.
func (f *Fetcher) lose(ctx context.Context, leader int32, failures int) error {
	f.mu.Lock()
	for _, p := range f.parts {
		if p.leader == leader {
			p.lost = true
		}
	}
	f.stale = true
	f.changed.Broadcast()
	f.mu.Unlock()
	return pause(ctx, backoff(failures-1))
}

func (f *Fetcher) acceptAll(ctx context.Context, parts []fetched) error {
	for i := range parts {
		if err := f.accept(ctx, &parts[i]); err != nil {
			releaseAll(parts[i+1:])
			return err
		}
	}
	return nil
}

// accept takes over what was fetched for one partition.
func (f *Fetcher) accept(ctx context.Context, got *fetched) error {
	p := f.parts[got.tp]
	if p == nil {
		got.records.release()
		return fmt.Errorf("fetch: %w: the broker answered for %v, which was not asked", ErrCorrupt, got.tp)
	}
	if got.err != nil {
		got.records.release()
		return f.refused(ctx, p, got.err)
	}
	c, err := newCut(got, p.position.Next, 1<<63-1, f.castagnoli)
	if err != nil {
		got.records.release()
		return err
	}
	f.advance(p, c)
	return nil
}

// advance queues a cut and moves the fetch position behind it.
func (f *Fetcher) advance(p *partition, c *cut) {
	f.mu.Lock()
	p.position.HighWatermark, p.position.LastStable = c.highWatermark, c.lastStable
	if c.logStart >= 0 {
		p.position.LogStart = c.logStart
	}
	moved := c.next > c.from
	if moved {
		p.position.Next = c.next
		p.queue = append(p.queue, c)
		p.maxBytes = 0
	} else if c.records != nil { // not even one whole batch
		p.maxBytes = min(2*max(p.maxBytes, f.cfg.PartitionBytes), maxResponse/4)
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	if !moved {
		c.records.release()
	}
}

// refused handles a partition's error code.
func (f *Fetcher) refused(ctx context.Context, p *partition, err error) error {
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return f.outOfRange(ctx, p)
	}
	if !transient(err) {
		return fmt.Errorf("fetch %v at offset %d: %w", p.tp, p.position.Next, err)
	}
	f.c.log.Info("partition not served", "partition", p.tp.String(), "error", err)
	f.mu.Lock()
	p.lost, f.stale = true, true
	f.changed.Broadcast()
	f.mu.Unlock()
	return nil
}

// outOfRange finds out which end of the log the position fell off: records
// that retention removed are reported as Missing, and reading goes on behind
// them; a position beyond the end is an error.
func (f *Fetcher) outOfRange(ctx context.Context, p *partition) error {
	offs, err := f.c.Offsets(ctx, p.tp)
	if err != nil {
		return err
	}
	o, next := offs[p.tp], p.position.Next
	if next > o.Last {
		return &OffsetBackwardsError{TopicPartition: p.tp, Position: next, End: o.Last}
	}
	if next < o.First {
		f.c.log.Error("retention overtook the reader", "partition", p.tp.String(), "from", next, "to", o.First-1)
		f.advance(p, &cut{tp: p.tp, from: next, next: o.First, missing: true,
			highWatermark: o.Last, lastStable: o.Last, logStart: o.First})
	}
	return nil
}
