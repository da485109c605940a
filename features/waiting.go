package features

import (
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
)

// waiting holds rows whose event_time is yet to come, the earliest first.
type waiting struct {
	mu   sync.Mutex
	rows futureHeap
	due  atomic.Int64 // event_time of the earliest; maxTime when there is none
}

type futureRow struct {
	v                Version
	layout           *layout
	key, slot, block []byte
}

type futureHeap []futureRow

func (h futureHeap) Len() int           { return len(h) }
func (h futureHeap) Less(i, j int) bool { return h[i].v.EventTime < h[j].v.EventTime }
func (h futureHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *futureHeap) Push(x any)        { *h = append(*h, x.(futureRow)) }
func (h *futureHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = futureRow{}
	*h = old[:len(old)-1]
	return last
}

func (f *waiting) add(w *rowWriter, v Version) {
	row := futureRow{v, w.layout, slices.Clone(w.key), slices.Clone(w.slot), slices.Clone(w.block)}
	f.mu.Lock()
	defer f.mu.Unlock()
	heap.Push(&f.rows, row)
	f.due.Store(f.rows[0].v.EventTime)
}

// admit hands every row that is due at now to put.
func (f *waiting) admit(now int64, put func(futureRow)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.rows) > 0 && f.rows[0].v.EventTime <= now {
		put(heap.Pop(&f.rows).(futureRow))
	}
	if len(f.rows) == 0 {
		f.due.Store(maxTime)
		return
	}
	f.due.Store(f.rows[0].v.EventTime)
}

// take removes every row that is due at now.
func (f *waiting) take(now int64) (rows []futureRow) {
	f.admit(now, func(r futureRow) { rows = append(rows, r) })
	return rows
}

// put puts rows back.
func (f *waiting) put(rows []futureRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rows {
		heap.Push(&f.rows, r)
	}
	if len(f.rows) > 0 {
		f.due.Store(f.rows[0].v.EventTime)
	}
}

// latest is the largest event_time that waits, or minTime.
func (f *waiting) latest() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := int64(minTime)
	for i := range f.rows {
		at = max(at, f.rows[i].v.EventTime)
	}
	return at
}

// convert rewrites the waiting rows for a new layout.
func (f *waiting) convert(to *layout) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.rows {
		r := &f.rows[i]
		slot := make([]byte, to.stride)
		r.block = convertRow(r.layout, to, r.slot, r.block, slot, nil)
		r.slot, r.layout = slot, to
	}
}

func (f *waiting) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rows)
}
