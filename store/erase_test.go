package store_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// entityRow appends a row of one key with a text that says whose it is.
func entityRow(b *event.Batch, key string, at, offset int64, deleted bool, secret []byte) {
	addRow(b, offset)
	last := func(c *event.Column, v []byte) {
		c.Data = append(c.Data[:c.StrEnds[len(c.StrEnds)-1]-uint32(len(c.Str(b.Rows-1)))], v...)
		c.StrEnds[len(c.StrEnds)-1] = uint32(len(c.Data))
	}
	last(&b.Columns[b.Schema.KeyStart()], []byte(key))
	c := &b.Columns[b.Schema.ValueStart()]
	last(c, secret)
	c.Nulls[b.Rows-1] = 0
	for _, col := range []int{event.ColEventTime, event.ColCreated} {
		b.Columns[col].Int64s[b.Rows-1] = at
	}
	b.Columns[event.FeatureDelete].Bools[b.Rows-1] = 0
	if deleted {
		b.Columns[event.FeatureDelete].Bools[b.Rows-1] = 1
	}
}

// onDisk reports whether any file below a folder holds a text.
func onDisk(t *testing.T, dir string, text []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // parts come and go
		}
		raw, err := os.ReadFile(path)
		if err == nil && bytes.Contains(raw, text) {
			found = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEraseDeleted deletes one of three entities by a tombstone and wants its
// rows gone from the table, the latest-state table and the disk; what comes late
// goes too, the audit does not take it for lost, and nobody else loses a row.
func TestEraseDeleted(t *testing.T) {
	cfg := config(t)
	s := openAt(t, cfg)
	view := features(7, event.Field{Name: "note", Type: scalar(event.String)})
	// random bytes: compression leaves them as they are, so that files can be searched
	secret := make([]byte, 4096)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(secret)
	needle := secret[1000:1064]
	other := []byte("somebody else")
	insertUnit := func(from int64, fill func(b *event.Batch)) {
		t.Helper()
		b := event.NewBatch(view, topic)
		fill(b)
		insert(t, s, fmt.Sprint("e", from), b)
		if err := s.InsertLedger(t.Context(), fmt.Sprint("e", from), ledgerRow(from, from+int64(b.Rows), "features_7")); err != nil {
			t.Fatal(err)
		}
	}
	insertUnit(0, func(b *event.Batch) {
		entityRow(b, "ann", minute, 0, false, secret)
		entityRow(b, "bob", minute, 1, false, other)
		entityRow(b, "ann", minute+60_000_000, 2, false, secret)
		entityRow(b, "ann'--", minute, 3, false, other)
	})
	ends := func(next int64) map[int32]event.EpochRange { return map[int32]event.EpochRange{0: {Next: next}} }
	check(t, s.AdvanceLatest(t.Context(), view, ends(4), minute+120_000_000))
	erase := func() int64 {
		t.Helper()
		n, err := s.EraseDeleted(t.Context(), view, minute+120_000_000)
		check(t, err)
		return n
	}
	if n := erase(); n != 0 {
		t.Fatalf("%d rows erased without a tombstone", n)
	}
	insertUnit(4, func(b *event.Batch) { entityRow(b, "ann", minute+60_000_000, 4, true, nil) })
	if there, n := onDisk(t, cfg.DataDir, needle), count(t, s, "latest_7", "k_user = 'ann'"); !there || n == "0" {
		t.Fatalf("before the erasure the planted text is on disk: %v, and the latest state has %s rows: the search proves nothing", there, n)
	}
	if n := eraseAtOnce(t, s, view); n != 2 {
		t.Errorf("%d rows erased by calls that meet, want 2", n)
	}
	for _, table := range []string{"features_7", "latest_7"} {
		if n := count(t, s, table, "k_user = 'ann' AND NOT deleted"); n != "0" {
			t.Errorf("%s still holds %s rows", table, n)
		}
		if n := count(t, s, table, "k_user != 'ann'"); n != "2" {
			t.Errorf("%s holds %s rows of others, want 2", table, n)
		}
	}
	if onDisk(t, cfg.DataDir, needle) {
		t.Error("a file still holds the erased text")
	}
	insertUnit(5, func(b *event.Batch) { // one late, one that the tombstone does not cover
		entityRow(b, "ann", minute+30_000_000, 5, false, secret)
		entityRow(b, "ann", minute+90_000_000, 6, false, other)
	})
	if n := erase(); n != 1 {
		t.Errorf("%d late rows erased, want 1", n)
	}
	if n := count(t, s, "features_7", "1"); n != "4" {
		t.Errorf("%s rows are left, want ann's new one, her tombstone, and two of others", n)
	}
	if onDisk(t, cfg.DataDir, needle) {
		t.Error("a file still holds the late text")
	}
	if n := erase(); n != 0 {
		t.Errorf("%d rows erased twice", n)
	}
	auditIsClean(t, s)
	text(t, s, "ALTER TABLE features_7 DELETE WHERE k_user = 'bob' SETTINGS mutations_sync = 2")
	parts, _, err := s.AuditLedger(t.Context(), "", time.Time{})
	check(t, err)
	if parts[0].GapRows != 1 {
		t.Errorf("a row that nobody erased is gone, and the audit says %+v", parts[0])
	}
}

// eraseAtOnce lets a delete and ticks meet, and returns how many rows they say
// to have erased.
func eraseAtOnce(t *testing.T, s *store.Store, view *event.Schema) int64 {
	t.Helper()
	var rows atomic.Int64
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			n, err := s.EraseDeleted(t.Context(), view, minute+120_000_000)
			if err != nil {
				t.Error(err)
			}
			rows.Add(n)
		})
	}
	busy.Wait()
	return rows.Load()
}

