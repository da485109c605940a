package serving

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
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
