package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// assign decides where the partition goes on and clears what stands in the
// way: rows that no ledger row vouches for, an epoch to be opened, the window
// of known ids. A partition that an operator must decide about is refused.
func (p *partition) assign(ctx context.Context) error {
	for {
		err := p.c.insist(ctx, p, "find the position", func(ctx context.Context) (err error) {
			p.standing, err = p.look(ctx)
			return err
		})
		if err != nil {
			return err
		}
		p.plan = makePlan(p.standing)
		if p.plan.refuse != "" {
			p.refuse()
			return nil
		}
		var done bool
		err = p.c.insist(ctx, p, "prepare the position", func(ctx context.Context) (err error) {
			done, err = p.settle(ctx)
			return err
		})
		if err != nil || done {
			return err
		}
	}
}

func (p *partition) refuse() {
	p.log().Error("partition refused", "reason", p.plan.refuse)
	p.state.update(func(s *PartitionStatus) {
		s.Waiting, s.Refused, s.LastError = p.plan.refuse, true, p.plan.refuse
		s.End = p.standing.log.Last
	})
}

// look gathers what is known of the partition.
func (p *partition) look(ctx context.Context) (s standing, err error) {
	commits, err := p.c.client.Committed(ctx, p.c.cfg.Group, p.tp)
	if err != nil {
		return s, err
	}
	s.commit = commits[p.tp]
	if s.intent, s.own, err = parseIntent(s.commit.Metadata); err != nil {
		return s, fmt.Errorf("%v: %w", p.tp, err)
	}
	if s.ledger, err = p.c.sink.Epochs(ctx, p.tp.Topic, p.tp.Partition); err != nil {
		return s, err
	}
	if p.c.guards.noLedger {
		s.ledger = nil
		s.intent.Last = nil
	}
	offsets, err := p.c.client.Offsets(ctx, p.tp)
	if err != nil {
		return s, err
	}
	s.log = offsets[p.tp]
	state := p.c.reg.State()
	s.registry = state.Offset()
	if s.opened, s.version, err = openedEpoch(state, p.tp); err != nil {
		return s, err
	}
	if s.own && s.intent.Last != nil {
		s.strange, err = p.replaced(ctx, *s.intent.Last, s.log)
	}
	return s, err
}

// replaced reports whether the record at a mark is another one than it was. A
// record that is gone proves nothing.
func (p *partition) replaced(ctx context.Context, m mark, log stream.Offsets) (bool, error) {
	if m.Offset < log.First || m.Offset >= log.Last {
		return false, nil
	}
	for b, err := range p.c.client.FetchRange(ctx, p.tp, m.Offset, m.Offset) {
		if errors.Is(err, stream.ErrRetention) || errors.Is(err, stream.ErrOffsetBackwards) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("compare the record at offset %d: %w", m.Offset, err)
		}
		other := len(b.Records) > 0 && b.Records[0].Offset == m.Offset && b.Records[0].Time != m.Time
		b.Release()
		if other {
			return true, nil
		}
	}
	return false, nil
}

// settle carries out the plan; false when the position must be looked at
// again.
func (p *partition) settle(ctx context.Context) (done bool, err error) {
	if p.plan.reopen == "" {
		if err := p.unsettled(ctx); err != nil {
			return false, err
		}
	}
	if p.plan.reopen != "" {
		return false, p.reopen(ctx, p.plan.from, false, p.plan.reopen)
	}
	if p.plan.note != "" {
		p.log().Warn(p.plan.note, telemetry.LogOffset, p.plan.from)
	}
	if p.window, err = p.knownIDs(ctx); err != nil {
		return false, err
	}
	p.last, p.position = p.plan.last, p.plan.from
	p.state.update(func(s *PartitionStatus) {
		s.Epoch, s.Position, s.End, s.Waiting, s.Refused = p.plan.epoch, p.plan.from, p.standing.log.Last, "", false
	})
	return true, nil
}

// unsettled removes rows of epochs that are over and checks that the plan's
// own epoch has none that a commit or ledger row does not explain.
func (p *partition) unsettled(ctx context.Context) error {
	if p.c.guards.noOrphans {
		return nil
	}
	for _, o := range p.plan.trim {
		n, ledger, err := p.c.sink.Beyond(ctx, p.tp.Topic, p.tp.Partition, o.epoch, o.from)
		if err != nil {
			return err
		}
		if n+ledger == 0 {
			continue
		}
		p.log().Warn("removing rows of unfinished or broken units", telemetry.LogEpoch, o.epoch, telemetry.LogOffset, o.from, "rows", n, "ledger_rows", ledger)
		if err := p.c.sink.Trim(ctx, p.tp.Topic, p.tp.Partition, o.epoch, o.from); err != nil {
			return err
		}
	}
	from, what := p.plan.from, "beyond the ledger's end"
	if p.plan.replay && !p.c.cfg.PowerLoss {
		from, what = p.standing.intent.To+1, "beyond the pending unit"
	}
	n, ledger, err := p.c.sink.Beyond(ctx, p.tp.Topic, p.tp.Partition, p.plan.epoch, from)
	if n+ledger > 0 {
		p.plan.reopen = fmt.Sprintf("%d rows and %d ledger rows are stored at or after offset %d, %s", n, ledger, from, what)
	}
	return err
}

// reopen opens an epoch from an offset on, unless somebody has opened one since
// this member looked: the position is then to be looked at again, as it is after
// this.
func (p *partition) reopen(ctx context.Context, from int64, replace bool, why string) error {
	s := &p.standing
	last, _ := s.lastEpoch()
	above := last.Epoch
	if s.own {
		above = max(above, s.intent.Epoch)
	}
	if s.isOpened() {
		above = max(above, s.opened.Epoch)
	}
	err := putEpoch(ctx, p.c.reg, p.tp, s.version, EpochSpec{Epoch: above + 1, From: from, Replace: replace}, "ingest", why)
	switch {
	case isStale(err):
		return nil
	case err == nil:
		p.log().Warn("opened an epoch", telemetry.LogEpoch, above+1, telemetry.LogOffset, from, "why", why)
	}
	return err
}

// knownIDs fills a window with the ids of the rows before the position: of the
// present epoch from its first offset on, before that of the one before, and
// so on. nil when ids are not looked at.
func (p *partition) knownIDs(ctx context.Context) (*idWindow, error) {
	size := p.c.cfg.IDWindow
	if p.plan.replay {
		size = max(size, p.standing.intent.Window)
	}
	if size == 0 {
		return nil, nil
	}
	w := newIDWindow(size)
	epochs := p.standing.ledger
	if n := len(epochs); n == 0 || epochs[n-1].Epoch < p.plan.epoch {
		epochs = append(epochs[:n:n], event.EpochRange{Epoch: p.plan.epoch, First: p.plan.first})
	}
	var ids []loadedID
	low, high := max(p.plan.from-size, 0), p.plan.from
	for i := len(epochs) - 1; i >= 0 && low < high; i-- {
		e := epochs[i]
		if from := max(e.First, low); from < high {
			for id, err := range p.c.sink.SeenIDs(ctx, p.tp.Topic, p.tp.Partition, e.Epoch, from, high) {
				if err != nil {
					return nil, err
				}
				a, b := w.digest(id.Kind, id.TableID, id.ID)
				ids = append(ids, loadedID{a, b, id.Offset})
			}
		}
		high = min(high, e.First)
	}
	w.load(ids)
	return w, nil
}
