package features

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// TailConfig says what a process tails.
type TailConfig struct {
	Namespaces []string            // whose feature topics; they must exist
	Decoder    event.DecoderConfig // must be the one that ingest has; zero: the default
	Refresh    time.Duration       // how often rows that became due are let in and expired ones go; default 1 s
	KeepDead   time.Duration       // how long a row stays after its ttl; default 24 h
	Latest     LatestFunc          // where stored rows come from; nil: the topics are read from their beginning
	Stored     StoredFunc          // up to where foreign topics are stored; nil: they are read from their beginning
	Schemas    SchemaFunc          // what a schema registry has under an id; nil: there is none
	HashKey    []byte              // of sources' hashed fields
	Events     *EventSource        // where the events of window views come from; nil: the topics
	IDs        int64               // offsets for which window views remember event ids; must be ingest's; default 1,000,000, -1: none
	Patience   time.Duration       // how long rows of a view without definition hold up their partition; default 30 s
	Now        func() int64        // µs; nil: the machine's clock
	Scope      telemetry.Scope
}

// keepDead is how long a row stays after its ttl.
const keepDead = 24 * time.Hour

// Tail keeps the online tables fresh from the feature topics, and from the
// topics that sources map to features, without a
// consumer group: every serving process reads every partition. Rows are applied
// when they are decoded, before anybody stores them.
type Tail struct {
	cfg      TailConfig
	client   *stream.Client
	registry *registry.Registry
	online   *Online

	mu        sync.Mutex
	moved     chan struct{} // closed and replaced when anything below changes
	positions map[stream.TopicPartition]*position
	filled    bool

	complete map[uint64]int64 // views whose stored rows a shared store has, and their ttl; of the goroutine that keeps
	pending  *pending         // what is to be recorded there next; likewise

	foreign   map[string]foreignTopic // as of the registry offset foreignAt
	foreignAt int64
}

type position struct {
	next  int64 // applied up to here
	read  int64 // where reading stands: behind next while something is read again
	goal  int64 // the log's end when the tail started: readiness waits for it
	start int64
	first int64 // of the log when the tail started
}

// LatestFunc calls apply with batches of rows until the newest stored row of
// every key of a view is through, and returns, by partition of the topic, the
// offset up to which that covers the log.
type LatestFunc func(ctx context.Context, s *event.Schema, topic string, apply func(*event.Batch) error) (next map[int32]int64, err error)

// StoredFunc says, by partition, up to which offset the rows of a topic are
// stored.
type StoredFunc func(ctx context.Context, topic string) (next map[int32]int64, err error)

// SchemaFunc returns a schema's text by its id in the schema registry.
type SchemaFunc func(ctx context.Context, id int) (text string, err error)

// NewTail makes a tail.
func NewTail(cfg TailConfig, c *stream.Client, r *registry.Registry, o *Online) *Tail {
	if cfg.Refresh == 0 {
		cfg.Refresh = time.Second
	}
	if cfg.KeepDead == 0 {
		cfg.KeepDead = keepDead
	}
	if cfg.Decoder == (event.DecoderConfig{}) {
		cfg.Decoder = event.DefaultDecoderConfig()
	}
	if cfg.Patience == 0 {
		cfg.Patience = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = func() int64 { return time.Now().UnixMicro() }
	}
	if cfg.IDs != 0 {
		o.ids = max(cfg.IDs, 0)
	}
	return &Tail{cfg: cfg, client: c, registry: r, online: o, moved: make(chan struct{}), positions: map[stream.TopicPartition]*position{}}
}

// Run fills the tables and follows the log until ctx ends (nil) or something
// fails that waiting does not heal.
func (t *Tail) Run(ctx context.Context) error {
	if err := t.watch(t.cfg.Scope.Meter); err != nil {
		return fmt.Errorf("tail features: register metrics: %w", err)
	}
	if err := t.outlast(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("tail features: %w", err)
	}
	return nil
}

