package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// partition is one assigned partition: a reader that decodes and cuts units,
// and a writer that stores them, with two units going round between them.
type partition struct {
	c      *Consumer
	gen    *stream.Generation
	tp     stream.TopicPartition
	route  Route
	state  *state
	labels labels
	slot   int       // failpoints: 2·slot is the reader's, 2·slot+1 the writer's
	alone  time.Time // when no former owner of the partition can be writing any more

	standing standing
	plan     plan

	in    chan *stream.Batch
	full  chan *work
	free  chan *work
	fair  int64 // bytes that a unit may always have, however little memory is left
	large *large

	// The reader's.
	end        int64 // one past the last record that may be read, as far as is known
	decoder    *event.Decoder
	translator *translator // of a source's records
	window     *idWindow

	// The writer's.
	last     *mark
	position int64 // everything before it is stored
	fencing  sync.Mutex
	intentAt time.Time // when the broker was asked to take the intent under way; guarded by fencing
	worked   bool      // a unit was stored since the last commit without one
}

func (c *Consumer) newPartition(gen *stream.Generation, tp stream.TopicPartition, slot int, alone time.Time) *partition {
	route, _ := c.route(tp.Topic)
	p := &partition{c: c, gen: gen, tp: tp, route: route, state: newState(tp), labels: newLabels(tp.Topic, route.Kind), slot: slot, alone: alone,
		in: make(chan *stream.Batch), full: make(chan *work), free: make(chan *work, 2), decoder: event.NewDecoder(c.cfg.Decoder)}
	for range 2 {
		p.free <- p.newWork()
	}
	return p
}

func (p *partition) newWork() *work {
	return &work{unit: event.Unit{Topic: p.tp.Topic, Namespace: p.route.Namespace, Kind: p.route.Kind}}
}

// limits shares half of the memory among the partitions, of which each has two
// units; the other half goes to whoever has much to read.
func (p *partition) limits(cfg Config, partitions int, l *large) {
	p.fair, p.large = max(min(cfg.MaxBytes, cfg.MemoryBytes/int64(4*partitions)), 256<<10), l
}

func (p *partition) log() *slog.Logger {
	return p.c.scope.Log.With(telemetry.LogTopic, p.tp.Topic, telemetry.LogPartition, p.tp.Partition)
}

// fetchFrom is the first offset that is read live; a repeated unit before it
// is read by itself.
func (p *partition) fetchFrom() int64 {
	if p.plan.replay {
		return p.standing.intent.To + 1
	}
	return p.plan.from
}

// read decodes batches into units and hands them to the writer: at once when
// they are full, after the pace's delay when the writer is free.
func (p *partition) read(ctx context.Context) error {
	w, err := p.start(ctx)
	if err != nil || w == nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		in, full, wait := p.in, p.full, time.Hour
		switch {
		case w.empty():
			full = nil
		case p.isFull(w):
			in = nil
		default:
			if wait = p.patience(w) - time.Since(w.first); wait > 0 {
				full = nil
			} else {
				wait = time.Hour
			}
		}
		timer.Reset(wait)
		select {
		case b := <-in:
			w, err = p.take(ctx, w, b)
		case full <- w:
			w, err = p.next(ctx, w.next)
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// ended turns an error after the context's end into none.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, stream.ErrFenced) {
		return nil
	}
	return err
}

func (p *partition) isFull(w *work) bool {
	n := max(w.unit.Counts.Records, w.unit.Counts.Rows)
	cfg := &p.c.cfg
	if w.large > 0 {
		return n >= int64(cfg.MaxRows) || w.bytes >= w.large
	}
	return n >= int64(cfg.MaxRows) || w.bytes >= cfg.MaxBytes || w.bytes >= p.fair && p.c.held.Load() >= cfg.MemoryBytes/2
}

// patience is how long a unit waits for company. While the log holds as much
// again, and a tenth of a full unit, its records are late anyway: the unit
// grows, since a larger block costs the store less and leaves it less to merge.
func (p *partition) patience(w *work) time.Duration {
	if p.end-w.next >= max(w.unit.Counts.Records, int64(p.c.cfg.MaxRows/10)) {
		return p.c.cfg.MaxDelay
	}
	return p.c.pace.delay()
}

// giveBack makes a stored unit's memory free for the next one. One that took more
// than its share goes back to the garbage collector, whole.
func (p *partition) giveBack(w *work) {
	p.large.leave(w)
	p.hold(w, 0)
	if w.bytes > p.fair {
		w = p.newWork()
	}
	p.free <- w
}

// hold notes how much of the memory for units a unit has.
func (p *partition) hold(w *work, bytes int64) {
	bytes = max(bytes, w.large)
	p.c.held.Add(bytes - w.held)
	w.held = bytes
}

// start repeats the pending unit, if there is one, and returns the first new
// one.
func (p *partition) start(ctx context.Context) (*work, error) {
	if !p.plan.replay {
		return p.next(ctx, p.plan.from)
	}
	w := <-p.free
	if err := p.c.insist(ctx, p, "repeat the pending unit", func(ctx context.Context) error { return p.repeat(ctx, w) }); err != nil {
		return nil, ended(ctx, err)
	}
	return p.handOver(ctx, w)
}

