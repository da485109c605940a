package chdb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

// disk is an engine on a small disk, with a table of a thousand rows.
type disk struct {
	cfg     chdb.Config
	db      *chdb.DB
	ballast string
	log     bytes.Buffer
}

func newDisk(t *testing.T, change func(chdb.Config) chdb.Config) *disk {
	t.Helper()
	d := &disk{cfg: config(t)}
	d.cfg.DataDir = testenv.SmallDisk(t, 48<<20)
	d.cfg.Log = slog.New(slog.NewTextHandler(&d.log, nil))
	if change != nil {
		d.cfg = change(d.cfg)
	}
	d.ballast = filepath.Join(d.cfg.DataDir, "ballast")
	d.open(t)
	t.Cleanup(func() { _ = d.db.Close() })
	run(t, d.db, "CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a", "INSERT INTO t SELECT number FROM numbers(1000)")
	return d
}

func (d *disk) open(t *testing.T) {
	t.Helper()
	var err error
	if d.db, err = chdb.Open(t.Context(), d.cfg); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) reopen(t *testing.T) {
	t.Helper()
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
	d.open(t)
}

// refuses runs a statement that must fail for want of space.
func (d *disk) refuses(t *testing.T, sql string) {
	t.Helper()
	err := d.db.Exec(t.Context(), chdb.Statement{SQL: sql})
	var e *chdb.Error
	if !errors.As(err, &e) || e.Code != 243 {
		t.Errorf("%s on a full disk: %v, want NOT_ENOUGH_SPACE", sql, err)
	}
}

// wants compares the table's columns and rows.
func (d *disk) wants(t *testing.T, columns string) {
	t.Helper()
	got := text(t, d.db, chdb.Statement{SQL: "SELECT arrayStringConcat(groupArray(name), ' ') FROM system.columns WHERE database = 'kedge' AND table = 't'"})
	rows := text(t, d.db, chdb.Statement{SQL: "SELECT count(), sum(a) FROM t"})
	if got != columns || rows != "1000\t499500" {
		t.Errorf("columns %q with %q, want %q with 1000 rows", got, rows, columns)
	}
}

// TestFullDiskKeepsDefinitions changes definitions on a full disk: refused by
// the free space, or, where another process takes the space at the last moment,
// found out and undone. Without both the engine says "done", and never opens
// again.
func TestFullDiskKeepsDefinitions(t *testing.T) {
	for name, room := range map[string]bool{"refused": true, "undone": false} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t, nil)
			if !room {
				d.db.WithoutRoom()
			}
			testenv.Fill(t, d.cfg.DataDir)
			d.refuses(t, "ALTER TABLE t ADD COLUMN b Int64")
			d.refuses(t, "-- one\n/* and two */ alter TABLE t ADD COLUMN b Int64")
			d.refuses(t, "CREATE TABLE u (a Int64) ENGINE = MergeTree ORDER BY a")
			d.refuses(t, "INSERT INTO t SELECT number FROM numbers(1000)")
			d.wants(t, "a")
			d.reopen(t)
			d.wants(t, "a")
			if err := os.Remove(d.ballast); err != nil {
				t.Fatal(err)
			}
			run(t, d.db, "ALTER TABLE t ADD COLUMN b Int64", "CREATE TABLE u (a Int64) ENGINE = MergeTree ORDER BY a", "DROP TABLE u SYNC")
			d.reopen(t)
			d.wants(t, "a b")
			if !room && !strings.Contains(d.log.String(), "put back") {
				t.Errorf("nobody was told: %s", d.log.String())
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		d := newDisk(t, chdb.Bare)
		testenv.Fill(t, d.cfg.DataDir)
		if err := d.db.Exec(t.Context(), chdb.Statement{SQL: "ALTER TABLE t ADD COLUMN b Int64"}); err != nil {
			t.Errorf("the engine became honest (%v): the guard may be lighter now", err)
		}
		if err := d.db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err := chdb.Open(t.Context(), d.cfg); err == nil {
			d.db = db
			t.Error("the engine opened with an empty definition")
		}
	})
}

// TestReserveForDefinitions fills the disk with rows alone: they end where a
// definition can still be changed.
func TestReserveForDefinitions(t *testing.T) {
	d := newDisk(t, nil)
	run(t, d.db, "CREATE TABLE s (x String CODEC(NONE)) ENGINE = MergeTree ORDER BY tuple()")
	var err error
	for range 200 {
		if err = d.db.Exec(t.Context(), chdb.Statement{SQL: "INSERT INTO s SELECT randomString(1000) FROM numbers(1000)"}); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "NOT_ENOUGH_SPACE") {
		t.Fatalf("the disk did not run full: %v", err)
	}
	run(t, d.db, "ALTER TABLE t ADD COLUMN b Int64")
	d.reopen(t)
	d.wants(t, "a b")
}

