// Package memlog is a registry log in memory: for planning against a copy and
// for tests that need a registry without a broker.
//
// Promises: offsets are dense from 0; Tail sees every record once, in order.
// May not: survive its process.
package memlog

import (
	"context"
	"sync"
	"time"
)

// Log implements registry.Log. The zero value is not usable: call [New].
type Log struct {
	mu      sync.Mutex
	records []record
	grew    chan struct{}
	now     func() time.Time
}

type record struct {
	time  int64
	value []byte
}

// New returns an empty log that stamps records with now (nil: the wall clock).
func New(now func() time.Time) *Log {
	if now == nil {
		now = time.Now
	}
	return &Log{grew: make(chan struct{}), now: now}
}

// Append adds a record and returns its offset.
func (l *Log) Append(ctx context.Context, value []byte) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record{l.now().UnixMicro(), append([]byte(nil), value...)})
	close(l.grew)
	l.grew = make(chan struct{})
	return int64(len(l.records) - 1), nil
}

// Tail calls fn for each record from an offset on until the context ends or fn
// fails.
func (l *Log) Tail(ctx context.Context, from int64, fn func(offset, timeMicros int64, value []byte) error) error {
	for {
		l.mu.Lock()
		tail, grew := l.records[min(from, int64(len(l.records))):], l.grew
		l.mu.Unlock()
		for _, r := range tail {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(from, r.time, r.value); err != nil {
				return err
			}
			from++
		}
		if len(tail) > 0 {
			continue
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// End is the offset that the next record gets.
func (l *Log) End(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.records)), nil
}
