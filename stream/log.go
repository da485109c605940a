package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// Log is a topic of one partition that keeps everything: what is appended has
// one order for every reader, and an offset is a version.
type Log struct {
	c     *Client
	tp    TopicPartition
	mu    sync.Mutex // one append at a time
	write *lane
}

// OpenLog opens the log of that name, creating its topic when it does not
// exist. It fails with [ErrSettings] when the topic has other than one
// partition, is compacted, or removes old records.
func (c *Client) OpenLog(ctx context.Context, topic string) (*Log, error) {
	if err := c.EnsureTopics(ctx, []TopicSpec{LogTopic(topic)}); err != nil {
		return nil, fmt.Errorf("open log %s: %w", topic, err)
	}
	topics, err := c.Topics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", topic, err)
	}
	if len(topics) != 1 {
		return nil, fmt.Errorf("open log %s: %w", topic, ErrUnknownTopic)
	}
	if err := checkLog(topics[0]); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	tp := TopicPartition{Topic: topic}
	return &Log{c: c, tp: tp, write: c.newLane(tp)}, nil
}

// LogTopic is the topic that a log of that name needs.
func LogTopic(name string) TopicSpec {
	return TopicSpec{Name: name, Partitions: 1, Config: map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime"}}
}

func checkLog(t Topic) error {
	var errs []error
	if t.Partitions != 1 {
		errs = append(errs, fmt.Errorf("topic %s has %d partitions; a log has one: %w", t.Name, t.Partitions, ErrSettings))
	}
	for key, want := range map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"} {
		if got := t.Config[key]; got != want {
			errs = append(errs, fmt.Errorf("topic %s has %s=%s and would lose entries; set it to %s: %w", t.Name, key, got, want, ErrSettings))
		}
	}
	return errors.Join(errs...)
}

// Append writes one entry and returns its offset once all replicas in sync
// have it. When it fails after ctx ended, the entry may be in the log or not:
// readers see.
func (l *Log) Append(ctx context.Context, value []byte) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &parcel{sealed: sealed{bytes: openBatch(nil)}}
	b.add(&Message{Value: value}, 0)
	offset, err := l.write.send(ctx, &b.sealed)
	if err == nil && offset < 0 {
		err = errors.New("the broker stored the entry but did not say where")
	}
	if err != nil {
		return 0, fmt.Errorf("append to log %s: %w", l.tp.Topic, err)
	}
	return offset, nil
}

// Tail calls fn for every entry from offset from on, waiting for new ones,
// until ctx ends (its error) or fn fails. The value is valid during the call.
func (l *Log) Tail(ctx context.Context, from int64, fn func(offset, timeMicros int64, value []byte) error) error {
	r := l.c.newReader(l.tp, from, math.MaxInt64)
	for ctx.Err() == nil {
		err := r.step(ctx, func(b *Batch) error {
			defer b.Release()
			for i := range b.Records {
				if err := fn(b.Records[i].Offset, b.Records[i].Time, b.Records[i].Value); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, kafka.OffsetOutOfRange) {
			err = l.outOfRange(ctx, r.next)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (l *Log) outOfRange(ctx context.Context, at int64) error {
	offs, err := l.c.Offsets(ctx, l.tp)
	if err != nil {
		return err
	}
	switch o := offs[l.tp]; {
	case at < o.First:
		return &RetentionError{TopicPartition: l.tp, From: at, To: o.First - 1, LogStart: o.First}
	case at > o.Last:
		return &OffsetBackwardsError{TopicPartition: l.tp, Position: at, End: o.Last}
	}
	return pause(ctx, 50*time.Millisecond)
}

// End returns one past the offset of the last entry.
func (l *Log) End(ctx context.Context) (int64, error) {
	offs, err := l.c.Offsets(ctx, l.tp)
	if err != nil {
		return 0, fmt.Errorf("end of log %s: %w", l.tp.Topic, err)
	}
	return offs[l.tp].Last, nil
}
