package ingest

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/stream"
)

// Status is how a consumer is doing.
type Status struct {
	Ready      bool   // this member has an assignment and none of its partitions waits
	Reason     string // why it is not ready, or empty
	Generation int32  // of the group; 0 before the first
	Partitions []PartitionStatus
}

// PartitionStatus is how one assigned partition is doing.
type PartitionStatus struct {
	Topic     string
	Partition int32
	Epoch     int32
	Position  int64 // everything before it is stored
	End       int64 // what may be read, when last looked
	Lag       int64 // End − Position
	Waiting   string
	Throttled string // which quota it waits for; the namespace's own doing, so that the member counts as ready
	Refused   bool   // Waiting needs an operator
	LastError string
	ErrorAt   time.Time

	Units       int64 // finished since this member was given the partition
	Records     int64
	Rows        int64
	DeadLetters int64
	Duplicates  int64
	Missing     int64 // offsets that retention removed before they were read: data is lost
	KnownAt     int64 // µs: newest record stored
	IDs         int   // ids held for duplicate search
	IDBytes     int
}

// state is a partition's status as its goroutines write it.
type state struct {
	mu sync.Mutex
	s  PartitionStatus
}

func newState(tp stream.TopicPartition) *state {
	return &state{s: PartitionStatus{Topic: tp.Topic, Partition: tp.Partition, Position: -1}}
}

func (s *state) update(fn func(*PartitionStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.s)
}

// waits notes why nothing moves; "" when it does again.
func (s *state) waits(reason string) {
	s.update(func(p *PartitionStatus) { p.Waiting, p.Refused = reason, false })
}

// throttled notes which quota is waited for; "" when none is.
func (s *state) throttled(reason string) {
	s.update(func(p *PartitionStatus) { p.Throttled = reason })
}

func (s *state) failed(reason string, err error, now time.Time) {
	s.update(func(p *PartitionStatus) { p.Waiting, p.LastError, p.ErrorAt = reason, err.Error(), now })
}

func (s *state) get() PartitionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s
}

// Status returns how the consumer is doing now.
func (c *Consumer) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Status{Generation: c.generation, Reason: c.waiting}
	var live map[stream.TopicPartition]stream.Position
	if c.fetcher != nil {
		live = c.fetcher.Positions()
	}
	for tp, s := range c.states {
		p := s.get()
		p.End = max(p.End, live[tp].LastStable)
		if p.Position >= 0 {
			p.Lag = max(p.End-p.Position, 0)
		}
		out.Partitions = append(out.Partitions, p)
	}
	slices.SortFunc(out.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, p := range out.Partitions {
		if p.Waiting != "" && out.Reason == "" {
			out.Reason = stream.TopicPartition{Topic: p.Topic, Partition: p.Partition}.String() + ": " + p.Waiting
		}
	}
	out.Ready = out.Reason == ""
	return out
}
