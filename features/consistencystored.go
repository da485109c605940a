package features

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// storedWait is how long after a read the row is looked for that a source's
// topic brought. What is not there by then is not what is stored.
const storedWait = 10 * time.Minute

// stored splits off the reads whose rows the ledger covers; the others wait, those
// of what topics of others bring not forever.
func (m *Monitor) stored(ctx context.Context, v *View, samples []sample, now int64) (ready []sample, err error) {
	landed, err := m.landed(ctx, v, samples)
	if err != nil {
		return nil, err
	}
	var wait []sample
	for i, s := range samples {
		if v.windows != nil && s.folded == nil && v.mixed() {
			continue // written before they were noted, or as the first rows of another topic came
		}
		gone, err := m.deleted(ctx, &s)
		if err != nil {
			return nil, err
		}
		if gone {
			continue
		}
		where := landed(i)
		switch {
		case s.status == NotFound || s.version.Offset < 0 && s.folded == nil || where == here:
			ready = append(ready, s)
		case where == foreign && s.at < now-storedWait.Microseconds():
			ready = append(ready, s)
		case where != elsewhere:
			wait = append(wait, s)
		}
	}
	m.later(wait)
	return ready, nil
}

// whereabouts says what is known of whether a read's rows are stored.
type whereabouts uint8

const (
	missing   whereabouts = iota // they are not, yet
	foreign                      // nor are these, of which at least one came by a topic of others
	elsewhere                    // an import has the position: whether it is the row cannot be told
	here
)

// landed tells where the rows of reads are. A read of a view does not say by
// which topic its row came: of a position that an import has and the view's own
// topic not yet nothing is known, and of a view that a source feeds the rows
// themselves are looked for. Windows over such a view say how far they had read
// each topic.
func (m *Monitor) landed(ctx context.Context, v *View, samples []sample) (func(i int) whereabouts, error) {
	ends, err := m.store.Ends(ctx, v.source(), foldedTopics(samples)...)
	if err != nil {
		return nil, err
	}
	var found []bool
	if v.windows == nil && (v.mixed() || slices.ContainsFunc(slices.Collect(maps.Keys(ends)), isForeign)) {
		if found, err = m.rowsOf(ctx, v, samples); err != nil {
			return nil, err
		}
	}
	return func(i int) whereabouts {
		s := &samples[i]
		at := s.version
		covers := func(topic string) bool { return ends.Hold(topic, at.Partition, at.Epoch, at.Offset) }
		switch {
		case found != nil && found[i]:
			return here
		case found != nil:
			return foreign
		case s.folded != nil:
			if slices.ContainsFunc(s.folded, func(r reached) bool { return r.offset >= 0 && !ends.Hold(r.topic, r.partition, r.epoch, r.offset) }) {
				return foreign
			}
			return here
		case covers(FeatureTopic(v.Schema.Namespace)):
			return here
		case slices.ContainsFunc(slices.Collect(maps.Keys(ends)), covers):
			return elsewhere
		}
		return missing
	}, nil
}

// foldedTopics are those that windows of reads had been following.
func foldedTopics(samples []sample) (topics []string) {
	for i := range samples {
		for _, r := range samples[i].folded {
			if !slices.Contains(topics, r.topic) {
				topics = append(topics, r.topic)
			}
		}
	}
	return topics
}

// rowsOf reports of which reads the very row is stored, by key and version.
func (m *Monitor) rowsOf(ctx context.Context, v *View, samples []sample) ([]bool, error) {
	if err := m.store.Prepare(ctx, []*event.Schema{v.Schema}); err != nil {
		return nil, err
	}
	keys := make([]event.Column, len(v.Schema.Keys()))
	for i, f := range v.Schema.Keys() {
		keys[i] = newColumn(f.Type, false)
	}
	type place struct {
		key string
		v   Version
	}
	asked, out := map[place][]int{}, make([]bool, len(samples))
	q := store.HistoryQuery{Schema: v.Schema, Columns: []string{}, From: event.MaxTime, To: event.MinTime}
	for i, s := range samples {
		at := place{string(s.key), s.version}
		asked[at] = append(asked[at], i)
		q.From, q.To = min(q.From, s.version.EventTime), max(q.To, s.version.EventTime)
		if err := decodeKey(keys, s.key); err != nil {
			return nil, err
		}
	}
	q.FirstKeys = firstKeys(&keys[0])
	var key []byte
	for b, err := range m.store.History(ctx, q) {
		if err != nil {
			return nil, err
		}
		for row := range b.Rows {
			key = AppendKey(key[:0], b.Columns[b.Schema.KeyStart():b.Schema.ValueStart()], row)
			for _, i := range asked[place{string(key), batchVersion(b, row)}] {
				out[i] = true
			}
		}
	}
	return out, nil
}

// deleted reports whether the row of a read is not there any more: its entity
// was deleted and its stored rows erased, or it was given up long after its ttl.
// There is nothing left to compare.
func (m *Monitor) deleted(ctx context.Context, s *sample) (bool, error) {
	v := s.view
	if v.windows != nil {
		v = m.online.View(v.Schema.Namespace, v.windows.plan.source.Subject)
	}
	if v == nil || s.status == NotFound || s.version.Offset < 0 {
		return false, nil
	}
	var keys Keys
	var rows Rows
	var round Round
	keys.Add(s.key)
	now := m.cfg.Now()
	v.Look(&keys, now, &rows, &round)
	if err := round.Do(ctx, now); err != nil {
		return false, err
	}
	return !rows.Row(0).Found(), nil
}
