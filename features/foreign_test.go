package features

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
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

// TestSourceIsOnline: a source that is applied while the tables run makes what
// its topic holds and what comes readable, beside events of Kedge's own topic;
// one that is deleted is not read any more, and nobody waits for it.
func TestSourceIsOnline(t *testing.T) {
	h := openHouse(t, time.Time{})
	h.view("shopper", "0s", fieldsOf("id Int64"), fieldsOf("spend Float64"))
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
