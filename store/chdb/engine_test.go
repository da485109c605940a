package chdb_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kedge-ml/kedge/store/chdb"
)

// child is the environment variable that makes the test binary play a part in
// a process of its own.
const child = "KEDGE_CHDB_CHILD"

func TestMain(m *testing.M) {
	if part := os.Getenv(child); part != "" {
		if err := play(part); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func play(part string) error {
	cfg := chdb.DefaultConfig()
	cfg.LibPath, cfg.DataDir = os.Getenv("CHILD_LIB"), os.Getenv("CHILD_DIR")
	if strings.HasPrefix(part, "faults") {
		return playFaults(part, cfg)
	}
	db, err := chdb.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	switch part {
	case "hold":
		fmt.Println("ready")
		_, err = bufio.NewReader(os.Stdin).ReadString('\n')
		return errors.Join(err, db.Close())
	case "signals":
		return playSignals(db)
	case "alter":
		return playAlter(db)
	case "insert":
		return playInsert(db)
	}
	return fmt.Errorf("unknown part %q", part)
}

// playSignals shows that Go still gets SIGTERM, and that a nil pointer is a Go
// panic, after the engine ran.
func playSignals(db *chdb.DB) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := db.Exec(ctx, chdb.Statement{SQL: "SELECT 1"}); err != nil {
		return err
	}
	recovered := func() (r any) {
		defer func() { r = recover() }()
		var p *int
		*p = 1
		return nil
	}()
	if recovered == nil {
		return errors.New("a nil pointer did not panic")
	}
	fmt.Println("ready")
	<-ctx.Done()
	if err := db.Close(); err != nil {
		return err
	}
	fmt.Println("closed in order")
	return nil
}

// playInsert inserts blocks for ever and says which it has begun and ended.
func playInsert(db *chdb.DB) error {
	for i := 0; ; i++ {
		fmt.Println("begin", i)
		s := chdb.Statement{SQL: fmt.Sprintf("INSERT INTO t SETTINGS async_insert = 0, insert_deduplication_token = 'unit-%d'", i)}
		if _, err := db.Insert(context.Background(), s, "TabSeparated", fillRows(i)); err != nil {
			return err
		}
		fmt.Println("end", i)
	}
}

const (
	rowsPerBlock           = 20_000
	acknowledgedBeforeKill = 3
)

func fillRows(block int) func(io.Writer) error {
	return func(w io.Writer) error {
		for part := range 10 {
			var sb strings.Builder
			for i := range rowsPerBlock / 10 {
				fmt.Fprintf(&sb, "%d\t%d\n", block, part*rowsPerBlock/10+i)
			}
			if _, err := io.WriteString(w, sb.String()); err != nil {
				return err
			}
		}
		return nil
	}
}

type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	in    io.WriteCloser
}

func start(t *testing.T, part, dir string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+part, "CHILD_LIB="+config(t).LibPath, "CHILD_DIR="+dir)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &process{cmd, bufio.NewScanner(out), in}
}

func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	for p.lines.Scan() {
		if p.lines.Text() == want {
			return
		}
		t.Logf("child says: %s", p.lines.Text())
	}
	t.Fatalf("the child ended before it said %q", want)
}

