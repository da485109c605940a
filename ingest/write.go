package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// write stores units until ctx ends; then it finishes the one under way and
// commits. writing outlives ctx for that.
func (p *partition) write(ctx, writing context.Context) error {
	idle := time.NewTimer(p.c.cfg.IdleCommit)
	defer idle.Stop()
	for {
		select {
		case w := <-p.full:
			if p.admit(ctx, w) != nil {
				return p.leave(writing)
			}
			if err := p.store(writing, w); err != nil {
				return ended(ctx, err)
			}
			p.giveBack(w)
			idle.Reset(p.c.cfg.IdleCommit)
		case <-idle.C:
			if err := p.commitIdle(writing); err != nil {
				return ended(ctx, err)
			}
		case <-ctx.Done():
			return p.leave(writing)
		}
	}
}

// leave commits what is stored, if that is still possible: a successor finds
// the same in the ledger.
func (p *partition) leave(ctx context.Context) error {
	if err := p.commitIdle(ctx); err != nil {
		p.log().Debug("no last commit", telemetry.LogError, err)
	}
	return nil
}

// store carries one unit through the cycle. Every step is repeated until it
// succeeds; the unit is never given up for the next one.
func (p *partition) store(ctx context.Context, w *work) error {
	began := time.Now()
	ctx, span, end := p.spans(ctx, w)
	defer end()
	r := w.ledger(p.tp.Partition)
	t := newTokens(p.c.cfg.Sink, w.unit.Epoch, p.c.cluster, p.tp.Topic, p.tp.Partition, r.From, r.To)
	p.hit("prepare")
	err := p.insist(ctx, "prepare tables", func(ctx context.Context) error { return p.c.sink.Prepare(ctx, schemas(w)) })
	if err == nil {
		p.hit("before-intent")
		err = p.commitIntent(ctx, w)
	}
	if err == nil {
		p.hit("intent")
		err = p.tables(ctx, w, t)
	}
	if err == nil && len(w.unit.Dead) > 0 {
		p.hit("dead")
		err = p.insist(ctx, "count the dead letters", func(ctx context.Context) error {
			return p.c.capDead(ctx, w.unit.Namespace, w.unit.Dead)
		})
	}
	if err == nil && len(w.unit.Dead) > 0 {
		err = p.insert(ctx, w, "dead letters", len(w.unit.Dead), func(ctx context.Context) error {
			return p.c.sink.InsertDeadLetters(ctx, p.token(t.dead()), w.unit.Dead)
		})
	}
	if err == nil {
		err = p.proven(ctx, w, 0)
	}
	if err == nil {
		p.hit("ledger")
		err = p.insert(ctx, w, "the ledger row", 1, func(ctx context.Context) error { return p.c.sink.InsertLedger(ctx, p.token(t.ledger()), r) })
	}
	if err == nil {
		err = p.proven(ctx, w, 1)
	}
	if err != nil {
		span.RecordError(err)
		return fmt.Errorf("store %v offsets %d-%d: %w", p.tp, r.From, r.To, err)
	}
	p.hit("ledgered")
	p.finish(ctx, w, &r, time.Since(began))
	return nil
}

