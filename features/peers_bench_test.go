package features

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// BenchmarkPeers measures Kedge's handler with metrics on, a bare handler and
// HGETALL of as many fields from Valkey, one after another and again, on the
// same machine: only the ratios of one run count. The Valkey client is Go, as
// valkey-benchmark is not in the package; it sends one command at a time on
// each of 16 connections and only finds the answer's end.
func BenchmarkPeers(b *testing.B) {
	kedge, names := benchServer(b, measured(b))
	for _, s := range benchShapes {
		b.Run(fmt.Sprintf("%dx%d", s.rows, s.features), func(b *testing.B) {
			peers := map[string]func(time.Duration) float64{
				"kedge": throughput(b, kedge, names, s.rows, s.features),
				"bare":  throughput(b, bareHandler(250, 10_000), names, s.rows, s.features),
			}
			order := []string{"bare", "kedge"}
			if s.rows == 1 {
				addr := startValkey(b)
				fillValkey(b, addr, s.features)
				peers["valkey"], order = func(d time.Duration) float64 { return driveAll(b, addr, valkeyRequests(), 16, d, discardReply) }, append(order, "valkey")
			}
			sum := map[string]float64{}
			for b.Loop() {
				for range 3 {
					for _, name := range order {
						sum[name] += peers[name](2 * time.Second)
					}
				}
			}
			for _, name := range order {
				b.ReportMetric(sum[name]/3/float64(b.N), name+"-req/s")
				b.ReportMetric(sum["kedge"]/sum[name], "x-"+name)
			}
		})
	}
}

// measured is a scope whose instruments count, as in production.
func measured(b *testing.B) telemetry.Scope {
	b.Helper()
	t, err := telemetry.New(b.Context(), telemetry.Config{LogFormat: "text", LogLevel: "error", LogTo: io.Discard})
	must(b, err)
	return t.Scope("features")
}

func throughput(b *testing.B, h http.Handler, names []string, rows, features int) func(time.Duration) float64 {
	srv := httptest.NewServer(h)
	b.Cleanup(srv.Close)
	return func(d time.Duration) float64 {
		return driveAll(b, srv.Listener.Addr().String(), httpRequests(names, rows, features), 4, d, discardAnswer)
	}
}

