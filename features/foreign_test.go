package features

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/stream"
)

const shopSource = `{"topic":"shop.users","mapping":{"events":[{"kind":"features","view":"shopper","key":{"id":"user.id"},"time":{"field":"ts","unit":"ms"},
	"values":{"only":["user.spend"],"rename":{"user.spend":"spend"}}}]}}`

// shopTopic is a topic that somebody else fills.
func (h *house) shopTopic() func(id int, spend float64) {
	must(h.t, h.client.EnsureTopics(h.t.Context(), []stream.TopicSpec{{Name: "shop.users", Partitions: 2}}))
	p := h.client.Producer(stream.ProducerConfig{})
	h.t.Cleanup(func() { _ = p.Close() })
	return func(id int, spend float64) {
		h.t.Helper()
		must(h.t, p.Produce(h.t.Context(), "shop.users", stream.Message{Key: fmt.Append(nil, id),
			Value: fmt.Appendf(nil, `{"user":{"id":%d,"spend":%v},"ts":%d}`, id, spend, time.Now().UnixMilli())}))
	}
}

// spends waits until the online tables say so of a shopper.
func (h *house) spends(id int, want float64) {
	h.t.Helper()
	testenv.Eventually(h.t, 30*time.Second, func() error {
		row, got := readRow(h.online.View(testNamespace, "shopper").table.(*Table), []any{int64(id)}, time.Now().UnixMicro())
		if !row.Found() || got["spend"] != want {
			return fmt.Errorf("shopper %d: found %v, %v, want %v", id, row.Found(), got, want)
		}
		return nil
	})
}

// window defines a view of how often and how much shoppers spent in an hour.
func (h *house) window(name string) {
	h.define(WindowViewKind, name, map[string]any{"source": "shopper", "features": []map[string]any{
		{"name": "n", "function": "count", "window": "1h"}, {"name": "total", "function": "sum", "column": "spend", "window": "1h"}}})
}

// totals waits until a window view says so of a shopper.
func (h *house) totals(view string, id int, n int64, total float64) {
	h.t.Helper()
	testenv.Eventually(h.t, 30*time.Second, func() error {
		v := h.online.View(testNamespace, view)
		if v == nil || !v.windows.live.Load() {
			return fmt.Errorf("%s is not filled", view)
		}
		if got := windowRow(h.t, v, int64(id)); got[0] != n || got[1] != total {
			return fmt.Errorf("%s: shopper %d: %v, want %d and %v", view, id, got, n, total)
		}
		return nil
	})
}

// windowRow is what a window view says of a key now, in the order of its
// features.
func windowRow(t testing.TB, v *View, keys ...any) (out []any) {
	t.Helper()
	var rows Rows
	must(t, lookUp(t.Context(), v, time.Now().UnixMicro(), &rows, encodedKey(v.Schema, keys)))
	for i, f := range v.Schema.Values() {
		c := newColumn(f.Type, true)
		rows.Row(0).AppendTo(&c, i)
		out = append(out, valueAt(&c, 0))
	}
	return out
}

