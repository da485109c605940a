package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// errPartitions says that a foreign topic has other partitions than it had.
var errPartitions = errors.New("the topic has new partitions")

// session reads one source from a position on.
type session struct {
	p       *Pairer
	j       *job
	gen     *stream.Generation
	readers map[stream.TopicPartition]*source.HalfReader
	proved  time.Time // of the lease; the writer's

	mu   sync.Mutex
	pool *pool
	room *sync.Cond // the outcomes were taken, or the session ended
	over bool
}

// outBytes is how much may wait to be written.
const outBytes = 4 << 20

// work joins the halves of a source until the context ends or something fails.
func (p *Pairer) work(ctx context.Context, gen *stream.Generation, j *job) error {
	s := &session{p: p, j: j, gen: gen, readers: map[stream.TopicPartition]*source.HalfReader{},
		pool: newPool(j.spec.Pair.WaitMicros(), p.cfg.MemoryBytes, p.cfg.MaxRecord)}
	s.room = sync.NewCond(&s.mu)
	if err := s.begin(ctx); err != nil {
		return err
	}
	starts := map[stream.TopicPartition]int64{}
	for tp, l := range s.pool.lanes {
		reader, err := source.NewHalfReader(j.spec)
		if err != nil {
			return err
		}
		s.readers[tp], starts[tp] = reader, l.next
	}
	p.update(j, func(s *Status) { s.Reason = "" })
	g, inner := errgroup.WithContext(ctx)
	stop := context.AfterFunc(inner, s.end)
	defer stop()
	g.Go(func() error {
		return p.client.NewFetcher(stream.FetchConfig{BufferBytes: 16 << 20}).Run(inner, starts, s.take)
	})
	g.Go(func() error { return s.write(inner) })
	g.Go(func() error { return s.watch(inner, len(starts)) })
	return g.Wait()
}

func (s *session) end() {
	s.mu.Lock()
	s.over = true
	s.room.Broadcast()
	s.mu.Unlock()
}

// watch ends the session when a topic gets partitions.
func (s *session) watch(ctx context.Context, n int) error {
	tick := time.NewTicker(s.p.cfg.Watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if tps, err := s.partitions(ctx); err == nil && len(tps) != n {
			return errPartitions
		}
	}
}

// take adds a batch's records to the pool.
func (s *session) take(ctx context.Context, b *stream.Batch) error {
	defer b.Release()
	if b.Missing > 0 {
		s.p.metrics.missing.Add(ctx, b.Missing, s.labels())
		s.p.scope.Log.Error("retention removed records before they were paired", telemetry.LogTopic, b.Topic, telemetry.LogPartition, b.Partition, "missing", b.Missing)
	}
	for i := range b.Records {
		if err := s.record(ctx, b, &b.Records[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool.pass(b.TopicPartition, b.Next)
	for s.pool.outBytes > outBytes && !s.over {
		s.room.Wait()
	}
	return ctx.Err()
}

func (s *session) record(ctx context.Context, b *stream.Batch, r *stream.Record) error {
	h := &half{place: place{b.TopicPartition, r.Offset}, time: r.Time, arrived: time.Now().UnixMicro()}
	read, err := s.read(ctx, b.TopicPartition, source.Record{Key: r.Key, Value: r.Value, Time: r.Time, Headers: r.Headers})
	if f := b.Fault(r.Offset); f != nil {
		read, err = nil, event.RefusedError{Reason: event.ReasonUnreadable, Detail: f.Err.Error()}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool.meet(h.place, r.Time) {
		return nil
	}
	if read == nil && err == nil {
		s.p.metrics.outcomes.Add(ctx, 1, s.labels("other"))
		return nil
	}
	h.key, h.value = bytes.Clone(r.Key), bytes.Clone(r.Value[:min(len(r.Value), s.p.cfg.MaxDead)])
	if err != nil {
		s.pool.refuse(h, reasonOf(err), err.Error())
		return nil
	}
	h.Half = *read
	s.pool.add(h)
	return nil
}

func reasonOf(err error) event.Reason {
	if r, ok := event.IsRefused(err); ok {
		return r.Reason
	}
	return event.ReasonMapping
}

// read reads a record as a half, asking the schema registry as long as it takes.
func (s *session) read(ctx context.Context, tp stream.TopicPartition, r source.Record) (*source.Half, error) {
	for attempt := 0; ; {
		h, err := s.readers[tp].Read(tp.Topic, r)
		var need *source.NeedSchemaError
		if !errors.As(err, &need) {
			return h, err
		}
		if err = s.learn(ctx, s.readers[tp], need.ID); err == nil {
			continue
		}
		s.p.update(s.j, func(st *Status) { st.Reason = fmt.Sprintf("ask the schema registry for schema %d: %v", need.ID, err) })
		select {
		case <-time.After(min(100*time.Millisecond<<min(attempt, 6), 5*time.Second)):
			attempt++
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *session) learn(ctx context.Context, reader *source.HalfReader, id int) error {
	if s.p.cfg.Schemas == nil {
		return errors.New("no schema registry is configured")
	}
	text, err := s.p.cfg.Schemas(ctx, id)
	if err != nil {
		return err
	}
	if err := reader.AddSchema(id, text); err != nil {
		s.p.scope.Log.Warn("a schema cannot be read: its records become dead letters", "schema", id, telemetry.LogError, err)
	}
	s.p.update(s.j, func(st *Status) { st.Reason = "" })
	return nil
}

// write writes outcomes and commits positions until the context ends.
func (s *session) write(ctx context.Context) error {
	tick := time.NewTicker(s.p.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := s.expire(ctx); err != nil {
			return err
		}
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
}

// expire gives up halves whose wait is over. The ends are asked for after the
// clock was read: what the broker had by then has to be read first.
func (s *session) expire(ctx context.Context) error {
	now := time.Now().UnixMicro()
	s.mu.Lock()
	due, tps := s.pool.due(now), s.pool.partitions()
	s.mu.Unlock()
	if !due {
		return nil
	}
	ends, err := s.p.client.Offsets(ctx, tps...)
	if err != nil {
		return fmt.Errorf("find the ends of %v: %w", s.j.spec.Topics(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool.expire(now, ends)
	return nil
}

// flush writes what was decided and then commits where a successor begins.
func (s *session) flush(ctx context.Context) error {
	s.mu.Lock()
	list := s.pool.outcomes()
	moved := s.pool.moved || len(list) > 0
	s.pool.moved = false
	s.p.update(s.j, func(st *Status) { st.Waiting, st.Bytes = len(s.pool.halves), s.pool.bytes })
	s.room.Broadcast()
	s.mu.Unlock()
	if len(list) > 0 {
		if time.Since(s.proved) > s.p.cfg.Fence {
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
		if err := s.produce(ctx, list); err != nil {
			return err
		}
	}
	if !moved {
		return nil
	}
	return s.commit(ctx)
}

func (s *session) produce(ctx context.Context, list []outcome) error {
	msgs := make([]stream.Message, len(list))
	for i := range list {
		msgs[i] = list[i].message()
	}
	if err := s.p.producer.Produce(ctx, s.j.topic, msgs...); err != nil {
		return fmt.Errorf("write to %s: %w", s.j.topic, err)
	}
	for _, o := range list {
		s.p.metrics.outcomes.Add(ctx, 1, s.labels(o.kind))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool.stored(list)
	return nil
}
