package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	kafka "github.com/segmentio/kafka-go"
)

// Errors that callers branch on.
var (
	// ErrFenced says that the generation of a commit is over: another member
	// may own the partitions now. Stop the work and join again.
	ErrFenced = errors.New("the group's generation is over")
	// ErrOffsetBackwards says that a partition ends before the position it
	// should be read from; see [OffsetBackwardsError].
	ErrOffsetBackwards = errors.New("the partition ends before the position")
	// ErrRetention says that retention removed records of a range that had to
	// be read exactly; see [RetentionError].
	ErrRetention = errors.New("retention removed the records")
	// ErrCorrupt says that a broker sent bytes that are no valid records.
	ErrCorrupt = errors.New("invalid record data")
	// ErrUnknownTopic says that a topic or partition does not exist.
	ErrUnknownTopic = errors.New("topic or partition does not exist")
	// ErrTooLarge says that a message exceeds what the topic accepts.
	ErrTooLarge = errors.New("message is larger than the topic accepts")
	// ErrClosed says that the client, producer or group was closed.
	ErrClosed = errors.New("closed")
	// ErrSettings says that a topic exists with settings that would lose data.
	ErrSettings = errors.New("topic settings do not fit")
)

// OffsetBackwardsError is the [ErrOffsetBackwards] of one partition.
type OffsetBackwardsError struct {
	TopicPartition
	Position int64 // where reading should continue
	End      int64 // the partition's end now
}

func (e *OffsetBackwardsError) Error() string {
	return fmt.Sprintf("read %v: position %d lies beyond the end %d: the topic was recreated or the broker lost records; "+
		"start a new epoch for this partition, or restore the broker's data", e.TopicPartition, e.Position, e.End)
}

// Unwrap makes errors.Is(err, ErrOffsetBackwards) true.
func (e *OffsetBackwardsError) Unwrap() error { return ErrOffsetBackwards }

// RetentionError is the [ErrRetention] of one range.
type RetentionError struct {
	TopicPartition
	From, To int64 // the range that had to be read, inclusive
	LogStart int64 // first offset that still exists
}

func (e *RetentionError) Error() string {
	return fmt.Sprintf("read %v offsets %d to %d: the log starts at %d, retention removed records before they were read; "+
		"lengthen the topic's retention", e.TopicPartition, e.From, e.To, e.LogStart)
}

// Unwrap makes errors.Is(err, ErrRetention) true.
func (e *RetentionError) Unwrap() error { return ErrRetention }

// codeErr turns a protocol error code into an error, nil for 0.
func codeErr(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// transient reports whether trying again may help: the broker is away, is
// moving leaders or coordinators, or the connection broke.
func transient(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) {
		return code.Temporary() || staleLayout(err)
	}
	return broken(err)
}

// broken reports whether the connection failed, so that the outcome of the
// request is unknown.
func broken(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) { // which is a net.Error, too
		return false
	}
	var netErr net.Error
	var opErr *net.OpError
	return errors.As(err, &netErr) || errors.As(err, &opErr) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.DeadlineExceeded)
}

// staleLayout reports whether the error means that leaders moved.
func staleLayout(err error) bool {
	for _, e := range []kafka.Error{kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.BrokerNotAvailable,
		kafka.ReplicaNotAvailable, kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.UnknownTopicOrPartition,
		kafka.KafkaStorageError, kafka.OffsetNotAvailable, kafka.NotCoordinatorForGroup} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fenced reports whether a group error means that the generation is over.
func fenced(err error) bool {
	for _, e := range []kafka.Error{kafka.IllegalGeneration, kafka.UnknownMemberId, kafka.RebalanceInProgress, kafka.FencedInstanceID,
		kafka.GroupIdNotFound} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
