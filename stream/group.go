package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// GroupConfig says which topics a member wants and how quickly a lost member
// is noticed.
type GroupConfig struct {
	ID     string
	Topics []string                // these; those that do not exist yet are joined when they do
	Match  func(topic string) bool // and all whose name it accepts; may be nil

	Session   time.Duration // without a heartbeat for this long a member is dead; 10 s when zero
	Heartbeat time.Duration // 1 s when zero
	Rebalance time.Duration // how long others wait for a member to let go; 30 s when zero
	Watch     time.Duration // how often new topics and partitions are looked for; 5 s when zero
}

func (c GroupConfig) withDefaults() GroupConfig {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Session, 10*time.Second)
	set(&c.Heartbeat, time.Second)
	set(&c.Rebalance, 30*time.Second)
	set(&c.Watch, 5*time.Second)
	return c
}

// Group is this process's membership in a consumer group.
type Group struct {
	c   *Client
	cfg GroupConfig

	last *Generation // that Next returned; nil before the first

	mu      sync.Mutex
	cg      *kafka.ConsumerGroup // nil while nothing is subscribed
	topics  map[string]int       // subscribed: partitions when we joined
	release chan struct{}        // closed when the owner let go of the last generation
	closed  chan struct{}
	once    sync.Once
}

// JoinGroup makes this process a member. It returns at once; the first
// [Group.Next] waits for an assignment.
func (c *Client) JoinGroup(ctx context.Context, cfg GroupConfig) (*Group, error) {
	if cfg.ID == "" || (len(cfg.Topics) == 0 && cfg.Match == nil) {
		return nil, errors.New("join group: an id and topics (or a match) are needed")
	}
	return &Group{c: c, cfg: cfg.withDefaults(), closed: make(chan struct{})}, ctx.Err()
}

// Generation is one assignment of partitions to members. It ends when members
// come or go, when topics or partitions appear, or when the broker loses this
// member; then Done is closed, and its commits turn into [ErrFenced] once
// another generation has begun. A commit that is fenced ends it, too.
type Generation struct {
	ID       int32
	MemberID string
	Assigned map[TopicPartition]Committed
	Done     <-chan struct{}

	c       *Client
	group   string
	refused context.CancelFunc // called when a commit is fenced
}

