package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/internal/failpoint"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// errReplan says that a partition's position must be decided anew: an epoch
// was opened.
var errReplan = errors.New("an epoch was opened")

// Consumer is one member of the ingest group.
type Consumer struct {
	cfg       Config
	client    *stream.Client
	reg       *registry.Registry
	sink      Sink
	scope     telemetry.Scope
	defs      *definitions
	pace      *pace
	metrics   *metrics
	writing   *fairQueue   // of inserts, among namespaces
	buckets   *buckets     // of events, by namespace
	deadBytes atomic.Int64 // see Config.DeadLetterBytes
	usage     *usage       // of rows and bytes, by namespace
	dead      *deadCaps    // of dead letters, by namespace
	points    *failpoint.Set
	guards    guards
	cluster   string
	held      atomic.Int64 // bytes of keys and values in all units

	mu         sync.Mutex
	generation int32
	waiting    string
	states     map[stream.TopicPartition]*state
	fetcher    *stream.Fetcher
}

// guards are what keeps a repeated unit from being stored twice or not at all.
// Tests take them away to see that they can fail.
type guards struct {
	noTokens  bool // every attempt gets tokens of its own
	noIntent  bool // a pending unit is not repeated as it was
	noLedger  bool // the position is the group's commit alone
	noOrphans bool // rows that nothing explains are not looked for
	noCount   bool // a repeated unit counts as stored when its inserts succeed
	noFence   bool // a member that slept does not ask whether the partition is still its own
}

// New returns a consumer. Run starts it.
func New(cfg Config, client *stream.Client, reg *registry.Registry, sink Sink, scope telemetry.Scope) (*Consumer, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	points, err := failpoint.FromEnv()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(scope.Meter)
	if err != nil {
		return nil, fmt.Errorf("ingest metrics: %w", err)
	}
	out := &Consumer{cfg: cfg, client: client, reg: reg, sink: sink, scope: scope, defs: newDefinitions(reg), pace: newPace(cfg),
		metrics: m, writing: newFairQueue(cfg.Writers, false), buckets: newBuckets(), usage: newUsage(), dead: newDeadCaps(), points: points, waiting: "not running", states: map[stream.TopicPartition]*state{}}
	out.SetDeadLetterBytes(cfg.DeadLetterBytes)
	return out, nil
}

// Run takes part in the group until the context ends: it then finishes the
// units under way, within Config.DrainTimeout, commits and leaves. It returns
// an error only for what waiting does not heal. The registry must be running.
func (c *Consumer) Run(ctx context.Context) error {
	stop, err := c.observe(c.scope.Meter)
	if err != nil {
		return fmt.Errorf("ingest metrics: %w", err)
	}
	defer func() { _ = stop() }()
	defer c.waits("stopped")
	c.waits("reaching the broker")
	if err := c.insist(ctx, nil, "ask for the cluster's id", c.identify); err != nil {
		return nil // only the context ends insisting
	}
	group, err := c.client.JoinGroup(ctx, stream.GroupConfig{ID: c.cfg.Group, Match: c.reads,
		Session: c.cfg.Session, Heartbeat: c.cfg.Heartbeat, Rebalance: c.cfg.Rebalance})
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	defer group.Close()
	for {
		c.assigned(0, nil)
		c.waits("waiting for an assignment of the group")
		gen, err := group.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ingest: %w", err)
		}
		c.serve(ctx, gen)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (c *Consumer) reads(topic string) bool {
	_, ok := c.route(topic)
	return ok
}

func (c *Consumer) identify(ctx context.Context) (err error) {
	c.cluster, err = c.client.ClusterID(ctx)
	return err
}

func (c *Consumer) waits(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = reason
}

// assigned notes what the status is about.
func (c *Consumer) assigned(generation int32, parts []*partition) {
	states := make(map[stream.TopicPartition]*state, len(parts))
	for _, p := range parts {
		states[p.tp] = p.state
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation, c.states, c.fetcher = generation, states, nil
}

// serve works on one generation until it ends.
func (c *Consumer) serve(ctx context.Context, gen *stream.Generation) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-gen.Done:
			cancel()
		case <-over:
		}
	}()
	alone := c.alone(time.Now())
	for attempt := 0; ctx.Err() == nil; attempt++ {
		started := time.Now()
		err := c.work(ctx, gen, alone)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, stream.ErrFenced):
			c.scope.Log.Info("lost the partitions", telemetry.LogError, err)
			return
		case errors.Is(err, errReplan):
			attempt = 0
			continue
		}
		if err != nil && ctx.Err() == nil {
			c.waits(err.Error())
			c.scope.Log.Error("ingest stopped and starts again", telemetry.LogError, err)
		}
		if time.Since(started) > time.Minute {
			attempt = 0
		}
		_ = pause(ctx, backoff(attempt))
	}
}

// alone says from when on nobody else writes into the partitions of a
// generation that has begun: a member of the one before finds out at its next
// fence, and what it has sent by then ends with its time limit.
func (c *Consumer) alone(began time.Time) time.Time {
	if c.cfg.OwnStore {
		return began
	}
	return began.Add(c.cfg.FenceAfter + c.cfg.InsertTimeout)
}

