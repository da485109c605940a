package features

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
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
	Answer int    // bytes of the floor's answers
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
		err = r.serve()
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
	Valkey         bool // asks HGETALL instead
}

// latencies is what it then reports: from the time at which a request was due,
// not from that at which it could be sent: what waits behind a stall has waited
// too (coordinated omission). SentP99 counts from when it was sent.
type latencies struct {
	Answers      int
	P50, P99     time.Duration
	Max, SentP99 time.Duration
	Away         time.Duration // a second: the server had work and the system gave its core to others
	CPU          time.Duration // of the server, for one answer
}

func (l *load) run() error {
	loop := testenv.OpenLoop{Addr: l.Addr, Requests: httpRequests(l.Names, l.Rows, l.Features, l.Header), Connections: l.Connections, N: 1 << 20, For: l.For}
	if l.Valkey {
		loop.Requests, loop.Whole = valkeyRequests(), wholeReply
	}
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

// serve is the server process of a peer.
func (r role) serve() error {
	ready := func(addr string) { fmt.Println(addr) }
	if r.Server == "floor" {
		return testenv.ServeFloor(make([]byte, r.Answer), ready)
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
	cmd, err := pinned("0", role{Server: name, Answer: answerSize(b, l)})
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

// answerSize is the body of the answer to one of the requests.
func answerSize(b *testing.B, l load) int {
	conn, err := net.Dial("tcp", l.Addr)
	must(b, err)
	defer conn.Close()
	_, err = conn.Write(httpRequests(l.Names, l.Rows, l.Features, l.Header)[0])
	must(b, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(b, err)
	return int(answer.ContentLength)
}

// apart runs the load in a process of its own, pinned to the second core; the
// servers have the first one.
func (t target) apart(b *testing.B) (got latencies) {
	b.Helper()
	cmd, err := pinned("1", role{Client: &t.load})
	must(b, err)
	ran, away, err := testenv.Spent(t.pid)
	must(b, err)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("client: %v", err)
	}
	must(b, json.Unmarshal(out, &got))
	ran2, away2, err := testenv.Spent(t.pid)
	must(b, err)
	got.Away = time.Duration(float64(away2-away) / t.For.Seconds())
	got.CPU = (ran2 - ran) / time.Duration(got.Answers)
	return got
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
	b.Run("1x50-core-each", func(b *testing.B) { coreEach(b, target{one, os.Getpid()}) })
	b.Run("100x250-one-connection", func(b *testing.B) {
		for b.Loop() {
			large := target{one, os.Getpid()}
			large.Rows, large.Features, large.Connections = 100, 250, 1
			report(b, "", large.apart(b))
		}
	})
}

// coreEach compares what servers of one core each give to one and the same client,
// a loop of system calls on another core, in turns: Kedge, a bare handler and the
// floor over four connections, Valkey over sixteen. Where the machine has a redis-benchmark,
// which is such a client in C, it asks the same Valkey.
func coreEach(b *testing.B, kedge target) {
	server := testenv.StartValkey(b)
	fillValkey(b, server.Addr, 50)
	must(b, exec.Command("taskset", "-a", "-c", "-p", "0", strconv.Itoa(server.PID())).Run())
	valkey := target{load{Addr: server.Addr, Valkey: true, Connections: 16, For: kedge.For}, server.PID()}
	names := []string{"kedge", "bare", "floor", "valkey"}
	targets := []target{kedge, startPeer(b, "bare", kedge.load), startPeer(b, "floor", kedge.load), valkey}
	rate, cpu, rounds := map[string]float64{}, map[string]float64{}, 0.0
	for b.Loop() {
		for range 3 {
			for i, t := range targets {
				got := t.apart(b)
				rate[names[i]] += float64(got.Answers) / t.For.Seconds()
				cpu[names[i]] += got.CPU.Seconds() * 1e6
			}
			if binary, err := exec.LookPath("redis-benchmark"); err == nil {
				rate["redis-benchmark"] += redisBenchmark(b, binary, server.Addr)
			}
			rounds++
		}
	}
	for name, sum := range rate {
		b.ReportMetric(sum/rounds, name+"-req/s")
		b.ReportMetric(rate["kedge"]/sum, "x-"+name)
	}
	for name, sum := range cpu {
		b.ReportMetric(sum/rounds, name+"-server-cpu-us")
	}
}

// redisBenchmark is how many HGETALL of an entity redis-benchmark gets answered a
// second, over sixteen connections, on the second core.
func redisBenchmark(b *testing.B, binary, addr string) float64 {
	host, port, err := net.SplitHostPort(addr)
	must(b, err)
	out, err := exec.Command("taskset", "-c", "1", binary, "-h", host, "-p", port, "-c", "16", "-n", "200000", "--csv", "HGETALL", "entity:37").Output()
	must(b, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	_, rest, _ := strings.Cut(lines[len(lines)-1], `","`) // "HGETALL entity:37","36500.12",…
	rate, err := strconv.ParseFloat(strings.Trim(strings.SplitN(rest, ",", 2)[0], `"`), 64)
	must(b, err)
	return rate
}

// wholeReply finds the end of an array of bulk strings.
func wholeReply(got []byte) (status int, err error) {
	left, rest, ok := replyLine(got, '*')
	if ok && left == 0 {
		return 0, fmt.Errorf("HGETALL: %.100q", got)
	}
	for ; ok && left > 0; left-- {
		var size int
		if size, rest, ok = replyLine(rest, '$'); !ok || len(rest) < size+2 {
			return 0, nil
		}
		rest = rest[size+2:]
	}
	if !ok {
		return 0, nil
	}
	return http.StatusOK, nil
}

// replyLine reads a line that states a number.
func replyLine(b []byte, kind byte) (n int, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case i == 0 && c == kind || c == '\r':
		case c == '\n':
			return n, b[i+1:], i > 0
		case i > 0 && c >= '0' && c <= '9':
			n = n*10 + int(c-'0')
		default:
			return 0, nil, false
		}
	}
	return 0, nil, false
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
