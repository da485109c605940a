package features

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// windowEvents are the events of one key, copied out of batches.
type windowEvents struct {
	plan    *windowPlan
	rows    []windowEvent
	columns []event.Column // per plan column
	schema  *event.Schema
	at      []int    // plan column → batch column
	topic   int      // batch column of topics; -1: none
	topics  []string // that were met
}

type windowEvent struct {
	v       Version
	known   int64 // when it counts from: the later of event_time and known_at
	deleted bool
	row     int // in columns
	topic   int // in topics, if those were asked for
}

func newWindowEvents(p *windowPlan) *windowEvents {
	e := &windowEvents{plan: p}
	e.reset()
	return e
}

func (e *windowEvents) reset() {
	e.rows, e.columns = e.rows[:0], e.columns[:0]
	for _, c := range e.plan.columns {
		e.columns = append(e.columns, newColumn(c.typ, true))
	}
}

// add copies a row of a batch.
func (e *windowEvents) add(b *event.Batch, row int, known int64) {
	if b.Schema != e.schema {
		e.schema, e.at = b.Schema, e.at[:0]
		for _, c := range e.plan.columns {
			at := slices.IndexFunc(b.Schema.Values(), func(f event.Field) bool { return f.Name == c.name })
			if at >= 0 {
				at += b.Schema.ValueStart()
			}
			e.at = append(e.at, at)
		}
		e.topic = slices.IndexFunc(b.Schema.Fields, func(f event.Field) bool { return f.Name == store.TopicColumn })
	}
	e.rows = append(e.rows, windowEvent{batchVersion(b, row), known, b.Columns[event.FeatureDelete].Bools[row] != 0, len(e.rows), e.topicOf(b, row)})
	for i, at := range e.at {
		if at < 0 {
			e.columns[i].AppendNull()
			continue
		}
		copyValue(&e.columns[i], &b.Columns[at], row)
	}
}

func (e *windowEvents) topicOf(b *event.Batch, row int) int {
	if e.topic < 0 {
		return 0
	}
	name := b.Columns[e.topic].Str(row)
	at := slices.IndexFunc(e.topics, func(t string) bool { return t == string(name) })
	if at < 0 {
		e.topics = append(e.topics, string(name))
		at = len(e.topics) - 1
	}
	return at
}

// inOrder sorts the events by when they count, then by the comparator: the
// order in which the online table met them.
func (e *windowEvents) inOrder() {
	slices.SortFunc(e.rows, func(a, b windowEvent) int { return cmp.Or(cmp.Compare(a.known, b.known), a.v.Compare(b.v)) })
}

// load takes an event's values into a folder.
func (e *windowEvents) load(f *windowFolder, w *windowEvent) {
	for i := range f.values {
		f.values[i].read(&e.columns[i], w.row)
	}
}

// windowJoin answers questions to a window view in one pass over its source's
// rows, with the code that serves it.
type windowJoin struct {
	q       *questions
	plan    *windowPlan
	outputs []int
	leaky   bool
	known   knownRule // nil: known_at decides
	events  *windowEvents
	folder  *windowFolder
	state   []byte
	out     *joined
	next    int // of q.order
	key     []byte
	// earliest event_time among the current key's events from a position on
	earliest []int64
}

// knownRule says in place of known_at whether a row, of a topic, counts for a
// question; available is the later of its event_time and known_at.
type knownRule func(question int32, topic string, v Version, available int64) bool

// joinWindows reads the source's rows, ordered by key, once. They must reach
// back from the earliest question by the plan's reach, and have the column of
// topics for known.
func joinWindows(q *questions, p *windowPlan, outputs []int, leaky bool, known knownRule, rows iter.Seq2[*event.Batch, error]) (*joined, error) {
	n := len(q.at)
	j := &windowJoin{q: q, plan: p, outputs: outputs, leaky: leaky, known: known, events: newWindowEvents(p), folder: newFolder(p),
		out: &joined{statuses: make([]Status, 0, n), times: make([]int64, 0, n), place: make([]int32, n)}}
	for _, o := range outputs {
		j.out.columns = append(j.out.columns, newColumn(p.schema.Values()[o].Type, true))
	}
	for b, err := range rows {
		if err != nil {
			return nil, fmt.Errorf("windows of view %s: %w", p.schema.Subject, err)
		}
		j.batch(b)
	}
	for j.next < n {
		j.answerKey()
	}
	return j.out, nil
}

