package features

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/stream"
)

// clientVariable holds what a client process is to do; see [TestMain].
const clientVariable = "KEDGE_BENCH_CLIENT"

// TestMain makes of this binary the client that BenchmarkLatency starts, so that
// client and server have a core each.
func TestMain(m *testing.M) {
	if text := os.Getenv(clientVariable); text != "" {
		runClient(text)
		return
	}
	os.Exit(m.Run())
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

// latencies is what it then reports.
type latencies struct {
	Answers  int
	P50, P99 time.Duration
	Max      time.Duration
}

func runClient(text string) {
	runtime.GOMAXPROCS(1)
	var l load
	err := json.Unmarshal([]byte(text), &l)
	var all []time.Duration
	if err == nil {
		all, err = l.send()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(summary(all))
}

func summary(all []time.Duration) latencies {
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	return latencies{len(all), at(0.5), at(0.99), at(1)}
}

// send counts from the time at which a request was due, not from that at which
// it could be sent: what waits behind a stall has waited too (coordinated
// omission).
func (l load) send() ([]time.Duration, error) {
	loop := testenv.OpenLoop{Addr: l.Addr, Requests: httpRequests(l.Names, l.Rows, l.Features, l.Header), Connections: l.Connections, N: 1 << 20, For: l.For}
	if l.Every > 0 {
		loop.Rate = float64(l.Connections) / l.Every.Seconds()
	}
	got, err := loop.Run()
	if err == nil && (len(got.Took) == 0 || got.Failed+got.Refused > 0) {
		err = fmt.Errorf("%d answers from %s, %d refused, %d failed", len(got.Took), l.Addr, got.Refused, got.Failed)
	}
	if err != nil {
		return nil, err
	}
	return got.Took, nil
}

// apart runs the load in a process of its own, pinned to the second core; this
// process has the first one.
func (l load) apart(b *testing.B) latencies {
	b.Helper()
	text, err := json.Marshal(l)
	must(b, err)
	cmd := exec.Command("taskset", "-c", "1", os.Args[0])
	cmd.Env = append(os.Environ(), clientVariable+"="+string(text))
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("client: %v %s", err, problem.Bytes())
	}
	var got latencies
	must(b, json.Unmarshal(out, &got))
	return got
}

// BenchmarkLatency has client and server on a core each (taskset of util-linux).
// It asks on a schedule, at 70 % of what four connections just reached; and, over
// one connection, the largest shape back to back.
func BenchmarkLatency(b *testing.B) {
	if _, err := exec.LookPath("taskset"); err != nil || runtime.NumCPU() < 2 {
		b.Skip("needs two cores and taskset")
	}
	kedge, names, bearer := benchServer(b, measured(b))
	addr := benchListen(b, kedge, true)
	must(b, exec.Command("taskset", "-a", "-c", "-p", "0", strconv.Itoa(os.Getpid())).Run())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer web.HoldHeap(web.HeapFloor)() // as a running Kedge does
	one := load{Addr: addr, Names: names, Header: bearer, Rows: 1, Features: 50, Connections: 4, For: 5 * time.Second}
	b.Run("1x50-at-70%", func(b *testing.B) {
		for b.Loop() {
			full := one.apart(b)
			rate := 0.7 * float64(full.Answers) / one.For.Seconds()
			paced := one
			paced.Every = time.Duration(float64(one.Connections) / rate * 1e9)
			report(b, paced.apart(b))
			b.ReportMetric(rate, "req/s")
		}
	})
	b.Run("100x250-one-connection", func(b *testing.B) {
		for b.Loop() {
			large := one
			large.Rows, large.Features, large.Connections = 100, 250, 1
			report(b, large.apart(b))
		}
	})
}

func report(b *testing.B, l latencies) {
	b.ReportMetric(float64(l.P50.Microseconds()), "p50-us")
	b.ReportMetric(float64(l.P99.Microseconds()), "p99-us")
	b.ReportMetric(float64(l.Max.Microseconds()), "max-us")
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
	report(b, summary(all))
}