// TestSourceIsOnline: a source that is applied while the tables run makes what
// its topic holds and what comes readable, beside events of Kedge's own topic, in
// windows too, once each;
// one that is deleted is not read any more, and nobody waits for it.
func TestSourceIsOnline(t *testing.T) {
	h := openHouse(t, time.Time{})
	h.view("shopper", "0s", fieldsOf("id Int64"), fieldsOf("spend Float64"))
	h.window("early") // defined before the source
	send := h.shopTopic()
	for id := range 20 {
		send(id, float64(id))
	}
	h.write(fmt.Sprintf(`{"view":"shopper","key":{"id":100},"event_time":"%s","values":{"spend":100.5}}`, time.Now().UTC().Format(time.RFC3339Nano)))
	h.spends(100, 100.5)
	d, err := h.registry.Apply(t.Context(), registry.Entry{Kind: source.Kind, Namespace: testNamespace, Name: "shop", Op: registry.Put, Spec: []byte(shopSource)})
	must(t, err)
	for id := range 20 {
		h.spends(id, float64(id))
	}
	must(t, h.tail.Ready())
	send(3, 33)
	h.spends(3, 33)
	h.window("late") // defined over what came by both topics
	h.write(fmt.Sprintf(`{"view":"shopper","key":{"id":3},"event_time":"%s","values":{"spend":0.5}}`, time.Now().UTC().Format(time.RFC3339Nano)))
	send(4, 0.25)
	for _, name := range []string{"early", "late"} {
		h.totals(name, 3, 3, 36.5)
		h.totals(name, 4, 2, 4.25)
		h.totals(name, 100, 1, 100.5)
		if !h.online.View(testNamespace, name).mixed() {
			t.Errorf("%s: nobody notes that offsets do not say of which topic they are", name)
		}
	}
	h.write(fmt.Sprintf(`{"view":"shopper","key":{"id":101},"event_time":"%s","values":{"spend":7}}`, time.Now().UTC().Format(time.RFC3339Nano)))
	h.spends(101, 7)
	if h.online.View(testNamespace, "shopper").mixed() == false {
		t.Error("nobody notes that offsets do not say of which topic they are")
	}
	_, err = h.registry.Apply(t.Context(), registry.Entry{Kind: source.Kind, Namespace: testNamespace, Name: "shop", Op: registry.Delete, Expect: d.Version})
	must(t, err)
	testenv.Eventually(t, 20*time.Second, func() error {
		h.tail.mu.Lock()
		defer h.tail.mu.Unlock()
		for tp := range maps.Keys(h.tail.positions) {
			if isForeign(tp.Topic) {
				return fmt.Errorf("%v is still read", tp)
			}
		}
		return nil
	})
	h.write(fmt.Sprintf(`{"view":"shopper","key":{"id":102},"event_time":"%s","values":{"spend":8}}`, time.Now().UTC().Format(time.RFC3339Nano)))
	h.spends(102, 8)
}

// TestRestartHoldsOtherTopics fills a table from the latest-state table and
// wants rows that came by other topics and by imports too, stored before the
// mark or behind it, whatever their partitions and offsets.
func TestRestartHoldsOtherTopics(t *testing.T) {
	st := openStore(t)
	r := rand.New(rand.NewPCG(31, 32))
	keys := fieldsOf("id Int64")
	s := event.NewSchema(event.Features, testNamespace, "v", 900, keys, fieldsOf("x Float64", "s String", "l List(Int64)"))
	rows := randomFacts(r, 300)
	topics := []string{FeatureTopic(testNamespace), "shop.users", event.ImportTopicPrefix(testNamespace) + "00"}
	for i := range rows {
		rows[i].keys = randomKey(r, keys)
		rows[i].v.Partition, rows[i].v.Offset, rows[i].v.Index, rows[i].v.Epoch = int32(i/3%2), int64(i/6), int32(i%3), 0
	}
	insert := func(from, to int) {
		for k, topic := range topics {
			b := event.NewBatch(s, topic)
			for i := from; i < to; i++ {
				if i%3 == k {
					addRow(b, rows[i])
				}
			}
			must(t, st.Insert(t.Context(), fmt.Sprint(topic, from), b))
			must(t, st.InsertLedger(t.Context(), fmt.Sprint(topic, from, "ledger"), event.LedgerRow{Topic: topic, From: int64(from), To: int64(to), Tables: map[string]int64{s.Table(): int64(b.Rows)}}))
		}
	}
	insert(0, 120)
	must(t, st.AdvanceLatest(t.Context(), s, map[int32]event.EpochRange{0: {Next: 20}, 1: {Next: 20}}, 1000))
	insert(120, 300)
	mark, err := st.LatestMark(t.Context(), s)
	must(t, err)
	for _, beyond := range []bool{true, false} {
		var held []factRow
		for i, row := range rows {
			if beyond || i%3 > 0 || i < 120 { // else the log has the view's own rows behind the mark
				held = append(held, row)
			}
		}
		table := NewTable(s, 0)
		must(t, applyAll(st.LatestState(t.Context(), s, mark, beyond, 0), s, func(b *event.Batch) error { return table.apply(t.Context(), b, 1000) }))
		for _, row := range held {
			checkLatestRow(t, table, held, row.keys, 1000)
		}
		table.Close()
	}
}

