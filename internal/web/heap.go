package web

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// HeapFloor is the size below which the heap of a serving process is not
// collected. A process that answers from memory outside the collector's reach
// has a few MiB alive, and Go would collect it at twice that: several times a
// second under load. While it marks with one processor, the network is looked
// at every 10 ms only, which is ten times what an answer may take.
const HeapFloor = 128 << 20

// HoldHeap sets, after every collection, a GC percentage at which the next one
// starts when the heap reaches floor bytes, or twice what is alive if that is
// more. It is a setting of the whole process. release ends it and sets back
// what was. An operator's GOGC or GOMEMLIMIT wins: then nothing is done.
func HoldHeap(floor int64) (release func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	h := &heapHold{floor: float64(floor), before: debug.SetGCPercent(100), percent: 100}
	runtime.GC() // what is alive is known from here on
	h.set()
	h.watch()
	return h.release
}

type heapHold struct {
	floor  float64
	before int

	mu       sync.Mutex
	percent  int
	released bool
}

// watch sets the percentage again after the next collection, which is what frees
// an object that nobody holds.
func (h *heapHold) watch() {
	runtime.AddCleanup(&struct{ _ [16]byte }{}, func(h *heapHold) {
		h.set()
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.released {
			h.watch()
		}
	}, h)
}

// set tells the runtime, unless what it knows is within an eighth: telling it
// stops the world for a moment.
func (h *heapHold) set() {
	want := heapPercent(h.floor, aliveBytes())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released || want*8 > h.percent*7 && want*8 < h.percent*9 {
		return
	}
	h.percent = want
	debug.SetGCPercent(want)
}

func (h *heapHold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.released {
		h.released = true
		debug.SetGCPercent(h.before)
	}
}

// leastAlive is what the runtime takes its percentage of when less is alive: it
// scales its own least heap, 4 MiB at 100, by it.
const leastAlive = 4 << 20

// heapPercent is the percentage at which the heap grows from alive to floor.
func heapPercent(floor, alive float64) int {
	return int(max(100, 100*(floor/max(alive, leastAlive)-1)))
}

// aliveBytes is what the runtime takes its percentage of: what the last
// collection found, stacks and globals.
func aliveBytes() (sum float64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		sum += float64(s.Value.Uint64())
	}
	return sum
}
