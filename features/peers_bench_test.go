package features

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
)

// BenchmarkPeers measures Kedge's handler behind its doors, a bare handler and
// HGETALL of as many fields from Valkey, one after another and again, on the
// same machine: only the ratios of one run count. The Valkey client is Go, as
// valkey-benchmark is not in the package; it sends one command at a time on
// each of 16 connections and only finds the answer's end. Beside answers per
// second, which other jobs of the machine change, stands what an answer costs of
// all cores, client and server together.
func BenchmarkPeers(b *testing.B) {
	kedge, names, bearer := benchServer(b, measured(b))
	defer web.HoldHeap(web.HeapFloor)() // as a running Kedge does; the bare handler and the clients gain too
	for _, s := range benchShapes {
		b.Run(fmt.Sprintf("%dx%d", s.rows, s.features), func(b *testing.B) {
			peers := map[string]func(time.Duration) float64{
				"kedge": throughput(b, kedge, names, s.rows, s.features, bearer),
				"bare":  throughput(b, bareHandler(250, 10_000), names, s.rows, s.features, ""),
			}
			order, child := []string{"bare", "kedge"}, func() time.Duration { return 0 }
			if s.rows == 1 {
				server := testenv.StartValkey(b)
				addr := server.Addr
				child = server.CPU
				fillValkey(b, addr, s.features)
				peers["valkey"], order = func(d time.Duration) float64 { return driveAll(b, addr, valkeyRequests(), 16, d, discardReply) }, append(order, "valkey")
			}
			sum, answers, cpu := map[string]float64{}, map[string]float64{}, map[string]time.Duration{}
			for b.Loop() {
				for range 3 {
					for _, name := range order {
						used, start := cpuTime()+child(), time.Now()
						rate := peers[name](2 * time.Second)
						sum[name] += rate
						answers[name] += rate * time.Since(start).Seconds()
						cpu[name] += cpuTime() + child() - used
					}
				}
			}
			for _, name := range order {
				each := cpu[name].Seconds() * 1e6 / answers[name]
				b.ReportMetric(each, name+"-cpu-us")
				b.ReportMetric(each/(cpu["kedge"].Seconds()*1e6/answers["kedge"]), "x-"+name+"-cpu")
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

func throughput(b *testing.B, h http.Handler, names []string, rows, features int, header string) func(time.Duration) float64 {
	addr := benchListen(b, h, header != "")
	return func(d time.Duration) float64 {
		return driveAll(b, addr, httpRequests(names, rows, features, header), 4, d, discardAnswer)
	}
}

// benchListen serves a handler: a bare one by net/http alone, Kedge's as its
// ports are served.
func benchListen(b *testing.B, h http.Handler, plain bool) (addr string) {
	b.Helper()
	if !plain {
		srv := httptest.NewServer(h)
		b.Cleanup(srv.Close)
		return srv.Listener.Addr().String()
	}
	ln, err := web.Listen("bench", "127.0.0.1:0")
	must(b, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		limits := web.Limits{Header: 10 * time.Second, Body: 30 * time.Second, Write: time.Minute, Plain: PlainPaths()}
		served <- web.Serve(ctx, ln, h, limits, 10*time.Second, slog.New(slog.DiscardHandler))
	}()
	b.Cleanup(func() {
		stop()
		must(b, <-served)
	})
	return ln.Addr().String()
}

func httpRequests(names []string, rows, features int, header string) (out [][]byte) {
	for i := range 64 {
		body := benchRequest(names, features, rows, i)
		out = append(out, fmt.Appendf(nil, "POST /get-online-features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body))
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
