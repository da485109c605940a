package features

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/stream"
)

// roleVariable says what else than tests this binary is to do; see [TestMain].
const roleVariable = "KEDGE_BENCH_ROLE"

// role is one of the processes of BenchmarkLatency.
type role struct {
	Client *load  // asks, and prints latencies
	Server string // "bare" or "floor": prints its address and serves until it is killed
}

// TestMain makes of this binary the client and the other servers that
// BenchmarkLatency starts, so that client and servers have a core each and no two
// of them a heap.
func TestMain(m *testing.M) {
	text := os.Getenv(roleVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	runtime.GOMAXPROCS(1)
	var r role
	err := json.Unmarshal([]byte(text), &r)
	switch {
	case err != nil:
	case r.Client != nil:
		err = r.Client.run()
	default:
		err = servePeer(r.Server)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// load is what a client process sends: to Addr over some connections, one
// request every so often over each; 0: as soon as the last one is answered.
type load struct {
	Addr           string
	Names          []string
	Header         string
	Rows, Features int
	Connections    int
	Every, For     time.Duration
}

// latencies is what it then reports: from the time at which a request was due,
// not from that at which it could be sent: what waits behind a stall has waited
// too (coordinated omission). SentP99 counts from when it was sent.
type latencies struct {
	Answers      int
	P50, P99     time.Duration
	Max, SentP99 time.Duration
	Away         time.Duration // a second: the server had work and the system gave its core to others
}

func (l *load) run() error {
	loop := testenv.OpenLoop{Addr: l.Addr, Requests: httpRequests(l.Names, l.Rows, l.Features, l.Header), Connections: l.Connections, N: 1 << 20, For: l.For}
	if l.Every > 0 {
		loop.Rate = float64(l.Connections) / l.Every.Seconds()
	}
	got, err := loop.Run()
	if err == nil && (len(got.Took) == 0 || got.Failed+got.Refused > 0) {
		err = fmt.Errorf("%d answers from %s, %d refused, %d failed", len(got.Took), l.Addr, got.Refused, got.Failed)
	}
	if err != nil {
		return err
	}
	out := summary(got.Took)
	out.SentP99 = summary(got.FromSent).P99
	return json.NewEncoder(os.Stdout).Encode(out)
}

func summary(all []time.Duration) latencies {
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	return latencies{Answers: len(all), P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// servePeer is the server process of a peer.
func servePeer(name string) error {
	ready := func(addr string) { fmt.Println(addr) }
	if name == "floor" {
		return testenv.ServeFloor(make([]byte, 6<<10), ready)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer web.HoldHeap(web.HeapFloor)()
	ready(ln.Addr().String())
	return http.Serve(ln, bareHandler(250, 10_000))
}

// pinned is this binary in another role, on one core.
func pinned(core string, r role) (*exec.Cmd, error) {
	text, err := json.Marshal(r)
	cmd := exec.Command("taskset", "-c", core, os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd, err
}

// target is a server and what to ask of it.
type target struct {
	load
	pid int
}

// startPeer starts a peer's process on the core that Kedge has.
func startPeer(b *testing.B, name string, l load) target {
	b.Helper()
	cmd, err := pinned("0", role{Server: name})
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	must(b, err)
	l.Addr, l.Header = strings.TrimSpace(addr), ""
	return target{l, cmd.Process.Pid}
}

// apart runs the load in a process of its own, pinned to the second core; the
// servers have the first one.
func (t target) apart(b *testing.B) (got latencies) {
	b.Helper()
	cmd, err := pinned("1", role{Client: &t.load})
	must(b, err)
	away := waited(b, t.pid)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("client: %v", err)
	}
	must(b, json.Unmarshal(out, &got))
	got.Away = time.Duration(float64(waited(b, t.pid)-away) / t.For.Seconds())
	return got
}

// waited is how long a process's threads had work and no core.
func waited(b *testing.B, pid int) (sum time.Duration) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	must(b, err)
	for _, name := range files {
		var ran, wait int64
		text, err := os.ReadFile(name)
		if err != nil { // the thread has ended
			continue
		}
		_, err = fmt.Sscan(string(text), &ran, &wait)
		must(b, err)
		sum += time.Duration(wait)
	}
	return sum
}

// at70 finds what the connections reach, and asks for 70 % of it.
func (t target) at70(b *testing.B) latencies {
	full := t.apart(b)
	rate := 0.7 * float64(full.Answers) / t.For.Seconds()
	t.Every = time.Duration(float64(t.Connections) / rate * 1e9)
	return t.apart(b)
}

// BenchmarkLatency has client and server on a core each (taskset of util-linux).
// It asks on a schedule, at 70 % of what four connections just reached; and, over
// one connection, the largest shape back to back. In turns with Kedge it asks a
// bare net/http handler and a loop of system calls that answers at once
// ([testenv.ServeFloor]), each at 70 % of its own: what the machine takes from a
// server for some milliseconds, it takes from all three.
func BenchmarkLatency(b *testing.B) {
	if _, err := exec.LookPath("taskset"); err != nil || runtime.NumCPU() < 2 {
		b.Skip("needs two cores and taskset")
	}
	kedge, names, bearer := benchServer(b, measured(b))
	one := load{Addr: benchListen(b, kedge, true), Names: names, Header: bearer, Rows: 1, Features: 50, Connections: 4, For: 5 * time.Second}
	must(b, exec.Command("taskset", "-a", "-c", "-p", "0", strconv.Itoa(os.Getpid())).Run())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer web.HoldHeap(web.HeapFloor)() // as a running Kedge does
	b.Run("1x50-at-70%", func(b *testing.B) {
		targets := []target{{one, os.Getpid()}, startPeer(b, "bare", one), startPeer(b, "floor", one)}
		tries := make([][]latencies, len(targets))
		for b.Loop() {
			for i, t := range targets {
				tries[i] = append(tries[i], t.at70(b))
			}
		}
		for i, who := range []string{"", "bare-", "floor-"} {
			report(b, who, tries[i]...)
			b.ReportMetric(middle(tries[i], func(l latencies) float64 { return float64(l.SentP99.Microseconds()) }), who+"sent-p99-us")
			b.ReportMetric(middle(tries[i], func(l latencies) float64 { return float64(l.Away.Microseconds()) }), who+"away-us/s")
			b.ReportMetric(middle(tries[i], func(l latencies) float64 { return float64(l.Answers) / one.For.Seconds() }), who+"req/s")
		}
	})
	b.Run("100x250-one-connection", func(b *testing.B) {
		for b.Loop() {
			large := target{one, os.Getpid()}
			large.Rows, large.Features, large.Connections = 100, 250, 1
			report(b, "", large.apart(b))
		}
	})
}

// middle is the median of several tries.
func middle(tries []latencies, of func(latencies) float64) float64 {
	var all []float64
	for _, l := range tries {
		all = append(all, of(l))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func report(b *testing.B, who string, tries ...latencies) {
	b.ReportMetric(middle(tries, func(l latencies) float64 { return float64(l.P50.Microseconds()) }), who+"p50-us")
	b.ReportMetric(middle(tries, func(l latencies) float64 { return float64(l.P99.Microseconds()) }), who+"p99-us")
	b.ReportMetric(middle(tries, func(l latencies) float64 { return float64(l.Max.Microseconds()) }), who+"max-us")
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
	var all []time.Duration
	for n := int64(1); b.Loop(); n++ {
		row := fmt.Appendf(nil, `{"view":"v","key":{"k":1},"event_time":%q,"values":{"x":%d}}`, event.AppendTime(nil, time.Now().UnixMicro()), n)
		start := time.Now()
		must(b, p.Produce(b.Context(), FeatureTopic(testNamespace), stream.Message{Key: []byte(`{"k":1}`), Value: row}))
		for {
			var rows Rows
			must(b, lookUp(b.Context(), v, time.Now().UnixMicro(), &rows, key))
			c := newColumn(v.Schema.Values()[0].Type, true)
			if rows.Row(0).AppendTo(&c, 0) == Present && c.Int64s[0] == n {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		all = append(all, time.Since(start))
	}
	report(b, "", summary(all))
}
