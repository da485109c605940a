package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

func testenvEventually(t testing.TB, cond func() error) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, cond)
}

const child = "KEDGE_STORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		fmt.Println("child:", insertForEver(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// insertForEver writes units as ingest does: rows, then the ledger row.
func insertForEver(dir string) error {
	ctx := context.Background()
	s, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: os.Getenv("CHILD_LIB"), DataDir: dir})
	if err != nil {
		return err
	}
	for i := int64(0); ; i++ {
		fmt.Println("begin", i)
		if err := insertUnit(ctx, s, i); err != nil {
			return err
		}
		fmt.Println("end", i)
	}
}

const unitRows = 5000

func insertUnit(ctx context.Context, s *store.Store, i int64) error {
	token := fmt.Sprint("unit/", i)
	if err := s.Insert(ctx, token+"/a", batch(features(1), i*unitRows, (i+1)*unitRows)); err != nil {
		return err
	}
	if err := s.Insert(ctx, token+"/b", batch(features(2), i*unitRows, (i+1)*unitRows)); err != nil {
		return err
	}
	row := ledgerRow(i*unitRows, (i+1)*unitRows, "features_1")
	row.Tables["features_2"] = unitRows
	return s.InsertLedger(ctx, token, row)
}

// The process dies between and within the inserts of its units. After all were
// repeated every row is there once, and the ledger says so.
func TestKillDuringUnits(t *testing.T) {
	cfg := config(t)
	openAt(t, cfg).Close()
	begun := int64(0)
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+cfg.DataDir, "CHILD_LIB="+cfg.LibPath)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var i int64
			if n, _ := fmt.Sscanf(lines.Text(), "begin %d", &i); n == 1 {
				begun = max(begun, i+1)
				if i == 2 { // anywhere in the third unit, or in one after it
					time.AfterFunc(time.Duration(round*13)*time.Millisecond, func() { cmd.Process.Kill() })
				}
			} else if strings.HasPrefix(lines.Text(), "child:") {
				t.Error(lines.Text())
			}
		}
		cmd.Wait()
	}
	if begun < 3 {
		t.Fatalf("%d units begun: the children did not get as far as their kill", begun)
	}
	s := openAt(t, cfg)
	for i := range begun {
		if err := insertUnit(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
	}
	parts, found, err := s.AuditLedger(t.Context(), "", time.Time{})
	if err != nil || len(found) != 0 || len(parts) != 1 || parts[0].Next != begun*unitRows || parts[0].GapRecords+parts[0].OverlapRecords+parts[0].GapRows+parts[0].DuplicateRows != 0 {
		t.Errorf("%+v %v %v", parts, found, err)
	}
	want := fmt.Sprintf("%d\t%d", begun*unitRows, begun*unitRows)
	for _, table := range []string{"features_1", "features_2"} {
		if got := text(t, s, "SELECT count(), uniqExact(_offset) FROM "+table); got != want {
			t.Errorf("%s: %s rows and offsets, want %s", table, got, want)
		}
	}
	t.Logf("%d units", begun)
}

// server is a role-store process as others see it.
func server(t *testing.T, s *store.Store, a chdb.Access) (dsn string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Embedded().Serve(ctx, l, a) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("http://%s:%s@%s", a.User, a.Password, l.Addr())
}

// Everything must work over HTTP as it does inside the process.
func TestServer(t *testing.T) {
	inside := open(t)
	dsn := server(t, inside, chdb.Access{User: "kedge", Password: "se:cr/et"})
	dsn = strings.Replace(dsn, "se:cr/et", "se%3Acr%2Fet", 1)
	s, err := store.OpenServer(t.Context(), dsn, store.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	view := allKinds()
	b := batch(view, 0, 1000)
	insert(t, s, "u", b)
	insert(t, s, "u", b)
	insert(t, inside, "u", b)
	if got := text(t, inside, "SELECT count(), sum(_offset) FROM features_9"); got != "1000\t499500" {
		t.Errorf("same token three times, from both sides: %s", got)
	}
	insert(t, s, "another", b)
	if got := text(t, inside, "SELECT count() FROM features_9"); got != "2000" {
		t.Errorf("another token: %s", got)
	}
	if err := s.InsertLedger(t.Context(), "u", ledgerRow(0, 1000, "features_9")); err != nil {
		t.Fatal(err)
	}
	epochs, err := s.Epochs(t.Context(), topic, 0)
	if err != nil || len(epochs) != 1 || epochs[0].Next != 1000 {
		t.Errorf("%v %v", epochs, err)
	}
	if f := must[[]query.Frame](t)(s.Rows(t.Context(), query.Request{View: "all", From: at(0), To: at(100)})); f[0].Rows() != 100 {
		t.Errorf("%d rows", f[0].Rows())
	}
	torn := batch(view, 0, 10)
	torn.Columns[view.ValueStart()].Nulls = torn.Columns[view.ValueStart()].Nulls[:3]
	if err := s.Insert(t.Context(), "torn", torn); err == nil {
		t.Error("a torn batch was stored")
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServerRefusals(t *testing.T) {
	inside := open(t)
	dsn := server(t, inside, chdb.Access{User: "kedge", Password: "right"})
	for _, bad := range []string{strings.Replace(dsn, "right", "wrong", 1), "clickhouse://localhost:9000", "http://127.0.0.1:1", "::"} {
		if s, err := store.OpenServer(t.Context(), bad, store.DefaultOptions()); err == nil {
			s.Close()
			t.Errorf("%s was opened", bad)
		} else if strings.Contains(err.Error(), "wrong") {
			t.Errorf("the password stands in the error: %v", err)
		}
	}
	opt := store.DefaultOptions()
	opt.Database = "default"
	if _, err := store.OpenServer(t.Context(), dsn, opt); err == nil {
		t.Error("database default was accepted")
	}
}

// A cancelled insert is one that a caller may repeat.
func TestInsertCancelled(t *testing.T) {
	inside := open(t)
	dsn := server(t, inside, chdb.Access{User: "kedge", Password: "p"})
	over, err := store.OpenServer(t.Context(), dsn, store.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	view := features(1)
	b := batch(view, 0, 200_000)
	for i, s := range []*store.Store{inside, over} {
		prepare(t, s, view)
		token := fmt.Sprint("token", i)
		for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			if err := s.Insert(ctx, token, b); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %v: %v", after, err)
			}
			cancel()
		}
		insert(t, s, token, b)
		if got := text(t, inside, "SELECT count() FROM features_1"); got != fmt.Sprint(200_000*(i+1)) {
			t.Errorf("engine %d: %s rows", i, got)
		}
	}
}
