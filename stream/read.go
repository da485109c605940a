package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math"
	"slices"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

const readCommitted int8 = 1

// fetchRequest asks for nothing yet, without a fetch session.
func fetchRequest(wait time.Duration, minBytes int) *fetch.Request {
	return &fetch.Request{ReplicaID: -1, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: int32(minBytes),
		MaxBytes: math.MaxInt32, IsolationLevel: readCommitted, SessionEpoch: -1}
}

// addPartition asks for at most size bytes of a partition, or one batch.
func addPartition(req *fetch.Request, tp TopicPartition, from int64, size int) {
	i := slices.IndexFunc(req.Topics, func(t fetch.RequestTopic) bool { return t.Topic == tp.Topic })
	if i < 0 {
		i = len(req.Topics)
		req.Topics = append(req.Topics, fetch.RequestTopic{Topic: tp.Topic})
	}
	req.Topics[i].Partitions = append(req.Topics[i].Partitions, fetch.RequestPartition{Partition: tp.Partition,
		CurrentLeaderEpoch: -1, FetchOffset: from, LogStartOffset: -1, PartitionMaxBytes: int32(size)})
}

// fetch sends a fetch request to a leader.
func (c *Client) fetch(ctx context.Context, leader int32, req *fetch.Request, buffers *bufferPool) ([]fetched, error) {
	wait := time.Duration(req.MaxWaitTime) * time.Millisecond
	m, err := c.send(ctx, wait, &fetchCall{
		call:    call{Message: req, broker: leader, clientID: c.cfg.ClientID},
		buffers: buffers,
	})
	if err != nil {
		return nil, fmt.Errorf("fetch from broker %d: %w", leader, err)
	}
	return m.(*fetchAnswer).parts, nil
}

// reader reads one partition in order.
type reader struct {
	c          *Client
	tp         TopicPartition
	next       int64
	to         int64 // exclusive
	wait       time.Duration
	maxBytes   int
	castagnoli *crc32.Table
	buffers    bufferPool
	batches    batchPool
}

func (c *Client) newReader(tp TopicPartition, from, to int64) *reader {
	return &reader{c: c, tp: tp, next: from, to: to, wait: 500 * time.Millisecond, maxBytes: 4 << 20,
		castagnoli: crc32.MakeTable(crc32.Castagnoli)}
}

// step fetches once and emits what came. It retries until ctx ends.
func (r *reader) step(ctx context.Context, emit func(*Batch) error) error {
	var f *fetched
	err := r.c.retry(ctx, "fetch "+r.tp.String(), func() (err error) {
		f, err = r.fetch(ctx)
		return err
	})
	if err != nil {
		return err
	}
	cut, err := newCut(f, r.next, r.to, r.castagnoli)
	if err != nil {
		f.records.release()
		return err
	}
	if cut.next == r.next {
		r.grow(f)
		f.records.release()
		return nil
	}
	r.next = cut.next
	return cut.decode(&r.buffers, &r.batches, math.MaxInt64, emit)
}

// grow asks for more when a response held no complete batch.
func (r *reader) grow(f *fetched) {
	if f.records != nil && r.maxBytes < maxResponse/4 {
		r.maxBytes *= 2
	}
}

func (r *reader) fetch(ctx context.Context) (*fetched, error) {
	leader, err := r.c.leader(ctx, r.tp)
	if err != nil {
		return nil, r.relayout(ctx, err)
	}
	req := fetchRequest(r.wait, 1)
	addPartition(req, r.tp, r.next, r.maxBytes)
	parts, err := r.c.fetch(ctx, leader, req, &r.buffers)
	if err != nil {
		return nil, r.relayout(ctx, err)
	}
	if len(parts) != 1 || parts[0].tp != r.tp {
		releaseAll(parts)
		return nil, fmt.Errorf("fetch %v: %w: the broker answered for %d other partitions", r.tp, ErrCorrupt, len(parts))
	}
	if err := parts[0].err; err != nil {
		parts[0].records.release()
		return nil, r.relayout(ctx, fmt.Errorf("fetch %v at %d: %w", r.tp, r.next, err))
	}
	return &parts[0], nil
}

// relayout asks for the leaders anew before err is retried.
func (r *reader) relayout(ctx context.Context, err error) error {
	if transient(err) {
		if _, again := r.c.refresh(ctx); again != nil {
			return again
		}
	}
	return err
}

// FetchRange yields the records of [a, b], exactly: the same batches' content
// whenever it is called. It fails with [ErrRetention] when retention removed a
// part, and with [ErrOffsetBackwards] when the partition ends before b.
// Release each batch before the next is taken.
func (c *Client) FetchRange(ctx context.Context, tp TopicPartition, a, b int64) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if err := c.rangeExists(ctx, tp, a, b); err != nil {
			yield(nil, err)
			return
		}
		r := c.newReader(tp, a, b+1)
		errStop := errors.New("stop")
		for r.next <= b {
			err := r.step(ctx, func(batch *Batch) error {
				if !yield(batch, nil) {
					return errStop
				}
				return nil
			})
			if errors.Is(err, errStop) {
				return
			}
			if errors.Is(err, kafka.OffsetOutOfRange) {
				err = c.rangeExists(ctx, tp, r.next, b)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

func (c *Client) rangeExists(ctx context.Context, tp TopicPartition, a, b int64) error {
	offs, err := c.Offsets(ctx, tp)
	if err != nil {
		return err
	}
	switch o := offs[tp]; {
	case o.First > a:
		return &RetentionError{TopicPartition: tp, From: a, To: b, LogStart: o.First}
	case o.Last <= b:
		return &OffsetBackwardsError{TopicPartition: tp, Position: b, End: o.Last}
	}
	return nil
}
