package ingest

import (
	"sync"
	"sync/atomic"
	"time"
)

// pace says how long a unit waits for company. While the writers are busy more
// than half of the time with units that waited, the wait grows; while they are
// idle three quarters of the time, it shrinks back.
type pace struct {
	least, most time.Duration
	writers     int
	wait        atomic.Int64 // ns

	mu    sync.Mutex
	busy  time.Duration
	since time.Time
}

func newPace(cfg Config) *pace {
	p := &pace{least: cfg.MinDelay, most: cfg.MaxDelay, writers: cfg.Writers}
	p.wait.Store(int64(cfg.MinDelay))
	return p
}

// delay is the wait now.
func (p *pace) delay() time.Duration { return time.Duration(p.wait.Load()) }

// wrote says that a writer was busy for a time that ended now.
func (p *pace) wrote(busy time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = now
	}
	p.busy += busy
	span := now.Sub(p.since)
	if span < time.Second {
		return
	}
	share := p.busy.Seconds() / (span.Seconds() * float64(p.writers))
	d := p.delay()
	switch {
	case share > 0.5:
		d = min(d*5/4+time.Millisecond, p.most)
	case share < 0.25:
		d = max(d*4/5, p.least)
	}
	p.wait.Store(int64(d))
	p.busy, p.since = 0, now
}