func TestSignalsStayWithGo(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p := start(t, "signals", t.TempDir())
		p.expect(t, "ready")
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.expect(t, "closed in order")
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "hold", dir)
	p.expect(t, "ready")
	cfg := config(t)
	cfg.DataDir = dir
	if _, err := chdb.Open(t.Context(), cfg); !errors.Is(err, chdb.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("held by another process: %v", err)
	}
	p.in.Close()
	p.cmd.Wait()
	db, err := chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("after the other process ended: %v", err)
	}
	if _, err := chdb.Open(t.Context(), cfg); !errors.Is(err, chdb.ErrLocked) {
		t.Errorf("held by this process: %v", err)
	}
	other := config(t)
	if _, err := chdb.Open(t.Context(), other); err == nil || errors.Is(err, chdb.ErrLocked) {
		t.Errorf("a second directory in one process: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := db.Exec(t.Context(), chdb.Statement{SQL: "SELECT 1"}); !errors.Is(err, chdb.ErrClosed) {
		t.Errorf("use after close: %v", err)
	}
	db, err = chdb.Open(t.Context(), other)
	if err != nil {
		t.Fatalf("another directory after closing: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenFailures(t *testing.T) {
	cfg := config(t)
	cfg.LibPath = "/nowhere/libchdb.so"
	if _, err := chdb.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "/nowhere/libchdb.so") {
		t.Errorf("missing library: %v", err)
	}
	for _, change := range []func(*chdb.Config){
		func(c *chdb.Config) { c.Database = "default" },
		func(c *chdb.Config) { c.Handles = 0 },
		func(c *chdb.Config) { c.DataDir = "" },
		func(c *chdb.Config) { c.LibPath = "" },
		func(c *chdb.Config) { c.Settings = map[string]string{"max_threads": "many"} },
	} {
		cfg := config(t)
		change(&cfg)
		if db, err := chdb.Open(t.Context(), cfg); err == nil {
			db.Close()
			t.Errorf("%+v was accepted", cfg)
		}
	}
	db := open(t) // what failed must not keep the engine
	run(t, db, "SELECT 1")
}

// The engine is killed in the middle of its inserts, again and again. Every
// block it acknowledged must be there, none twice once all were repeated, and
// one that was under way is there in whole or not at all.
func TestKillDuringInserts(t *testing.T) {
	cfg := config(t)
	db, err := chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, db, "CREATE TABLE t (block Int64, n Int64) ENGINE=MergeTree ORDER BY (block, n) SETTINGS non_replicated_deduplication_window = 10000")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	begun, acknowledged := 0, 0
	for round := range 4 {
		p := start(t, "insert", cfg.DataDir)
		ends := 0
		for p.lines.Scan() {
			var i int
			if n, _ := fmt.Sscanf(p.lines.Text(), "begin %d", &i); n == 1 {
				begun = max(begun, i+1)
			}
			if n, _ := fmt.Sscanf(p.lines.Text(), "end %d", &i); n == 1 {
				acknowledged = max(acknowledged, i+1)
				if ends++; ends == acknowledgedBeforeKill { // some way into the next insert
					time.AfterFunc(time.Duration(round*7)*time.Millisecond, func() { p.cmd.Process.Kill() })
				}
			}
		}
		p.cmd.Wait()
	}
	if acknowledged == 0 {
		t.Fatal("no block was acknowledged: the test shows nothing")
	}
	db, err = chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open after the kills: %v", err)
	}
	defer db.Close()
	if got := text(t, db, chdb.Statement{SQL: fmt.Sprintf("SELECT countIf(c != %d), uniqExactIf(block, block < %d) FROM (SELECT block, count() AS c FROM t GROUP BY block)", rowsPerBlock, acknowledged)}); got != fmt.Sprintf("0\t%d", acknowledged) {
		t.Errorf("partial blocks, acknowledged blocks: %q, want 0 and %d", got, acknowledged)
	}
	for i := range begun {
		s := chdb.Statement{SQL: fmt.Sprintf("INSERT INTO t SETTINGS async_insert = 0, insert_deduplication_token = 'unit-%d'", i)}
		if _, err := db.Insert(t.Context(), s, "TabSeparated", fillRows(i)); err != nil {
			t.Fatal(err)
		}
	}
	// The engine notes a token before it shows the block's rows: of the block
	// that the last kill met, the token alone may be there.
	want := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"})
	if want != fmt.Sprint(begun*rowsPerBlock) && want != fmt.Sprint(acknowledged*rowsPerBlock) {
		t.Errorf("after repeating every block: %s rows, want %d, or those of %d blocks that were acknowledged", want, begun*rowsPerBlock, acknowledged)
	}
	t.Logf("%d blocks begun, %d acknowledged before the last kill", begun, acknowledged)
	if _, err := db.Insert(t.Context(), chdb.Statement{SQL: "INSERT INTO t"}, "TabSeparated", fillRows(0)); err != nil {
		t.Fatal(err)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}); got == want {
		t.Error("without a token the repeated block must be doubled: the check cannot fail")
	}
}