// work finds the position of every assigned partition and carries records from
// there on, until the context ends (nil) or something fails.
func (c *Consumer) work(ctx context.Context, gen *stream.Generation, alone time.Time) error {
	before := c.reg.State().Changed(EpochKind)
	var parts []*partition
	for _, tp := range slices.SortedFunc(maps.Keys(gen.Assigned), compareTP) {
		parts = append(parts, c.newPartition(gen, tp, len(parts), alone))
	}
	c.assigned(gen.ID, parts)
	c.held.Store(0)
	c.waits("finding the position of each partition")
	if err := c.position(ctx, parts); err != nil {
		return err
	}
	c.waits("")
	g, inner := errgroup.WithContext(ctx)
	writing, stop := c.drain(inner)
	defer stop()
	starts := map[stream.TopicPartition]int64{}
	byName := map[stream.TopicPartition]*partition{}
	for _, p := range parts {
		if !p.state.get().Refused {
			starts[p.tp], byName[p.tp] = p.fetchFrom(), p
			g.Go(func() error { return p.read(inner) })
			g.Go(func() error { return p.write(inner, writing) })
		}
	}
	g.Go(func() error { return c.fetch(inner, starts, byName) })
	g.Go(func() error { return c.watchEpochs(inner, before) })
	return g.Wait()
}

func compareTP(a, b stream.TopicPartition) int {
	if a.Topic != b.Topic {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	}
	return int(a.Partition - b.Partition)
}

// position prepares all partitions, some at a time.
func (c *Consumer) position(ctx context.Context, parts []*partition) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	l := newLarge(c.cfg)
	for _, p := range parts {
		p.limits(c.cfg, len(parts), l)
		g.Go(func() error { return p.assign(ctx) })
	}
	return g.Wait()
}

// drain returns a context for writing that outlives ctx by the drain timeout.
func (c *Consumer) drain(ctx context.Context) (context.Context, func()) {
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(c.cfg.DrainTimeout, cancel)
	})
	return writing, func() {
		stop()
		cancel()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
	}
}

// fetch reads all partitions and hands their batches to their readers.
func (c *Consumer) fetch(ctx context.Context, starts map[stream.TopicPartition]int64, parts map[stream.TopicPartition]*partition) error {
	if len(starts) == 0 {
		<-ctx.Done()
		return nil
	}
	f := c.client.NewFetcher(stream.FetchConfig{})
	c.mu.Lock()
	c.fetcher = f
	c.mu.Unlock()
	return f.Run(ctx, starts, func(ctx context.Context, b *stream.Batch) error {
		select {
		case parts[b.TopicPartition].in <- b:
			return nil
		case <-ctx.Done():
			b.Release()
			return ctx.Err()
		}
	})
}

// watchEpochs ends the work when an epoch is opened.
func (c *Consumer) watchEpochs(ctx context.Context, before int64) error {
	s := c.reg.State()
	for {
		if s.Changed(EpochKind) > before {
			return errReplan
		}
		var err error
		if s, err = c.reg.Next(ctx, s.Offset()); err != nil {
			return nil // the context ended
		}
	}
}

// insist repeats fn until it succeeds, the partition is lost or the context
// ends, and says meanwhile what it waits for.
func (c *Consumer) insist(ctx context.Context, p *partition, what string, fn func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		err := attemptOf(ctx, p, what, fn)
		if err == nil {
			if attempt > 0 && p != nil {
				p.state.waits("")
			}
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, stream.ErrFenced) || errors.Is(err, errReplan) {
			return fmt.Errorf("%s: %w", what, err)
		}
		c.troubled(ctx, p, what, err, attempt)
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// quietAfter is how long an attempt may take before the status says so.
const quietAfter = 30 * time.Second

// attemptOf runs fn once. While it has been running for long, the status names
// it: a store that answers nothing is the other way to stand still. A partition
// that waits for a quota has a reason already.
func attemptOf(ctx context.Context, p *partition, what string, fn func(context.Context) error) error {
	if p == nil {
		return fn(ctx)
	}
	var mu sync.Mutex
	ended, told := false, false
	watch := time.AfterFunc(quietAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended && p.state.get().Throttled == "" {
			p.state.waits(fmt.Sprintf("%s: no answer for %v", what, quietAfter))
			told = true
		}
	})
	err := fn(ctx)
	watch.Stop()
	mu.Lock()
	defer mu.Unlock()
	if ended = true; told {
		p.state.waits("")
	}
	return err
}

func (c *Consumer) troubled(ctx context.Context, p *partition, what string, err error, attempt int) {
	c.metrics.retries.Add(ctx, 1)
	log := c.scope.Log
	if p != nil {
		p.state.failed(what+": "+err.Error(), err, time.Now())
		log = log.With(telemetry.LogTopic, p.tp.Topic, telemetry.LogPartition, p.tp.Partition)
	} else {
		c.waits(what + ": " + err.Error())
	}
	if attempt&(attempt+1) == 0 { // the 1st, 2nd, 4th, 8th … time
		log.Warn("trying again: "+what, telemetry.LogError, err, "attempt", attempt+1)
	}
}

// backoff is 50 ms, doubling to 5 s, give or take a fifth.
func backoff(attempt int) time.Duration {
	d := min(50*time.Millisecond<<min(attempt, 7), 5*time.Second)
	return d*4/5 + rand.N(d*2/5)
}

// pause waits d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isStale(err error) bool { return errors.Is(err, registry.ErrStale) }
