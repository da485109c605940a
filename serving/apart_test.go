package serving

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// apart is a server in a process of its own, on one processor where
// KEDGE_BENCH_PIN is set: the benchmark's own process is pinned by who starts it.
type apart struct {
	addr string
	pid  int
	in   io.WriteCloser
	out  *bufio.Reader
}

// inside is what a server's process says of the time since it was asked last.
type inside struct {
	P99MS       float64 // of requests, from the body's reading to the answer, at most 41 % too large
	Collections uint64  // garbage collections
	PauseMS     float64 // p99 of stops of the world
	RunnableMS  float64 // p99 of what goroutines waited for a processor
	CPU         float64 // seconds
	RSSMB       float64
}

// serverMain serves what a benchmark asks for, and tells its address, and after
// each line of input how it was since the last.
func serverMain(kind string) int {
	result := testing.Benchmark(func(b *testing.B) {
		if b.N > 1 {
			return // asked again: it has served
		}
		r := newRig(b)
		m := sum("1", 1, 1)
		if m.Predictor = (busy{weights{1, 1}, time.Millisecond}); kind == "by-key" {
			st := newStore(b, r)
			for driver := range int64(1000) {
				st.put(driver, "Bern", time.Second, driver%10, 0.5)
			}
			m = keyed("1", 1)
		}
		if err := r.s.Load(m); err != nil {
			b.Fatal(err)
		}
		addr := strings.TrimPrefix(r.http.URL, "http://")
		if kind == "bare" {
			addr = listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				write(w, http.StatusOK, []byte(`{}`))
			}), nil)
		}
		if kind == "floor" {
			at := make(chan string, 1)
			go func() { panic(testenv.ServeFloor(make([]byte, 256), func(addr string) { at <- addr })) }()
			addr = <-at
		}
		fmt.Println(addr)
		lines, before := bufio.NewScanner(os.Stdin), observe(b, r.s)
		for lines.Scan() {
			now := observe(b, r.s)
			if err := json.NewEncoder(os.Stdout).Encode(now.since(before)); err != nil {
				b.Fatal(err)
			}
			before = now
		}
	})
	if result.N == 0 {
		return 1
	}
	return 0
}

// observed is a process at one moment.
type observed struct {
	requests          reading
	collections       uint64
	pauses, runnables *metrics.Float64Histogram
	cpu               time.Duration
	rss               float64
}

