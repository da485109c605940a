package ingest

import (
	"context"
	"slices"
	"sync"
)

// fairQueue shares a few places among namespaces by their weights: start-time
// fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", 1997). A
// request's start is the larger of the queue's virtual time and its namespace's
// last finish, its finish lies cost/weight behind that; the smallest start goes
// first, and becomes the virtual time. So of two namespaces that always want
// more, each gets by its weight, to within one request of each, and one that was
// idle neither saved anything up nor waits behind what others had queued.
type fairQueue struct {
	mu      sync.Mutex
	places  int
	free    int
	fifo    bool // tests: who comes first goes first
	virtual float64
	finish  map[string]float64
	waiting []*ticket // by start, then by arrival
}

type ticket struct {
	start float64
	ready chan struct{}
}

func newFairQueue(places int, fifo bool) *fairQueue {
	return &fairQueue{places: places, free: places, fifo: fifo, finish: map[string]float64{}}
}

// enter waits for a place and returns what gives it back.
func (q *fairQueue) enter(ctx context.Context, namespace string, weight int, cost float64) (leave func(), err error) {
	t := q.line(namespace, weight, cost)
	select {
	case <-t.ready:
		return q.leave, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(q.waiting, t)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 { // it was given a place meanwhile
		q.leave()
	}
	return nil, ctx.Err()
}

// line puts a request where it belongs, at once into a place if one is free.
func (q *fairQueue) line(namespace string, weight int, cost float64) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &ticket{start: max(q.virtual, q.finish[namespace]), ready: make(chan struct{})}
	q.finish[namespace] = t.start + cost/float64(weight)
	if q.fifo {
		t.start = 0
	}
	if q.free > 0 {
		q.free--
		q.admit(t)
		return t
	}
	at := len(q.waiting)
	for at > 0 && q.waiting[at-1].start > t.start {
		at--
	}
	q.waiting = slices.Insert(q.waiting, at, t)
	return t
}

// admit gives a request its place; q.mu is held.
func (q *fairQueue) admit(t *ticket) {
	q.virtual = max(q.virtual, t.start)
	close(t.ready)
}

func (q *fairQueue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		t := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.admit(t)
		return
	}
	if q.free++; q.free == q.places { // nobody is owed anything
		q.virtual = 0
		clear(q.finish)
	}
}
