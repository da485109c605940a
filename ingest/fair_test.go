package ingest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// TestFairQueueSharesByWeight serves namespaces that always want more and holds
// what each got, over any stretch, to the bound of start-time fair queueing: two
// of them differ by weight by no more than a request of each. In the order of
// arrival they differ by far more.
func TestFairQueueSharesByWeight(t *testing.T) {
	for _, fifo := range []bool{false, true} {
		worst := 0.0
		for seed := range uint64(50) {
			worst = max(worst, unfairness(t, seed, fifo))
		}
		if (worst > 1+1e-9) != fifo {
			t.Errorf("fifo %v: unfairness of %.2f times the bound", fifo, worst)
		}
	}
}

// unfairness drives a queue of one place at random and returns by how much of
// the bound two namespaces' work by weight differed at most.
func unfairness(t *testing.T, seed uint64, fifo bool) (worst float64) {
	r := rand.New(rand.NewPCG(seed, 3))
	q := newFairQueue(1, fifo)
	n := 2 + r.IntN(4)
	weights, largest := make([]int, n), make([]float64, n)
	type asked struct {
		of   int
		cost float64
		t    *ticket
	}
	var line []asked
	ask := func(of int) {
		cost := 1 + 999*r.Float64()
		largest[of] = max(largest[of], cost)
		line = append(line, asked{of, cost, q.line(fmt.Sprint(of), weights[of], cost)})
	}
	for i := range n {
		weights[i] = 1 + r.IntN(5)
		depth := 2
		if i == 0 {
			depth = 30 // one of them queues up far more
		}
		for range depth {
			ask(i)
		}
	}
	served := make([]float64, n)
	history := [][]float64{make([]float64, n)}
	for range 400 {
		at := -1
		for i, a := range line {
			select {
			case <-a.t.ready:
				at = i
			default:
			}
		}
		if at < 0 {
			t.Fatal("nobody has the place")
		}
		a := line[at]
		line = append(line[:at], line[at+1:]...)
		served[a.of] += a.cost / float64(weights[a.of])
		ask(a.of) // it always wants more
		q.leave()
		history = append(history, append([]float64(nil), served...))
	}
	for from := 0; from < len(history); from += 7 {
		for to := from; to < len(history); to += 7 {
			for i := range n {
				for j := range i {
					got := math.Abs((history[to][i] - history[from][i]) - (history[to][j] - history[from][j]))
					worst = max(worst, got/(largest[i]/float64(weights[i])+largest[j]/float64(weights[j])))
				}
			}
		}
	}
	return worst
}

// TestFairQueueGivesUp: who stops waiting leaves no place behind.
func TestFairQueueGivesUp(t *testing.T) {
	q := newFairQueue(2, false)
	for round := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		for i := range 4 {
			go func() {
				if leave, err := q.enter(ctx, fmt.Sprint(i%2), 1, 10); err == nil {
					leave()
				}
				done <- struct{}{}
			}()
		}
		if round%2 == 0 {
			cancel()
		}
		for range 4 {
			<-done
		}
		cancel()
		if q.free != 2 || len(q.waiting) != 0 || len(q.finish) != 0 {
			t.Fatalf("round %d: %d of 2 places free, %d waiting, %d namespaces remembered", round, q.free, len(q.waiting), len(q.finish))
		}
	}
}

// TestQuotaIsKept takes units of random sizes out of a bucket whenever it lets
// them go: over any stretch no more than the quota and one second's worth and
// one unit, and nothing is held up for longer than that takes.
func TestQuotaIsKept(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		b, quota := newBuckets(), int64(10+r.IntN(5000))
		start := time.Unix(1000, 0)
		now, taken, largest := start, int64(0), int64(0)
		for range 500 {
			n := int64(1 + r.IntN(3000))
			largest = max(largest, n)
			for {
				wait := b.take("a", quota, n, now)
				if wait == 0 {
					break
				}
				if b.take("b", 0, n, now) != 0 {
					t.Fatal("a namespace without a quota waits")
				}
				now = now.Add(wait + time.Nanosecond)
			}
			taken += n
			if most := float64(quota)*(now.Sub(start).Seconds()+1) + float64(largest); float64(taken) > most+1 {
				t.Fatalf("quota %d: %d events in %v", quota, taken, now.Sub(start))
			}
		}
		if least := float64(quota) * now.Sub(start).Seconds(); float64(taken) < least-1 {
			t.Fatalf("quota %d: only %d events in %v: it was held up for nothing", quota, taken, now.Sub(start))
		}
	}
}

// TestDeadLettersLoseTheirBytesBeyondTheCap: what is kept fits, and all keep
// their place.
func TestDeadLettersLoseTheirBytesBeyondTheCap(t *testing.T) {
	d, now := newDeadCaps(), time.Unix(1000, 0)
	inStore := int64(700)
	count := func() (int64, error) { return inStore, nil }
	letters := func() (out []event.DeadLetter) {
		for i := range 5 {
			out = append(out, event.DeadLetter{Offset: int64(i), Reason: event.ReasonMalformed, Detail: "broken", Key: make([]byte, 10), Value: make([]byte, 90), Size: 90})
		}
		return out
	}
	kept := func(limit int64, at time.Time) (n int) {
		ls := letters()
		dropped, err := d.cap("a", limit, ls, at, count)
		if err != nil || len(ls) != 5 {
			t.Fatal(err)
		}
		for _, l := range ls {
			if l.Size != 90 || l.Reason != event.ReasonMalformed || (l.Value == nil) != (l.Detail != "broken") {
				t.Errorf("%+v", l)
			}
			if l.Value != nil {
				n++
			}
		}
		if dropped != int64(100*(5-n)) {
			t.Errorf("%d bytes dropped, %d letters kept", dropped, n)
		}
		return n
	}
	for i, c := range []struct {
		limit int64
		at    time.Time
		want  int
	}{{1000, now, 3}, {1000, now, 0}, {0, now, 5}, {1200, now, 2}, {1000, now.Add(time.Hour), 3}} {
		if n := kept(c.limit, c.at); n != c.want {
			t.Errorf("step %d: %d letters kept their bytes, want %d", i, n, c.want)
		}
	}
}
