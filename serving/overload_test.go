package serving

import (
	"bufio"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busy is a predictor that keeps a processor busy for a while.
type busy struct {
	weights
	takes time.Duration
}

func (p busy) Predict(out, rows []float32) {
	for until := time.Now().Add(p.takes); time.Now().Before(until); {
	}
	p.weights.Predict(out, rows)
}

// load is what came of requests sent at a rate.
type load struct {
	took, fromSent     []time.Duration // of those answered, sorted; fromSent is known of an open loop
	refused            int             // with 429
	failed             int             // with anything else
	elapsed            time.Duration
	heapBefore, heapIn uint64 // live bytes
}

func (l *load) at(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	return l.took[int(q*float64(len(l.took)-1))]
}

// offer sends n requests at a rate (0: as fast as answers come) over conns
// connections. A latency counts from when the request was due.
func offer(b *testing.B, addr string, request []byte, n, conns int, rate float64) *load {
	b.Helper()
	out := &load{heapBefore: liveHeap()}
	var next, refused, failed, peak atomic.Int64
	took := make([][]time.Duration, conns)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				k := next.Add(1) - 1
				if k >= int64(n) {
					return
				}
				due := time.Now()
				if rate > 0 {
					due = began.Add(time.Duration(float64(k) / rate * float64(time.Second)))
					time.Sleep(time.Until(due))
				}
				if k%int64(1+n/20) == 0 {
					peak.Store(max(peak.Load(), int64(liveHeap())))
				}
				switch err := ask(c, r, request); {
				case err == nil:
					took[i] = append(took[i], time.Since(due))
				case strings.Contains(err.Error(), " 429 "):
					refused.Add(1)
				default:
					failed.Add(1)
					return
				}
			}
		})
	}
	wg.Wait()
	out.elapsed, out.took = time.Since(began), slices.Concat(took...)
	slices.Sort(out.took)
	out.refused, out.failed, out.heapIn = int(refused.Load()), int(failed.Load()), uint64(peak.Load())
	return out
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// noting is a predictor that notes how many requests a server had met when it
// first computed.
type noting struct {
	weights
	met   func() int64
	first *atomic.Int64
}

func (p noting) Predict(out, rows []float32) {
	p.first.CompareAndSwap(0, p.met())
	p.weights.Predict(out, rows)
}

// TestNewcomersBeforeComputing lets 64 requests arrive while the one processor is
// taken. All are read before the first computes, so that the queue of 15 fills and
// the other 48 are refused at once. Where computing goes first, the queue never fills:
// each request waits for the processor, where nothing bounds it.
func TestNewcomersBeforeComputing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cfg := DefaultConfig()
	cfg.Computing, cfg.Waiting, cfg.Wait = 1, 15, 0
	s := NewServer(cfg, nil, slog.New(slog.DiscardHandler))
	m, first := sum("1", 1, 1), &atomic.Int64{}
	m.Predictor = noting{weights{1, 1}, s.others.met.Load, first}
	if err := s.Load(m); err != nil {
		t.Fatal(err)
	}
	addr, request := serve(t, s), post("/v2/models/fraud/infer", nil, []byte(askFor("input", "[1,2]", "FP32", "[1,2]")))
	conns := make([]net.Conn, 64)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		if err := ask(conns[i], bufio.NewReader(conns[i]), request); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // the machine may take the processor away while the requests are sent
		before := s.others.met.Load()
		s.others.next.Store(0)
		first.Store(0)
		for _, c := range conns {
			if _, err := c.Write(request); err != nil {
				t.Fatal(err)
			}
		}
		answered, refused := 0, 0
		for _, c := range conns {
			switch err := readAnswer(bufio.NewReader(c)); {
			case err == nil:
				answered++
			case strings.Contains(err.Error(), " 429 "):
				refused++
			default:
				t.Fatal(err)
			}
		}
		t.Logf("%d met before the first computed, %d answered, %d refused", first.Load()-before, answered, refused)
		if first.Load()-before == 64 && answered == 16 && refused == 48 {
			return
		}
	}
	t.Error("newcomers wait for who computes")
}

// BenchmarkOverload offers three times what the server can do, of a model that
// computes for a millisecond: p50 and p99 of what was answered, counted from when
// each request was due, the share that was refused, and how much memory grew.
func BenchmarkOverload(b *testing.B) {
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler))
	m := sum("1", 1, 1)
	m.Predictor = busy{weights{1, 1}, time.Millisecond}
	if err := s.Load(m); err != nil {
		b.Fatal(err)
	}
	srv := serve(b, s)
	request := post("/v2/models/fraud/infer", nil, []byte(askFor("input", "[1,2]", "FP32", "[1,2]")))
	alone := offer(b, srv, request, 3000, 4, 0)
	capacity := float64(len(alone.took)) / alone.elapsed.Seconds()
	b.ResetTimer()
	over := offer(b, srv, request, max(b.N, int(20*capacity)), 1024, 3*capacity)
	b.StopTimer()
	if over.failed+alone.failed > 0 {
		b.Errorf("%d requests failed otherwise than by 429", over.failed+alone.failed)
	}
	total := float64(len(over.took) + over.refused)
	b.ReportMetric(capacity, "capacity-req/s")
	b.ReportMetric(total/over.elapsed.Seconds()/capacity, "offered-x")
	b.ReportMetric(float64(len(over.took))/over.elapsed.Seconds()/capacity, "answered-x")
	b.ReportMetric(float64(over.refused)/total, "refused")
	b.ReportMetric(over.at(0.5).Seconds()*1e3, "p50-ms")
	b.ReportMetric(over.at(0.99).Seconds()*1e3, "p99-ms")
	b.ReportMetric(float64(over.heapIn)/(1<<20), "heap-peak-MB")
	b.ReportMetric(float64(liveHeap())/(1<<20), "heap-after-MB")
}

// BenchmarkByKey asks by entity key at 70 % of what the server can do, client
// and server in one process.
func BenchmarkByKey(b *testing.B) {
	r := newRig(b)
	st := newStore(b, r)
	for driver := range int64(1000) {
		st.put(driver, "Bern", time.Second, driver%10, 0.5)
	}
	if err := r.s.Load(keyed("1", 1)); err != nil {
		b.Fatal(err)
	}
	addr := strings.TrimPrefix(r.http.URL, "http://")
	request := post("/v1/predict/fraud", nil, []byte(`{"key":{"city":"Bern","driver":7},"data":{"hour":2}}`))
	full := offer(b, addr, request, 20_000, 8, 0)
	capacity := float64(len(full.took)) / full.elapsed.Seconds()
	b.ResetTimer()
	cpu := processorTime(b)
	most := offer(b, addr, request, max(b.N, int(5*capacity)), 32, 0.7*capacity)
	cpu = processorTime(b) - cpu
	b.StopTimer()
	if most.failed+most.refused+full.failed > 0 {
		b.Errorf("%d failed, %d refused", most.failed+full.failed, most.refused)
	}
	b.ReportMetric(capacity, "capacity-req/s")
	b.ReportMetric(cpu.Seconds()*1e6/float64(len(most.took)), "cpu-µs/op")
	b.ReportMetric(most.at(0.5).Seconds()*1e3, "p50-ms")
	b.ReportMetric(most.at(0.99).Seconds()*1e3, "p99-ms")
	b.ReportMetric(float64(len(most.took))/most.elapsed.Seconds()/capacity, "load-x")
}
