package serving

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/metric/noop"

	"github.com/kedge-ml/kedge/stream"
)

// TestReloadsKeepMemory loads a thousand versions one after the other, each in
// the place of the one before: the heap afterwards holds one.
func TestReloadsKeepMemory(t *testing.T) {
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler))
	if err := s.Observe(sdkmetric.NewMeterProvider().Meter("")); err != nil {
		t.Fatal(err)
	}
	s.rec.send = func(context.Context, string, ...stream.Message) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.Run(ctx)
	var infer http.Handler
	for _, r := range Routes(s) {
		if r.Pattern == "POST /v2/models/{model}/infer" {
			infer = r.Handler
		}
	}
	ask := func() {
		r := httptest.NewRequest("POST", "/v2/models/fraud/infer", strings.NewReader(`{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[1,0]}]}`))
		r.SetPathValue("model", "fraud")
		w := httptest.NewRecorder()
		if infer.ServeHTTP(w, r); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	load := func() {
		m := sum("1", 1, 10)
		ballast := make(weights, 2)
		copy(ballast, m.Predictor.(weights))
		m.Predictor = heavy{ballast, make([]byte, 1<<20)}
		if err := s.Load(m); err != nil {
			t.Fatal(err)
		}
		ask()
	}
	for range 20 {
		load()
	}
	before := heap()
	for range 1000 {
		load()
	}
	after := heap()
	if after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d KiB over 1,000 reloads of a model of 1 MiB", before>>10, after>>10)
	}
	t.Logf("heap %d KiB before, %d KiB after", before>>10, after>>10)
}

// heavy is a predictor that takes memory.
type heavy struct {
	weights
	ballast []byte
}