// TestWindowsOfEveryTopic restarts a window view whose rows came by Kedge's own
// topic, by a source's, by one whose source is gone, and by an import, stored up
// to other offsets on each, and compares what it then serves, once the logs
// brought the rest, with every event counted by itself.
func TestWindowsOfEveryTopic(t *testing.T) {
	spec, p, st := windowTestSpec(), windowTestPlan(t), openStore(t)
	own, shop, gone, imported := FeatureTopic("demo"), "shop.users", "gone.users", event.ImportTopicPrefix("demo")+"00"
	ends := map[string][]int64{own: {25, 40, 0}, shop: {190, 90, 200}, gone: {400, 400, 400}, imported: {400, 400, 400}} // by partition
	r := rand.New(rand.NewPCG(3, 4))
	rows := randomEvents(r, 400, 1_790_000_000_000_000)
	now := rows[len(rows)-1].knownAt
	batches := map[string]*event.Batch{}
	topics := make([]string, len(rows))
	for i := range rows {
		rows[i].deleted = false // what a delete takes with it depends on the order of topics
		topics[i] = []string{own, own, shop, shop, gone, imported}[r.IntN(6)]
		b := batches[topics[i]]
		if b == nil {
			b = event.NewBatch(p.source, topics[i])
			batches[topics[i]] = b
		}
		addRow(b, rows[i]) // also what lies beyond the ends: its unit's ledger row is not written yet
	}
	for topic, b := range batches {
		must(t, st.Insert(t.Context(), topic, b))
		for part, next := range ends[topic] {
			if next > 0 {
				must(t, st.InsertLedger(t.Context(), fmt.Sprint(topic, part), event.LedgerRow{Topic: topic, Partition: int32(part), To: next - 1, Tables: map[string]int64{p.source.Table(): 1}}))
			}
		}
	}
	reg, err := registry.Open(t.Context(), memlog.New(time.Now))
	must(t, err)
	running := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { running <- reg.Run(ctx) }()
	defer func() { stop(); must(t, <-running) }()
	_, err = reg.Apply(t.Context(), registry.Entry{Kind: source.Kind, Namespace: "demo", Name: "shop", Op: registry.Put, Spec: []byte(strings.ReplaceAll(shopSource, `"shopper"`, `"v"`))})
	must(t, err)
	tail := NewTail(TailConfig{Namespaces: []string{"demo"}, Events: EventsFrom(st, nil, 0), Now: func() int64 { return now }, Scope: telemetry.Discard()}, nil, reg, NewOnline())
	table := newWindowTable(p, 1000)
	defer table.close()
	v := &View{Name: "w", Schema: p.schema, windows: table}
	next, err := tail.fillWindows(t.Context(), v)
	must(t, err)
	for i, row := range rows { // what the tail reads from there on, and, as it does after an epoch was opened, from before
		tp := stream.TopicPartition{Topic: topics[i], Partition: row.v.Partition}
		if topics[i] != own && topics[i] != shop || row.v.Offset < next[tp]-10 {
			continue
		}
		b := event.NewBatch(p.source, topics[i])
		addRow(b, row)
		table.apply(b, now)
	}
	for k := range int64(3) {
		for c := range 2 {
			key := []any{k, fmt.Sprint(c)}
			var got Rows
			must(t, lookUp(t.Context(), v, now, &got, encodedKey(p.schema, key)))
			for f, feature := range spec.Features {
				col := newColumn(p.schema.Values()[f].Type, true)
				got.Row(0).AppendTo(&col, f)
				checkWindowValue(t, fmt.Sprintf("key %v", key), feature, valueAt(&col, 0), bruteValue(bruteWindow(rows, key, now, micros(feature.Window), false), feature))
			}
		}
	}
}

