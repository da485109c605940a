package serving

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/serving/oip"
)

// counting is a predictor that knows how often it computed.
type counting struct {
	weights
	times *atomic.Int64
	seen  func() // nil: nobody wants to know
}

func (p counting) Predict(out, rows []float32) {
	p.times.Add(1)
	if p.seen != nil {
		p.seen()
	}
	p.weights.Predict(out, rows)
}

// inferWith asks a model with a timeout, in µs.
func inferWith(s *Server, timeout int) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	for _, r := range Routes(s) {
		mux.Handle(r.Pattern, r.Handler)
	}
	w := httptest.NewRecorder()
	body := strings.Replace(askFor("input", "[1,2]", "FP32", "[1,2]"), "{", fmt.Sprintf(`{"parameters":{"timeout":%d},`, timeout), 1)
	mux.ServeHTTP(w, httptest.NewRequest("POST", "/v2/models/fraud/infer", strings.NewReader(body)))
	return w
}

// TestDeadlineBeforeComputing moves the clock past parameters.timeout at every
// reading of it in turn: up to the very last one before computing, the answer is 504
// and nothing is computed.
func TestDeadlineBeforeComputing(t *testing.T) {
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler))
	var reading, computedAt, jump atomic.Int64
	base := time.Now()
	s.now = func() time.Time {
		if n := reading.Add(1); n > jump.Load() {
			return base.Add(time.Hour)
		}
		return base
	}
	m, times := sum("1", 1, 1), &atomic.Int64{}
	m.Predictor = counting{weights{1, 1}, times, func() { computedAt.Store(reading.Load()) }}
	if err := s.Load(m); err != nil {
		t.Fatal(err)
	}
	if times.Load() != 1 {
		t.Errorf("%d computations before the first request, want the warm-up", times.Load())
	}
	ask := func(until int64) *httptest.ResponseRecorder {
		jump.Store(until)
		reading.Store(0)
		return inferWith(s, 1e6)
	}
	for range 2 { // the first one lets newcomers go first, and reads the clock for that
		if w := ask(1 << 40); w.Code != http.StatusOK {
			t.Fatalf("in time: %d %s", w.Code, w.Body)
		}
	}
	computed := times.Load()
	last := computedAt.Load() // the reading before computing
	if last < 3 {
		t.Fatalf("the clock is read %d times before computing, want once for the deadline, at the queue, and before computing", last)
	}
	for until := int64(1); until < last; until++ {
		if w := ask(until); w.Code != http.StatusGatewayTimeout || times.Load() != computed {
			t.Errorf("late from reading %d of %d on: %d %s, computed %d times", until+1, last, w.Code, w.Body, times.Load()-computed)
		}
	}
}

// TestDeadlineInTheQueue has a request wait behind one that computes: it is answered
// when its time is over, and is never computed.
func TestDeadlineInTheQueue(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Computing, cfg.Wait = 1, 0
	s := NewServer(cfg, nil, slog.New(slog.DiscardHandler))
	m, let, times := sum("1", 1, 1), make(chan struct{}), &atomic.Int64{}
	m.Predictor = waiting{counting{weights{1, 1}, times, nil}, let}
	go func() { let <- struct{}{} }() // the warm-up
	if err := s.Load(m); err != nil {
		t.Fatal(err)
	}
	first := make(chan int, 1)
	go func() { first <- inferWith(s, 60e6).Code }()
	testenv.Eventually(t, 30*time.Second, func() error {
		if n := s.find("fraud").gate.pending(); n != 1 {
			return fmt.Errorf("%d inside", n)
		}
		return nil
	})
	if w := inferWith(s, 20_000); w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), "deadline") {
		t.Errorf("behind one that computes: %d %s", w.Code, w.Body)
	}
	close(let)
	if code := <-first; code != http.StatusOK || times.Load() != 2 {
		t.Errorf("the first one: %d; %d computations, want the warm-up's and its own", code, times.Load())
	}
}

// waiting computes when it is let.
type waiting struct {
	counting
	let chan struct{}
}

func (p waiting) Predict(out, rows []float32) { <-p.let; p.counting.Predict(out, rows) }

// TestTimeoutOfNoLimit: the largest number that a client can send is "no limit",
// by REST and gRPC; it had passed before the request came.
func TestTimeoutOfNoLimit(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for timeout, want := range map[int64]time.Time{
		0: {}, 1: now.Add(time.Microsecond), 3_600_000_000: now.Add(time.Hour), math.MaxInt64: {}, math.MaxInt64/1000 + 1: {}, math.MaxInt64 / 1000: now.Add(math.MaxInt64 / 1000 * time.Microsecond),
	} {
		r := &oip.Request{Timeout: timeout}
		s := &Server{now: func() time.Time { return now }}
		byHTTP := (&handler{s: s}).call(httptest.NewRequest("POST", "/", nil), r).Deadline
		byGRPC := (&rpc{s: s}).call(t.Context(), "m", "", r).Deadline
		if !byHTTP.Equal(want) || !byGRPC.Equal(want) {
			t.Errorf("a timeout of %d ends at %v and %v, want %v", timeout, byHTTP, byGRPC, want)
		}
	}
}
