package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// TestMain lets the test binary be kedge itself, so that tests have a process
// to kill.
func TestMain(m *testing.M) {
	worker := len(os.Args) > 1 && (os.Args[1] == "onnx-worker" || os.Args[1] == "train-worker") // which see no settings
	if worker || os.Getenv("KEDGE_TEST_IS_KEDGE") == "1" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// kedgeProcess is `kedge run` in a process of its own.
type kedgeProcess struct {
	t          *testing.T
	cmd        *exec.Cmd
	http       string
	kafka      string
	clickhouse string // read-only port
	log        logBuffer
	ended      chan struct{}
	err        error // of the process, once ended
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startKedge runs the server on free ports and waits until it is ready.
func startKedge(t *testing.T, dir string, args ...string) *kedgeProcess {
	t.Helper()
	port := testenv.Address(t)
	p := launchKedge(t, append([]string{"run", "--data-dir", dir, "--http", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--clickhouse-http", port}, args...)...)
	p.clickhouse = port
	return p
}

// launchKedge starts a process with exactly these arguments and waits until it
// is ready.
func launchKedge(t *testing.T, args ...string) *kedgeProcess {
	t.Helper()
	p := &kedgeProcess{t: t, cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "KEDGE_TEST_IS_KEDGE=1", "KEDGE_TELEMETRY_LOG_FORMAT=json", "KEDGE_LIBCHDB="+testenv.LibCHDB(t))
	p.cmd.Dir = t.TempDir()
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go p.follow(out, ready)
	t.Cleanup(p.kill)
	select {
	case <-ready:
	case <-p.ended:
		t.Fatalf("kedge ended before it was ready: %v\n%s", p.err, p.log.String())
	case <-time.After(2 * time.Minute):
		t.Fatalf("kedge is not ready after two minutes")
	}
	return p
}

// follow reads the log until the process ends; the line "ready" tells its
// addresses.
func (p *kedgeProcess) follow(out io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.log.Write(append(lines.Bytes(), '\n'))
		var line struct {
			Msg   string   `json:"msg"`
			HTTP  string   `json:"http"`
			Kafka []string `json:"kafka"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			p.http, p.kafka = line.HTTP, line.Kafka[0]
			close(ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

// stop asks the process to end and returns how it did.
func (p *kedgeProcess) stop() error {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(2 * time.Minute):
		return errors.New("still running two minutes after SIGTERM")
	}
}

// kill ends the process as a crash would.
func (p *kedgeProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// kedge runs a client command against the process.
func (p *kedgeProcess) kedge(args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	return runKedge(p.t, append([]string{"--server", p.http}, args...)...)
}

func runKedge(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), status
}

// must runs a client command that has to work.
func (p *kedgeProcess) must(args ...string) string {
	p.t.Helper()
	out, errs, status := p.kedge(args...)
	if status != 0 {
		p.t.Fatalf("kedge %s: status %d\n%s%s", strings.Join(args, " "), status, errs, p.log.String())
	}
	return out
}

// ask answers one question.
func (p *kedgeProcess) ask(r query.Request) []query.Frame {
	p.t.Helper()
	a, err := (&query.Client{Server: p.http}).Do(p.t.Context(), r)
	if err != nil {
		p.t.Fatal(err)
	}
	return a.Frames
}

// status is what `kedge status --json` prints.
func (p *kedgeProcess) status() (s app.Status) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.must("status", "--json")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// caughtUp waits until everything that the broker has is stored, and returns
// the number of records.
func (p *kedgeProcess) caughtUp(want int64) {
	p.t.Helper()
	testenv.Eventually(p.t, 90*time.Second, func() error {
		s := p.status()
		lag, position := int64(0), int64(0)
		for _, part := range s.Partitions {
			lag, position = lag+part.Lag, position+part.Position
		}
		if !s.Health.Ready || lag != 0 || position < want {
			return fmt.Errorf("%d of %d records stored, %d behind, health %+v", position, want, lag, s.Health)
		}
		return nil
	})
}

// column sums a column of a frame.
func columnSum(t *testing.T, f query.Frame, name string) int64 {
	t.Helper()
	for _, c := range f.Columns {
		if v, ok := c.Values.([]int64); ok && c.Name == name {
			total := int64(0)
			for _, n := range v {
				total += n
			}
			return total
		}
	}
	t.Fatalf("frame %s has no whole-number column %s", f.Name, name)
	return 0
}

// checkLedger wants every record accounted for and every row once.
func (p *kedgeProcess) checkLedger(records, dead int64) {
	p.t.Helper()
	frames := p.ask(query.Request{Kind: "ledger"})
	for name, want := range map[string]int64{
		"records": records, "rows": records - dead, "dead_letters": dead, "duplicates": 0, "missing": 0, "gap_records": 0, "overlap_records": 0,
		"unbalanced": 0, "gap_rows": 0, "duplicate_rows": 0, "unledgered_rows": 0,
	} {
		if got := columnSum(p.t, frames[0], name); got != want {
			p.t.Errorf("ledger: %s is %d, want %d", name, got, want)
		}
	}
	if n := frames[1].Rows(); n != 0 {
		p.t.Errorf("ledger: %d findings: %+v", n, frames[1])
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// mustBalance wants a ledger without faults, but for those that may be. Rows of a
// unit that is under way at the moment have no ledger row yet: it is asked again.
func (p *kedgeProcess) mustBalance(may ...string) {
	p.t.Helper()
	testenv.Eventually(p.t, time.Minute, func() error {
		frames := p.ask(query.Request{Kind: "ledger"})
		for _, name := range []string{"duplicates", "missing", "gap_records", "overlap_records", "unbalanced", "gap_rows", "duplicate_rows", "unledgered_rows"} {
			if got := columnSum(p.t, frames[0], name); got != 0 && !slices.Contains(may, name) {
				return fmt.Errorf("ledger: %s is %d", name, got)
			}
		}
		if n := frames[1].Rows(); n != 0 {
			return fmt.Errorf("ledger: %d findings: %+v", n, frames[1])
		}
		return nil
	})
}