// TestIDsOfTwoTopics: an id is a duplicate on its partition of its topic alone.
func TestIDsOfTwoTopics(t *testing.T) {
	p := windowTestPlan(t)
	table := newWindowTable(p, 1000)
	defer table.close()
	for _, topic := range []string{FeatureTopic("demo"), "shop.users", "shop.users"} {
		b := event.NewBatch(p.source, topic)
		addRow(b, factRow{keys: []any{int64(1), "a"}, v: Version{EventTime: 10, Offset: table.folded.Load() + table.skipped.Load()}, values: map[string]any{}})
		b.Columns[event.ColID].Data, b.Columns[event.ColID].StrEnds = []byte("a"), []uint32{1}
		table.apply(b, 10)
	}
	if folded, skipped := table.folded.Load(), table.skipped.Load(); folded != 2 || skipped != 1 {
		t.Fatalf("%d events counted and %d left out, want 2 and 1", folded, skipped)
	}
}

// TestMonitorOfOtherTopics: of a view that a source feeds a read is checked when
// its very row is stored; what an import brought is checked where it can be, and
// does not wait for offsets that the view's own topic may never reach.
func TestMonitorOfOtherTopics(t *testing.T) {
	const now = int64(1772366400_000000)
	for topic, want := range map[string][2]int64{"": {1, 1}, "shop.users": {2, 0}, event.ImportTopicPrefix(testNamespace) + "00": {1, 0}} { // checked, waiting
		t.Run(topic, func(t *testing.T) { // one engine after the other
			l := openLibrary(t, 1<<28)
			l.view.Spec.TTL, l.view.Spec.Online, l.view.table = 0, true, NewTable(l.view.Schema, 0)
			rows := []factRow{
				{keys: []any{int64(1)}, v: Version{EventTime: now - 10, Offset: 1}, knownAt: now - 5_000_000, values: map[string]any{"x": 1.0}},
				{keys: []any{int64(2)}, v: Version{EventTime: now - 10, Offset: 500}, knownAt: now - 5_000_000, values: map[string]any{"x": 2.0}}}
			l.fill("driver", rows)
			must(t, l.store.InsertLedger(t.Context(), "l", event.LedgerRow{Topic: FeatureTopic(testNamespace), To: 9}))
			if topic != "" {
				must(t, l.store.InsertLedger(t.Context(), "o", event.LedgerRow{Topic: topic, To: 999, Tables: map[string]int64{l.view.Schema.Table(): 1}}))
			}
			b := event.NewBatch(l.view.Schema, "")
			for _, r := range rows {
				addRow(b, r)
			}
			must(t, l.view.table.apply(t.Context(), b, now))
			m, log := l.monitor(now)
			serve(t, l.online, log, m, now, `{"features":["driver:x"],"entities":{"driver_id":[1,2]}}`)
			must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
			if got := m.lastHour()[featureName{testNamespace, "driver", "x"}]; got.checked != want[0] || int64(len(m.samples)) != want[1] || got.different != 0 {
				t.Errorf("rows by %q: %+v, %d wait, want %d checked and %d waiting", topic, got, len(m.samples), want[0], want[1])
			}
		})
	}
}