func (j *windowJoin) batch(b *event.Batch) {
	keys := b.Columns[b.Schema.KeyStart():b.Schema.ValueStart()]
	for row := range b.Rows {
		j.key = j.key[:0]
		for k := range keys {
			j.key = appendOrdered(j.key, &keys[k], row)
		}
		for j.next < len(j.q.order) && bytes.Compare(j.q.key(j.next), j.key) < 0 {
			j.answerKey()
		}
		if j.next == len(j.q.order) {
			return
		}
		if !bytes.Equal(j.q.key(j.next), j.key) {
			continue
		}
		at := b.Columns[event.ColEventTime].Int64s[row]
		if !j.leaky {
			at = max(at, b.Columns[event.ColKnownAt].Int64s[row])
		}
		j.events.add(b, row, at)
	}
}

// answerKey answers all questions about the key of the next one, with the
// events that were collected for it.
func (j *windowJoin) answerKey() {
	key := j.q.key(j.next)
	j.events.inOrder()
	j.state = j.folder.emptyState(j.state[:0])
	j.earliest = append(slices.Grow(j.earliest[:0], len(j.events.rows)+1)[:len(j.events.rows)], maxTime)
	for i := len(j.events.rows) - 1; i >= 0; i-- {
		j.earliest[i] = min(j.earliest[i+1], j.events.rows[i].v.EventTime)
	}
	folded := 0
	for j.next < len(j.q.order) && bytes.Equal(j.q.key(j.next), key) {
		row, t := j.q.order[j.next], j.q.times[j.next]
		if j.known != nil {
			j.foldKnown(row, t)
			j.answer(row, t, false)
			continue
		}
		for folded < len(j.events.rows) && j.events.rows[folded].known <= t {
			j.fold(&j.events.rows[folded], t)
			folded++
		}
		j.answer(row, t, j.notYetKnown(folded, t))
	}
	j.events.reset()
}

// foldKnown begins anew with the events that known lets count.
func (j *windowJoin) foldKnown(row int32, t int64) {
	j.state = j.folder.emptyState(j.state[:0])
	for i := range j.events.rows {
		if e := &j.events.rows[i]; e.v.EventTime <= t && j.known(row, j.events.topics[e.topic], e.v, e.known) {
			j.fold(e, t)
		}
	}
}

func (j *windowJoin) fold(e *windowEvent, t int64) {
	j.events.load(j.folder, e)
	next, _ := j.folder.fold(j.state, e.v, e.deleted, t)
	if &next[0] != &j.state[0] {
		j.state = append(j.state[:0], next...)
	}
}

// notYetKnown reports whether one of the events that do not count yet lies in
// a window that ends at t.
func (j *windowJoin) notYetKnown(folded int, t int64) bool {
	if j.earliest[folded] > t {
		return false // all of them come later: the common case
	}
	from, rest := j.plan.windows[0].from(t), j.events.rows[folded:]
	return slices.ContainsFunc(rest, func(e windowEvent) bool { return e.v.EventTime <= t && e.v.EventTime >= from })
}

func (j *windowJoin) answer(row int32, t int64, early bool) {
	o := j.out
	j.folder.gather(j.state, t)
	o.place[row] = int32(len(o.statuses))
	j.next++
	o.statuses, o.times = append(o.statuses, Present), append(o.times, max(j.folder.newestAt(j.state, t), 0))
	if early {
		o.early++
	}
	for i, output := range j.outputs {
		j.folder.appendTo(&o.columns[i], output)
	}
}
