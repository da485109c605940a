package serving

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/serving/oip"
)

// held is a predictor that computes when it is let.
type held struct {
	weights
	let chan struct{}
}

func (p held) Predict(out, rows []float32) { <-p.let; p.weights.Predict(out, rows) }

// TestOverloadIsRefused fills a model's queue over HTTP and asks four times as often
// again: all of that is refused at once with 429 and Retry-After, what was
// accepted is answered, and then the model takes requests as before. A
// neighbouring model answers throughout.
func TestOverloadIsRefused(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Computing, cfg.Waiting, cfg.Wait = 2, 14, 0
	s := NewServer(cfg, nil, slog.New(slog.DiscardHandler))
	m, let := sum("1", 1, 1), make(chan struct{})
	m.Predictor = held{weights{1, 1}, let}
	beside := sum("1", 1, 1)
	beside.Name = "beside"
	go func() { let <- struct{}{} }() // the warm-up
	for _, one := range []Model{m, beside} {
		if err := s.Load(one); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	for _, r := range Routes(s) {
		mux.Handle(r.Pattern, r.Handler)
	}
	srv := httptest.NewServer(mux)
	defer srv.Close()
	ask := func(model string) (int, string) {
		res, err := http.Post(srv.URL+"/v2/models/"+model+"/infer", "application/json", strings.NewReader(askFor("input", "[1,2]", "FP32", "[1,2]")))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		res.Body.Close()
		return res.StatusCode, res.Header.Get("Retry-After")
	}
	var accepted sync.WaitGroup
	for range 16 {
		accepted.Go(func() {
			if status, _ := ask("fraud"); status != 200 {
				t.Errorf("accepted and answered with %d", status)
			}
		})
	}
	d := s.find("fraud")
	testenv.Eventually(t, 30*time.Second, func() error {
		if n := d.gate.pending(); n != 16 {
			return fmt.Errorf("%d of 16 are inside", n)
		}
		return nil
	})
	var refused sync.WaitGroup
	for range 64 {
		refused.Go(func() {
			if status, after := ask("fraud"); status != 429 || after != "1" {
				t.Errorf("beyond the queue: %d, Retry-After %q", status, after)
			}
		})
	}
	refused.Wait() // while nothing is computed
	if status, _ := ask("beside"); status != 200 {
		t.Errorf("another model answered with %d", status)
	}
	if n := d.stats.rejected.Load(); n != 64 || d.gate.pending() != 16 {
		t.Errorf("%d rejected, %d inside", n, d.gate.pending())
	}
	close(let)
	accepted.Wait()
	if status, _ := ask("fraud"); status != 200 || d.gate.pending() != 0 {
		t.Errorf("afterwards: %d, %d inside", status, d.gate.pending())
	}
}

// slow is a predictor that takes a time, by the clock.
type slow struct {
	weights
	takes time.Duration
}

func (p slow) Predict(out, rows []float32) { time.Sleep(p.takes); p.weights.Predict(out, rows) }

// TestOverloadKeepsItsLatency offers three times what a model can compute, at random
// times by a clock of the test's own: what is accepted is as much as the model can
// do, and 99 % of it is answered within 50 ms. The control, a queue that is bounded
// by number alone, is not.
func TestOverloadKeepsItsLatency(t *testing.T) {
	for _, takes := range []time.Duration{100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
		answered, p99 := overloaded(t, takes, DefaultConfig().Wait)
		if answered < 0.95 || answered > 1.05 || p99 > 50*time.Millisecond {
			t.Errorf("computations of %v: answered %.2f of what can be computed, p99 %v", takes, answered, p99)
		}
	}
	if _, p99 := overloaded(t, 10*time.Millisecond, 0); p99 < 500*time.Millisecond {
		t.Errorf("a queue of any wait has a p99 of %v: the test shows nothing", p99)
	}
}

func overloaded(t *testing.T, takes, wait time.Duration) (answered float64, p99 time.Duration) {
	const lanes, requests = 2, 8_000
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Computing, cfg.Wait = lanes, wait
		s := NewServer(cfg, nil, slog.New(slog.DiscardHandler))
		m := sum("1", 1, 1)
		m.Predictor = slow{weights{1, 1}, takes}
		if err := s.Load(m); err != nil {
			t.Fatal(err)
		}
		gap := float64(takes) / lanes / 3
		rng := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		var took []time.Duration
		began := time.Now()
		for range requests {
			time.Sleep(time.Duration(rng.ExpFloat64() * gap))
			go func() {
				sc, due := &scratch{}, time.Now()
				if err := sc.req.Parse([]byte(askFor("input", "[1,2]", "FP32", "[1,2]")), -1, oip.DefaultLimits()); err != nil {
					t.Error(err)
				}
				_, err := s.predict(t.Context(), sc, Call{Model: "fraud"})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					took = append(took, time.Since(due))
				} else if !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
			}()
		}
		for s.find("fraud").gate.pending() > 0 {
			time.Sleep(takes)
		}
		synctest.Wait()
		slices.Sort(took)
		answered = float64(len(took)) * float64(takes) / lanes / float64(time.Since(began))
		p99 = took[len(took)*99/100]
	})
	return answered, p99
}
