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
			once, stop := context.WithTimeout(ctx, 20*time.Second)
			_ = w.send(once, batch) // what is not acknowledged may be stored or not: the log decides
			stop()
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
	})
	w.t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}
