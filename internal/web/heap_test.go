package web

import (
	"errors"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestHoldHeap looks at what the runtime says it will do: collect at the floor
// while little is alive, and at twice what is alive when that is more.
func TestHoldHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // whatever this process was started with
	const floor = 64 << 20
	goal := func() int64 {
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	release := HoldHeap(floor)
	if g := goal(); g < floor*3/4 || g > floor*5/4 {
		t.Errorf("with little alive the next collection is at %d bytes, want about %d", g, floor)
	}
	kept := make([]byte, 2*floor)
	for i := range kept {
		kept[i] = 1
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		runtime.GC()
		if g := goal(); g < 3*floor || g > 5*floor {
			return errors.New("with twice the floor alive the next collection is not at twice that")
		}
		return nil
	})
	runtime.KeepAlive(kept)
	kept = nil
	testenv.Eventually(t, 10*time.Second, func() error {
		runtime.GC()
		if g := goal(); g < floor*3/4 || g > floor*5/4 {
			return errors.New("with little alive again the next collection is not at the floor")
		}
		return nil
	})
	release()
	if p := debug.SetGCPercent(100); p != 100 {
		t.Errorf("GOGC is %d after release", p)
	}
}
