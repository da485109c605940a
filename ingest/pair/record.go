package pair

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/stream"
)

// message is the outcome as the pairs topic has it.
func (o *outcome) message() stream.Message {
	m := stream.Message{Pinned: true}
	for _, h := range o.halves {
		m.Headers = append(m.Headers, stream.Header{Name: source.HalfHeader, Value: []byte(h.place.String())})
	}
	first := o.halves[0]
	switch {
	case o.kind == paired:
		request, response := first, o.halves[1]
		if request.Response {
			request, response = response, request
		}
		m.Key, m.Value = []byte(first.ID), source.AppendPair(nil, &request.Half, &response.Half)
	case o.kind == duplicate:
		m.Key = []byte(first.ID)
	default:
		m.Key, m.Value = first.key, first.value
		if m.Value == nil {
			m.Value = []byte{}
		}
		m.Headers = append(m.Headers, stream.Header{Name: source.ReasonHeader, Value: []byte(o.reason)}, stream.Header{Name: source.DetailHeader, Value: []byte(o.detail)})
	}
	return m
}

// String is topic/partition/offset.
func (p place) String() string {
	return fmt.Sprintf("%s/%d/%d", p.tp.Topic, p.tp.Partition, p.offset)
}

func parsePlace(text string) (p place, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return p, false
	}
	partition, err1 := strconv.ParseInt(parts[1], 10, 32)
	offset, err2 := strconv.ParseInt(parts[2], 10, 64)
	return place{stream.TopicPartition{Topic: parts[0], Partition: int32(partition)}, offset}, err1 == nil && err2 == nil
}

// begin finds out where to go on.
func (s *session) begin(ctx context.Context) error {
	if err := s.p.client.EnsureTopics(ctx, []stream.TopicSpec{s.p.cfg.Topic(s.j.topic)}); err != nil {
		return fmt.Errorf("make topic %s: %w", s.j.topic, err)
	}
	tps, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	log := stream.TopicPartition{Topic: s.j.topic}
	ends, err := s.p.client.Offsets(ctx, append(tps, log)...)
	if err != nil {
		return fmt.Errorf("find the ends of %v: %w", s.j.spec.Topics(), err)
	}
	committed, err := s.p.client.Committed(ctx, s.p.cfg.Group, tps...)
	if err != nil {
		return err
	}
	since := ends[log].Last
	fresh := map[stream.TopicPartition]bool{} // of which this group knows nothing
	for _, tp := range tps {
		c := committed[tp]
		from := c.Offset
		logFrom, err := strconv.ParseInt(c.Metadata, 10, 64)
		if from < 0 || err != nil {
			fresh[tp], from, logFrom = true, ends[tp].First, 0
		}
		s.pool.open(tp, from)
		since = min(since, logFrom)
	}
	s.pool.logEnd, s.pool.recovered = ends[log].Last, max(since, ends[log].First)
	if err := s.readBack(ctx, log, fresh); err != nil {
		return err
	}
	return s.commit(ctx)
}

// readBack notes which halves have outcomes already.
func (s *session) readBack(ctx context.Context, log stream.TopicPartition, fresh map[stream.TopicPartition]bool) error {
	if s.p.guards.noReadBack || s.pool.recovered >= s.pool.logEnd {
		return nil
	}
	for b, err := range s.p.client.FetchRange(ctx, log, s.pool.recovered, s.pool.logEnd-1) {
		if err != nil {
			return fmt.Errorf("read %s: %w", s.j.topic, err)
		}
		for i := range b.Records {
			r := &b.Records[i]
			halves := 0
			for name, value := range r.Headers {
				at, ok := parsePlace(string(value))
				if string(name) != source.HalfHeader || !ok {
					continue
				}
				halves++
				if fresh[at.tp] {
					b.Release()
					return fmt.Errorf("the group %s has no position in %s/%d, but %s has records of it: set the group's offset there, with the offset of %s to look from as its metadata, or delete the source and %s to begin anew",
						s.p.cfg.Group, at.tp.Topic, at.tp.Partition, s.j.topic, s.j.topic, s.j.topic)
				}
				s.pool.settle(at)
			}
			if halves == 2 {
				s.pool.finish(r.Key, r.Time, r.Offset)
			}
		}
		b.Release()
	}
	return nil
}

// commit stores the positions, which proves the lease too.
func (s *session) commit(ctx context.Context) error {
	s.mu.Lock()
	at, log := s.pool.positions()
	if s.p.guards.noHold {
		for tp, l := range s.pool.lanes {
			at[tp] = l.next
		}
	}
	s.mu.Unlock()
	var commits []stream.OffsetCommit
	for tp, offset := range at {
		commits = append(commits, stream.OffsetCommit{TopicPartition: tp, Offset: offset, Metadata: strconv.FormatInt(log, 10)})
	}
	if err := s.gen.Commit(ctx, commits); err != nil {
		return err
	}
	s.proved = time.Now()
	return nil
}

// partitions are those of the foreign topics, which have to exist.
func (s *session) partitions(ctx context.Context) (tps []stream.TopicPartition, err error) {
	topics := s.j.spec.Topics()
	counts, err := s.p.client.Partitions(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("find partitions of %v: %w", topics, err)
	}
	var missing []error
	for _, topic := range topics {
		if counts[topic] == 0 {
			missing = append(missing, fmt.Errorf("the broker has no topic %s", topic))
		}
		for p := range counts[topic] {
			tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
		}
	}
	return tps, errors.Join(missing...)
}