// proven checks that a repeated unit, or one of which an insert failed and was
// repeated, is stored, whole and once, with as many ledger rows as given. The
// engine notes a block's token before it makes the block's part visible: a
// crash of the store between the two leaves a token that drops the repeated
// block, and no rows; so does a write that failed, whose part was put aside.
// And it forgets tokens after many blocks: then the repetition doubles rows.
// Such a unit is done again in a new epoch, whose tokens nobody has used, and
// its rows in this one are removed.
//
// The unit's ledger row may be there before this member writes it: a former
// owner of the partition sent it before it lost the partition. For that reason,
// too, a unit is not given up while such an owner can still be writing.
func (p *partition) proven(ctx context.Context, w *work, ledgerRows int64) error {
	if !w.replayed && !w.doubtful.Load() || p.c.guards.noTokens || p.c.guards.noCount {
		return nil
	}
	want := int64(len(w.unit.Dead))
	for _, b := range w.unit.Batches {
		want += int64(b.Rows)
	}
	var rows, ledger int64
	whole := func() bool { return rows == want && ledger >= ledgerRows && ledger <= 1 }
	err := p.insist(ctx, "count the repeated unit", func(ctx context.Context) (err error) {
		rows, ledger, err = p.c.sink.Beyond(ctx, p.tp.Topic, p.tp.Partition, w.unit.Epoch, w.from)
		if err == nil && !whole() && time.Now().Before(p.alone) {
			err = fmt.Errorf("%d of %d rows are stored and %d ledger rows: a former owner of the partition may still be writing", rows, want, ledger)
		}
		return err
	})
	if err == nil && whole() {
		p.hit("counted")
	}
	if err != nil || whole() {
		return err
	}
	why := fmt.Sprintf("the repeated unit %d-%d has %d rows and %d ledger rows stored, want %d rows: the engine lost a block in a crash or by a failed write and kept its token, or forgot the token", w.from, w.next-1, rows, ledger, want)
	err = p.insist(ctx, "open an epoch", func(ctx context.Context) error {
		if err := p.commitAgain(ctx, w); err != nil { // a member of the past opens nothing
			return err
		}
		return p.reopen(ctx, w.from, true, why)
	})
	if err != nil {
		return err
	}
	return errReplan
}

func (p *partition) hit(point string) { p.c.points.Hit(2*p.slot+1, point) }

func (p *partition) insist(ctx context.Context, what string, fn func(context.Context) error) error {
	return p.c.insist(ctx, p, what, fn)
}

// token is the token itself, or one of its own when tests took the guard away.
func (p *partition) token(t string) string {
	if p.c.guards.noTokens {
		return fmt.Sprint(t, "/", rand.Uint64())
	}
	return t
}

func schemas(w *work) []*event.Schema {
	out := make([]*event.Schema, len(w.unit.Batches))
	for i, b := range w.unit.Batches {
		out[i] = b.Schema
	}
	return out
}

// spans continue the traces of the unit's records: each that somebody will see
// ends with the unit that stored it. The first is what the unit's parts hang on,
// the others name it.
func (p *partition) spans(ctx context.Context, w *work) (context.Context, trace.Span, func()) {
	by := trace.WithAttributes(telemetry.AttrMessaging.String("kafka"), telemetry.AttrTopic.String(p.tp.Topic),
		telemetry.AttrPartition.String(fmt.Sprint(p.tp.Partition)), telemetry.AttrEpoch.Int(int(w.unit.Epoch)),
		telemetry.AttrFrom.Int64(w.from), telemetry.AttrTo.Int64(w.next-1), telemetry.AttrBatchCount.Int64(w.unit.Counts.Records),
		attribute.Bool("kedge.ingest.repeated", w.replayed))
	start := func(parent string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
		return p.c.scope.Tracer.Start(telemetry.ContextFrom(ctx, parent, ""), "ingest unit", append(opts, trace.WithSpanKind(trace.SpanKindConsumer), by)...)
	}
	if len(w.traces) == 0 {
		inside, span := start("")
		return inside, span, func() { span.End() }
	}
	inside, span := start(w.traces[0])
	all := []trace.Span{span}
	for _, parent := range w.traces[1:] {
		_, other := start(parent, trace.WithLinks(trace.Link{SpanContext: span.SpanContext()}))
		all = append(all, other)
	}
	return inside, span, func() {
		for _, s := range all {
			s.End()
		}
	}
}

// commitIntent says what is about to be written. It also commits everything
// before the unit, and fails for a member that lost the partition.
func (p *partition) commitIntent(ctx context.Context, w *work) error {
	p.fencing.Lock()
	defer p.fencing.Unlock()
	return p.insist(ctx, "commit", func(ctx context.Context) error { return p.declare(ctx, w) })
}

// declare commits the unit's intent, which the broker refuses to a member that
// lost the partition. Its answer is true of the moment at which it was asked: a
// member may be stopped before it reads the answer.
func (p *partition) declare(ctx context.Context, w *work) error {
	asked := time.Now()
	err := p.commitAgain(ctx, w)
	p.hit("declared")
	if err == nil {
		p.intentAt = asked
	}
	return err
}

