package serving

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Refusals by admission.
var (
	ErrBusy     = errors.New("the model's queue is full: retry later")
	ErrDeadline = errors.New("the request's deadline passed before it was computed")
)

// gate bounds how many requests of one model compute at once and how many may
// wait for a place. A request beyond both is refused at once: a queue that
// grows makes every answer late.
//
// How many may wait is a number and a time: with slow models the number alone
// would be seconds. Who would have to wait longer, as the newest computations
// took, is refused too.
type gate struct {
	compute chan struct{} // a place to compute
	room    chan struct{} // a place to compute or to wait
	longest time.Duration // expected wait up to which one may wait; 0 for any
	took    atomic.Int64  // moving average of a computation, ns
	learnt  atomic.Int64  // computations that it is of, up to a few
	gap     atomic.Int64  // moving average of the time from one computation's end to the next, while others wait, ns
	ended   atomic.Int64  // when the last one ended (UnixNano); 0 where nobody waited then
	others  *newcomers    // nil: nobody is let first
}

// learning is how many computations make a plain average, before later ones move
// it slowly: a queue of a model that nothing is known of would fill meanwhile.
const learning = 16

func newGate(computing, waiting int, longest time.Duration) *gate {
	return &gate{compute: make(chan struct{}, computing), room: make(chan struct{}, computing+waiting), longest: longest}
}

// observe learns how long a computation took that ended at a time. One that the
// machine held up counts as little more than twice the usual. A lost update among
// several at once does no harm.
//
// While somebody waits, it learns how long it is from one end to the next as well:
// reading, writing and whoever else uses the processors are in that, too.
func (g *gate) observe(took time.Duration, at time.Time) {
	end := int64(0)
	if len(g.room) > cap(g.compute) {
		end = at.UnixNano()
	}
	if before := g.ended.Swap(end); before > 0 && end > before {
		if old := g.gap.Load(); old == 0 {
			g.gap.Store(end - before)
		} else {
			g.gap.Store(moved(old, end-before))
		}
	}
	old := g.took.Load()
	if n := g.learnt.Load(); n < learning {
		g.learnt.Store(n + 1)
		g.took.Store(old + (int64(took)-old)/(n+1))
		return
	}
	g.took.Store(moved(old, int64(took)))
}

func moved(average, by int64) int64 {
	return average + (min(by, 2*average+int64(100*time.Microsecond))-average)/16
}

// expected is how long who joins the queue now will wait.
func (g *gate) expected() time.Duration {
	waiting := int64(max(0, len(g.room)-cap(g.compute)))
	return time.Duration(waiting * max(g.gap.Load(), g.took.Load()/int64(cap(g.compute))))
}

// full reports whether [gate.enter] would refuse who comes now, so that a request
// can be refused before its body is decoded.
func (g *gate) full() bool {
	if len(g.compute) < cap(g.compute) {
		return false
	}
	return len(g.room) == cap(g.room) || g.longest > 0 && g.expected() > g.longest
}

// enter waits for a place until the deadline (none if zero) and returns how
// long that took. After a nil error the caller must leave.
func (g *gate) enter(ctx context.Context, deadline time.Time, now func() time.Time) (time.Duration, error) {
	at := now()
	if passed(deadline, at) {
		return 0, ErrDeadline
	}
	select {
	case g.room <- struct{}{}:
	default:
		return 0, ErrBusy
	}
	select {
	case g.compute <- struct{}{}: // free: no timer
		g.others.first(at, now)
		return 0, nil
	default:
	}
	if g.longest > 0 && g.expected() > g.longest {
		<-g.room
		return 0, ErrBusy
	}
	return g.wait(ctx, deadline, now)
}

func (g *gate) wait(ctx context.Context, deadline time.Time, now func() time.Time) (time.Duration, error) {
	began := now()
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, ErrDeadline)
		defer cancel()
	}
	select {
	case g.compute <- struct{}{}:
	case <-ctx.Done():
		<-g.room
		return 0, context.Cause(ctx)
	}
	at := now()
	if passed(deadline, at) { // the place came free too late
		g.leave()
		return 0, ErrDeadline
	}
	g.others.first(at, now)
	return at.Sub(began), nil
}

func (g *gate) leave() {
	<-g.compute
	<-g.room
}

// join takes room without a place to compute: a native runtime's batcher decides
// who computes when, and must see all who wait. It refuses whom those before it,
// some in each batch, would make wait too long. After a nil error the caller must
// part.
func (g *gate) join(deadline time.Time, now func() time.Time, batch int) error {
	if passed(deadline, now()) {
		return ErrDeadline
	}
	if g.longest > 0 {
		batches := (len(g.room) + batch - 1) / batch
		if time.Duration(int64(batches)*g.took.Load()) > g.longest {
			return ErrBusy
		}
	}
	select {
	case g.room <- struct{}{}:
		return nil
	default:
		return ErrBusy
	}
}

func (g *gate) part() { <-g.room }

// pending is the number of requests inside.
func (g *gate) pending() int { return len(g.room) }

func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }
