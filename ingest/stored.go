package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// ErrQuota says that a namespace holds as much as its quotas let it.
var ErrQuota = errors.New("the namespace has used its quota")

// usage knows what namespaces hold, as far as their quotas ask: what the store
// counted last, and what this process has stored since.
type usage struct {
	mu sync.Mutex
	by map[string]*held
}

type held struct {
	event.Stored
	since int64 // rows of this process, after the count
	at    time.Time
}

func newUsage() *usage { return &usage{by: map[string]*held{}} }

// usageRecount is how often the store is asked what a namespace holds; retention,
// erasure and merges make it less.
const usageRecount = 10 * time.Second

// over says which quota a namespace has used up, "" when none. count asks the
// store what it holds.
func (u *usage) over(namespace string, q event.Quotas, now time.Time, count func() (event.Stored, error)) (string, error) {
	if q.Rows <= 0 && q.StorageBytes <= 0 {
		return "", nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.by[namespace]
	if h == nil {
		h = &held{}
		u.by[namespace] = h
	}
	if now.Sub(h.at) >= usageRecount {
		stored, err := count()
		if err != nil {
			return "", err
		}
		h.Stored, h.since, h.at = stored, 0, now
	}
	switch {
	case q.Rows > 0 && h.Rows+h.since >= q.Rows:
		return fmt.Sprintf("namespace %s has used its quota of %d stored rows: raise quotas.rows of the Namespace, or shorten its retention", namespace, q.Rows), nil
	case q.StorageBytes > 0 && h.Bytes >= q.StorageBytes:
		return fmt.Sprintf("namespace %s has used its quota of %d bytes of storage: raise quotas.storage_bytes of the Namespace, or shorten its retention", namespace, q.StorageBytes), nil
	}
	return "", nil
}

// stored notes rows that were stored since the count.
func (u *usage) stored(namespace string, rows int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if h := u.by[namespace]; h != nil {
		h.since += rows
	}
}

// held returns what was counted last of the namespaces with such quotas.
func (u *usage) held() map[string]event.Stored {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]event.Stored, len(u.by))
	for ns, h := range u.by {
		out[ns] = event.Stored{Rows: h.Rows + h.since, Bytes: h.Bytes}
	}
	return out
}

// overQuota says which quota of rows or bytes a namespace has used up.
func (c *Consumer) overQuota(ctx context.Context, namespace string) (string, error) {
	return c.usage.over(namespace, c.defs.space(c.reg.State(), namespace).Quotas, time.Now(), func() (event.Stored, error) {
		return c.sink.Stored(ctx, namespace)
	})
}
