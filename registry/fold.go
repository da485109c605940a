package registry

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
)

type key struct{ kind, namespace, name string }

// entryID is a digest of an entry's ID: ids are remembered for ever, so that a
// retry is harmless whenever it comes, at about 60 bytes each.
type entryID [16]byte

func digest(id string) entryID {
	sum := sha256.Sum256([]byte(id))
	return entryID(sum[:16])
}

// outcome is what the fold decided about an entry ID when it first met it.
type outcome struct {
	chain *chain
	index int32 // version index, or -1: stale
}

// fold is the log in memory. Chains only grow, so a State is a fold and an
// offset; the lock guards the growing.
type fold struct {
	mu      sync.RWMutex
	chains  map[key]*chain
	byUID   map[uint64]*chain
	seen    map[entryID]outcome
	changes map[string][]int64 // kind → offsets of accepted entries
	words   map[string]string  // interned kinds, namespaces and authors
	last    int64              // last folded offset, -1 at first
	moved   chan struct{}      // closed and replaced when last moves
	stats   Stats
}

// Stats counts what the fold met, for metrics.
type Stats struct {
	Entries     int64 // folded records
	Accepted    int64
	Stale       int64
	Repeated    int64 // retries of an entry ID
	Malformed   int64 // records that are no entries, skipped
	Definitions int   // subjects ever defined, deleted ones too
}

func newFold() *fold {
	return &fold{
		chains: map[key]*chain{}, byUID: map[uint64]*chain{}, seen: map[entryID]outcome{},
		changes: map[string][]int64{}, words: map[string]string{}, last: -1, moved: make(chan struct{}),
	}
}

// apply folds one record. Its only error is [ErrNewerFormat]; a record that is
// no entry is skipped and counted, in every registry alike.
func (f *fold) apply(offset, time int64, value []byte) error {
	e, err := DecodeEntry(value)
	if errors.Is(err, ErrNewerFormat) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if offset <= f.last {
		return nil // a tail that was started again may repeat records
	}
	f.stats.Entries++
	if err != nil {
		f.stats.Malformed++
	} else {
		f.decide(e, offset, time)
	}
	f.last = offset
	close(f.moved)
	f.moved = make(chan struct{})
	return nil
}

func (f *fold) decide(e Entry, offset, time int64) {
	id := digest(e.ID)
	if _, repeated := f.seen[id]; repeated {
		f.stats.Repeated++
		return
	}
	c := f.chain(e)
	if e.Expect != c.live() {
		f.stats.Stale++
		f.seen[id] = outcome{c, -1}
		return
	}
	f.stats.Accepted++
	f.seen[id] = outcome{c, int32(len(c.versions))}
	f.changes[c.kind] = append(f.changes[c.kind], offset)
	f.grow(c, e, offset, time)
}

func (f *fold) grow(c *chain, e Entry, offset, time int64) {
	v := version{offset: offset, time: time, who: f.intern(e.Who), why: e.Why, rev: f.intern(e.Revision), deleted: e.Op == Delete}
	if c.live() == 0 {
		v.uid = uint64(offset) + 1
		f.byUID[v.uid] = c
	} else {
		v.uid = c.versions[len(c.versions)-1].uid
	}
	c.add(v, append(json.RawMessage(nil), e.Spec...))
}

// chain returns the entry's chain, made on first sight. A stale entry may leave
// an empty chain: it is how its sender is answered.
func (f *fold) chain(e Entry) *chain {
	k := key{e.Kind, e.Namespace, e.Name}
	c := f.chains[k]
	if c == nil {
		c = &chain{kind: f.intern(e.Kind), namespace: f.intern(e.Namespace), name: e.Name}
		f.chains[key{c.kind, c.namespace, c.name}] = c
	}
	return c
}

func (f *fold) intern(s string) string {
	if w, ok := f.words[s]; ok {
		return w
	}
	f.words[s] = s
	return s
}

// answer returns what became of an entry, which must have been folded.
func (f *fold) answer(e Entry) (Definition, bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, ok := f.seen[digest(e.ID)]
	if !ok {
		return Definition{}, false, nil
	}
	if c := o.chain; c.kind != e.Kind || c.namespace != e.Namespace || c.name != e.Name {
		return Definition{}, true, ErrReusedID
	}
	if o.index < 0 {
		return Definition{}, true, &StaleError{e.Kind, e.Namespace, e.Name, e.Expect, o.chain.live()}
	}
	return o.chain.definition(int(o.index)), true, nil
}

// position returns the last folded offset and a channel that closes when it
// moves.
func (f *fold) position() (int64, <-chan struct{}) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.last, f.moved
}
