package script

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
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// TestMain lets the test binary be the Kedge that a scenario kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KEDGE_SCRIPT_DIR"); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := app.LoadConfig("", os.Environ())
	if err != nil {
		return err
	}
	cfg.DataDir, cfg.HTTP.Listen, cfg.Kafka.Listen = dir, "127.0.0.1:0", "127.0.0.1:0"
	cfg.Roles, cfg.Telemetry.LogFormat = []string{"store", "ingest", "query"}, "json"
	a, err := app.New(ctx, cfg, "script", os.Stderr)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// world is a Kedge and what was produced to it.
type world struct {
	t       testing.TB
	dir     string
	brokers string // outside brokers; empty: the embedded one
	cmd     *exec.Cmd
	log     *bytes.Buffer
	ended   chan struct{}
	http    string
	sent    int64
}

func (w *world) start() {
	w.t.Helper()
	w.cmd = exec.Command(os.Args[0])
	w.cmd.Env = append(os.Environ(), "KEDGE_SCRIPT_DIR="+w.dir, "KEDGE_LIBCHDB="+testenv.LibCHDB(w.t), "KEDGE_KAFKA_BROKERS="+w.brokers)
	out, err := w.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ready := make(chan string, 1)
	w.log, w.ended = &bytes.Buffer{}, make(chan struct{})
	go follow(w.cmd, out, w.log, ready, w.ended)
	select {
	case w.http = <-ready:
	case <-w.ended:
		w.t.Fatalf("kedge ended at its start:\n%s", w.log)
	case <-time.After(3 * time.Minute):
		w.t.Fatal("kedge is not ready after three minutes")
	}
}

// follow reads the log to its end; the line "ready" has the address.
func follow(cmd *exec.Cmd, out io.Reader, log *bytes.Buffer, ready chan<- string, ended chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		log.Write(append(lines.Bytes(), '\n'))
		var line struct{ Msg, HTTP string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			ready <- line.HTTP
		}
	}
	_ = cmd.Wait() // a killed process is no surprise here
	close(ended)
}

func (w *world) end(sig syscall.Signal) {
	w.t.Helper()
	_ = w.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-w.ended:
	case <-time.After(3 * time.Minute):
		w.t.Fatalf("kedge runs three minutes after %v", sig)
	}
}

// do runs one command.
func (w *world) do(d *datadriven.TestData) string {
	out, err := w.command(d)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return out
}

func (w *world) command(d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "produce":
		return w.produce(d)
	case "query":
		return w.query(d)
	case "ledger":
		return w.ledger()
	case "restart":
		w.end(syscall.SIGTERM)
		w.start()
		return "", nil
	case "kill":
		w.end(syscall.SIGKILL)
		w.start()
		return "", nil
	}
	return "", fmt.Errorf("unknown command %q", d.Cmd)
}

func (w *world) produce(d *datadriven.TestData) (string, error) {
	body := []byte(d.Input + "\n")
	if len(d.CmdArgs) == 0 || d.CmdArgs[0].Key != "raw" {
		b, err := parseBatch(d)
		if err != nil {
			return "", err
		}
		body = append(bytes.Join(b.envelopes(), []byte("\n")), '\n')
	}
	res, err := http.Post(w.http+"/v1/events", "application/x-ndjson", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var a app.EventsAnswer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return "", err
	}
	w.sent += int64(a.Accepted)
	out := fmt.Sprintf("accepted %d, rejected %d\n", a.Accepted, a.Rejected)
	for _, e := range a.Errors {
		out += fmt.Sprintf("line %d: %s\n", e.Line, e.Code)
	}
	return out, nil
}

// settle waits until everything sent is stored.
func (w *world) settle() {
	w.t.Helper()
	testenv.Eventually(w.t, 90*time.Second, func() error {
		frames, err := w.ask(query.Request{Kind: "ledger"})
		if err != nil {
			return err
		}
		if n := sum(frames[0], "records"); n < w.sent {
			return fmt.Errorf("%d of %d records are in the ledger", n, w.sent)
		}
		return nil
	})
}

func (w *world) ask(r query.Request) ([]query.Frame, error) {
	a, err := (&query.Client{Server: w.http}).Do(w.t.Context(), r)
	if err != nil {
		var refused *query.Error
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("%d %s", refused.Status, refused.Code)
		}
		return nil, err
	}
	return a.Frames, nil
}

func (w *world) query(d *datadriven.TestData) (string, error) {
	r, show, only, err := parseQuery(d)
	if err != nil {
		return "", err
	}
	w.settle()
	frames, err := w.ask(r)
	if err != nil {
		return "", err
	}
	if only != "" {
		frames = slices.DeleteFunc(frames, func(f query.Frame) bool { return f.Name != only })
	}
	var out strings.Builder
	for _, f := range frames {
		if len(frames) > 1 {
			fmt.Fprintf(&out, "# %s\n", f.Name)
		}
		if show != nil {
			f.Columns = slices.DeleteFunc(f.Columns, func(c query.Column) bool { return !slices.Contains(show, c.Name) })
		}
		round(&f)
		if err := web.WriteCSV(&out, &f); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// round keeps four digits, so that the order of a sum does not show.
func round(f *query.Frame) {
	short := func(v float64) float64 {
		var out float64
		_, _ = fmt.Sscanf(fmt.Sprintf("%.4g", v), "%g", &out) // a number just printed
		return out
	}
	for i := range f.Columns {
		switch v := f.Columns[i].Values.(type) {
		case []float64:
			for j := range v {
				v[j] = short(v[j])
			}
		case []*float64:
			for j := range v {
				if v[j] != nil {
					*v[j] = short(*v[j])
				}
			}
		}
	}
}

func (w *world) ledger() (string, error) {
	w.settle()
	frames, err := w.ask(query.Request{Kind: "ledger"})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, name := range []string{"records", "rows", "dead_letters", "duplicates", "missing", "gap_records", "overlap_records", "unbalanced", "gap_rows", "duplicate_rows"} {
		fmt.Fprintf(&out, "%s=%d ", name, sum(frames[0], name))
	}
	return strings.TrimSpace(out.String()) + "\n", nil
}

func sum(f query.Frame, name string) (total int64) {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]int64); ok && c.Name == name {
			for _, n := range v {
				total += n
			}
		}
	}
	return total
}

// TestScenarios runs every script on the embedded broker and on a real Kafka.
// The same text is the reference for both.
func TestScenarios(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(testenv.Root(t), "testdata", "scripts", "*.txt"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	run := func(brokers func(t *testing.T) string) func(*testing.T) {
		return func(t *testing.T) {
			for _, path := range scripts {
				t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
					w := &world{t: t, dir: t.TempDir(), brokers: brokers(t)}
					w.start()
					defer func() { w.end(syscall.SIGKILL) }()
					datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string { return w.do(d) })
				})
			}
		}
	}
	t.Run("embedded", run(func(*testing.T) string { return "" }))
	t.Run("kafka", run(func(t *testing.T) string { return kafkatest.Start(t, 1).Addr() }))
}
