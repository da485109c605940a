package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// lane writes batches to one partition, one after the other, under a producer
// id of its own: a batch that is sent again after a lost answer is recognised
// by the broker and stored once.
type lane struct {
	c          *Client
	tp         TopicPartition
	castagnoli *crc32.Table
	id         stamp // sequence is the next batch's; producer −1: none yet
}

func (c *Client) newLane(tp TopicPartition) *lane {
	return &lane{c: c, tp: tp, castagnoli: crc32.MakeTable(crc32.Castagnoli), id: stamp{producer: -1}}
}

// sealed is a batch ready to send.
type sealed struct {
	bytes   []byte
	records int
	firstMS int64
	maxMS   int64

	attempts int // to send it
}

// send writes a batch with acks from all replicas and returns the offset of
// its first record. It retries until ctx ends; then the outcome is unknown if
// an attempt was made, and the lane goes on under a new producer id, since the
// broker may remember the failed batch's sequence numbers.
func (l *lane) send(ctx context.Context, b *sealed) (int64, error) {
	var offset int64
	stamped := false
	err := l.c.retry(ctx, "produce to "+l.tp.String(), func() (err error) {
		if l.id.producer < 0 {
			if l.id, err = l.c.initProducer(ctx); err != nil {
				return err
			}
			stamped = false
		}
		if !stamped {
			sealBatch(b.bytes, b.records, 0, b.firstMS, b.maxMS, l.id, l.castagnoli)
			stamped = true
		}
		b.attempts++
		offset, err = l.attempt(ctx, b.bytes)
		if forgotten(err) {
			l.id.producer = -1
			return fmt.Errorf("%w (%w)", kafka.RequestTimedOut, err) // again, under a new id
		}
		return err
	})
	if err != nil {
		l.id.producer = -1
		return 0, fmt.Errorf("produce to %v: %w", l.tp, tooLarge(err))
	}
	l.id.sequence = next(l.id.sequence, b.records)
	return offset, nil
}

// next wraps a sequence number as brokers do.
func next(sequence int32, n int) int32 {
	return int32((int64(sequence) + int64(n)) & math.MaxInt32)
}

// forgotten reports whether the broker does not know the producer's state.
func forgotten(err error) bool {
	return errors.Is(err, kafka.OutOfOrderSequenceNumber) || errors.Is(err, kafka.InvalidProducerEpoch) || errors.Is(err, kafka.UnknownProducerId) ||
		errors.Is(err, kafka.InvalidProducerIDMapping)
}

func tooLarge(err error) error {
	if errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.InvalidMessageSize) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

func (l *lane) attempt(ctx context.Context, set []byte) (int64, error) {
	leader, err := l.c.leader(ctx, l.tp)
	if err == nil {
		var offset int64
		offset, err = l.produce(ctx, leader, set)
		if err == nil || errors.Is(err, kafka.DuplicateSequenceNumber) {
			return offset, nil
		}
	}
	if staleLayout(err) || broken(err) {
		if _, again := l.c.refresh(ctx); again != nil {
			return 0, again
		}
	}
	return 0, err
}

func (l *lane) produce(ctx context.Context, leader int32, set []byte) (int64, error) {
	wait := l.c.cfg.RequestTimeout
	m, err := l.c.send(ctx, wait, &produceCall{
		call: call{Message: &rawproduce.Request{}, broker: leader, clientID: l.c.cfg.ClientID}, tp: l.tp, timeout: wait, set: set,
	})
	if err != nil {
		return 0, err
	}
	res := m.(answer).Message.(*produce.Response)
	if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("%w: produce response for %d topics", ErrCorrupt, len(res.Topics))
	}
	p := res.Topics[0].Partitions[0]
	return p.BaseOffset, codeErr(p.ErrorCode)
}

// initProducer asks for a producer id.
func (c *Client) initProducer(ctx context.Context) (stamp, error) {
	m, err := c.exchange(ctx, anyBroker, 0, &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1, TransactionTimeoutMs: 60_000})
	if err != nil {
		return stamp{producer: -1}, fmt.Errorf("ask for a producer id: %w", err)
	}
	res := m.(*initproducerid.Response)
	if err := codeErr(res.ErrorCode); err != nil {
		return stamp{producer: -1}, fmt.Errorf("ask for a producer id: %w", err)
	}
	return stamp{producer: res.ProducerID, epoch: res.ProducerEpoch}, nil
}