// handOver gives a unit to the writer and returns the next.
func (p *partition) handOver(ctx context.Context, w *work) (*work, error) {
	select {
	case p.full <- w:
		return p.next(ctx, w.next)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// next returns an empty unit that starts at an offset.
func (p *partition) next(ctx context.Context, from int64) (*work, error) {
	var w *work
	select {
	case w = <-p.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.wantsLarge(from) && p.large.enter(ctx, w) {
		p.hold(w, 0)
	}
	if err := p.refresh(ctx, w, from); err != nil {
		return nil, err
	}
	if p.window != nil {
		p.window.begin(from)
		p.state.update(func(s *PartitionStatus) { s.IDs, s.IDBytes = p.window.count, p.window.bytes() })
	}
	return w, nil
}

// refresh makes w an empty unit by the definitions of now.
func (p *partition) refresh(ctx context.Context, w *work, from int64) error {
	catalog, offset, err := p.c.defs.now()
	if err != nil {
		return err
	}
	p.reset(w, from, p.plan.epoch, catalog, offset, p.c.cfg.IDWindow)
	return p.translate(ctx, w)
}

func (p *partition) reset(w *work, from int64, epoch int32, catalog *event.Catalog, registry, window int64) {
	w.reset(from, epoch, catalog, registry, window)
	w.unit.Seen = nil
	if window > 0 {
		p.window.size = window
		w.unit.Seen = p.seen
	}
}

func (p *partition) seen(s *event.Schema, id []byte, offset int64, _ int32) bool {
	return p.window.seen(s.Kind, s.TableID, id, offset)
}

// take decodes a batch into the unit, and again if the definitions had to
// learn from it. What retention removed becomes a unit of its own.
func (p *partition) take(ctx context.Context, w *work, b *stream.Batch) (*work, error) {
	p.c.points.Hit(2*p.slot, "decode")
	var err error
	if b.Missing > 0 && !w.empty() {
		if w, err = p.handOver(ctx, w); err != nil {
			b.Release()
			return nil, err
		}
	}
	if w.empty() && p.c.reg.State().Offset() != w.registry { // it waited: what was defined meanwhile holds for its first record
		if err := p.refresh(ctx, w, w.from); err != nil {
			b.Release()
			return nil, err
		}
	}
	if b.From != w.next {
		defer b.Release()
		return nil, fmt.Errorf("read %v: got offset %d, expected %d", p.tp, b.From, w.next)
	}
	p.end = b.LastStable
	missing := b.Missing
	err = p.fill(ctx, w, b)
	b.Release()
	if err != nil {
		return nil, err
	}
	p.hold(w, w.bytes)
	p.state.update(func(s *PartitionStatus) { s.End = max(s.End, p.end) })
	if err := p.settleDefinitions(ctx, w); err != nil {
		return nil, err
	}
	if missing > 0 {
		p.log().Error("retention removed records before they were read", "missing", missing, telemetry.LogOffset, w.from)
		return p.handOver(ctx, w)
	}
	return w, nil
}

// maxRounds bounds how often one unit makes the definitions learn.
const maxRounds = 10

// settleDefinitions lets the registry learn what the unit's records need and
// decodes the unit again until it needs nothing.
func (p *partition) settleDefinitions(ctx context.Context, w *work) error {
	for round := 0; len(w.unit.Proposals) > 0; round++ {
		if round == maxRounds {
			return fmt.Errorf("%v offsets %d-%d: the definition of %s/%s does not settle", p.tp, w.from, w.next-1, w.unit.Proposals[0].Namespace, w.unit.Proposals[0].Name)
		}
		p.c.points.Hit(2*p.slot, "learn")
		proposals := w.unit.Proposals
		err := p.c.insist(ctx, p, "extend definitions", func(ctx context.Context) error { return p.c.defs.learn(ctx, proposals) })
		if err != nil {
			return err
		}
		p.c.points.Hit(2*p.slot, "learned")
		catalog, offset, err := p.c.defs.now()
		if err != nil {
			return err
		}
		if p.window != nil {
			p.window.rollback()
		}
		if err := p.decodeAgain(ctx, w, w.unit.Epoch, w.from, w.next-1, catalog, offset, w.window); err != nil {
			return err
		}
	}
	return nil
}

// decodeAgain reads an exact range of records into the unit.
func (p *partition) decodeAgain(ctx context.Context, w *work, epoch int32, from, to int64, catalog *event.Catalog, registry, window int64) error {
	p.reset(w, from, epoch, catalog, registry, window)
	if err := p.translate(ctx, w); err != nil {
		return err
	}
	for b, err := range p.c.client.FetchRange(ctx, p.tp, from, to) {
		if err != nil {
			return fmt.Errorf("read offsets %d-%d again: %w", from, to, err)
		}
		err = p.fill(ctx, w, b)
		b.Release()
		if err != nil {
			return fmt.Errorf("read offsets %d-%d again: %w", from, to, err)
		}
	}
	if w.next != to+1 {
		return fmt.Errorf("read %v offsets %d-%d again: got up to %d", p.tp, from, to, w.next-1)
	}
	return nil
}

// repeat decodes the pending unit as its intent says: the same records, the
// same definitions, the same window.
func (p *partition) repeat(ctx context.Context, w *work) error {
	i := p.standing.intent
	catalog, err := p.c.defs.at(ctx, i.Registry)
	if err != nil {
		return err
	}
	if p.window != nil {
		p.window.rollback() // of an attempt before this one
		p.window.begin(i.From)
	}
	err = p.decodeAgain(ctx, w, i.Epoch, i.From, i.To, catalog, i.Registry, i.Window)
	switch {
	case errors.Is(err, stream.ErrRetention) || errors.Is(err, stream.ErrOffsetBackwards):
		return fmt.Errorf("%w: %w", errReplan, err) // the plan knows both
	case err != nil:
		return err
	case len(w.unit.Proposals) > 0:
		why := fmt.Sprintf("the unit %d-%d asks for definitions that it did not need when it was begun", i.From, i.To)
		return errors.Join(p.reopen(ctx, i.From, false, why), errReplan)
	}
	w.replayed = true
	p.log().Info("repeating the pending unit", "from", i.From, "to", i.To, telemetry.LogEpoch, i.Epoch)
	return nil
}
