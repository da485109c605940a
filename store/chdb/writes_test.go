package chdb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebitengine/purego"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

// TestFailedWrites fails each write of an insert and of a merge, one after
// the other. The engine itself answers "done" and loses the rows at the
// next start: that is the control.
func TestFailedWrites(t *testing.T) {
	shim := testenv.Preload(t)
	outcomes := func(t *testing.T, part string) (all []faultOutcome) {
		p := start(t, part, t.TempDir(), shim)
		for p.lines.Scan() {
			var o faultOutcome
			if _, err := fmt.Sscanf(p.lines.Text(), faultFormat, &o.what, &o.nth, &o.code, &o.rows, &o.want, &o.reopened, &o.told); err != nil {
				t.Fatalf("child says: %s", p.lines.Text())
			}
			t.Log(p.lines.Text())
			all = append(all, o)
		}
		if len(all) < 20 {
			t.Fatalf("only %d writes failed", len(all))
		}
		return all
	}
	t.Run("noticed", func(t *testing.T) {
		for _, o := range outcomes(t, "faults") {
			switch {
			case o.what == "background":
				if o.rows != o.want || o.reopened != o.want || !o.told {
					t.Errorf("merge in the background: %+v", o)
				}
			case o.code != 75, o.rows != o.reopened, o.rows != o.want && (o.what != "insert" || o.rows != o.want-100):
				t.Errorf("write %d of %s failed: %+v, want error 75, and rows that stay as they are", o.nth, o.what, o)
			}
		}
	})
	t.Run("control", func(t *testing.T) {
		wrong := map[string]int{}
		for _, o := range outcomes(t, "faults blind") {
			if o.code == 0 && (o.rows != o.want || o.reopened != o.want) {
				wrong[o.what]++
			}
		}
		t.Logf("failed writes that were answered \"done\" and are not: %v", wrong)
		if wrong["insert"] == 0 || wrong["merge"] == 0 {
			t.Error("the engine became honest, or nothing was shown")
		}
	})
}

// faultOutcome is what became of one failed write.
type faultOutcome struct {
	what       string
	nth, code  int
	rows, want int // at once
	reopened   int
	told       bool
}

const faultFormat = "%s %d code %d rows %d of %d then %d told %t"

// faults is a process with the injector.
type faults struct {
	cfg  chdb.Config
	db   *chdb.DB
	told atomic.Bool // the log says that tables were loaded anew
	done []faultOutcome
	arm  func(part string, nth, forever int32)
	left func() int32
}

func playFaults(part string, cfg chdb.Config) (err error) {
	f := &faults{cfg: cfg}
	f.cfg.Log = slog.New(slog.NewTextHandler(f, nil))
	if strings.HasSuffix(part, "blind") {
		f.cfg = chdb.Blind(f.cfg)
	}
	purego.RegisterLibFunc(&f.arm, purego.RTLD_DEFAULT, "fault_arm")
	purego.RegisterLibFunc(&f.left, purego.RTLD_DEFAULT, "fault_left")
	if f.db, err = chdb.Open(context.Background(), f.cfg); err != nil {
		return err
	}
	for _, c := range []struct {
		what, path, sql string
		want            int
	}{
		{"insert", "tmp_insert", "", 600},
		{"merge", "tmp_merge", "OPTIMIZE TABLE %s FINAL", 500},
	} {
		if err := f.each(c.what, c.path, c.sql, c.want); err != nil {
			return err
		}
	}
	if err := f.background(); err != nil {
		return err
	}
	return f.reopened()
}

// Write is the log's.
func (f *faults) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("tables were loaded anew")) {
		f.told.Store(true)
	}
	return len(b), nil
}

func (f *faults) exec(sql string) error {
	return f.db.Exec(context.Background(), chdb.Statement{SQL: sql})
}

func (f *faults) insert(table string, token int) error {
	s := chdb.Statement{SQL: fmt.Sprintf("INSERT INTO %s SETTINGS async_insert = 0, insert_deduplication_token = '%d'", table, token)}
	_, err := f.db.Insert(context.Background(), s, "TabSeparated", func(w io.Writer) error {
		for i := range 100 {
			fmt.Fprintf(w, "%d\t%d\n", token, i)
		}
		return nil
	})
	return err
}

func (f *faults) table(name string) error {
	err := f.exec("CREATE TABLE " + name + " (a Int64, b Int64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100, min_bytes_for_wide_part = 0")
	for i := 0; i < 5 && err == nil; i++ {
		err = f.insert(name, i)
	}
	return err
}

// count counts the different rows: a merge of a cut part makes zeros of what is
// missing.
func (f *faults) count(table string) (n int, err error) {
	err = f.db.Query(context.Background(), chdb.Statement{SQL: "SELECT uniqExact(a, b) FROM " + table}, "TabSeparated", func(b []byte) error {
		_, err := fmt.Sscan(string(b), &n)
		return err
	})
	return n, err
}

