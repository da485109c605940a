package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Turns come in the order in which they were asked for, as many at a time as half
// of the memory has room for; and a turn that does not end makes nobody wait for
// long twice.
func TestLargeUnitsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		l := newLarge(cfg)
		if n := cfg.MemoryBytes / 2 / l.size; n != 2 || l.size != cfg.MaxBytes {
			t.Fatalf("%d turns of %d bytes", n, l.size)
		}
		var works [5]work
		for i := range 2 {
			if !l.enter(t.Context(), &works[i]) || works[i].large != l.size {
				t.Fatalf("turn %d is not had at once", i)
			}
		}
		began, order := time.Now(), make(chan int, 3)
		for i := 2; i < 5; i++ {
			go func() {
				if l.enter(t.Context(), &works[i]) {
					order <- i
				}
			}()
			synctest.Wait() // it stands in the queue
		}
		for i := range 3 {
			l.leave(&works[i])
			if got := <-order; got != i+2 {
				t.Fatalf("turn %d went to unit %d", i, got)
			}
		}
		if time.Since(began) > 0 {
			t.Error("a free turn was waited for")
		}

		var late, later work // units 3 and 4 are never stored
		if l.enter(t.Context(), &late) || late.large != 0 || time.Since(began) != l.wait {
			t.Errorf("a turn of three, or none after %v, want after %v", time.Since(began), l.wait)
		}
		if l.enter(t.Context(), &later) || time.Since(began) != l.wait {
			t.Errorf("turns that do not end were waited for again: %v", time.Since(began))
		}
		l.leave(&works[3])
		if !l.enter(t.Context(), &late) || l.stuck.Load() {
			t.Error("a turn that ended is not had")
		}
	})
}

// Small units need small turns, and little memory still has two.
func TestSizeOfTurns(t *testing.T) {
	small, little := DefaultConfig(), DefaultConfig()
	small.MaxRows, little.MemoryBytes = 400, 16<<20
	if s, l := newLarge(small).size, newLarge(little).size; s != 400<<10 || l != 4<<20 {
		t.Errorf("turns of %d and %d bytes", s, l)
	}
}

// A unit with a turn is full at its bytes, whatever the others hold; one without
// ends at its share when memory is short.
func TestFullUnits(t *testing.T) {
	cfg := DefaultConfig()
	c := &Consumer{cfg: cfg}
	p := &partition{c: c}
	p.limits(cfg, 8, newLarge(cfg))
	c.held.Store(cfg.MemoryBytes)
	unit := func(bytes, large int64, rows int64) *work {
		return &work{bytes: bytes, large: large, unit: event.Unit{Counts: event.Counts{Records: rows}}}
	}
	for _, x := range []struct {
		w    *work
		full bool
	}{
		{unit(p.fair-1, 0, 1), false}, {unit(p.fair, 0, 1), true},
		{unit(p.fair, p.large.size, 1), false}, {unit(p.large.size, p.large.size, 1), true}, {unit(1, p.large.size, int64(cfg.MaxRows)), true},
	} {
		if got := p.isFull(x.w); got != x.full {
			t.Errorf("%d bytes with a turn of %d, %d records: full %v", x.w.bytes, x.w.large, x.w.unit.Counts.Records, got)
		}
	}
}