// TestMonitorFindsSkewOfASource plants, in a view that a source feeds, a value
// that only the table has, one that only the store has, and a row that is never
// stored: the last is waited for, then counted.
func TestMonitorFindsSkewOfASource(t *testing.T) {
	const now = int64(1772366400_000000)
	l := openLibrary(t, 1<<28)
	l.view.Spec.TTL, l.view.Spec.Online, l.view.table = 0, true, NewTable(l.view.Schema, 0)
	row := func(key, offset int64, x any) factRow {
		return factRow{keys: []any{key}, v: Version{EventTime: now - 10_000_000, Offset: offset}, knownAt: now - 5_000_000, values: map[string]any{"x": x}}
	}
	l.fill("driver", []factRow{row(1, 1, 1.0), row(2, 2, 2.0), row(3, 3, 3.5), row(5, 5, 5.0)})
	must(t, l.store.InsertLedger(t.Context(), "o", event.LedgerRow{Topic: "shop.users", To: 999, Tables: map[string]int64{l.view.Schema.Table(): 1}}))
	b := event.NewBatch(l.view.Schema, "shop.users")
	for _, r := range []factRow{row(1, 1, 1.0), row(2, 2, 2.5), row(3, 3, nil), row(4, 4, 4.0)} {
		addRow(b, r)
	}
	must(t, l.online.Apply(t.Context(), b, now))
	m, log := l.monitor(now)
	serve(t, l.online, log, m, now, `{"features":["driver:x"],"entities":{"driver_id":[1,2,3,4,5]}}`)
	for _, c := range []struct {
		after time.Duration
		want  tally
		wait  int
	}{{2 * time.Minute, tally{4, 3, 4, 3}, 1}, {11 * time.Minute, tally{5, 4, 5, 4}, 0}} {
		must(t, m.Tick(t.Context(), now+c.after.Microseconds()))
		if got := m.lastHour()[featureName{testNamespace, "driver", "x"}]; got != c.want || len(m.samples) != c.wait {
			t.Errorf("after %v: %+v, %d wait, want %+v and %d", c.after, got, len(m.samples), c.want, c.wait)
		}
	}
}

// mixedWindows is a window view over the library's drivers, and what its
// source's rows come by.
func (l *library) mixedWindows(t *testing.T) *windowTable {
	t.Helper()
	spec := &WindowSpec{Source: "driver"}
	for _, w := range []time.Duration{time.Minute, time.Hour} {
		for function, column := range map[string]string{"count": "", "sum": "x", "mean": "x", "stddev": "x", "min": "x", "max": "x", "first": "s", "last": "s", "distinct": "s"} {
			spec.Features = append(spec.Features, WindowFeature{Name: fmt.Sprintf("%s_%s", function, w), Function: function, Column: column, Window: event.Duration(w)})
		}
	}
	b := l.online.book(testNamespace)
	p, err := compileWindow(spec, b.views["driver"].Schema, "activity", 77)
	must(t, err)
	table := newWindowTable(p, 0)
	table.live.Store(true)
	b.views["activity"] = &View{Name: "activity", UID: 77, Spec: &event.ViewSpec{Online: true}, Schema: p.schema, windows: table}
	return table
}

// topicLogs are rows by the topic and partition that brings them, in order.
type topicLogs map[stream.TopicPartition][]factRow

// add appends a row to a log, whose next offset it gets.
func (l topicLogs) add(topic string, partition int32, row factRow) factRow {
	tp := stream.TopicPartition{Topic: topic, Partition: partition}
	row.v.Partition, row.v.Offset = partition, int64(len(l[tp]))
	l[tp] = append(l[tp], row)
	return row
}

// batch is some of a log's rows.
func (l topicLogs) batch(s *event.Schema, tp stream.TopicPartition, from, to int) *event.Batch {
	b := event.NewBatch(s, tp.Topic)
	for _, row := range l[tp][from:to] {
		addRow(b, row)
	}
	return b
}

