package stream

import (
	"context"
	"fmt"
	"sort"

	"github.com/segmentio/kafka-go/protocol/metadata"

	kafka "github.com/segmentio/kafka-go"
)

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// layout is one answer to "who leads what".
type layout struct {
	clusterID  string
	controller int32
	brokers    int
	topics     map[string]topicLayout
}

type topicLayout struct {
	err      error
	internal bool
	leaders  []int32 // by partition; −1 while there is none
}

// refresh asks the cluster for its layout and remembers it.
func (c *Client) refresh(ctx context.Context) (*layout, error) {
	l, err := c.ask(ctx, nil)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.layout = l
	c.mu.Unlock()
	return l, nil
}

// ask returns the layout of the named topics, of all when names is nil.
func (c *Client) ask(ctx context.Context, names []string) (*layout, error) {
	m, err := c.exchange(ctx, anyBroker, 0, &metadata.Request{TopicNames: names})
	if err != nil {
		return nil, fmt.Errorf("ask kafka at %v for its topics: %w", c.addr, err)
	}
	return newLayout(m.(*metadata.Response)), nil
}

func newLayout(r *metadata.Response) *layout {
	l := &layout{clusterID: r.ClusterID, controller: r.ControllerID, brokers: len(r.Brokers), topics: make(map[string]topicLayout, len(r.Topics))}
	for _, t := range r.Topics {
		tl := topicLayout{err: codeErr(t.ErrorCode), internal: t.IsInternal, leaders: make([]int32, len(t.Partitions))}
		sort.Slice(t.Partitions, func(i, j int) bool { return t.Partitions[i].PartitionIndex < t.Partitions[j].PartitionIndex })
		for i, p := range t.Partitions {
			tl.leaders[i] = p.LeaderID
			if p.ErrorCode == int16(kafka.LeaderNotAvailable) {
				tl.leaders[i] = -1
			}
		}
		l.topics[t.Name] = tl
	}
	return l
}

// cached returns the remembered layout, asking when there is none.
func (c *Client) cached(ctx context.Context) (*layout, error) {
	c.mu.Lock()
	l := c.layout
	c.mu.Unlock()
	if l != nil {
		return l, nil
	}
	return c.refresh(ctx)
}

// leader returns the broker that leads a partition, −1 while there is none.
func (l *layout) leader(tp TopicPartition) (int32, error) {
	t, ok := l.topics[tp.Topic]
	if !ok || int(tp.Partition) >= len(t.leaders) {
		return -1, fmt.Errorf("%v: %w", tp, ErrUnknownTopic)
	}
	return t.leaders[tp.Partition], nil
}

// leader returns the broker that leads a partition, by the remembered layout
// where it knows one.
func (c *Client) leader(ctx context.Context, tp TopicPartition) (int32, error) {
	l, err := c.cached(ctx)
	if err != nil {
		return -1, err
	}
	leader, err := l.leader(tp)
	if err != nil { // created since, perhaps
		if l, err = c.refresh(ctx); err == nil {
			leader, err = l.leader(tp)
		}
	}
	if err == nil && leader < 0 {
		err = fmt.Errorf("%v: %w", tp, kafka.LeaderNotAvailable)
	}
	return leader, err
}

// leads is the leader of a partition by the remembered layout, −1 where that knows
// none. It asks nobody.
func (c *Client) leads(tp TopicPartition) int32 {
	c.mu.Lock()
	l := c.layout
	c.mu.Unlock()
	if l == nil {
		return -1
	}
	leader, err := l.leader(tp)
	if err != nil {
		return -1
	}
	return leader
}
