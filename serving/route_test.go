package serving

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestShares holds that traffic divides as the weights say: a chi-squared
// statistic over many entities stays below its 1e-6 quantile.
func TestShares(t *testing.T) {
	r := Routing{Champion: "1", Experiment: &Experiment{Name: "e", Arms: []Split{
		{Version: "1", Variant: "a", Weight: 1}, {Version: "2", Variant: "b", Weight: 3}, {Version: "3", Variant: "c", Weight: 4}}}}
	const n = 200_000
	counts := map[string]float64{}
	for i := range n {
		counts[r.Route("", fmt.Sprint("user-", i), 0).Variant]++
	}
	chi := 0.0
	for _, a := range r.Experiment.Arms {
		want := n * a.Weight / 8
		chi += math.Pow(counts[a.Variant]-want, 2) / want
	}
	if chi > 27.6 { // χ²(2), p = 1e-6
		t.Errorf("shares %v are not 1:3:4 (χ² = %.1f)", counts, chi)
	}
}

func TestStickyAndSalted(t *testing.T) {
	arms := []Split{{Version: "1", Variant: "a", Weight: 1}, {Version: "2", Variant: "b", Weight: 1}}
	one := Routing{Champion: "1", Experiment: &Experiment{Name: "e", Arms: arms}}
	two := Routing{Champion: "1", Experiment: &Experiment{Name: "e", Salt: "again", Arms: arms}}
	moved := 0
	for i := range 1000 {
		id := fmt.Sprint(i)
		first := one.Route("", id, rand.Uint64())
		if first != one.Route("", id, rand.Uint64()) {
			t.Fatalf("entity %s met two arms", id)
		}
		if first != two.Route("", id, 0) {
			moved++
		}
	}
	if moved < 400 || moved > 600 {
		t.Errorf("a new salt moved %d of 1000 entities: want about half", moved)
	}
}

func TestRules(t *testing.T) {
	r := Routing{Champion: "1", Canary: &Split{Version: "2", Weight: 0.25}}
	canary := 0
	src := rand.New(rand.NewPCG(1, 2))
	for range 40_000 {
		if r.Route("", "x", src.Uint64()) == (Choice{"2", VariantCanary}) {
			canary++
		}
	}
	if canary < 9_600 || canary > 10_400 {
		t.Errorf("canary got %d of 40000: want about 10000", canary)
	}
	if got := r.Route("7", "x", 0); got != (Choice{"7", VariantPinned}) {
		t.Errorf("pinned: %v", got)
	}
	r.Shadows = []string{"2", "3"}
	if got := fmt.Sprint(r.Versions()); got != "[1 2 3]" {
		t.Errorf("versions: %s", got)
	}
}

func TestRoutingFaults(t *testing.T) {
	bad := Routing{Canary: &Split{Weight: 1.5}, Experiment: &Experiment{Arms: []Split{{Variant: "a"}, {Variant: "a", Version: "2", Weight: math.NaN()}}}}
	err := bad.Validate()
	for _, want := range []string{"champion is empty", "canary names no version", "less than 1", "two arms", "names no version", "weight of arm 1", "variant name of its own", "choose one"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in:\n%v", want, err)
		}
	}
	if err := (&Routing{Champion: "1"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1, 0)
		ctx := context.Background()
		if _, err := g.enter(ctx, time.Time{}, time.Now); err != nil {
			t.Fatal(err)
		}
		type result struct {
			waited time.Duration
			err    error
		}
		second := make(chan result)
		go func() {
			w, err := g.enter(ctx, time.Now().Add(time.Minute), time.Now)
			second <- result{w, err}
		}()
		synctest.Wait()
		if _, err := g.enter(ctx, time.Time{}, time.Now); !errors.Is(err, ErrBusy) {
			t.Errorf("a third request: %v", err)
		}
		if _, err := g.enter(ctx, time.Now(), time.Now); !errors.Is(err, ErrDeadline) {
			t.Errorf("a deadline that has passed: %v", err)
		}
		time.Sleep(10 * time.Second)
		g.leave()
		if r := <-second; r.err != nil || r.waited != 10*time.Second {
			t.Errorf("second: %+v", r)
		}
		go func() {
			w, err := g.enter(ctx, time.Now().Add(time.Second), time.Now)
			second <- result{w, err}
		}()
		if r := <-second; !errors.Is(r.err, ErrDeadline) {
			t.Errorf("deadline in the queue: %+v", r)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := g.enter(gone, time.Time{}, time.Now); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left: %v", err)
		}
		g.leave()
		if g.pending() != 0 {
			t.Errorf("%d places are lost", g.pending())
		}
	})
}

// TestGateRefusesLongWaits holds that a queue of slow computations is refused
// by time before it is full, and a queue of quick ones is not.
func TestGateRefusesLongWaits(t *testing.T) {
	for took, want := range map[time.Duration]int{10 * time.Millisecond: 5, 10 * time.Microsecond: 100} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(2, 100, 20*time.Millisecond)
			for range 200 {
				g.observe(took, time.Now())
			}
			ctx, cancel := context.WithCancel(t.Context())
			for range 2 {
				if _, err := g.enter(ctx, time.Time{}, time.Now); err != nil {
					t.Fatal(err)
				}
			}
			waiting := 0
			for range 150 {
				before := len(g.room)
				go g.enter(ctx, time.Time{}, time.Now)
				synctest.Wait()
				if len(g.room) > before {
					waiting++
				}
			}
			if waiting < want-2 || waiting > want {
				t.Errorf("computations of %v: %d wait, want about %d", took, waiting, want)
			}
			cancel()
			synctest.Wait()
			if g.leave(); len(g.room) != 1 {
				t.Errorf("%d places are lost", len(g.room)-1)
			}
		})
	}
}

// TestGateRefusesLongBatches holds that who waits for a batching runtime is refused
// by the batches before it, not by the requests in them.
func TestGateRefusesLongBatches(t *testing.T) {
	for batch, want := range map[int]int{1: 3, 4: 9, 64: 100} { // 8 ms a batch: two may be ahead
		g := newGate(2, 98, 20*time.Millisecond)
		for range 400 {
			g.observe(8*time.Millisecond, time.Now())
		}
		joined := 0
		for range 150 {
			if err := g.join(time.Time{}, time.Now, batch); err == nil {
				joined++
			} else if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
		}
		if joined != want {
			t.Errorf("batches of %d: %d joined, want %d", batch, joined, want)
		}
		for range joined {
			g.part()
		}
		if err := g.join(time.Now(), time.Now, batch); !errors.Is(err, ErrDeadline) {
			t.Errorf("a deadline that has passed: %v", err)
		}
	}
}
