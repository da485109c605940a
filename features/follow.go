package features

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// starts fills the tables from what is stored and returns where to read each
// partition from.
func (t *Tail) starts(ctx context.Context, state *registry.State) (map[stream.TopicPartition]int64, error) {
	starts := map[stream.TopicPartition]int64{}
	foreign := t.foreignTopics(state)
	stored, err := t.storedBefore(ctx, foreign)
	if err != nil {
		return nil, err
	}
	held, err := t.held(ctx, state)
	if err != nil {
		return nil, err
	}
	for _, ns := range t.cfg.Namespaces {
		topic := FeatureTopic(ns)
		counts, err := t.client.Partitions(ctx, topic)
		if err != nil {
			return nil, fmt.Errorf("find partitions of %s: %w", topic, err)
		}
		var tps []stream.TopicPartition
		for p := range counts[topic] {
			tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
		}
		offsets, err := t.client.Offsets(ctx, tps...)
		if err != nil {
			return nil, fmt.Errorf("find offsets of %s: %w", topic, err)
		}
		next, err := t.fill(ctx, ns, topic, held, offsets)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		for tp, o := range offsets {
			starts[tp] = min(max(o.First, next[tp.Partition]), o.Last)
			t.positions[tp] = &position{next: starts[tp], start: starts[tp], goal: o.Last, first: o.First}
		}
		t.mu.Unlock()
	}
	for topic := range foreign {
		if err := t.join(ctx, topic, held.behind(topic, stored[topic]), starts); err != nil {
			return nil, err
		}
	}
	for _, ns := range t.cfg.Namespaces {
		if err := t.wakeWindows(ctx, ns, starts); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	for tp, p := range t.positions {
		p.next, p.start, p.read = starts[tp], starts[tp], starts[tp]
	}
	t.filled = true
	t.wake()
	t.mu.Unlock()
	return starts, nil
}

// fill loads every online view of a namespace that a shared store does not hold
// yet; the topic is then read from the earliest offset that one of them lacks.
func (t *Tail) fill(ctx context.Context, namespace, topic string, h held, offsets map[stream.TopicPartition]stream.Offsets) (next map[int32]int64, err error) {
	overtaken := h.overtaken(offsets)
	for _, v := range t.online.Views(namespace) {
		if v.table == nil {
			continue
		}
		var covered map[int32]int64
		if !overtaken && h.has(v) {
			covered = h.resume(offsets)
		} else if covered, err = t.load(ctx, v, topic, offsets); err != nil {
			return nil, fmt.Errorf("load stored rows of view %s: %w", v.Name, err)
		}
		next = earliest(next, covered)
		if t.complete != nil {
			t.complete[v.Schema.TableID] = v.table.state().ttl.Load()
		}
	}
	return next, nil
}

// load fills a view from stored rows; without any the whole log has to be read.
func (t *Tail) load(ctx context.Context, v *View, topic string, offsets map[stream.TopicPartition]stream.Offsets) (map[int32]int64, error) {
	if t.cfg.Latest == nil {
		none := map[int32]int64{}
		for tp := range offsets {
			none[tp.Partition] = 0
		}
		return none, nil
	}
	return t.cfg.Latest(ctx, v.Schema, topic, func(b *event.Batch) error { return v.table.apply(ctx, b, t.cfg.Now()) })
}

// decoding is the memory that one delivery of one partition needs.
type decoding struct {
	decoder *event.Decoder
	unit    event.Unit
	catalog catalog
	sources map[string]*translated // by topic
}

// catalog is an event.Catalog and the registry offset it was made at.
type catalog struct {
	changed int64
	c       *event.Catalog
}

// follow reads the partitions and applies what they bring. When ingest opens an
// epoch, it reads on from where that begins; when a window view is defined, from
// where the stored rows that fill it end; when a source is defined, its topic too.
func (t *Tail) follow(ctx context.Context, starts map[stream.TopicPartition]int64, state *registry.State) error {
	if len(starts) == 0 {
		<-ctx.Done()
		return nil
	}
	pool := sync.Pool{New: func() any { return &decoding{decoder: event.NewDecoder(t.cfg.Decoder)} }}
	for seen := state.Changed(epochKind, source.Kind); ; {
		inner, stop := context.WithCancel(ctx)
		opened := make(chan int64, 1)
		woken := maps.Clone(starts)
		for tp := range woken {
			woken[tp] = maxTime
		}
		go func() { opened <- t.awaitChange(inner, seen, woken); stop() }()
		f := t.client.NewFetcher(stream.FetchConfig{MinBytes: 1})
		err := f.Run(inner, starts, func(ctx context.Context, b *stream.Batch) error {
			d := pool.Get().(*decoding)
			defer pool.Put(d)
			defer b.Release()
			return t.deliver(ctx, d, b)
		})
		stop()
		changed := <-opened
		if err != nil || ctx.Err() != nil {
			return err
		}
		if err := t.restart(starts, woken, seen); err != nil {
			return err
		}
		if err := t.rejoin(ctx, starts); err != nil {
			return err
		}
		seen = changed
	}
}

// awaitChange blocks until an epoch is opened or a source changed beyond a registry offset, or until
// a window view was defined and filled; woken then says from where on its rows
// are to be read.
func (t *Tail) awaitChange(ctx context.Context, seen int64, woken map[stream.TopicPartition]int64) int64 {
	for at := seen; ; {
		if t.settle(ctx, at) == nil && len(t.online.dormant("")) > 0 {
			err := t.wakeWindows(ctx, "", woken)
			if err == nil || ctx.Err() != nil {
				return seen
			}
			t.cfg.Scope.Log.Error("windows cannot be filled", telemetry.LogError, err)
		}
		s, err := t.registry.Next(ctx, at)
		if err != nil {
			return seen
		}
		if changed := s.Changed(epochKind, source.Kind); changed > seen {
			return changed
		}
		at = s.Offset()
	}
}

// restart says where to read on from: where a partition stands, or where an
// epoch that was opened beyond a registry offset begins, or the rows of windows
// that were filled.
func (t *Tail) restart(starts, woken map[stream.TopicPartition]int64, seen int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tp := range starts {
		starts[tp] = min(t.positions[tp].read, woken[tp])
		for _, d := range t.registry.History(epochKind, "", tp.String()) {
			var e epochSpan
			if d.Deleted || d.Offset <= seen {
				continue
			}
			if err := json.Unmarshal(d.Spec, &e); err != nil {
				return fmt.Errorf("epochs of %v: %w", tp, err)
			}
			starts[tp] = min(starts[tp], max(e.From, 0))
		}
		t.positions[tp].read = starts[tp] // another change may come before anything was read
	}
	return nil
}

// deliver applies one batch, the records of each epoch by themselves.
func (t *Tail) deliver(ctx context.Context, d *decoding, b *stream.Batch) error {
	spans, err := epochsOf(t.registry, b.TopicPartition, t.registry.State().Offset())
	if err != nil {
		return err
	}
	for rest := b.Records; len(rest) > 0; {
		epoch, until := epochAt(spans, rest[0].Offset)
		n := 1
		for n < len(rest) && rest[n].Offset < until {
			n++
		}
		if t.apply(ctx, d, b, rest[:n], epoch) != nil {
			return nil // the context ended
		}
		rest = rest[n:]
	}
	t.mu.Lock()
	p := t.positions[b.TopicPartition]
	p.next, p.read = max(p.next, b.Next), b.Next
	t.wake()
	t.mu.Unlock()
	return nil
}

// apply decodes records and folds their rows in. Rows of a view or column that
// nobody has defined yet hold their partition up for a while: whoever infers
// definitions makes them, and the records are decoded again. What could be
// decoded is readable meanwhile, because applying a row twice changes nothing.
func (t *Tail) apply(ctx context.Context, d *decoding, b *stream.Batch, records []stream.Record, epoch int32) error {
	patience := time.Now().Add(t.cfg.Patience)
	for {
		state := t.registry.State()
		if err := d.catalog.update(state); err != nil {
			t.cfg.Scope.Log.Warn("some definitions cannot be used", telemetry.LogError, err)
		}
		if isForeign(b.Topic) {
			f, ok := t.foreignTopics(state)[b.Topic]
			if !ok {
				return nil // deleted: it is not read any more in a moment
			}
			if err := t.translate(ctx, d, b.TopicPartition, records, epoch, f); err != nil {
				return err
			}
		} else {
			d.decode(b.TopicPartition, records, epoch)
		}
		if err := t.settle(ctx, state.Offset()); err != nil {
			return err
		}
		now := t.cfg.Now()
		for _, rows := range d.unit.Batches {
			if err := t.applyRows(ctx, rows, now); err != nil {
				return err
			}
		}
		if len(d.unit.Proposals) == 0 {
			t.foldWindows(d, now)
			return nil
		}
		if time.Now().After(patience) {
			t.cfg.Scope.Log.Warn("rows without a definition are not online until the next start", telemetry.LogTopic, b.Topic,
				telemetry.LogPartition, b.Partition, telemetry.LogOffset, records[0].Offset, "first", d.unit.Proposals[0].Name)
			t.foldWindows(d, now)
			return nil
		}
		wait, cancel := context.WithDeadline(ctx, patience)
		_, _ = t.registry.Next(wait, state.Offset()) // either way the loop looks again
		cancel()
	}
}

// foldWindows folds decoded rows into windows: once per delivery, for a window
// cannot tell a row that it has seen.
func (t *Tail) foldWindows(d *decoding, now int64) {
	for _, rows := range d.unit.Batches {
		t.online.fold(rows, now)
	}
}

func (d *decoding) decode(tp stream.TopicPartition, records []stream.Record, epoch int32) {
	d.unit.Topic, d.unit.Kind, d.unit.Epoch = tp.Topic, event.Features, epoch
	d.unit.Namespace = strings.TrimSuffix(strings.TrimPrefix(tp.Topic, "kedge."), ".features")
	d.unit.Reset(d.catalog.c)
	for i := range records {
		r := &records[i]
		d.decoder.Decode(&d.unit, event.Record{Partition: tp.Partition, Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value})
	}
}

// settle waits until the tables are those of a registry offset.
func (t *Tail) settle(ctx context.Context, offset int64) error {
	for {
		t.mu.Lock()
		moved := t.moved
		t.mu.Unlock()
		if t.online.defined.Load() >= offset {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// update makes the catalog that decoding needs for a state, if it changed.
func (c *catalog) update(s *registry.State) error {
	kinds := event.CatalogKinds() // ingest's, so that quotas and erasures mean the same
	changed := s.Changed(kinds...)
	if c.c != nil && changed == c.changed {
		return nil
	}
	var entries []event.CatalogEntry
	for _, kind := range kinds {
		for _, d := range s.List(kind, "") {
			entries = append(entries, event.CatalogEntry{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec})
		}
	}
	next, err := event.NewCatalog(entries)
	if err != nil && c.c != nil {
		return err // keep what works
	}
	if next == nil {
		next, _ = event.NewCatalog(nil)
	}
	c.c, c.changed = next, changed
	return err
}
