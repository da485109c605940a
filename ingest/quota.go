package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// buckets hold namespaces to their quota of events a second. A bucket holds at
// most one second's worth; a unit may begin while it is not in debt, and takes
// all its events out, so that the debt of a large unit is waited for by the next
// one. What waits stays in its topic: nothing is lost, and no other namespace
// waits with it.
type buckets struct {
	mu sync.Mutex
	by map[string]*bucket
}

type bucket struct {
	events float64 // may be negative
	at     time.Time
}

func newBuckets() *buckets { return &buckets{by: map[string]*bucket{}} }

// take takes events out of a namespace's bucket, or says how long the bucket
// stays in debt. Without a quota everything goes.
func (b *buckets) take(namespace string, quota, events int64, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if quota <= 0 {
		delete(b.by, namespace)
		return 0
	}
	rate := float64(quota)
	k := b.by[namespace]
	if k == nil {
		k = &bucket{events: rate, at: now}
		b.by[namespace] = k
	}
	k.events, k.at = min(rate, k.events+max(now.Sub(k.at).Seconds(), 0)*rate), now
	if k.events < 0 {
		return time.Duration(-k.events / rate * float64(time.Second))
	}
	k.events -= float64(events)
	return 0
}

// quotaLook is how often a waiting unit looks whether its quota was changed.
const quotaLook = time.Second

// admit waits until the namespace's quotas let a unit begin. A unit that was
// begun is never held up: its intent stands.
func (p *partition) admit(ctx context.Context, w *work) error {
	if w.replayed {
		return nil
	}
	began := time.Now()
	defer p.state.throttled("")
	for {
		ns := w.unit.Namespace
		if full, err := p.c.overQuota(ctx, ns); full != "" || err != nil {
			if err != nil {
				full = "what namespace " + ns + " holds cannot be counted: " + err.Error()
			}
			p.state.throttled(full)
			if err := pause(ctx, quotaLook); err != nil {
				return err
			}
			continue
		}
		quota := p.c.defs.space(p.c.reg.State(), ns).Quotas.EventsPerSecond
		wait := p.c.buckets.take(ns, quota, max(w.unit.Counts.Records, w.unit.Counts.Rows), time.Now())
		if wait == 0 {
			if held := time.Since(began); held > time.Millisecond {
				p.c.metrics.throttled.Add(ctx, held.Seconds(), namespaceLabel(ns))
			}
			return nil
		}
		p.state.throttled(fmt.Sprintf("namespace %s has used its quota of %d events a second", ns, quota))
		if err := pause(ctx, min(wait, quotaLook)); err != nil {
			return err
		}
	}
}

// deadCaps keep the dead letters of a namespace from filling the disk: beyond
// the cap they lose their bytes and keep their place, reason and size.
type deadCaps struct {
	mu sync.Mutex
	by map[string]*deadBytes
}

type deadBytes struct {
	held int64
	at   time.Time // when it was counted in the store
}

func newDeadCaps() *deadCaps { return &deadCaps{by: map[string]*deadBytes{}} }

// deadRecount is how often the store is asked what it holds: retention takes
// dead letters away.
const deadRecount = 10 * time.Minute

const deadDropped = "the namespace's dead letters have reached their quota of bytes: this one's bytes were not kept"

// cap takes the bytes of dead letters for which there is no room. count asks the
// store how many it holds.
func (d *deadCaps) cap(namespace string, limit int64, letters []event.DeadLetter, now time.Time, count func() (int64, error)) (dropped int64, err error) {
	if limit <= 0 || len(letters) == 0 {
		return 0, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.by[namespace]
	if k == nil {
		k = &deadBytes{}
		d.by[namespace] = k
	}
	if now.Sub(k.at) >= deadRecount {
		if k.held, err = count(); err != nil {
			return 0, err
		}
		k.at = now
	}
	for i := range letters {
		l := &letters[i]
		if n := int64(len(l.Key) + len(l.Value)); k.held+n <= limit {
			k.held += n
		} else if n > 0 {
			dropped += n
			l.Key, l.Value, l.Detail = nil, nil, deadDropped
		}
	}
	return dropped, nil
}

// insertCost is what an insert costs beside its rows, in rows.
const insertCost = 1000

// turn waits for the namespace's turn to insert rows.
func (c *Consumer) turn(ctx context.Context, namespace string, rows int) (leave func(), err error) {
	weight := c.defs.space(c.reg.State(), namespace).Share()
	return c.writing.enter(ctx, namespace, weight, float64(insertCost+rows))
}

// SetDeadLetterBytes changes [Config.DeadLetterBytes] from the next unit on.
func (c *Consumer) SetDeadLetterBytes(n int64) { c.deadBytes.Store(n) }

// capDead caps the dead letters of a unit in a namespace.
func (c *Consumer) capDead(ctx context.Context, namespace string, letters []event.DeadLetter) error {
	limit := c.deadBytes.Load()
	if q := c.defs.space(c.reg.State(), namespace).Quotas.DeadLetterBytes; q > 0 {
		limit = q
	}
	dropped, err := c.dead.cap(namespace, limit, letters, time.Now(), func() (int64, error) {
		return c.sink.DeadLetterBytes(ctx, namespace, c.defs.topicsOf(c.reg.State(), namespace))
	})
	if dropped > 0 {
		c.metrics.deadDropped.Add(ctx, dropped, namespaceLabel(namespace))
	}
	return err
}
