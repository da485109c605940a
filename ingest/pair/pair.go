package pair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// Config says how sources with a Pair are read.
type Config struct {
	Group  string // whose member does it; positions are committed under it
	Leases string // the topic of one partition whose assignment is the lease
	// Topic is how a pairs topic is to be made.
	Topic func(name string) stream.TopicSpec
	// Schemas returns what the schema registry has under an id, "" if nothing;
	// nil: there is no schema registry.
	Schemas func(ctx context.Context, id int) (string, error)

	MemoryBytes int64 // of halves that wait, of each source
	MaxRecord   int   // bytes of a pair
	MaxDead     int   // bytes that a dead letter keeps

	Every time.Duration // how often outcomes are written; 100 ms when zero
	Fence time.Duration // after so long without a commit the lease is proved before a write; 5 s when zero
	Watch time.Duration // how often new partitions are looked for; 5 s when zero
}

func (c Config) withDefaults() Config {
	for to, d := range map[*time.Duration]time.Duration{&c.Every: 100 * time.Millisecond, &c.Fence: 5 * time.Second, &c.Watch: 5 * time.Second} {
		if *to == 0 {
			*to = d
		}
	}
	return c
}

// Pairer joins the halves of all sources with a Pair while it holds the lease.
type Pairer struct {
	cfg      Config
	client   *stream.Client
	reg      *registry.Registry
	producer *stream.Producer
	scope    telemetry.Scope
	metrics  *metrics
	guards   guards

	mu     sync.Mutex
	states map[string]*Status // by namespace/name
}

// guards are what a crash would show to be missing; tests take them away.
type guards struct {
	noReadBack bool // what the pairs topic holds already is not looked at
	noHold     bool // the position is that of the newest record, whoever waits
}

// Status is how the halves of one source stand.
type Status struct {
	Namespace, Name string
	Waiting         int    // halves without the other one
	Bytes           int64  // of those
	Reason          string // why nothing moves; empty: it does
}

// New returns a pairer. Run starts it; the registry must be running.
func New(cfg Config, client *stream.Client, reg *registry.Registry, producer *stream.Producer, scope telemetry.Scope) (*Pairer, error) {
	m, err := newMetrics(scope.Meter)
	if err != nil {
		return nil, fmt.Errorf("metrics of pairs: %w", err)
	}
	return &Pairer{cfg: cfg.withDefaults(), client: client, reg: reg, producer: producer, scope: scope, metrics: m, states: map[string]*Status{}}, nil
}

// Run joins halves whenever this process holds the lease, until ctx ends.
func (p *Pairer) Run(ctx context.Context) error {
	stop, err := p.observe(p.scope.Meter)
	if err != nil {
		return fmt.Errorf("metrics of pairs: %w", err)
	}
	defer func() { _ = stop() }()
	return p.client.HoldGeneration(ctx, p.cfg.Group, p.cfg.Leases, p.hold)
}

// Statuses returns how the sources stand that this process joins halves of.
func (p *Pairer) Statuses() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Status
	for _, s := range p.states {
		out = append(out, *s)
	}
	return out
}

func (p *Pairer) update(j *job, fn func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.states[j.id()]; s != nil {
		fn(s)
	}
}

// job is one source with a Pair.
type job struct {
	definition registry.Definition
	spec       *source.Definition
	topic      string // of the pairs
}

func (j *job) id() string { return j.definition.Namespace + "/" + j.definition.Name }

// hold works on all sources until the lease ends, and anew when they change.
func (p *Pairer) hold(ctx context.Context, gen *stream.Generation) {
	for state := p.reg.State(); ctx.Err() == nil; {
		seen := state.Changed(source.Kind)
		round, end := context.WithCancel(ctx)
		var busy sync.WaitGroup
		for _, j := range p.jobs(state) {
			busy.Go(func() { p.keep(round, gen, j) })
		}
		for ctx.Err() == nil && state.Changed(source.Kind) == seen {
			next, err := p.reg.Next(ctx, state.Offset())
			if err != nil {
				break // the context ended
			}
			state = next
		}
		end()
		busy.Wait()
	}
	p.forget()
}

func (p *Pairer) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.states)
}

// jobs are the sources of a state that have a Pair, and notes their statuses.
func (p *Pairer) jobs(s *registry.State) (out []*job) {
	p.forget()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range s.List(source.Kind, "") {
		spec, err := source.ParseDefinition(d.Spec)
		if err != nil || spec.Pair == nil {
			continue // what checks definitions lets no bad one in
		}
		j := &job{d, spec, spec.Maps(d.Namespace, d.Name)}
		p.states[j.id()] = &Status{Namespace: d.Namespace, Name: d.Name}
		out = append(out, j)
	}
	return out
}

// keep works on one source, and begins anew when something fails.
func (p *Pairer) keep(ctx context.Context, gen *stream.Generation, j *job) {
	log := p.scope.Log.With("source", j.id())
	for attempt := 0; ctx.Err() == nil; attempt++ {
		began := time.Now()
		err := p.work(ctx, gen, j)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errPartitions) {
			attempt = -1
			continue
		}
		log.Warn("joining requests and responses stopped and starts again", telemetry.LogError, err)
		p.update(j, func(s *Status) { s.Reason = err.Error() })
		if time.Since(began) > time.Minute {
			attempt = 0
		}
		select {
		case <-time.After(min(100*time.Millisecond<<min(attempt, 6), 5*time.Second)):
		case <-ctx.Done():
		}
	}
}
