package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
)

// Log is an append-only sequence of records. Append returns when the record is
// durable; after an error the record may nevertheless be in the log. Tail calls
// fn for each record from an offset on, in order, and goes on waiting for more
// until the context ends or fn fails. End is the offset the next record gets.
type Log interface {
	Append(ctx context.Context, value []byte) (offset int64, err error)
	Tail(ctx context.Context, from int64, fn func(offset, timeMicros int64, value []byte) error) error
	End(ctx context.Context) (int64, error)
}

// Registry is a log and its fold. Its methods may be called by any number of
// goroutines; [Registry.Run] must be running for Apply, Wait, Next and At to
// see entries written after Open.
type Registry struct {
	log  Log
	fold *fold
}

// Open folds everything that the log holds now.
func Open(ctx context.Context, log Log) (*Registry, error) {
	r := &Registry{log: log, fold: newFold()}
	end, err := log.End(ctx)
	if err != nil {
		return nil, fmt.Errorf("open registry: find the log's end: %w", err)
	}
	if end <= 0 {
		return r, nil
	}
	done := errors.New("caught up")
	err = log.Tail(ctx, 0, func(offset, time int64, value []byte) error {
		if err := r.fold.apply(offset, time, value); err != nil {
			return fmt.Errorf("offset %d: %w", offset, err)
		}
		if offset >= end-1 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		return nil, fmt.Errorf("open registry: read the log: %w", err)
	}
	return r, nil
}

// Run follows the log until the context ends (nil) or the log fails.
func (r *Registry) Run(ctx context.Context) error {
	last, _ := r.fold.position()
	err := r.log.Tail(ctx, last+1, r.fold.apply)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow registry log: %w", err)
}

// Apply appends an entry, waits until it is folded and returns what came of it:
// the definition's new version, or [ErrStale]. An error of the log leaves it
// open whether the entry took effect; calling Apply again with the same entry
// ID settles it.
func (r *Registry) Apply(ctx context.Context, e Entry) (Definition, error) {
	if e.ID == "" {
		e.ID = rand.Text()
	}
	value, err := e.Encode()
	if err != nil {
		return Definition{}, err
	}
	if d, ok, err := r.fold.answer(e); ok {
		return d, err
	}
	offset, err := r.log.Append(ctx, value)
	if err != nil {
		return Definition{}, fmt.Errorf("apply %s %s/%s: append: %w", e.Kind, e.Namespace, e.Name, err)
	}
	if err := r.Wait(ctx, offset); err != nil {
		return Definition{}, fmt.Errorf("apply %s %s/%s: %w", e.Kind, e.Namespace, e.Name, err)
	}
	d, ok, err := r.fold.answer(e)
	if !ok {
		return Definition{}, fmt.Errorf("apply %s %s/%s: the log does not hold the entry at offset %d it was stored at; is the topic shared or compacted?", e.Kind, e.Namespace, e.Name, offset)
	}
	return d, err
}

// Wait blocks until the fold contains the log offset.
func (r *Registry) Wait(ctx context.Context, offset int64) error {
	_, err := r.Next(ctx, offset-1)
	return err
}

// Next blocks until the fold goes beyond an offset and returns the state then.
func (r *Registry) Next(ctx context.Context, after int64) (*State, error) {
	for {
		last, moved := r.fold.position()
		if last > after {
			return &State{r.fold, last}, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for registry offset %d, at %d now: %w", after+1, last, context.Cause(ctx))
		}
	}
}

// State returns the definitions as of now.
func (r *Registry) State() *State {
	last, _ := r.fold.position()
	return &State{r.fold, last}
}

// At returns the definitions as of a log offset, after waiting until the fold
// contains it.
func (r *Registry) At(ctx context.Context, offset int64) (*State, error) {
	if err := r.Wait(ctx, offset); err != nil {
		return nil, err
	}
	return &State{r.fold, max(offset, -1)}, nil
}

// AtTime returns the definitions as of a time, in µs: what entries that the
// log stored up to then made.
func (r *Registry) AtTime(micros int64) *State {
	r.fold.mu.RLock()
	defer r.fold.mu.RUnlock()
	last := int64(-1)
	for _, c := range r.fold.chains {
		for i := len(c.versions) - 1; i >= 0; i-- {
			if v := &c.versions[i]; v.time <= micros {
				last = max(last, v.offset)
				break
			}
		}
	}
	return &State{r.fold, last}
}

// Since returns every version of every definition that was made beyond a log
// offset, deletes included, in the order of the log.
func (r *Registry) Since(offset int64) []Definition {
	r.fold.mu.RLock()
	defer r.fold.mu.RUnlock()
	var out []Definition
	for _, c := range r.fold.chains {
		for i := c.at(offset) + 1; i < len(c.versions); i++ {
			out = append(out, c.definition(i))
		}
	}
	slices.SortFunc(out, func(a, b Definition) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

// History returns every version of a definition, deletes included, oldest
// first.
func (r *Registry) History(kind, namespace, name string) []Definition {
	r.fold.mu.RLock()
	defer r.fold.mu.RUnlock()
	c := r.fold.chains[key{kind, namespace, name}]
	if c == nil {
		return nil
	}
	out := make([]Definition, len(c.versions))
	for i := range out {
		out[i] = c.definition(i)
	}
	return out
}

// Stats returns what the fold has met so far.
func (r *Registry) Stats() Stats {
	r.fold.mu.RLock()
	defer r.fold.mu.RUnlock()
	s := r.fold.stats
	s.Definitions = len(r.fold.chains)
	return s
}