// TestMonitorChecksWindowsOfASource serves windows whose events come by three
// topics, on any partition, each of which the table has read up to somewhere
// within the last two seconds: all agree, to the event. Then it plants an event
// that only the table has, two that only the store has, and one that differs.
func TestMonitorChecksWindowsOfASource(t *testing.T) {
	l := openLibrary(t, 1<<28)
	table, r := l.mixedWindows(t), rand.New(rand.NewPCG(41, 42))
	const now, keys = int64(1772366400_000000), 12
	topics, logs := []string{FeatureTopic(testNamespace), "shop.users", "shop.old"}, topicLogs{}
	happened := func(key, ago int64) factRow {
		at := now - ago
		return factRow{keys: []any{key}, v: Version{EventTime: at, Created: at}, knownAt: at + r.Int64N(ago), values: map[string]any{"x": r.NormFloat64(), "s": fmt.Sprint(r.IntN(50))}}
	}
	somewhere := func(row factRow) factRow { return logs.add(topics[r.IntN(3)], int32(r.IntN(2)), row) }
	for i := range int64(2000) { // the newest last: three in four within the hour, the rest within two seconds
		ago := (1500 - i) * 2400_000
		if i >= 1500 {
			ago = (2001 - i) * 3900
		}
		row := happened(r.Int64N(keys), max(ago, 2))
		if i < 1500 {
			row.knownAt = row.v.EventTime
		}
		somewhere(row)
	}
	// Of key 20 only the table has one, of 21 only the store, of 22 they differ, and
	// of 23 the table missed one of two that just came.
	stolen, lost, other := happened(20, 600_000_000), happened(21, 600_000_000), happened(22, 600_000_000)
	for key := int64(20); key <= 23; key++ {
		for _, ago := range []int64{900_000_000, 800_000_000} {
			somewhere(happened(key, ago))
		}
	}
	stored := topicLogs{}
	for tp, rows := range logs {
		stored[tp] = slices.Clone(rows)
	}
	plant := func(online, offline *factRow) {
		tp := stream.TopicPartition{Topic: "shop.users"}
		for side, row := range map[*topicLogs]*factRow{&logs: online, &stored: offline} {
			gap := factRow{keys: []any{int64(99)}, v: Version{EventTime: now - 1}, values: map[string]any{}} // nobody asks for it
			if row != nil {
				gap = *row
			}
			side.add(tp.Topic, tp.Partition, gap)
		}
	}
	plant(&stolen, nil)
	plant(nil, &lost)
	wrong := other
	wrong.values = map[string]any{"x": 1e6, "s": "other"}
	plant(&other, &wrong)
	fresh, missed := happened(23, 900_000), happened(23, 1_000_000)
	plant(nil, &missed)
	plant(&fresh, &fresh)

	unsure := 0
	for tp, rows := range logs {
		part := stored.batch(table.plan.source, tp, 0, len(rows))
		must(t, l.store.Insert(t.Context(), fmt.Sprint(tp), part))
		must(t, l.store.InsertLedger(t.Context(), fmt.Sprint(tp), ledgerOf(table, tp, len(rows))))
		until := len(rows)
		if tp != (stream.TopicPartition{Topic: "shop.users"}) {
			until -= r.IntN(60)
		}
		unsure += len(rows) - until
		for from := 0; from < until; { // as deliveries come
			to := min(from+1+r.IntN(100), until)
			table.apply(logs.batch(table.plan.source, tp, from, to), now)
			from = to
		}
	}
	if unsure < 50 {
		t.Fatalf("the table lacks %d events only: nothing is shown", unsure)
	}
	m, log := l.monitor(now)
	var names []string
	for _, f := range table.plan.schema.Values() {
		names = append(names, `"activity:`+f.Name+`"`)
	}
	different := func(key int) (all, skewed int64) {
		t.Helper()
		m.minutes = map[int64]map[featureName]*tally{}
		serve(t, l.online, log, m, now, fmt.Sprintf(`{"features":[%s],"entities":{"driver_id":[%d]}}`, strings.Join(names, ","), key))
		must(t, m.Tick(t.Context(), now+2*time.Minute.Microseconds()))
		for f, c := range m.lastHour() {
			if all += c.checked; c.different > 0 {
				skewed++
				if key < 20 {
					t.Errorf("key %d: %s differs", key, f.feature)
				}
			}
		}
		return all, skewed
	}
	for key := range keys + 1 { // the last: nothing ever happened to it
		if all, _ := different(key); all != int64(len(names)) {
			t.Errorf("key %d: %d of %d features checked, %d reads wait", key, all, len(names), len(m.samples))
		}
	}
	for key := 20; key <= 23; key++ {
		if all, skewed := different(key); all != int64(len(names)) || skewed < 2 {
			t.Errorf("key %d: %d checked and %d different, want all and at least count and sum", key, all, skewed)
		}
	}
}

