package features

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
)

// EventSource reads the stored rows that window views are filled from.
type EventSource struct {
	store      *store.Store
	partitions func(ctx context.Context, topic string) (int, error)
	memory     int64
}

// EventsFrom makes an EventSource. partitions is a topic's partition count;
// memory bounds what the engine takes, 0: its own limit.
func EventsFrom(st *store.Store, partitions func(ctx context.Context, topic string) (int, error), memory int64) *EventSource {
	return &EventSource{st, partitions, memory}
}

// logs are the ends of topics that are read while the tail runs, a view's own
// among them, and of those of others that rows of it came by earlier. What came
// by an import no log brings.
func (s *EventSource) logs(ctx context.Context, schema *event.Schema, topics []string) (store.TopicEnds, error) {
	ends, err := s.store.Ends(ctx, schema, topics...)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(ends, func(topic string, _ map[int32]event.EpochRange) bool {
		return !isForeign(topic) && !slices.Contains(topics, topic)
	})
	for _, topic := range topics {
		if ends[topic] == nil {
			ends[topic] = nil // of it nothing is folded in: what is stored in a moment is read
		}
	}
	return ends, nil
}

// rows are those that windows reach; beyond the ends the logs bring them.
func (s *EventSource) rows(ctx context.Context, p *windowPlan, ends store.TopicEnds, from int64) (iter.Seq2[*event.Batch, error], error) {
	if err := s.store.Prepare(ctx, []*event.Schema{p.source}); err != nil {
		return nil, err
	}
	return s.store.History(ctx, store.HistoryQuery{Schema: p.source, Columns: p.columnNames(), From: from, To: event.MaxTime, Memory: s.memory, Before: ends}), nil
}

func (p *windowPlan) columnNames() []string {
	names := []string{}
	for _, c := range p.columns {
		names = append(names, c.name)
	}
	return names
}

// fillWindows folds the stored rows of a window view's source in and returns
// from which offset on each partition of each topic is to be read; 0 where
// nothing of it is stored.
func (t *Tail) fillWindows(ctx context.Context, v *View) (map[stream.TopicPartition]int64, error) {
	w, next := v.windows, map[stream.TopicPartition]int64{}
	src := t.cfg.Events
	if src == nil {
		return next, nil
	}
	ends, err := src.logs(ctx, w.plan.source, t.feeding(w.plan.source))
	if err == nil {
		err = w.fill(ctx, src, ends, t.cfg.Now())
	}
	for topic, partitions := range ends {
		for p, e := range partitions {
			if err == nil && w.ids > 0 {
				err = w.fillIDs(ctx, src, topic, p, e)
			}
			w.start(topic, p, e.Epoch, e.Next)
			next[stream.TopicPartition{Topic: topic, Partition: p}] = e.Next
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fill the windows of view %s: %w", v.Name, err)
	}
	return next, nil
}

// fill folds the stored rows before ends in, key by key, each key's in the
// log's order.
func (t *windowTable) fill(ctx context.Context, src *EventSource, ends store.TopicEnds, now int64) error {
	rows, err := src.rows(ctx, t.plan, ends, now-t.plan.reach())
	if err != nil {
		return err
	}
	events := newWindowEvents(t.plan)
	var key, last []byte
	for b, err := range rows {
		if err != nil {
			return err
		}
		keys := b.Columns[b.Schema.KeyStart():b.Schema.ValueStart()]
		for row := range b.Rows {
			v := batchVersion(b, row)
			if key = AppendKey(key[:0], keys, row); !bytes.Equal(key, last) {
				t.foldAll(events, last, now)
				last = append(last[:0], key...)
			}
			events.add(b, row, max(v.EventTime, b.Columns[event.ColKnownAt].Int64s[row]))
		}
	}
	t.foldAll(events, last, now)
	return nil
}

// foldAll folds one key's collected events in.
func (t *windowTable) foldAll(events *windowEvents, key []byte, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	events.inOrder()
	for i := range events.rows {
		e := &events.rows[i]
		t.key = append(t.key[:0], key...)
		events.load(t.folder, e)
		if e.v.EventTime > now {
			t.wait(e.v, e.deleted, noPart)
			continue
		}
		t.fold(e.v, e.deleted, noPart, now)
	}
	events.reset()
}

func (t *windowTable) fillIDs(ctx context.Context, src *EventSource, topic string, partition int32, e event.EpochRange) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := &t.log(topic).ids
	for id, err := range src.store.SeenIDs(ctx, topic, partition, e.Epoch, max(e.Next-t.ids, e.First), e.Next) {
		if err != nil {
			return err
		}
		if id.Kind == event.Features && event.ViewUID(id.TableID) == event.ViewUID(t.plan.source.TableID) {
			ids.seen(partition, id.ID, id.Offset)
		}
	}
	return nil
}

// wakeWindows fills the window views that have no rows yet and moves starts
// back to where the log has to be read from for them. From the next batch on
// they take part.
func (t *Tail) wakeWindows(ctx context.Context, namespace string, starts map[stream.TopicPartition]int64) error {
	for _, v := range t.online.dormant(namespace) {
		next, err := t.fillWindows(ctx, v)
		if err != nil {
			return err
		}
		topics := t.feeding(v.windows.plan.source)
		t.mu.Lock()
		for tp := range starts {
			if slices.Contains(topics, tp.Topic) {
				starts[tp] = min(starts[tp], max(next[tp], t.positions[tp].first))
			}
		}
		t.mu.Unlock()
		v.windows.live.Store(true)
	}
	return nil
}