// each fails the first write of a statement, then the second, and so on.
func (f *faults) each(what, path, sql string, want int) error {
	for nth := 1; nth < 15; nth++ {
		name := fmt.Sprint(what, nth)
		if err := f.table(name); err != nil {
			return err
		}
		f.arm(path, int32(nth), 0)
		var err error
		if sql == "" {
			err = f.insert(name, 99)
		} else {
			err = f.exec(fmt.Sprintf(sql, name))
		}
		left := f.left()
		f.arm("", 0, 0)
		if left > 0 {
			return nil
		}
		o := faultOutcome{what: what, nth: nth, want: want}
		var e *chdb.Error
		if errors.As(err, &e) {
			o.code = e.Code
		}
		if o.rows, err = f.count(name); err != nil {
			o.rows = -1
		}
		f.done = append(f.done, o)
	}
	return nil
}

// background fails a write of a merge that no statement waits for.
func (f *faults) background() error {
	o := faultOutcome{what: "background", nth: 1}
	if err := f.table("background1"); err != nil {
		return err
	}
	f.told.Store(false)
	f.arm("tmp_merge", 3, 0)
	for i := 5; i < 200 && f.left() > 0; i++ {
		if err := f.insert("background1", i); err != nil {
			var e *chdb.Error
			if !errors.As(err, &e) || e.Code != 75 {
				return err
			}
		}
		o.want = 100 * (i + 1)
	}
	for range 300 {
		if o.told = f.told.Load(); o.told {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for range 100 {
		var err error
		if o.rows, err = f.count("background1"); err == nil && o.rows == o.want {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.done = append(f.done, o)
	return nil
}

// reopened says how much is there after a start.
func (f *faults) reopened() (err error) {
	if err := f.db.Close(); err != nil {
		return err
	}
	if f.db, err = chdb.Open(context.Background(), f.cfg); err != nil {
		return err
	}
	for _, o := range f.done {
		if o.reopened, err = f.count(fmt.Sprint(o.what, o.nth)); err != nil {
			o.reopened = -1
		}
		fmt.Printf(faultFormat+"\n", o.what, o.nth, o.code, o.rows, o.want, o.reopened, o.told)
	}
	return f.db.Close()
}

// TestUndo takes away what can be made again, and nothing else.
func TestUndo(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name, parts string // folder=rows; !folder is older than the time, +folder on another volume
		want        string
	}{
		{"a merge with all it came from", "all_1_1_0=2 all_2_2_0=3 all_4_4_0=1 all_1_4_1=6", "all_1_4_1"},
		{"a merge of merges", "all_1_1_0=2 all_2_2_0=3 all_3_3_0=1 all_1_2_1=5 all_1_3_2=6", "all_1_2_1 all_1_3_2"},
		{"a part in the middle is gone", "all_1_1_0=2 all_4_4_0=1 all_1_4_1=6", ""},
		{"all is gone", "all_1_4_1=6", ""},
		{"older than the time", "all_1_1_0=2 all_2_2_0=3 !all_1_2_1=5", ""},
		{"a mutation that deleted", "all_1_1_0=2 all_1_1_0_2=1", ""}, // else dropped rows are back for a while
		{"a merge of what a mutation left", "all_1_1_0=2 all_2_2_0=3 all_1_1_0_3=1 all_2_2_0_3=3 all_1_2_1_3=4", "all_1_2_1_3"},
		{"dropped rows", "all_1_1_0=2 all_1_1_1=0", ""},
		{"dropped rows of several parts", "all_1_1_0=2 all_2_2_0=3 all_1_2_1=0", ""},
		{"another partition", "202601_1_1_0=2 202602_2_2_0=3 202601_1_2_1=5", ""},
		{"a merge that was moved", "all_1_1_0=2 all_2_2_0=3 +all_1_2_1=5", "all_1_2_1"},
		{"what a merge was made from was moved", "+all_1_1_0=2 all_2_2_0=3 all_1_2_1=5", "all_1_2_1"},
		{"a part that is being moved", "all_1_1_0=2 +all_1_1_0=2 all_2_2_0=3 all_1_2_1=5", "all_1_2_1"},
		{"half of it is there twice", "all_1_1_0=2 +all_1_1_0=2 all_1_2_1=4", ""},
		{"a count that is cut off", "all_1_1_0=2 all_2_2_0=3 all_1_2_1=", ""},
	} {
		dirs := []string{t.TempDir(), t.TempDir()} // the second on another volume
		place := func(folder string) string {
			dir := dirs[0]
			if strings.HasPrefix(folder, "+") {
				dir = dirs[1]
			}
			return filepath.Join(dir, strings.TrimLeft(folder, "+!"))
		}
		for _, p := range strings.Fields(c.parts) {
			folder, rows, _ := strings.Cut(p, "=")
			path := place(folder)
			if err := errors.Join(os.Mkdir(path, 0o750), os.WriteFile(filepath.Join(path, "count.txt"), []byte(rows), 0o640)); err != nil {
				t.Fatal(err)
			}
			if folder[0] == '!' {
				if err := os.Chtimes(path, now, now.Add(-time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := chdb.Undo(dirs, now.Add(-time.Second))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: undone %v, %v; want %q", c.name, got, err, c.want)
		}
		for _, p := range strings.Fields(c.parts) {
			folder := strings.TrimRight(strings.TrimRight(p, "0123456789"), "=")
			_, err := os.Stat(place(folder))
			if gone := errors.Is(err, fs.ErrNotExist); gone != slices.Contains(got, strings.TrimLeft(folder, "+!")) {
				t.Errorf("%s: %s gone: %v", c.name, folder, gone)
			}
		}
	}
}
