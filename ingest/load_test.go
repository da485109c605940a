package ingest_test

import (
	"context"
	"sync"
	"time"
)

// load produces without pause until it is stopped.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// sustain keeps producing batches of events, as fast as every pause allows. A
// broker that goes away is waited for.
func (w *world) sustain(batch int, every time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	l.done.Go(func() {
		for ctx.Err() == nil {
			if w.mayProduce() {
				once, stop := context.WithTimeout(ctx, 20*time.Second)
				_ = w.send(once, batch) // what is not acknowledged may be stored or not: the log decides
				stop()
			}
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
	})
	w.t.Cleanup(l.stop)
	return l
}

// mayProduce is false while as many events were sent as are wanted so far.
func (w *world) mayProduce() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted == 0 || w.next < w.wanted
}

// want lets the load produce up to so many events; 0: on and on.
func (w *world) want(events int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = events
}

// pause holds every load back until resume.
func (w *world) pause() (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.wanted
	w.wanted = max(1, w.next)
	return func() { w.want(before) }
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}