func httpRequests(names []string, rows, features int) (out [][]byte) {
	for i := range 64 {
		body := benchRequest(names, features, rows, i)
		out = append(out, fmt.Appendf(nil, "POST /get-online-features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}
	return out
}

// driveAll asks over some connections, one request after another, and returns
// answers per second.
func driveAll(b *testing.B, addr string, requests [][]byte, connections int, d time.Duration, discard func(*bufio.Reader) error) float64 {
	var answers atomic.Int64
	var busy sync.WaitGroup
	start := time.Now()
	for range connections {
		busy.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			r := bufio.NewReaderSize(conn, 64<<10)
			for i := 0; time.Since(start) < d; i++ {
				if _, err = conn.Write(requests[i%len(requests)]); err == nil {
					err = discard(r)
				}
				if err != nil {
					b.Error(err)
					return
				}
				answers.Add(1)
			}
		})
	}
	busy.Wait()
	return float64(answers.Load()) / time.Since(start).Seconds()
}

// BenchmarkLatency sends on a schedule, at 70 % of what four connections just
// reached, and counts from the scheduled time, so that a stall costs all that
// wait behind it; and, over one connection, the largest shape back to back.
func BenchmarkLatency(b *testing.B) {
	kedge, names := benchServer(b, measured(b))
	srv := httptest.NewServer(kedge)
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	b.Run("1x50-at-70%", func(b *testing.B) {
		requests := httpRequests(names, 1, 50)
		for b.Loop() {
			rate := 0.7 * driveAll(b, addr, requests, 4, 2*time.Second, discardAnswer)
			report(b, paced(b, addr, requests, 4, time.Duration(4/rate*1e9), 5*time.Second))
			b.ReportMetric(rate, "req/s")
		}
	})
	b.Run("100x250-one-connection", func(b *testing.B) {
		for b.Loop() {
			report(b, paced(b, addr, httpRequests(names, 100, 250), 1, 0, 3*time.Second))
		}
	})
}

func report(b *testing.B, latencies []time.Duration) {
	slices.Sort(latencies)
	for _, q := range []float64{0.5, 0.99} {
		b.ReportMetric(float64(latencies[int(q*float64(len(latencies)-1))].Microseconds()), fmt.Sprintf("p%g-us", q*100))
	}
}

// paced asks every so often over each connection; zero: as soon as it can.
func paced(b *testing.B, addr string, requests [][]byte, connections int, every, d time.Duration) (all []time.Duration) {
	var mu sync.Mutex
	var busy sync.WaitGroup
	start := time.Now()
	for c := range connections {
		busy.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			var mine []time.Duration
			r := bufio.NewReaderSize(conn, 64<<10)
			due := start.Add(every * time.Duration(c) / time.Duration(connections))
			for i := 0; time.Since(start) < d; i++ {
				if every == 0 {
					due = time.Now()
				}
				time.Sleep(time.Until(due))
				if _, err = conn.Write(requests[i%len(requests)]); err == nil {
					err = discardAnswer(r)
				}
				if err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(due))
				due = due.Add(every)
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	busy.Wait()
	return all
}

// BenchmarkReadable is how long after being produced a row is readable: one row
// at a time, through the embedded broker, polled without pause.
func BenchmarkReadable(b *testing.B) {
	h := openHouse(b, time.Time{})
	h.view("v", "0s", fieldsOf("k Int64"), fieldsOf("x Int64"))
	p := h.client.Producer(stream.ProducerConfig{})
	defer p.Close()
	v := h.online.View(testNamespace, "v")
	key := appendIntKey(nil, 1)
	var latencies []time.Duration
	for n := int64(1); b.Loop(); n++ {
		row := fmt.Appendf(nil, `{"view":"v","key":{"k":1},"event_time":%q,"values":{"x":%d}}`, event.AppendTime(nil, time.Now().UnixMicro()), n)
		start := time.Now()
		must(b, p.Produce(b.Context(), FeatureTopic(testNamespace), stream.Message{Key: []byte(`{"k":1}`), Value: row}))
		for {
			var rows Rows
			v.get(key, time.Now().UnixMicro(), &rows)
			c := newColumn(v.Schema.Values()[0].Type, true)
			if rows.Row(0).AppendTo(&c, 0) == Present && c.Int64s[0] == n {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		latencies = append(latencies, time.Since(start))
	}
	report(b, latencies)
}

// startValkey runs a server of its own on a free port.
func startValkey(b *testing.B) string {
	b.Helper()
	found := testenv.Dep(b, "python/valkey/lib")
	out, err := exec.CommandContext(b.Context(), "find", "-L", found, "-name", "valkey-server", "-type", "f").Output()
	must(b, err)
	binary, _, _ := bytes.Cut(out, []byte("\n"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	addr := ln.Addr().String()
	must(b, ln.Close())
	_, port, err := net.SplitHostPort(addr)
	must(b, err)
	cmd := exec.Command(string(binary), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", b.TempDir())
	must(b, cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	testenv.Eventually(b, 20*time.Second, func() error {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return addr
}

func command(args ...string) []byte {
	out := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(a), a)
	}
	return out
}

func fillValkey(b *testing.B, addr string, fields int) {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	must(b, err)
	defer conn.Close()
	r := bufio.NewReader(conn)
	for k := range int64(10_000) {
		args := []string{"HSET", fmt.Sprint("entity:", k)}
		for i := range fields {
			args = append(args, fmt.Sprint("feature_", i), strconv.FormatFloat(benchValue(k, i), 'f', -1, 64))
		}
		_, err := conn.Write(command(args...))
		must(b, err)
		line, err := r.ReadString('\n')
		must(b, err)
		if want := fmt.Sprintf(":%d\r\n", fields); line != want {
			b.Fatalf("HSET: %q, want %q", line, want)
		}
	}
}

func valkeyRequests() (out [][]byte) {
	for i := range 64 {
		out = append(out, command("HGETALL", fmt.Sprint("entity:", i*37%10_000)))
	}
	return out
}

// discardReply reads one array of bulk strings.
func discardReply(r *bufio.Reader) error {
	head, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if head[0] != '*' || string(head) == "*0\r\n" {
		return fmt.Errorf("HGETALL: %q", head)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(head[1:])))
	for range n {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
		if err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, int64(size)+2); err != nil {
			return err
		}
	}
	return err
}
