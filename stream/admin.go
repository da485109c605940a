package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createpartitions"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// TopicSpec is a topic as it should be.
type TopicSpec struct {
	Name        string
	Partitions  int               // 0: the broker's default
	Replication int               // 0: the broker's default
	Config      map[string]string // retention.ms and so on; unnamed ones stay at the broker's default
}

// Topic is a topic as it is.
type Topic struct {
	Name       string
	Partitions int
	Internal   bool
	Config     map[string]string
}

// EnsureTopics creates the topics that do not exist. Existing ones are left
// as they are, whatever their settings; see [Client.Topics].
func (c *Client) EnsureTopics(ctx context.Context, specs []TopicSpec) error {
	if len(specs) == 0 {
		return nil
	}
	err := c.retry(ctx, "create topics", func() error { return c.createTopics(ctx, specs) })
	if err != nil {
		return err
	}
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	return c.awaitTopics(ctx, names)
}

func (c *Client) createTopics(ctx context.Context, specs []TopicSpec) error {
	l, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	req := &createtopics.Request{TimeoutMs: int32(c.cfg.RequestTimeout.Milliseconds())}
	for _, s := range specs {
		if t, ok := l.topics[s.Name]; ok && t.err == nil {
			continue
		}
		req.Topics = append(req.Topics, s.request())
	}
	if len(req.Topics) == 0 {
		return nil
	}
	m, err := c.exchange(ctx, l.controller, c.cfg.RequestTimeout, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, t := range m.(*createtopics.Response).Topics {
		err := codeErr(t.ErrorCode)
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("create topic %s: %w %s", t.Name, err, t.ErrorMessage))
		}
	}
	return errors.Join(errs...)
}

func (s TopicSpec) request() createtopics.RequestTopic {
	t := createtopics.RequestTopic{Name: s.Name, NumPartitions: -1, ReplicationFactor: -1}
	if s.Partitions > 0 {
		t.NumPartitions = int32(s.Partitions)
	}
	if s.Replication > 0 {
		t.ReplicationFactor = int16(s.Replication)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Config)) {
		t.Configs = append(t.Configs, createtopics.RequestConfig{Name: k, Value: s.Config[k]})
	}
	return t
}

// awaitTopics waits until every partition of the topics has a leader.
func (c *Client) awaitTopics(ctx context.Context, names []string) error {
	return c.retry(ctx, "await topics", func() error {
		l, err := c.refresh(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			t, ok := l.topics[name]
			if !ok || t.err != nil || len(t.leaders) == 0 || slices.Contains(t.leaders, -1) {
				return fmt.Errorf("topic %s has no leader yet: %w", name, kafka.LeaderNotAvailable)
			}
		}
		return nil
	})
}

// TopicNames lists the topics, internal ones left out, sorted.
func (c *Client) TopicNames(ctx context.Context) ([]string, error) {
	l, err := c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, t := range l.topics {
		if !t.internal && t.err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Partitions returns how many partitions each named topic has now; topics
// that do not exist are absent.
func (c *Client) Partitions(ctx context.Context, topics ...string) (map[string]int, error) {
	l, err := c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int, len(topics))
	for _, name := range topics {
		if t, ok := l.topics[name]; ok && t.err == nil {
			counts[name] = len(t.leaders)
		}
	}
	return counts, nil
}

// Topics describes the named topics with all their settings, defaults
// included; topics that do not exist are left out.
func (c *Client) Topics(ctx context.Context, names ...string) ([]Topic, error) {
	l, err := c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	req := &describeconfigs.Request{}
	found := make(map[string]*Topic, len(names))
	for _, name := range names {
		t, ok := l.topics[name]
		if !ok || t.err != nil || found[name] != nil {
			continue
		}
		found[name] = &Topic{Name: name, Partitions: len(t.leaders), Internal: t.internal, Config: map[string]string{}}
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: int8(kafka.ResourceTypeTopic), ResourceName: name})
	}
	if len(found) == 0 {
		return nil, nil
	}
	m, err := c.exchange(ctx, anyBroker, 0, req)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	for _, r := range m.(*describeconfigs.Response).Resources {
		if err := codeErr(r.ErrorCode); err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", r.ResourceName, err)
		}
		for _, e := range r.ConfigEntries {
			found[r.ResourceName].Config[e.ConfigName] = e.ConfigValue
		}
	}
	out := make([]Topic, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, *found[name])
	}
	return out, nil
}

// Offsets is the range of a partition: [First, Last).
type Offsets struct {
	First int64 // first offset that exists
	Last  int64 // the high watermark: one past the last replicated record
}

