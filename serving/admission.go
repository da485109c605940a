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
}

// learning is how many computations make a plain average, before later ones move
// it slowly: a queue of a model that nothing is known of would fill meanwhile.
const learning = 16

func newGate(computing, waiting int, longest time.Duration) *gate {
	return &gate{compute: make(chan struct{}, computing), room: make(chan struct{}, computing+waiting), longest: longest}
}

// observe learns how long a computation took. One that the machine held up
// counts as little more than twice the usual. A lost update among several at
// once does no harm.
func (g *gate) observe(took time.Duration) {
	old := g.took.Load()
	if n := g.learnt.Load(); n < learning {
		g.learnt.Store(n + 1)
		g.took.Store(old + (int64(took)-old)/(n+1))
		return
	}
	g.took.Store(old + (min(int64(took), 2*old+int64(100*time.Microsecond))-old)/16)
}

// expected is how long who joins the queue now will wait.
func (g *gate) expected() time.Duration {
	waiting := len(g.room) - cap(g.compute)
	return time.Duration(int64(max(0, waiting)) * g.took.Load() / int64(cap(g.compute)))
}

// enter waits for a place until the deadline (none if zero) and returns how
// long that took. After a nil error the caller must leave.
func (g *gate) enter(ctx context.Context, deadline time.Time, now func() time.Time) (time.Duration, error) {
	if passed(deadline, now()) {
		return 0, ErrDeadline
	}
	select {
	case g.room <- struct{}{}:
	default:
		return 0, ErrBusy
	}
	select {
	case g.compute <- struct{}{}: // free: no clock, no timer
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