func ledgerOf(table *windowTable, tp stream.TopicPartition, next int) event.LedgerRow {
	return event.LedgerRow{Topic: tp.Topic, Partition: tp.Partition, To: int64(next) - 1, Tables: map[string]int64{table.plan.source.Table(): int64(next)}}
}

// TestMonitorWaitsForWindowsOfASource: what such windows hold is waited for, and
// counts as different when it is not stored ten minutes after the read.
func TestMonitorWaitsForWindowsOfASource(t *testing.T) {
	const now = int64(1772366400_000000)
	l := openLibrary(t, 1<<28)
	table, logs, tp := l.mixedWindows(t), topicLogs{}, stream.TopicPartition{Topic: "shop.users", Partition: 3}
	logs.add(tp.Topic, tp.Partition, factRow{keys: []any{int64(1)}, v: Version{EventTime: now - 10_000_000}, knownAt: now - 9_000_000, values: map[string]any{"x": 1.0}})
	table.apply(logs.batch(table.plan.source, tp, 0, 1), now)
	m, log := l.monitor(now)
	serve(t, l.online, log, m, now, `{"features":["activity:count_1m0s"],"entities":{"driver_id":[1]}}`)
	for _, c := range []struct {
		after time.Duration
		want  tally
		wait  int
	}{{2 * time.Minute, tally{}, 1}, {11 * time.Minute, tally{1, 1, 1, 1}, 0}} {
		must(t, m.Tick(t.Context(), now+c.after.Microseconds()))
		if got := m.lastHour()[featureName{testNamespace, "activity", "count_1m0s"}]; got != c.want || len(m.samples) != c.wait {
			t.Errorf("after %v: %+v, %d wait, want %+v and %d", c.after, got, len(m.samples), c.want, c.wait)
		}
	}
	// What was written before that was noted says nothing of it, and is not checked.
	serve(t, l.online, log, m, now, `{"features":["activity:count_1m0s"],"entities":{"driver_id":[1]}}`)
	if len(m.samples) != 1 || len(m.samples[0].folded) != 1 {
		t.Fatalf("served: %+v", m.samples)
	}
	m.samples[0].folded = nil
	must(t, m.Tick(t.Context(), now+(12*time.Minute).Microseconds()))
	if got := m.lastHour()[featureName{testNamespace, "activity", "count_1m0s"}]; got != (tally{1, 1, 1, 1}) || len(m.samples) != 0 {
		t.Errorf("a read that notes nothing: %+v, %d wait", got, len(m.samples))
	}
	// Of the rows of an answer those that are written down alone are noted.
	columns := logs.batch(table.plan.source, tp, 0, 1).Columns
	key, rows := AppendKey(nil, columns[table.plan.source.KeyStart():table.plan.source.ValueStart()], 0), Rows{wanted: []int{1, 3}}
	for row := range 5 {
		table.get(key, now, &rows)
		if noted := rows.reachedBy(row); (noted != nil) != (row == 1 || row == 3) {
			t.Errorf("row %d: %v", row, noted)
		}
	}
}