func (t *Tail) run(ctx context.Context) error {
	state := t.registry.State()
	t.define(state)
	starts, err := t.starts(ctx, state)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.followRegistry(ctx, state.Offset()) })
	g.Go(func() error { return t.keep(ctx) })
	g.Go(func() error { return t.follow(ctx, starts, state) })
	if shared := t.online.shared; shared != nil {
		g.Go(func() error { return shared.watch(ctx) })
	}
	return g.Wait()
}

func (t *Tail) define(s *registry.State) {
	if err := t.online.Define(s); err != nil {
		t.cfg.Scope.Log.Warn("some feature definitions cannot be used", telemetry.LogError, err)
	}
}

// followRegistry keeps definitions up to date.
func (t *Tail) followRegistry(ctx context.Context, last int64) error {
	for {
		s, err := t.registry.Next(ctx, last)
		if err != nil {
			return ctx.Err()
		}
		last = s.Offset()
		if err := t.changeOver(ctx, s); err != nil {
			return err
		}
		t.define(s)
		t.mu.Lock()
		t.wake()
		t.mu.Unlock()
	}
}

// changeOver loads stored rows into the tables of new versions of views, once
// they are converted. Rows of the log are in them already.
func (t *Tail) changeOver(ctx context.Context, s *registry.State) error {
	for _, v := range t.online.changingOver(s) {
		for t.cfg.Latest != nil {
			_, err := t.cfg.Latest(ctx, v.next.state().Schema(), FeatureTopic(v.Schema.Namespace), func(b *event.Batch) error { return v.next.apply(ctx, b, t.cfg.Now()) })
			if err == nil {
				break
			}
			t.cfg.Scope.Log.Warn("a new version of a view is not online yet", "view", v.Name, telemetry.LogError, err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		t.online.loaded[v.next.state().Schema().TableID] = true
	}
	return nil
}

// keep lets in what became due and evicts what nobody can read any more.
func (t *Tail) keep(ctx context.Context) error {
	tick := time.NewTicker(t.cfg.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := t.cfg.Now()
		for _, v := range t.online.Views("") {
			if v.windows != nil {
				v.windows.admit(now)
				v.windows.sweep(now)
				continue
			}
			if err := v.table.tidy(ctx, now, t.cfg.KeepDead); err != nil {
				break // rows of a shared store that is away: the next tick comes
			}
		}
		if err := t.record(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrStoreAway) {
			return err
		}
	}
}

// wake tells waiters that something changed; t.mu is held.
func (t *Tail) wake() {
	close(t.moved)
	t.moved = make(chan struct{})
}

// Wait blocks until the tail has applied everything of a partition before an
// offset.
func (t *Tail) Wait(ctx context.Context, tp stream.TopicPartition, next int64) error {
	for {
		t.mu.Lock()
		p, moved := t.positions[tp], t.moved
		at := int64(-1)
		if p != nil {
			at = p.next
		}
		t.mu.Unlock()
		if at >= next {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for %v to reach offset %d, at %d now: %w", tp, next, at, context.Cause(ctx))
		}
	}
}

// Progress is how far a starting tail is.
type Progress struct {
	Ready   bool  `json:"ready"`
	Filled  bool  `json:"filled"`  // stored rows are loaded
	Behind  int64 `json:"behind"`  // records between the tail and the log's end when it started
	Records int64 `json:"records"` // of them applied
}

// Progress reports how far the tail is; it is ready once it has passed what was
// in the log when it started.
func (t *Tail) Progress() Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Progress{Filled: t.filled}
	for _, at := range t.positions {
		p.Behind += max(at.goal-at.next, 0)
		p.Records += min(at.next, at.goal) - at.start
	}
	p.Ready = t.filled && p.Behind == 0
	return p
}

// Ready says why requests cannot be answered yet.
func (t *Tail) Ready() error {
	if shared := t.online.shared; shared != nil {
		if err := shared.ready(); err != nil {
			return err
		}
	}
	if p := t.Progress(); !p.Ready {
		return fmt.Errorf("the online tables are still loading: stored rows loaded: %v, %d records behind", p.Filled, p.Behind)
	}
	return nil
}