// Next waits for the next generation. Calling it says that all work of the
// previous one has stopped: until then this member does not join again, so
// that a partition's last commit can still be made while others wait. A
// generation that has not ended ends here.
// It fails when ctx ends, when the group is closed, and on errors that waiting
// does not heal.
func (g *Group) Next(ctx context.Context) (*Generation, error) {
	if err := g.awaitCoordinator(ctx); err != nil {
		return nil, err
	}
	g.letGo()
	for attempt := 0; ; attempt++ {
		gen, err := g.next(ctx)
		switch {
		case err == nil && gen != nil:
			return gen, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case g.isClosed():
			return nil, fmt.Errorf("group %s: %w", g.cfg.ID, ErrClosed)
		case err != nil && !transient(err) && !fenced(err):
			return nil, fmt.Errorf("group %s: %w", g.cfg.ID, err)
		}
		if err != nil {
			g.c.log.Warn("group not joined yet", "group", g.cfg.ID, "error", err)
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

// awaitCoordinator waits until the group's coordinator answers. The library
// leaves the group and forgets its member id when it cannot reach it at once,
// and the member left behind keeps the others waiting for its session timeout.
func (g *Group) awaitCoordinator(ctx context.Context) error {
	err := g.c.retry(ctx, "await the coordinator", func() error {
		if g.isClosed() {
			return ErrClosed
		}
		return g.c.fetchCommitted(ctx, &offsetfetch.Request{GroupID: g.cfg.ID, Topics: []offsetfetch.RequestTopic{}}, nil)
	})
	if err != nil {
		return fmt.Errorf("group %s: %w", g.cfg.ID, err)
	}
	return nil
}

// next makes one attempt; nil, nil means that it should be repeated.
func (g *Group) next(ctx context.Context) (*Generation, error) {
	cg, err := g.subscribe(ctx)
	if err != nil || cg == nil {
		return nil, err
	}
	stop := g.keepAlive(ctx)
	kg, err := cg.Next(ctx)
	stop()
	if err != nil {
		return nil, err
	}
	gen := &Generation{ID: kg.ID, MemberID: kg.MemberID, c: g.c, group: g.cfg.ID}
	refused, refuse := context.WithCancel(context.Background())
	gen.refused = refuse
	gen.Done = g.hold(kg, refused.Done())
	if gen.Assigned, err = g.committed(ctx, kg); err != nil {
		g.letGo()
		return nil, err
	}
	g.last = gen
	return gen, nil
}

// keepAlive heartbeats in the name of the last generation while this member
// waits for the next one, until stop is called. Kafka keeps a member that waits
// in a rebalance; the embedded broker's coordinator ends its session, and never
// answers its request to join.
func (g *Group) keepAlive(ctx context.Context) (stop func()) {
	if g.last == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, g.cfg.Heartbeat) == nil {
			if err := g.last.heartbeat(ctx); fenced(err) && !errors.Is(err, kafka.RebalanceInProgress) {
				return // the next generation has begun, or this member is none any more
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (g *Generation) heartbeat(ctx context.Context) error {
	coordinator, err := g.c.coordinator(ctx, g.group)
	if err != nil {
		return err
	}
	m, err := g.c.exchange(ctx, coordinator, 0, &heartbeat.Request{GroupID: g.group, GenerationID: g.ID, MemberID: g.MemberID})
	if err != nil {
		return err
	}
	return codeErr(m.(*heartbeat.Response).ErrorCode)
}

// hold ties goroutines to the library's generation: one ends it when topics
// or partitions change, one when the owner let go, and not before, so that this
// member does not join again under the owner's work. The returned channel closes
// when the generation ends.
//
// The library ends a generation when a heartbeat fails, and those may go on while
// a commit is refused: a coordinator that stood still longer than the session
// refuses it with what it knew before it learns that another broker keeps the
// group now. Waiting for the library alone would then last for ever.
func (g *Group) hold(kg *kafka.Generation, refused <-chan struct{}) <-chan struct{} {
	done := make(chan struct{})
	release := make(chan struct{})
	g.mu.Lock()
	g.release = release
	g.mu.Unlock()
	kg.Start(func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-refused:
		case <-release:
		}
		close(done)
		select {
		case <-release:
		case <-g.closed:
		}
	})
	kg.Start(g.watch)
	return done
}

func (g *Group) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.release != nil {
		close(g.release)
		g.release = nil
	}
}

// Close leaves the group. Its generation ends; Next returns [ErrClosed].
func (g *Group) Close() error {
	g.once.Do(func() { close(g.closed) })
	g.mu.Lock()
	cg := g.cg
	g.cg = nil
	g.mu.Unlock()
	if cg == nil {
		return nil
	}
	return cg.Close()
}

func (g *Group) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// watch returns, and so ends the generation, when the topics that the group
// wants have changed since it joined.
func (g *Group) watch(ctx context.Context) {
	for pause(ctx, g.cfg.Watch) == nil {
		now, err := g.wanted(ctx)
		if err == nil && !g.subscribed(now) {
			return
		}
	}
}

// subscribed reports whether now is what the group joined with.
func (g *Group) subscribed(now map[string]int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(now) != len(g.topics) {
		return false
	}
	for name, n := range now {
		if g.topics[name] != n {
			return false
		}
	}
	return true
}

// wanted returns the existing topics that the group should read, and how many
// partitions each has.
func (g *Group) wanted(ctx context.Context) (map[string]int, error) {
	l, err := g.c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int)
	for name, t := range l.topics {
		if t.err == nil && len(t.leaders) > 0 && g.wants(name, t.internal) {
			out[name] = len(t.leaders)
		}
	}
	return out, nil
}

func (g *Group) wants(name string, internal bool) bool {
	return slices.Contains(g.cfg.Topics, name) || (!internal && g.cfg.Match != nil && g.cfg.Match(name))
}

// subscribe returns the library's group for the topics that exist now. The
// library's own list is fixed, and a single missing topic empties every
// assignment, so the membership is renewed when the list changes. The layout
// is read before joining: what appears later is then always noticed.
func (g *Group) subscribe(ctx context.Context) (*kafka.ConsumerGroup, error) {
	now, err := g.wanted(ctx)
	if err != nil {
		return nil, err
	}
	cg, old := g.swap(now)
	if old != nil {
		old.Close()
	}
	if cg != nil || len(now) == 0 {
		return cg, nil
	}
	if cg, err = kafka.NewConsumerGroup(g.config(now)); err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.cg = cg
	g.mu.Unlock()
	if g.isClosed() { // Close ran meanwhile and did not see it
		cg.Close()
		return nil, ErrClosed
	}
	return cg, nil
}

// swap notes what is subscribed now and returns the library's group to go on
// with, or the one to close.
func (g *Group) swap(now map[string]int) (current, old *kafka.ConsumerGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	same := sameTopics(now, g.topics)
	g.topics = now
	if same {
		return g.cg, nil
	}
	old, g.cg = g.cg, nil
	return nil, old
}

func sameTopics(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			return false
		}
	}
	return true
}

func (g *Group) config(topics map[string]int) kafka.ConsumerGroupConfig {
	cfg := kafka.ConsumerGroupConfig{
		ID:                g.cfg.ID,
		Brokers:           []string{anyAddress},
		Dialer:            g.c.dialer(),
		GroupBalancers:    []kafka.GroupBalancer{spread{}, kafka.RoundRobinGroupBalancer{}, kafka.RangeGroupBalancer{}},
		HeartbeatInterval: g.cfg.Heartbeat,
		SessionTimeout:    g.cfg.Session,
		RebalanceTimeout:  g.cfg.Rebalance,
		JoinGroupBackoff:  200 * time.Millisecond,
		Timeout:           g.c.cfg.RequestTimeout,
	}
	for name := range topics {
		cfg.Topics = append(cfg.Topics, name)
	}
	slices.Sort(cfg.Topics)
	return cfg
}

// committed asks where the group stands in the partitions of an assignment.
func (g *Group) committed(ctx context.Context, kg *kafka.Generation) (map[TopicPartition]Committed, error) {
	var tps []TopicPartition
	for topic, parts := range kg.Assignments {
		for _, p := range parts {
			tps = append(tps, TopicPartition{topic, int32(p.ID)})
		}
	}
	return g.c.Committed(ctx, g.cfg.ID, tps...)
}
