package features

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
)

// storeLog stores what comes in the house's log, a unit per delivery, until ctx
// ends, and nothing while mu is held: enough of an ingest for a test of this room.
func (h *house) storeLog(ctx context.Context, st *store.Store, mu *sync.Mutex) error {
	starts := map[stream.TopicPartition]int64{}
	for p := range int32(4) {
		starts[stream.TopicPartition{Topic: FeatureTopic(testNamespace), Partition: p}] = 0
	}
	return h.client.NewFetcher(stream.FetchConfig{MinBytes: 1}).Run(ctx, starts, func(ctx context.Context, b *stream.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		defer b.Release()
		d := &decoding{decoder: event.NewDecoder(h.tail.cfg.Decoder)}
		if err := d.catalog.update(h.registry.State()); err != nil {
			return err
		}
		d.decode(b.TopicPartition, b.Records, 0)
		token, counts := fmt.Sprint(b.Partition, "/", b.Next), map[string]int64{}
		for _, rows := range d.unit.Batches {
			if err := st.Insert(ctx, token+rows.Schema.Table(), rows); err != nil {
				return err
			}
			counts[rows.Schema.Table()] = int64(rows.Rows)
		}
		n := int64(len(b.Records))
		return st.InsertLedger(ctx, token, event.LedgerRow{Topic: b.Topic, Partition: b.Partition, From: b.Next - n, To: b.Next - 1, Records: n, Rows: n, Tables: counts})
	})
}

// TestDeleteEntity deletes one entity by a part of its key: two views, a
// composite key among them, lose it in memory and in the store, and nobody else
// loses anything. A late row stays hidden and is erased by the next look.
func TestDeleteEntity(t *testing.T) {
	h, st := openHouse(t, time.Time{}), openStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var storing sync.Mutex
	go func() { done <- h.storeLog(ctx, st, &storing) }()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	h.view("driver", "0s", fieldsOf("driver_id Int64"), fieldsOf("note String"))
	h.view("pair", "0s", fieldsOf("driver_id Int64", "zone String"), fieldsOf("note String"))
	h.view("city", "0s", fieldsOf("city String"), fieldsOf("note String"))
	secret := strings.Repeat("the canary sings ", 20)
	row := func(view, key, at, note string) string {
		return fmt.Sprintf(`{"view":%q,"key":%s,"event_time":%q,"values":{"note":%q}}`, view, key, at, note)
	}
	h.write(row("driver", `{"driver_id":7}`, "2026-01-01T00:00:00Z", secret), row("driver", `{"driver_id":8}`, "2026-01-01T00:00:00Z", "other"),
		row("pair", `{"driver_id":7,"zone":"a"}`, "2026-01-01T00:00:00Z", secret), row("pair", `{"driver_id":7,"zone":"b"}`, "2026-01-01T00:00:00Z", secret),
		row("pair", `{"driver_id":8,"zone":"a"}`, "2026-01-01T00:00:00Z", "other"), row("city", `{"city":"7"}`, "2026-01-01T00:00:00Z", "other"))
	partitions := func(context.Context, string) (int, error) { return 4, nil }
	d := NewDeleter(h.online, EventsFrom(st, partitions, 0), h.writer, telemetry.Discard())
	must(t, d.awaitStored(ctx, testNamespace))
	driver := h.online.View(testNamespace, "driver")
	if !driver.table.(*Table).holds([]byte(secret)) {
		t.Fatal("the planted text is not found in memory before the delete: the search proves nothing")
	}
	got, err := d.Delete(ctx, testNamespace, map[string]string{"driver_id": "7"}, time.Minute)
	must(t, err)
	if fmt.Sprint(got) != "[{driver 1 1} {pair 2 2}]" {
		t.Errorf("erased %v", got)
	}
	if driver.table.(*Table).holds([]byte(secret)) || h.online.View(testNamespace, "pair").table.(*Table).holds([]byte(secret)) {
		t.Error("memory still holds the deleted text")
	}
	h.write(row("driver", `{"driver_id":7}`, "2026-01-02T00:00:00Z", secret))
	_, _, body := h.ask("POST", "/get-online-features", []byte(`{"features":["driver:note"],"entities":{"driver_id":[7,8]}}`))
	if !strings.Contains(body, `{"values":[null,"other"],"statuses":["NOT_FOUND","PRESENT"]`) {
		t.Errorf("a late row came back: %s", body)
	}
	must(t, d.awaitStored(ctx, testNamespace))
	must(t, d.Tick(ctx, time.Now()))
	for view, want := range map[string]int{"driver": 2, "pair": 3, "city": 1} { // tombstones among them
		n := 0
		for b, err := range st.History(ctx, store.HistoryQuery{Schema: h.online.View(testNamespace, view).Schema, To: maxTime}) {
			must(t, err)
			if n += b.Rows; bytes.Contains(b.Columns[b.Schema.ValueStart()].Data, []byte(secret)) {
				t.Errorf("view %s: the store still holds the deleted text", view)
			}
		}
		if n != want {
			t.Errorf("view %s: %d rows are stored, want %d", view, n, want)
		}
	}
	storing.Lock() // the log is not stored any more
	h.write(row("driver", `{"driver_id":9}`, "2026-01-01T00:00:00Z", "not stored"))
	hurried, hurry := context.WithTimeout(ctx, 200*time.Millisecond)
	defer hurry()
	if err := d.awaitStored(hurried, testNamespace); !errors.Is(err, ErrBehind) {
		t.Errorf("a log that is not stored in time: %v", err)
	}
	got, err = d.Delete(ctx, testNamespace, map[string]string{"driver_id": "8"}, 200*time.Millisecond)
	if !errors.Is(err, ErrBehind) || got != nil {
		t.Errorf("a delete that could not look for keys: %v %v", got, err)
	}
	storing.Unlock()
	for _, parts := range []map[string]string{{"nobody": "7"}, {"driver_id": "x"}, {"driver_id": "9223372036854775808"}, {"driver_id": "7", "city": "7"}, {"driver_id": ""}} {
		if got, err := d.Delete(ctx, testNamespace, parts, time.Minute); !errors.Is(err, ErrUnknown) || got != nil {
			t.Errorf("%v, which no view has: %v %v", parts, got, err)
		}
	}
	calls := 0
	hurried, hurry = context.WithCancel(ctx)
	defer hurry()
	slow := NewDeleter(h.online, EventsFrom(st, func(context.Context, string) (int, error) {
		if calls++; calls == 2 { // the log is waited for again: the tombstones are in it
			hurry()
		}
		return 4, nil
	}, 0), h.writer, telemetry.Discard())
	got, err = slow.Delete(hurried, testNamespace, map[string]string{"driver_id": "8"}, time.Minute)
	if !errors.Is(err, ErrBehind) || fmt.Sprint(got) != "[{driver 1 0} {pair 1 0}]" {
		t.Errorf("a delete whose erasure takes too long: %v %v", got, err)
	}
	if _, _, body := h.ask("POST", "/get-online-features", []byte(`{"features":["driver:note"],"entities":{"driver_id":[8]}}`)); !strings.Contains(body, "NOT_FOUND") {
		t.Errorf("what has its tombstone is still read: %s", body)
	}
}

// holds reports whether a text lies anywhere in the table's memory.
func (t *Table) holds(text []byte) bool {
	for i := range t.shards {
		for _, chunks := range [][][]byte{t.shards[i].rows, t.shards[i].blocks.chunks} {
			for _, c := range chunks {
				if bytes.Contains(c, text) {
					return true
				}
			}
		}
	}
	return false
}