func TestCancelQueryAndInsert(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a")
	for _, sql := range []string{
		"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 0",
		"SELECT number FROM numbers(1000000000000) WHERE sipHash64(number) = 0",
		"INSERT INTO t SELECT number FROM numbers(1000000000000) WHERE sipHash64(number) % 1000000000 = 7",
		"OPTIMIZE TABLE nowhere",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begin := time.Now()
		err := db.Query(ctx, chdb.Statement{SQL: sql}, "Native", func([]byte) error { return nil })
		cancel()
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("%s: stopped after %v", sql, took)
		}
		if !strings.Contains(sql, "nowhere") && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := db.Insert(ctx, chdb.Statement{SQL: "INSERT INTO t"}, "TabSeparated", func(w io.Writer) error {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "%d\n", i); err != nil {
				return err
			}
			if i == 1000 {
				cancel()
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("insert: %v", err)
	}
	stop := errors.New("enough")
	_, err = db.Insert(t.Context(), chdb.Statement{SQL: "INSERT INTO t"}, "TabSeparated", func(w io.Writer) error {
		_, err := io.WriteString(w, "1\n2\n")
		return errors.Join(err, stop)
	})
	if !errors.Is(err, stop) {
		t.Errorf("insert whose data fails: %v", err)
	}
	if err := db.Query(t.Context(), chdb.Statement{SQL: "SELECT number FROM numbers(100000000)"}, "Native", func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the reader: %v", err)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}); got != "0" {
		t.Errorf("cancelled inserts left %s rows", got)
	}
}

func TestHandlesAreShared(t *testing.T) {
	cfg := config(t)
	cfg.Handles = 2
	db, err := chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	held := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			err := db.Query(context.Background(), chdb.Statement{SQL: "SELECT 1"}, "Native", func([]byte) error { <-held; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "busy", func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := db.Exec(ctx, chdb.Statement{SQL: "SELECT 1"}); errors.Is(err, context.DeadlineExceeded) {
			return "busy"
		}
		return "free"
	})
	close(held)
	wg.Wait()
	run(t, db, "SELECT 1")
}

func TestSettingsDoNotLeak(t *testing.T) {
	cfg := config(t)
	cfg.Handles, cfg.Settings = 1, map[string]string{"max_threads": "3"}
	db, err := chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	get := func(s map[string]string) string {
		return text(t, db, chdb.Statement{SQL: "SELECT getSetting('max_threads'), getSetting('max_block_size')", Settings: s})
	}
	for _, c := range []struct {
		set  map[string]string
		want string
	}{
		{nil, "3\t65409"},
		{map[string]string{"max_threads": "5"}, "5\t65409"},
		{map[string]string{"max_block_size": "77"}, "3\t77"},
		{nil, "3\t65409"},
	} {
		if got := get(c.set); got != c.want {
			t.Errorf("with %v: %q, want %q", c.set, got, c.want)
		}
	}
	err = db.Exec(t.Context(), chdb.Statement{SQL: "SELECT 1", Settings: map[string]string{"max_threads": "5", "no_such_setting": "1"}})
	var e *chdb.Error
	if !errors.As(err, &e) || e.Code != 115 {
		t.Errorf("an unknown setting: %v", err)
	}
	if got := get(nil); got != "3\t65409" {
		t.Errorf("after a setting failed: %q", got)
	}
}

func TestBackupAndRestore(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE t (a Int64) ENGINE=MergeTree ORDER BY a", "INSERT INTO t SELECT number FROM numbers(1000)")
	full, more := filepath.Join(db.BackupDir(), "it's full.tar"), filepath.Join(db.BackupDir(), "more.tar")
	if err := db.Backup(t.Context(), "kedge", full, ""); err != nil {
		t.Fatal(err)
	}
	run(t, db, "INSERT INTO t SELECT number FROM numbers(1000, 10)")
	if err := db.Backup(t.Context(), "kedge", more, full); err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(t.Context(), "kedge", filepath.Join(t.TempDir(), "outside.tar"), ""); err == nil {
		t.Error("a backup outside the backup directory was allowed")
	}
	run(t, db, "DROP TABLE t SYNC")
	if err := db.Restore(t.Context(), "kedge", more); err != nil {
		t.Fatal(err)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count(), sum(a) FROM t"}); got != "1010\t509545" {
		t.Errorf("restored: %s", got)
	}
}

// In the database "default" an unknown table is opened as a file.
func TestUnknownTableIsNoFile(t *testing.T) {
	db := open(t)
	file := filepath.Join(t.TempDir(), "data.csv")
	if err := os.WriteFile(file, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM default." + chdb.QuoteIdent(file)}); got != "1" {
		t.Errorf("the danger is gone (%s): the test shows nothing", got)
	}
	err := db.Exec(t.Context(), chdb.Statement{SQL: "SELECT count() FROM " + chdb.QuoteIdent(file)})
	var e *chdb.Error
	if !errors.As(err, &e) || e.Code != 60 {
		t.Errorf("got %v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	cfg := config(t)
	cfg.MaxMemory = 600 << 20
	db, err := chdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Exec(t.Context(), chdb.Statement{SQL: "SELECT length(groupArray(number)) FROM numbers(200000000)"})
	var e *chdb.Error
	if !errors.As(err, &e) || e.Code != 241 {
		t.Errorf("got %v, want a memory limit", err)
	}
	run(t, db, "SELECT 1")
}