// TestEraseWaitsForTheLedger: rows of a unit that is under way stay, since the
// unit is known by them.
func TestEraseWaitsForTheLedger(t *testing.T) {
	s := open(t)
	view := features(8, event.Field{Name: "note", Type: scalar(event.String)})
	b := event.NewBatch(view, topic)
	entityRow(b, "ann", minute, 0, false, []byte("x"))
	entityRow(b, "ann", minute+1, 1, true, nil)
	insert(t, s, "pending", b)
	if n, err := s.EraseDeleted(t.Context(), view, minute+2); n != 0 || err != nil {
		t.Fatalf("%d rows of a pending unit erased, %v", n, err)
	}
	check(t, s.InsertLedger(t.Context(), "pending", ledgerRow(0, 2, "features_8")))
	if n, err := s.EraseDeleted(t.Context(), view, minute); n != 0 || err != nil {
		t.Fatalf("%d rows erased before the tombstone's time, %v", n, err)
	}
	if n, err := s.EraseDeleted(t.Context(), view, minute+2); n != 1 || err != nil {
		t.Fatalf("%d rows erased, %v, want 1", n, err)
	}
	auditIsClean(t, s)
	var keys []string
	for b, err := range s.Keys(t.Context(), view, map[string]string{"user": "ann"}) {
		check(t, err)
		for i := range b.Rows {
			keys = append(keys, string(b.Columns[b.Schema.KeyStart()].Str(i)))
		}
	}
	if fmt.Sprint(keys) != "[ann]" {
		t.Errorf("keys %v", keys)
	}
}

func count(t *testing.T, s *store.Store, table, where string) string {
	t.Helper()
	return text(t, s, "SELECT count() FROM "+table+" WHERE "+where)
}

func auditIsClean(t *testing.T, s *store.Store) {
	t.Helper()
	parts, found, err := s.AuditLedger(t.Context(), "", time.Time{})
	check(t, err)
	if len(found) != 0 || parts[0].GapRows != 0 || parts[0].DuplicateRows != 0 {
		t.Errorf("the audit takes erased rows for lost ones: %+v %v", parts, found)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