func observe(b *testing.B, s *Server) observed {
	b.Helper()
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/latencies:seconds"}}
	metrics.Read(samples)
	o := observed{collections: samples[0].Value.Uint64(), pauses: samples[1].Value.Float64Histogram(), runnables: samples[2].Value.Float64Histogram(), cpu: processorTime(b)}
	for _, d := range *s.models.Load() {
		for _, v := range d.state.Load().versions {
			o.requests = v.live.read()
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	if _, after, ok := strings.Cut(string(status), "VmRSS:"); ok {
		kb, _ := strconv.ParseFloat(strings.Fields(after)[0], 64)
		o.rss = kb / 1024
	}
	return o
}

func (o observed) since(old observed) inside {
	requests := o.requests.since(old.requests)
	return inside{
		P99MS: requests.quantile(0.99).Seconds() * 1e3, Collections: o.collections - old.collections,
		PauseMS: quantileBetween(old.pauses, o.pauses, 0.99) * 1e3, RunnableMS: quantileBetween(old.runnables, o.runnables, 0.99) * 1e3,
		CPU: (o.cpu - old.cpu).Seconds(), RSSMB: o.rss,
	}
}

// quantileBetween is a quantile of what came between two readings of a histogram,
// as the upper end of its cell.
func quantileBetween(old, now *metrics.Float64Histogram, q float64) float64 {
	total, sum := uint64(0), uint64(0)
	for i := range now.Counts {
		total += now.Counts[i] - old.Counts[i]
	}
	for i := range now.Counts {
		if sum += now.Counts[i] - old.Counts[i]; total > 0 && float64(sum) >= q*float64(total) {
			return min(now.Buckets[i+1], math.Nextafter(now.Buckets[len(now.Buckets)-2], 0))
		}
	}
	return 0
}

func startApart(b *testing.B, kind string) *apart {
	b.Helper()
	args := []string{os.Args[0], "server", kind}
	if at := os.Getenv("KEDGE_BENCH_PIN"); at != "" {
		args = append([]string{"taskset", "-c", at}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &apart{pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	addr, err := s.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	s.addr = strings.TrimSpace(addr)
	return s
}

// ask returns how the server was since it was asked last.
func (s *apart) ask(b *testing.B) (got inside) {
	b.Helper()
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		b.Fatal(err)
	}
	line, err := s.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &got)
	}
	if err != nil {
		b.Fatal(err)
	}
	return got
}

// pace is [offer] from one thread that does nothing else.
func pace(b *testing.B, addr string, request []byte, n, conns int, rate float64) *load {
	b.Helper()
	got, err := testenv.OpenLoop{Addr: addr, Requests: [][]byte{request}, Connections: conns, Rate: rate, N: n}.Run()
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(got.Took)
	slices.Sort(got.FromSent)
	return &load{took: got.Took, fromSent: got.FromSent, refused: got.Refused, failed: got.Failed, elapsed: got.Elapsed}
}

// BenchmarkApart asks a server in a process of its own by an open loop: each
// request is due at its time, whether or not those before are answered, and its
// latency counts from then (sent-p99-ms: from when it could be sent, without what a
// stall before it cost). By key at 70 % of what the server does at most, and beside it
// a bare net/http handler and a loop of system calls (floor), each at 70 % of its own:
// what Go, this machine and the client do by themselves. Then requests of a
// millisecond at three times the capacity, and the bare handler at the same rate.
// away-ms/s is how long a second the server's threads had work and no processor.
// Its command pins both sides:
//
//	KEDGE_BENCH_PIN=0 taskset -c 1 go test -run '^$' -bench Apart -benchtime 1x ./serving
func BenchmarkApart(b *testing.B) {
	rate := 0.0
	for _, c := range []struct {
		name, kind, path, body string
		share                  float64
		conns                  int
	}{
		{"by-key-70", "by-key", "/v1/predict/fraud", `{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`, 0.7, 64},
		{"by-key-50", "by-key", "/v1/predict/fraud", `{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`, 0.5, 64},
		{"bare-70", "bare", "/bare", `{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`, 0.7, 64},
		{"floor-70", "floor", "/floor", `{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`, 0.7, 64},
		{"by-key-70-again", "by-key", "/v1/predict/fraud", `{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`, 0.7, 64},
		{"overload-3x", "busy", "/v2/models/fraud/infer", askFor("input", "[1,2]", "FP32", "[1,2]"), 3, 1024},
		{"bare-at-that-rate", "bare", "/bare", askFor("input", "[1,2]", "FP32", "[1,2]"), 0, 1024},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, request := startApart(b, c.kind), post(c.path, nil, []byte(c.body))
			full := pace(b, s.addr, request, 5_000, 8, 0)
			full = pace(b, s.addr, request, int(3*float64(len(full.took))/full.elapsed.Seconds()), 8, 0)
			capacity := float64(len(full.took)) / full.elapsed.Seconds()
			if c.share > 0 {
				rate = c.share * capacity
			}
			before := s.ask(b)
			_, away, err := testenv.Spent(s.pid)
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			l := pace(b, s.addr, request, int(10*rate), c.conns, rate)
			b.StopTimer()
			in := s.ask(b)
			if _, now, err := testenv.Spent(s.pid); err != nil {
				b.Error(err)
			} else {
				b.ReportMetric((now-away).Seconds()*1e3/l.elapsed.Seconds(), "away-ms/s")
			}
			if l.failed+full.failed > 0 {
				b.Errorf("%d requests failed otherwise than by 429", l.failed+full.failed)
			}
			offered := float64(len(l.took) + l.refused)
			b.ReportMetric(capacity, "capacity-req/s")
			b.ReportMetric(offered/l.elapsed.Seconds()/capacity, "offered-x")
			b.ReportMetric(float64(len(l.took))/l.elapsed.Seconds()/capacity, "answered-x")
			b.ReportMetric(float64(l.refused)/offered, "refused")
			b.ReportMetric(l.at(0.5).Seconds()*1e3, "p50-ms")
			b.ReportMetric(l.at(0.99).Seconds()*1e3, "p99-ms")
			b.ReportMetric((&load{took: l.fromSent}).at(0.99).Seconds()*1e3, "sent-p99-ms")
			b.ReportMetric(l.at(0.999).Seconds()*1e3, "p99.9-ms")
			b.ReportMetric(in.P99MS, "inside-p99-ms")
			b.ReportMetric(in.PauseMS, "inside-stw-p99-ms")
			b.ReportMetric(in.RunnableMS, "inside-runnable-p99-ms")
			b.ReportMetric(float64(in.Collections), "inside-gcs")
			b.ReportMetric(in.CPU/l.elapsed.Seconds(), "inside-cpus")
			b.ReportMetric(before.RSSMB, "rss-before-MB")
			b.ReportMetric(in.RSSMB, "rss-after-MB")
		})
	}
}