// TestCutFilesAreMended plants what a full disk leaves behind.
func TestCutFilesAreMended(t *testing.T) {
	cut := func(size int64) func(string) error {
		return func(path string) error { return os.Truncate(path, size) }
	}
	for _, c := range []struct {
		name, file string
		damage     func(string) error
		want       string
	}{
		{"empty definition", "metadata/kedge/t.sql", cut(0), "put back"},
		{"cut definition", "metadata/kedge/t.sql", cut(90), "put back"},
		{"empty database", "metadata/kedge.sql", cut(0), "put back"},
		{"empty definition of a new table", "metadata/kedge/u.sql", func(path string) error { return os.WriteFile(path, nil, 0o640) }, "put back"},
		{"cut mutation", "data/kedge/t/mutation_*.txt", cut(30), "mutation"},
		{"missing format version", "data/kedge/t/format_version.txt", cut(0), "format version"},
		{"cut log of tokens", "data/kedge/t/deduplication_logs/*.txt", cut(5), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t, nil)
			run(t, d.db, "ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 100",
				"ALTER TABLE t DELETE WHERE a < 0 SETTINGS mutations_sync = 2", "CREATE TABLE tokens (a Int64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100")
			if err := d.db.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(d.cfg.DataDir, "engine", c.file)
			if found, _ := filepath.Glob(path); len(found) > 0 {
				path = found[0]
			}
			if err := c.damage(path); err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				if db, err := chdb.Open(t.Context(), chdb.Bare(d.cfg)); err == nil {
					db.Close()
					t.Error("the engine opens without any mending: nothing is shown")
				}
			}
			d.open(t)
			d.wants(t, "a")
			if !strings.Contains(d.log.String(), c.want) {
				t.Errorf("the log does not say %q: %s", c.want, d.log.String())
			}
			run(t, d.db, "ALTER TABLE t ADD COLUMN b Int64 FIRST")
			d.wants(t, "b a")
		})
	}
}

// TestCutDefinitionWithoutCopy is told, not guessed at, where there are rows.
func TestCutDefinitionWithoutCopy(t *testing.T) {
	d := newDisk(t, nil)
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"definitions/kedge/t.sql", "engine/metadata/kedge/t.sql"} {
		if err := os.Truncate(filepath.Join(d.cfg.DataDir, p), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := chdb.Open(t.Context(), d.cfg); err == nil || !strings.Contains(err.Error(), "t.sql is cut off") || !strings.Contains(err.Error(), "restore a backup") {
			t.Errorf("opened with %v", err)
		}
		if err := os.RemoveAll(filepath.Join(d.cfg.DataDir, "definitions")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDroppedTableIsForgotten makes a table of a dropped one's name on a full
// disk: the old definition must not come back.
func TestDroppedTableIsForgotten(t *testing.T) {
	d := newDisk(t, nil)
	run(t, d.db, "DROP TABLE t SYNC")
	d.db.WithoutRoom()
	testenv.Fill(t, d.cfg.DataDir)
	d.refuses(t, "CREATE TABLE t (z Int64) ENGINE = MergeTree ORDER BY z")
	d.reopen(t)
	if n := text(t, d.db, chdb.Statement{SQL: "SELECT count() FROM system.tables WHERE database = 'kedge'"}); n != "0" {
		t.Errorf("%s tables, want none", n)
	}
}

// TestKillWhileDefinitionsAreCut kills a process that changes definitions on a
// full disk as fast as it can.
func TestKillWhileDefinitionsAreCut(t *testing.T) {
	d := newDisk(t, nil)
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
	testenv.Fill(t, d.cfg.DataDir)
	for i := range 6 {
		p := start(t, "alter", d.cfg.DataDir)
		p.expect(t, "refused")
		time.Sleep(time.Duration(7*i) * time.Millisecond) // the moment of a kill
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
		d.open(t)
		d.wants(t, "a")
		if err := d.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d.open(t)
}

// playAlter changes a definition for ever.
func playAlter(db *chdb.DB) error {
	db.WithoutRoom()
	for i := 0; ; i++ {
		var e *chdb.Error
		err := db.Exec(context.Background(), chdb.Statement{SQL: fmt.Sprintf("ALTER TABLE t ADD COLUMN b%d Int64", i)})
		if !errors.As(err, &e) || e.Code != 243 {
			return fmt.Errorf("the change was not refused: %w", err)
		}
		fmt.Println("refused")
	}
}
