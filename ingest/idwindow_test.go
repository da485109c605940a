package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// naiveWindow is the rule of the id window said plainly: the stored offsets of
// every id, all of them.
type naiveWindow struct {
	size   int64
	stored map[string][]int64
	since  []string // ids stored since begin
}

func (n *naiveWindow) seen(key string, offset int64) bool {
	for _, o := range n.stored[key] {
		if o >= offset-n.size && o <= offset {
			return true
		}
	}
	n.stored[key] = append(n.stored[key], offset)
	n.since = append(n.since, key)
	return false
}

func (n *naiveWindow) begin() { n.since = nil }

func (n *naiveWindow) rollback() {
	for _, k := range n.since {
		n.stored[k] = n.stored[k][:len(n.stored[k])-1]
	}
	n.since = nil
}

func TestIDWindowAgainstNaive(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 7))
		size := []int64{0, 1, 10, 1000, 20000}[random.IntN(5)]
		w, n := newIDWindow(size), &naiveWindow{size: size, stored: map[string][]int64{}}
		if seed%3 == 0 { // entry numbers wrap around
			start := ^uint32(0) - uint32(random.IntN(5000))
			w.tail, w.head, w.mark = start, start, start
		}
		compareWindows(t, fmt.Sprint("seed ", seed, " size ", size), random, w, n)
	}
}

func compareWindows(t *testing.T, what string, random *rand.Rand, w *idWindow, n *naiveWindow) {
	offset, ids := int64(1)<<32-50_000, 1+random.IntN(4*int(n.size)+20)
	duplicates := 0
	for range 300 {
		w.begin(offset)
		n.begin()
		unit := func(random *rand.Rand) (next int64) {
			o := offset
			for range random.IntN(400) {
				if random.IntN(3) > 0 {
					o++
				}
				kind, table := event.Kind(1+random.IntN(2)), uint64(random.IntN(2))
				id := fmt.Sprint("id", random.IntN(ids))
				got, want := w.seen(kind, table, []byte(id), o), n.seen(fmt.Sprint(kind, table, id), o)
				if got != want {
					t.Fatalf("%s: id %s at %d: seen %v, want %v", what, id, o, got, want)
				}
				if got {
					duplicates++
				}
			}
			return o + 1
		}
		again := rand.New(rand.NewPCG(random.Uint64(), 1))
		for range random.IntN(3) {
			unit(rand.New(rand.NewPCG(random.Uint64(), 2)))
			w.rollback()
			n.rollback()
		}
		offset = unit(again)
		if random.IntN(20) == 0 {
			offset += int64(random.IntN(int(3*n.size) + 1)) // a gap
		}
	}
	if duplicates == 0 {
		t.Errorf("%s: no duplicate was met", what)
	}
}

// TestIDWindowRebuilt checks that a window filled from stored rows answers as
// the one that saw the records.
func TestIDWindowRebuilt(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	const size = 500
	live := newIDWindow(size)
	type stored struct {
		id     string
		offset int64
	}
	var rows []stored
	for o := range int64(20_000) {
		if o%50 == 0 {
			live.begin(o)
		}
		if o%1000 == 0 {
			again := newIDWindow(size)
			var ids []loadedID
			random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			for _, r := range rows {
				if r.offset >= o-size {
					low, high := again.digest(event.Labels, 5, []byte(r.id))
					ids = append(ids, loadedID{low, high, r.offset})
				}
			}
			again.load(ids)
			live = again
		}
		id := fmt.Sprint(random.IntN(900))
		want := false
		for _, r := range rows {
			want = want || r.id == id && r.offset >= o-size
		}
		if got := live.seen(event.Labels, 5, []byte(id), o); got != want {
			t.Fatalf("id %s at %d: seen %v, want %v", id, o, got, want)
		}
		if !want {
			rows = append(rows, stored{id, o})
		}
	}
}

func TestIDWindowMemory(t *testing.T) {
	w := newIDWindow(1_000_000)
	var id [16]byte
	at := func(o int64) {
		for i := range 8 {
			id[i] = byte(o >> (8 * i))
		}
		if w.seen(event.Features, 1, id[:], o) {
			t.Fatalf("id of offset %d seen before", o)
		}
	}
	for o := range int64(1_000_000) {
		if o%10_000 == 0 {
			w.begin(o)
		}
		at(o)
	}
	full := w.bytes()
	for o := int64(1_000_000); o < 2_500_000; o++ {
		if o%10_000 == 0 {
			w.begin(o)
		}
		at(o)
	}
	t.Logf("a million ids: %.1f MB; after another 1.5 million: %.1f MB", float64(full)/1e6, float64(w.bytes())/1e6)
	if w.bytes() > 36e6 {
		t.Errorf("the window takes %d bytes for a million ids, stated are 33 MB", w.bytes())
	}
	allocs := testing.AllocsPerRun(100, func() { w.seen(event.Features, 1, id[:], 2_499_999) })
	if allocs > 0 {
		t.Errorf("%v allocations per id", allocs)
	}
}

func BenchmarkIDWindow(b *testing.B) {
	w := newIDWindow(1_000_000)
	var id [16]byte
	o := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		if o%10_000 == 0 {
			w.begin(o)
		}
		for i := range 8 {
			id[i] = byte(o >> (8 * i))
		}
		w.seen(event.Features, 1, id[:], o)
		o++
	}
}
