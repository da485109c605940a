package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/stream"
)

// resident is this process's memory in KiB.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// TestTortureNativeReloads replaces an ONNX model a thousand times, each with a process
// of its own, while clients ask: none of their requests fails, no process stays, and
// neither this process's memory nor its files grow.
func TestTortureNativeReloads(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "a thousand processes, some minutes: make torture runs it")
	}
	cfg, dir := onnxConfig(t), onnxModels(t)
	a := onnxArtifact(t, dir, "mlp", 30, model.Output{Name: "score", Width: 1})
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler)) // whose records nobody keeps: a broker in this process would
	s.rec.send = func(context.Context, string, ...stream.Message) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer served.Wait()
	defer cancel()
	r := &rig{t: t, s: s}
	r.http.URL = "http://" + serve(t, s)
	load := func() {
		m, err := FromONNX("fraud", "1", a, cfg, Batching{MaxDelay: event.Duration(time.Millisecond)})
		if err == nil {
			err = r.s.Load(m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	load()
	var stop atomic.Bool
	var asked atomic.Int64
	var clients sync.WaitGroup
	for c := range 2 {
		clients.Go(func() {
			row := a.Golden.Inputs[30*c : 30*c+30]
			for !stop.Load() {
				status, text, _ := r.post("/v2/models/fraud/infer", ask30(row))
				if status != 200 || math.Abs(answers(t, text)[0]-float64(a.Golden.Expected[c])) > 1e-5 {
					t.Errorf("%d %s", status, text)
					return
				}
				asked.Add(1)
			}
		})
	}
	swap := func(n int) {
		for range n {
			at := asked.Load()
			load()
			testenv.Eventually(t, time.Minute, func() error {
				if asked.Load() == at && !t.Failed() {
					return errors.New("no answer since the swap")
				}
				return nil
			})
		}
	}
	files := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	swap(50)
	before, opened := resident(t), files()
	swap(950)
	stop.Store(true)
	clients.Wait()
	testenv.Eventually(t, time.Minute, func() error {
		if kids := children(t); len(kids) != 1 {
			return fmt.Errorf("%d processes, want one", len(kids))
		}
		return nil
	})
	after, left := resident(t), files()
	if after > before+before/4+16<<10 || left > opened+8 {
		t.Errorf("%d KiB and %d files after 50 reloads, %d and %d after 1,000", before, opened, after, left)
	}
	t.Logf("%d requests over 1,000 reloads; %d KiB and %d files after 50 of them, %d and %d after all", asked.Load(), before, opened, after, left)
}
