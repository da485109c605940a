package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// aged are rows of a schema that the broker appended some time ago.
func aged(s *event.Schema, from, to int64, ago time.Duration) *event.Batch {
	b := batch(s, from, to)
	for i := range b.Rows {
		b.Columns[event.ColAppended].Int64s[i] = time.Now().Add(-ago).UnixMicro()
	}
	return b
}

// partsIn counts the folders of parts below a folder.
func partsIn(t testing.TB, root string) (n int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "count.txt" {
			n++
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const everything = "SELECT count(), sum(cityHash64(*)) FROM features_1"

func on(t testing.TB, s *store.Store) string {
	t.Helper()
	return text(t, s, "SELECT arrayStringConcat(groupArray(concat(disk_name, ' ', toString(n))), ', ') FROM (SELECT disk_name, sum(rows) AS n FROM system.parts WHERE database = 'kedge' AND table = 'features_1' AND active GROUP BY disk_name ORDER BY disk_name)")
}

// TestRowsMoveToVolumes: old rows move as the preview said and are answered from
// there, across a start, a backup and a restore; the latest rows stay; what no
// definition moves any more comes back; and a folder that is not there, or not
// the one, opens nothing.
func TestRowsMoveToVolumes(t *testing.T) {
	cfg := config(t)
	cold := t.TempDir()
	cfg.Volumes = []chdb.Volume{{Name: "cold", Path: cold}}
	s := openAt(t, cfg)
	view := features(1)
	prepare(t, s, view)
	text(t, s, "SYSTEM STOP MERGES features_1") // else the old rows may share a part with the new ones
	insert(t, s, "old", aged(view, 0, 100, 48*time.Hour))
	insert(t, s, "new", aged(view, 100, 130, time.Minute))
	text(t, s, "SYSTEM START MERGES features_1")
	move := func(*event.Schema) store.Kept {
		return store.Kept{For: 90 * 24 * time.Hour, After: 24 * time.Hour, Volume: "cold"}
	}
	if names := must[[]string](t)(s.Volumes(t.Context())); fmt.Sprint(names) != "[cold]" {
		t.Errorf("volumes %v", names)
	}
	rows, before := text(t, s, everything), on(t, s)
	m := must[store.Moving](t)(s.Moves(t.Context(), time.Now(), move))
	if before == "default 130" && (m.Rows != 100 || m.Bytes <= 0) {
		t.Errorf("the preview says %+v", m)
	}
	if gone := must[store.Moving](t)(s.Moves(t.Context(), time.Now(), func(*event.Schema) store.Kept { return store.Kept{For: time.Hour, After: time.Minute, Volume: "cold"} })); gone.Rows > 30 {
		t.Errorf("the preview moves what is removed: %+v", gone)
	}
	if err := s.SetRetentions(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	testenvEventually(t, func() error {
		if got := on(t, s); got != "cold 100, default 30" {
			return fmt.Errorf("rows are on %s", got)
		}
		return nil
	})
	if m := must[store.Moving](t)(s.Moves(t.Context(), time.Now(), move)); m != (store.Moving{}) {
		t.Errorf("after the move the preview says %+v", m)
	}
	if got := text(t, s, everything); got != rows || partsIn(t, cold) == 0 {
		t.Errorf("after the move %s, before %s; %d parts in the folder", got, rows, partsIn(t, cold))
	}
	backup := filepath.Join(s.Embedded().BackupDir(), "b.tar")
	if err := errors.Join(s.Embedded().Backup(t.Context(), "kedge", backup, ""), s.Close()); err != nil {
		t.Fatal(err)
	}

	refused := func(why string, cfg store.EmbeddedConfig, want string) {
		t.Helper()
		if s, err := store.OpenEmbedded(t.Context(), cfg); !errors.Is(err, chdb.ErrVolume) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", why, err)
			if err == nil {
				s.Close()
			}
		}
	}
	hidden := cold + "-hidden"
	if err := os.Rename(cold, hidden); err != nil {
		t.Fatal(err)
	}
	refused("the folder is gone", cfg, "is its disk mounted?")
	if err := os.Mkdir(cold, 0o750); err != nil {
		t.Fatal(err)
	}
	refused("another folder is in its place", cfg, "is its disk mounted?")
	if err := errors.Join(os.Remove(cold), os.Rename(hidden, cold)); err != nil {
		t.Fatal(err)
	}
	without := cfg
	without.Volumes = nil
	refused("it is not configured any more", without, "holds rows")
	other := config(t)
	other.Volumes = cfg.Volumes
	refused("another data directory's", other, "belongs to another")
	other.Volumes = []chdb.Volume{{Name: "cold", Path: t.TempDir()}}
	if err := os.WriteFile(filepath.Join(other.Volumes[0].Path, "photo.jpg"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a folder with something in it", other, "photo.jpg")
	other.Volumes = []chdb.Volume{{Name: "cold", Path: filepath.Join(cold, "none")}}
	refused("no folder", other, "make the folder")

	s = openAt(t, cfg)
	if got := text(t, s, everything); got != rows || on(t, s) != "cold 100, default 30" {
		t.Errorf("after a start %s on %s, want %s", got, on(t, s), rows)
	}
	prepare(t, s, view)
	if err := s.SetRetentions(t.Context(), func(*event.Schema) store.Kept { return store.Kept{} }); err != nil {
		t.Fatal(err)
	}
	if got := text(t, s, everything); got != rows || on(t, s) != "default 130" {
		t.Errorf("moved back %s on %s, want %s", got, on(t, s), rows)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, without) // its rows are back
	if got := text(t, s, everything); got != rows {
		t.Errorf("without the volume %s, want %s", got, rows)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	restored := config(t)
	restored.Volumes = []chdb.Volume{{Name: "cold", Path: t.TempDir()}}
	restoreInto(t, restored, backup)
	s = openAt(t, restored)
	if got := text(t, s, everything); got != rows {
		t.Errorf("restored %s, want %s", got, rows)
	}
	testenvEventually(t, func() error { // the clause is restored, too
		if got := on(t, s); got != "cold 100, default 30" {
			return fmt.Errorf("restored rows are on %s", got)
		}
		return nil
	})
}

// restoreInto restores an archive into a new data directory.
func restoreInto(t testing.TB, cfg store.EmbeddedConfig, backup string) {
	t.Helper()
	ec := chdb.DefaultConfig()
	ec.LibPath, ec.DataDir, ec.Database, ec.Volumes = cfg.LibPath, cfg.DataDir, cfg.Database, cfg.Volumes
	db, err := chdb.Open(t.Context(), ec)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(db.BackupDir(), "b.tar")
	if err := os.Rename(backup, moved); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Restore(t.Context(), "kedge", moved), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestAFullVolumeTakesNothing: what a volume has no room for stays where it is.
func TestAFullVolumeTakesNothing(t *testing.T) {
	cfg := config(t)
	cold := testenv.SmallDisk(t, 1<<20)
	cfg.Volumes = []chdb.Volume{{Name: "cold", Path: cold}}
	s := openAt(t, cfg)
	prepare(t, s, features(1))
	insert(t, s, "old", aged(features(1), 0, 200_000, 48*time.Hour))
	rows := text(t, s, everything)
	move := func(*event.Schema) store.Kept { return store.Kept{After: 24 * time.Hour, Volume: "cold"} }
	if m := must[store.Moving](t)(s.Moves(t.Context(), time.Now(), move)); m.Rows != 200_000 || m.Bytes < 1<<20 {
		t.Fatalf("%+v: the rows fit, so that nothing is shown", m)
	}
	if err := s.SetRetentions(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	err := s.Embedded().Exec(t.Context(), chdb.Statement{SQL: "ALTER TABLE features_1 MOVE PARTITION ID '" + text(t, s, "SELECT any(partition_id) FROM system.parts WHERE table = 'features_1' AND active") + "' TO VOLUME 'cold'"})
	if err == nil {
		t.Error("more rows than the volume has room for are said to have moved")
	}
	if got := text(t, s, everything); got != rows || on(t, s) != "default 200000" {
		t.Errorf("%s on %s (%v), want %s", got, on(t, s), err, rows)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := text(t, openAt(t, cfg), everything); got != rows {
		t.Errorf("after a start %s, want %s", got, rows)
	}
}
