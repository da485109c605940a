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

	attempts int  // to send it
	stamped  bool // with the lane's present id and sequence
}

// send writes a batch with acks from all replicas and returns the offset of
// its first record. It retries until ctx ends; then the outcome is unknown if
// an attempt was made, and the lane goes on under a new producer id, since the
// broker may remember the failed batch's sequence numbers.
func (l *lane) send(ctx context.Context, b *sealed) (int64, error) {
	var offset int64
	err := l.c.retry(ctx, "produce to "+l.tp.String(), func() (err error) {
		if l.id.producer < 0 {
			if l.id, err = l.c.initProducer(ctx); err != nil {
				return err
			}
			b.stamped = false
		}
		l.stamp(b)
		offset, err = l.attempt(ctx, b)
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
	l.sent(b)
	return offset, nil
}

// stamp writes the lane's id and sequence into a batch, once: a connection that did
// not answer may still be reading it.
func (l *lane) stamp(b *sealed) {
	if !b.stamped {
		sealBatch(b.bytes, b.records, 0, b.firstMS, b.maxMS, l.id, l.castagnoli)
		b.stamped = true
	}
}

// sent moves the sequence past a batch that is stored.
func (l *lane) sent(b *sealed) { l.id.sequence = next(l.id.sequence, b.records) }

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

func (l *lane) attempt(ctx context.Context, b *sealed) (int64, error) {
	leader, err := l.c.leader(ctx, l.tp)
	if err == nil {
		b.attempts++
		var stored map[TopicPartition]produced
		if stored, err = l.c.produce(ctx, leader, []recordSet{{l.tp, b.bytes}}); err == nil {
			var offset int64
			if offset, err = place(stored, l.tp); err == nil {
				return offset, nil
			}
		}
	}
	if staleLayout(err) || broken(err) {
		if _, again := l.c.refresh(ctx); again != nil {
			return 0, again
		}
	}
	return 0, err
}

// produced is a broker's answer for one partition.
type produced struct {
	offset int64
	err    error
}

// place is where a batch is stored, by an answer.
func place(stored map[TopicPartition]produced, tp TopicPartition) (int64, error) {
	p, ok := stored[tp]
	if !ok {
		return 0, fmt.Errorf("%w: produce response without %v", ErrCorrupt, tp)
	}
	if errors.Is(p.err, kafka.DuplicateSequenceNumber) {
		return p.offset, nil
	}
	return p.offset, p.err
}

// produce sends record sets to the leader of their partitions in one request. Sets
// of one topic stand beside each other.
func (c *Client) produce(ctx context.Context, leader int32, sets []recordSet) (map[TopicPartition]produced, error) {
	wait := c.cfg.RequestTimeout
	m, err := c.send(ctx, wait, &produceCall{
		call: call{Message: &rawproduce.Request{}, broker: leader, clientID: c.cfg.ClientID}, timeout: wait, sets: sets,
	})
	if err != nil {
		return nil, err
	}
	stored := make(map[TopicPartition]produced, len(sets))
	for _, t := range m.(answer).Message.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			stored[TopicPartition{t.Topic, p.Partition}] = produced{p.BaseOffset, codeErr(p.ErrorCode)}
		}
	}
	return stored, nil
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
