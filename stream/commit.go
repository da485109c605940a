package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// Committed is where a group stands in a partition.
type Committed struct {
	Offset   int64  // −1: nothing was ever committed, or it expired
	Metadata string // what was committed beside it
}

// OffsetCommit is one position to commit. Brokers refuse metadata of more than
// 4,096 bytes unless set otherwise.
type OffsetCommit struct {
	TopicPartition
	Offset   int64
	Metadata string
}

// Committed returns where a group stands in the given partitions.
func (c *Client) Committed(ctx context.Context, group string, tps ...TopicPartition) (map[TopicPartition]Committed, error) {
	out := make(map[TopicPartition]Committed, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	req := &offsetfetch.Request{GroupID: group}
	for _, tp := range tps {
		i := slices.IndexFunc(req.Topics, func(t offsetfetch.RequestTopic) bool { return t.Name == tp.Topic })
		if i < 0 {
			i = len(req.Topics)
			req.Topics = append(req.Topics, offsetfetch.RequestTopic{Name: tp.Topic})
		}
		req.Topics[i].PartitionIndexes = append(req.Topics[i].PartitionIndexes, tp.Partition)
	}
	err := c.retry(ctx, "fetch committed offsets", func() error { return c.fetchCommitted(ctx, req, out) })
	if err != nil {
		return nil, fmt.Errorf("committed offsets of group %s: %w", group, err)
	}
	return out, nil
}

func (c *Client) fetchCommitted(ctx context.Context, req *offsetfetch.Request, out map[TopicPartition]Committed) error {
	coordinator, err := c.coordinator(ctx, req.GroupID)
	if err != nil {
		return err
	}
	m, err := c.exchange(ctx, coordinator, 0, req)
	if err != nil {
		return err
	}
	res := m.(*offsetfetch.Response)
	err = codeErr(res.ErrorCode)
	if errors.Is(err, kafka.GroupIdNotFound) { // it has no member and no commit yet
		for _, t := range req.Topics {
			for _, p := range t.PartitionIndexes {
				out[TopicPartition{t.Name, p}] = Committed{Offset: -1}
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if err := codeErr(p.ErrorCode); err != nil {
				return err
			}
			out[TopicPartition{t.Name, p.PartitionIndex}] = Committed{Offset: p.CommittedOffset, Metadata: p.Metadata}
		}
	}
	return nil
}

// coordinator returns the broker that keeps a group.
func (c *Client) coordinator(ctx context.Context, group string) (int32, error) {
	m, err := c.exchange(ctx, anyBroker, 0, &findcoordinator.Request{Key: group})
	if err != nil {
		return -1, fmt.Errorf("find the coordinator of group %s: %w", group, err)
	}
	res := m.(*findcoordinator.Response)
	if err := codeErr(res.ErrorCode); err != nil {
		return -1, fmt.Errorf("find the coordinator of group %s: %w", group, err)
	}
	return res.NodeID, nil
}

// Commit stores positions for the group, all or none of one generation:
// [ErrFenced] when the generation is over. Broken connections and moving
// coordinators are retried until ctx ends; a commit that failed for another
// reason may or may not have been stored.
func (g *Generation) Commit(ctx context.Context, commits []OffsetCommit) error {
	if len(commits) == 0 {
		return nil
	}
	req := &offsetcommit.Request{GroupID: g.group, GenerationID: g.ID, MemberID: g.MemberID, RetentionTimeMs: -1}
	for _, oc := range commits {
		i := slices.IndexFunc(req.Topics, func(t offsetcommit.RequestTopic) bool { return t.Name == oc.Topic })
		if i < 0 {
			i = len(req.Topics)
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: oc.Topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, offsetcommit.RequestPartition{
			PartitionIndex: oc.Partition, CommittedOffset: oc.Offset, CommittedMetadata: oc.Metadata, CommittedLeaderEpoch: -1})
	}
	err := g.c.retry(ctx, "commit offsets", func() error { return g.commit(ctx, req) })
	if err != nil && fenced(err) {
		g.refused()
		return fmt.Errorf("commit for group %s in generation %d: %w (%w)", g.group, g.ID, ErrFenced, err)
	}
	if err != nil {
		return fmt.Errorf("commit for group %s in generation %d: %w", g.group, g.ID, err)
	}
	return nil
}

func (g *Generation) commit(ctx context.Context, req *offsetcommit.Request) error {
	coordinator, err := g.c.coordinator(ctx, g.group)
	if err != nil {
		return err
	}
	m, err := g.c.exchange(ctx, coordinator, 0, req)
	if err != nil {
		return err
	}
	for _, t := range m.(*offsetcommit.Response).Topics {
		for _, p := range t.Partitions {
			if err := codeErr(p.ErrorCode); err != nil {
				return fmt.Errorf("%v: %w", TopicPartition{t.Name, p.PartitionIndex}, err)
			}
		}
	}
	return nil
}