// listed timestamps with a meaning of their own.
const (
	latest   int64 = -1
	earliest int64 = -2
)

// Offsets returns the range of each partition.
func (c *Client) Offsets(ctx context.Context, tps ...TopicPartition) (map[TopicPartition]Offsets, error) {
	first, err := c.listOffsets(ctx, earliest, 0, tps)
	if err != nil {
		return nil, err
	}
	last, err := c.listOffsets(ctx, latest, 0, tps)
	if err != nil {
		return nil, err
	}
	out := make(map[TopicPartition]Offsets, len(tps))
	for _, tp := range tps {
		out[tp] = Offsets{First: first[tp], Last: last[tp]}
	}
	return out, nil
}

// LastStable returns for each partition the end of what read_committed may
// see: the first offset of a transaction that is still open, or the
// partition's end.
func (c *Client) LastStable(ctx context.Context, tps ...TopicPartition) (map[TopicPartition]int64, error) {
	return c.listOffsets(ctx, latest, readCommitted, tps)
}

// OffsetsAt returns for each partition the first offset whose record is not
// older than t, and the partition's end where there is none.
func (c *Client) OffsetsAt(ctx context.Context, t time.Time, tps ...TopicPartition) (map[TopicPartition]int64, error) {
	at, err := c.listOffsets(ctx, t.UnixMilli(), 0, tps)
	if err != nil {
		return nil, err
	}
	last, err := c.listOffsets(ctx, latest, 0, tps)
	if err != nil {
		return nil, err
	}
	for tp, off := range at {
		if off < 0 {
			at[tp] = last[tp]
		}
	}
	return at, nil
}

// listOffsets asks each leader once.
func (c *Client) listOffsets(ctx context.Context, timestamp int64, isolation int8, tps []TopicPartition) (map[TopicPartition]int64, error) {
	out := make(map[TopicPartition]int64, len(tps))
	err := c.retry(ctx, "list offsets", func() error {
		l, err := c.refresh(ctx)
		if err != nil {
			return err
		}
		byLeader, err := l.group(tps)
		if err != nil {
			return err
		}
		for leader, tps := range byLeader {
			if err := c.listFrom(ctx, leader, timestamp, isolation, tps, out); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (c *Client) listFrom(ctx context.Context, leader int32, timestamp int64, isolation int8, tps []TopicPartition, out map[TopicPartition]int64) error {
	req := &listoffsets.Request{ReplicaID: -1, IsolationLevel: isolation}
	for _, tp := range tps {
		i := slices.IndexFunc(req.Topics, func(t listoffsets.RequestTopic) bool { return t.Topic == tp.Topic })
		if i < 0 {
			i = len(req.Topics)
			req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: tp.Topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions,
			listoffsets.RequestPartition{Partition: tp.Partition, CurrentLeaderEpoch: -1, Timestamp: timestamp})
	}
	m, err := c.exchange(ctx, leader, 0, req)
	if err != nil {
		return fmt.Errorf("list offsets: %w", err)
	}
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, p.Partition}
			if err := codeErr(p.ErrorCode); err != nil {
				return fmt.Errorf("list offsets of %v: %w", tp, err)
			}
			out[tp] = p.Offset
		}
	}
	return nil
}

// group sorts partitions by their leaders.
func (l *layout) group(tps []TopicPartition) (map[int32][]TopicPartition, error) {
	byLeader := make(map[int32][]TopicPartition)
	for _, tp := range tps {
		leader, err := l.leader(tp)
		if err != nil {
			return nil, err
		}
		if leader < 0 {
			return nil, fmt.Errorf("%v: %w", tp, kafka.LeaderNotAvailable)
		}
		byLeader[leader] = append(byLeader[leader], tp)
	}
	return byLeader, nil
}

// AddPartitions raises the number of a topic's partitions to n. Keys that
// went to one partition may go to another from then on.
func (c *Client) AddPartitions(ctx context.Context, topic string, n int) error {
	l, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	m, err := c.exchange(ctx, l.controller, c.cfg.RequestTimeout, &createpartitions.Request{
		TimeoutMs: int32(c.cfg.RequestTimeout.Milliseconds()),
		Topics:    []createpartitions.RequestTopic{{Name: topic, Count: int32(n)}}})
	if err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	for _, r := range m.(*createpartitions.Response).Results {
		if err := codeErr(r.ErrorCode); err != nil {
			return fmt.Errorf("add partitions to %s: %w %s", topic, err, r.ErrorMessage)
		}
	}
	return c.awaitTopics(ctx, []string{topic})
}