func (p *partition) commit(ctx context.Context, offset int64, i intent) error {
	c := []stream.OffsetCommit{{TopicPartition: p.tp, Offset: offset, Metadata: i.encode()}}
	return p.insist(ctx, "commit", func(ctx context.Context) error { return p.gen.Commit(ctx, c) })
}

// commitIdle commits the position without an intent, once after each piece of
// work.
func (p *partition) commitIdle(ctx context.Context) error {
	if !p.worked {
		return nil
	}
	p.hit("idle")
	err := p.commit(ctx, p.position, intent{Epoch: p.plan.epoch, Last: p.last})
	if err == nil {
		p.worked = false
		p.hit("idled")
	}
	return err
}

// tables inserts one block per table, several at a time when there are
// several.
func (p *partition) tables(ctx context.Context, w *work, t tokens) error {
	one := func(ctx context.Context, b *event.Batch) error {
		name := b.Schema.Table()
		p.hit("insert")
		err := p.insert(ctx, w, name, b.Rows, func(ctx context.Context) error { return p.c.sink.Insert(ctx, p.token(t.table(name)), b) })
		p.hit("inserted")
		return err
	}
	if len(w.unit.Batches) == 1 {
		return one(ctx, w.unit.Batches[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.c.cfg.Writers)
	for b := range slices.Values(w.unit.Batches) {
		g.Go(func() error { return one(ctx, b) })
	}
	return g.Wait()
}

// insert does one insert until it succeeds. After a long wait the intent is
// committed anew first: a member that was stopped for a while finds out that
// the partition is another's before it writes.
func (p *partition) insert(ctx context.Context, w *work, what string, rows int, fn func(context.Context) error) error {
	return p.insist(ctx, "insert "+what, func(ctx context.Context) error {
		leave, err := p.c.turn(ctx, w.unit.Namespace, rows)
		if err != nil {
			return err
		}
		began := time.Now()
		defer func() {
			leave()
			p.c.pace.wrote(time.Since(began), time.Now())
		}()
		// The time that it may take begins before the fence is looked at, for the same
		// reason as an intent's does.
		ctx, cancel := context.WithTimeout(ctx, p.c.cfg.InsertTimeout)
		defer cancel()
		if err := p.fence(ctx, w); err != nil {
			return err
		}
		err = fn(ctx)
		if err != nil {
			w.doubtful.Store(true)
		}
		return err
	})
}

// finish notes a stored unit.
func (p *partition) finish(ctx context.Context, w *work, r *event.LedgerRow, took time.Duration) {
	p.position, p.worked = w.next, true
	p.c.usage.stored(w.unit.Namespace, r.Rows)
	if w.last != nil {
		p.last = w.last
	}
	p.c.metrics.finished(ctx, p.labels, w, r, took)
	p.state.update(func(s *PartitionStatus) {
		s.Position, s.Epoch = w.next, w.unit.Epoch
		s.End = max(s.End, w.next)
		s.Units++
		s.Records += r.Records
		s.Rows += r.Rows
		s.DeadLetters += r.DeadLetters
		s.Duplicates += r.Duplicates
		s.Missing += r.Missing
		s.KnownAt = max(s.KnownAt, r.MaxKnownAt)
	})
}

// fence commits an aged intent again.
func (p *partition) fence(ctx context.Context, w *work) error {
	p.fencing.Lock()
	defer p.fencing.Unlock()
	if p.c.guards.noFence || age(p.intentAt) < p.c.cfg.FenceAfter {
		return nil
	}
	return p.declare(ctx, w)
}

// age is how long ago a moment was, by the clock that stands still while the
// machine does or by the other, whichever says more.
func age(at time.Time) time.Duration {
	return max(time.Since(at), time.Since(at.Round(0)))
}

// commitAgain commits the unit's intent. The broker refuses it to a member that
// lost the partition.
func (p *partition) commitAgain(ctx context.Context, w *work) error {
	i := w.intent(event.DecoderVersion, p.last)
	if p.c.guards.noIntent {
		i = intent{Epoch: w.unit.Epoch}
	}
	return p.gen.Commit(ctx, []stream.OffsetCommit{{TopicPartition: p.tp, Offset: w.from, Metadata: i.encode()}})
}
