package features

import (
	"context"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// sample is a served vector, read back.
type sample struct {
	view    *View
	at      int64
	key     []byte
	columns []string
	values  []event.Column // per column, one row
	status  Status
	version Version // of the row; of a view's row that was not found the zero one
	folded  []reached
	weight  float64
}

// readServed reads what ServedLog wrote. It returns nil for a vector of a view
// or a column that is not there any more: nothing can be recomputed for it.
func readServed(b *book, text []byte) (*sample, error) {
	n, bad := parseNode(string(text))
	if bad != nil {
		return nil, fmt.Errorf("a served vector is no JSON: %w", bad)
	}
	r := servedReader{n: n}
	v := b.served(r.text("view"))
	if v == nil || uint64(r.integer(n, "uid")) != v.UID {
		return nil, r.err
	}
	s := &sample{view: v, at: r.time("served_at"), weight: r.float("weight"), status: r.status(), folded: r.folded()}
	if version := n.member("version"); version != nil {
		s.version = Version{EventTime: r.integer(version, "event_time"), Created: r.integer(version, "created"), Epoch: int32(r.integer(version, "epoch")),
			Partition: int32(r.integer(version, "partition")), Offset: r.integer(version, "offset"), Index: int32(r.integer(version, "index"))}
	}
	key, values := n.member("key"), n.member("values")
	if r.err != nil || key == nil || values == nil {
		return nil, r.fail("key, values")
	}
	for _, f := range v.Schema.Keys() {
		c := newColumn(f.Type, false)
		if m := key.member(f.Name); m == nil || !appendNode(&c, m) {
			return nil, r.fail("key " + f.Name)
		}
		s.key = appendColumnKey(s.key, &c, 0)
	}
	l := v.layout()
	for i, name := range values.names {
		at, ok := l.byName[name]
		if !ok {
			continue
		}
		c := newColumn(l.columns[at].typ, true)
		if !appendNode(&c, &values.items[i]) {
			return nil, r.fail("value " + name)
		}
		s.columns, s.values = append(s.columns, name), append(s.values, c)
	}
	return s, r.err
}

// servedReader takes members out and keeps the first fault.
type servedReader struct {
	n   *node
	err error
}

func (r *servedReader) fail(what string) error {
	if r.err == nil {
		r.err = fmt.Errorf("a served vector cannot be read: %s", what)
	}
	return r.err
}

func (r *servedReader) text(name string) string {
	if m := r.n.member(name); m != nil && m.kind == kindString {
		return m.text
	}
	_ = r.fail(name)
	return ""
}

func (r *servedReader) integer(of *node, name string) int64 {
	if m := of.member(name); m != nil && m.kind == kindInteger && m.fits {
		return m.integer
	}
	_ = r.fail(name)
	return 0
}

func (r *servedReader) float(name string) float64 {
	if m := r.n.member(name); m != nil {
		if f, ok := m.float(); ok {
			return f
		}
	}
	_ = r.fail(name)
	return 0
}

func (r *servedReader) time(name string) int64 {
	t, err := event.ParseTime([]byte(r.text(name)))
	if err != nil {
		_ = r.fail(name)
	}
	return t
}

func (r *servedReader) status() Status {
	text := r.text("status")
	for _, s := range []Status{NotFound, Present, OutsideMaxAge} {
		if s.String() == text {
			return s
		}
	}
	_ = r.fail("status")
	return NotFound
}

// appendNode appends a value as the served topic has it to a column of its type.
func appendNode(c *event.Column, n *node) bool {
	if n.kind == kindNull {
		c.AppendNull()
		return true
	}
	if c.Type.List {
		ok := n.kind == kindArray
		for i := range n.items {
			ok = ok && appendNode(c.Items, &n.items[i])
		}
		c.Ends = append(c.Ends, uint64(c.Items.Len()))
		return ok
	}
	switch c.Type.Elem {
	case event.String, event.Bytes, event.JSON:
		text := []byte(n.text)
		ok := n.kind == kindString
		if c.Type.Elem == event.Bytes {
			text, ok = decodeBase64(text)
		}
		c.AppendBytes(text)
		return ok
	}
	v, ok := n.number(c.Type.Elem)
	appendNumber(c, v)
	appendNotNull(c)
	return ok
}

// number is the value of a numeric type.
func (n *node) number(t event.Type) (number, bool) {
	switch t {
	case event.Bool:
		return number{i: int64(b2i(string(n.raw) == "true"))}, n.kind == kindBool
	case event.Timestamp:
		at, err := event.ParseTime([]byte(n.text))
		return number{i: at}, n.kind == kindString && err == nil
	case event.Float32, event.Float64:
		f, ok := n.float()
		return number{f: f, float: true}, ok
	}
	i, ok := n.whole()
	return number{i: i}, ok
}

// Follow shows the monitor what the served log of its namespaces holds: the
// last hour first, so that a restart forgets nothing. It waits while as many
// vectors as may be held are not due yet.
func (m *Monitor) Follow(ctx context.Context, c *stream.Client) error {
	starts := map[stream.TopicPartition]int64{}
	for _, ns := range m.cfg.Namespaces {
		topic := ServedTopic(ns)
		counts, err := c.Partitions(ctx, topic)
		if err != nil {
			return fmt.Errorf("find partitions of %s: %w", topic, err)
		}
		var tps []stream.TopicPartition
		for p := range counts[topic] {
			tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
		}
		from, err := c.OffsetsAt(ctx, time.UnixMicro(m.cfg.Now()).Add(-time.Hour), tps...)
		if err != nil {
			return fmt.Errorf("find offsets of %s: %w", topic, err)
		}
		for tp, o := range from {
			starts[tp] = o
		}
	}
	if len(starts) == 0 {
		<-ctx.Done()
		return nil
	}
	return c.NewFetcher(stream.FetchConfig{MinBytes: 1}).Run(ctx, starts, func(ctx context.Context, b *stream.Batch) error {
		defer b.Release()
		for i := range b.Records {
			if m.hear(ctx, b.Topic, b.Records[i].Value) != nil {
				return nil // the context ended
			}
		}
		return nil
	})
}
