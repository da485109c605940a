package store_test

import (
	"testing"

	"github.com/kedge-ml/kedge/event"
)

func TestInsertOncePerToken(t *testing.T) {
	s := open(t)
	view := features(1)
	b := batch(view, 0, 1000)
	insert(t, s, "unit-0", b)
	insert(t, s, "unit-0", b)
	if got := text(t, s, "SELECT count(), sum(_offset) FROM features_1"); got != "1000\t499500" {
		t.Errorf("same token twice: %s, want 1000 rows", got)
	}
	insert(t, s, "unit-0-again", b)
	if got := text(t, s, "SELECT count() FROM features_1"); got != "2000" {
		t.Errorf("another token (the control): %s rows, want 2000", got)
	}
}

func TestInsertMakesOnePart(t *testing.T) {
	s := open(t)
	b := zeros(features(1), 1_200_000) // more than the engine's default block
	insert(t, s, "big", b)
	if got := text(t, s, "SELECT count(), max(rows) FROM system.parts WHERE table = 'features_1' AND level = 0"); got != "1\t1200000" {
		t.Errorf("parts and rows: %q, want one of 1,200,000", got)
	}
}

// zeros is a large batch in little time.
func zeros(sc *event.Schema, rows int) *event.Batch {
	b := event.NewBatch(sc, topic)
	b.Rows = rows
	for i := range b.Columns {
		c := &b.Columns[i]
		if c.Nulls != nil {
			c.Nulls = make([]uint8, rows)
		}
		c.Bools, c.Int32s, c.Int64s, c.Float64s, c.StrEnds = make([]uint8, rows), make([]int32, rows), make([]int64, rows), make([]float64, rows), make([]uint32, rows)
	}
	return b
}

func TestLedgerEpochs(t *testing.T) {
	s := open(t)
	for i, r := range [][2]int64{{100, 200}, {200, 250}, {300, 400}} {
		row := ledgerRow(r[0], r[1], "features_1")
		if err := s.InsertLedger(t.Context(), string(rune('a'+i)), row); err != nil {
			t.Fatal(err)
		}
	}
	row := ledgerRow(0, 10, "features_1")
	row.Epoch = 2
	if err := s.InsertLedger(t.Context(), "e2", row); err != nil {
		t.Fatal(err)
	}
	got, err := s.Epochs(t.Context(), topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []event.EpochRange{{Epoch: 0, First: 100, Next: 250}, {Epoch: 2, First: 0, Next: 10}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := s.Epochs(t.Context(), topic, 1); err != nil || len(got) != 0 {
		t.Errorf("unknown partition: %v %v", got, err)
	}
}

func TestBeyondAndTrim(t *testing.T) {
	s := open(t)
	view := features(1)
	insert(t, s, "a", batch(view, 0, 100))
	if err := s.InsertLedger(t.Context(), "a", ledgerRow(0, 100, "features_1")); err != nil {
		t.Fatal(err)
	}
	dead := []event.DeadLetter{{Topic: topic, Offset: 99, KnownAt: minute, Reason: event.ReasonType, Value: []byte("\xff\x00")}}
	if err := s.InsertDeadLetters(t.Context(), "a/dead", dead); err != nil {
		t.Fatal(err)
	}
	check := func(from, rows, ledger int64) {
		t.Helper()
		n, l, err := s.Beyond(t.Context(), topic, 0, 0, from)
		if err != nil || n != rows || l != ledger {
			t.Errorf("beyond %d: %d rows and %d ledger rows %v, want %d and %d", from, n, l, err, rows, ledger)
		}
	}
	check(0, 101, 1)
	check(90, 11, 1)
	check(100, 0, 0)
	for range 2 {
		if err := s.Trim(t.Context(), topic, 0, 0, 90); err != nil {
			t.Fatal(err)
		}
		check(90, 0, 0)
		check(0, 90, 0)
	}
}

func TestSeenIDs(t *testing.T) {
	s := open(t)
	view, other := features(1), features(2)
	insert(t, s, "a", batch(view, 0, 10))
	insert(t, s, "b", batch(other, 5, 8))
	var n, sum int64
	for id, err := range s.SeenIDs(t.Context(), topic, 0, 0, 4, 7) {
		if err != nil {
			t.Fatal(err)
		}
		if id.Kind != event.Features || id.TableID == 2 && id.Offset < 5 || len(id.ID) == 0 {
			t.Errorf("unexpected %+v", id)
		}
		n, sum = n+1, sum+id.Offset
	}
	if n != 5 || sum != 4+5+6+5+6 {
		t.Errorf("%d ids, offsets sum to %d", n, sum)
	}
	for range s.SeenIDs(t.Context(), topic, 0, 0, 0, 100) {
		break // an early end must free the connection
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
