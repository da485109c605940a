package web

import (
	"context"
	"sync"
	"time"
)

// caller is the context of a plain request. It ends with the request or when its
// client has gone away, which is looked for only where somebody waits for that:
// most handlers are done before a client could leave, and net/http's goroutine
// that watches each client costs more than they do.
type caller struct {
	context.Context
	c *plainConn

	mu   sync.Mutex
	done chan struct{} // nil: nobody has asked
	err  error
}

// lookEvery is how often clients are looked for that somebody waits for.
const lookEvery = 100 * time.Millisecond

func (x *caller) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		x.done = make(chan struct{})
		if x.err != nil {
			close(x.done)
		} else {
			x.c.p.callers.add(x)
		}
	}
	return x.done
}

func (x *caller) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *caller) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	if x.err = context.Canceled; x.done != nil {
		close(x.done)
		x.c.p.callers.remove(x)
	}
}

// callers are those that somebody waits for. One goroutine looks after all of
// them, as long as there are any.
type callers struct {
	mu      sync.Mutex
	waited  map[*caller]struct{}
	looking bool
}

func (l *callers) add(x *caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waited == nil {
		l.waited = map[*caller]struct{}{}
	}
	l.waited[x] = struct{}{}
	if !l.looking {
		l.looking = true
		go l.look()
	}
}

func (l *callers) remove(x *caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waited, x)
}

func (l *callers) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for range tick.C {
		all, some := l.all()
		if !some {
			return
		}
		for _, x := range all {
			if hungUp(x.c.tcp) {
				x.end()
			}
		}
	}
}

func (l *callers) all() ([]*caller, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*caller, 0, len(l.waited))
	for x := range l.waited {
		all = append(all, x)
	}
	l.looking = len(all) > 0
	return all, l.looking
}
