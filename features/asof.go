package features

import (
	"cmp"
	"slices"

	"github.com/kedge-ml/kedge/event"
)

// fact is what a point-in-time question needs to know of a row, and where the
// row's values lie.
type fact struct {
	v       Version
	known   int64 // known_at
	deleted bool
	batch   *event.Batch
	row     int
}

// available is when the row can first be an answer.
func (f *fact) available() int64 { return max(f.v.EventTime, f.known) }

// verdict is the answer to one question.
type verdict struct {
	batch  *event.Batch // nil: no value
	row    int
	status Status
	at     int64 // event_time of the row, also when it is too old
	choice choice
	early  bool // a row with an event_time before the question was not known yet and would have been the answer
}

// asOf answers the questions about one key: which row, by the comparator, is
// the largest among those with event_time ≤ T and known_at ≤ T. Rows are added
// in the order of their event_time; questions are asked when all rows that
// matter to them are there.
//
// The plan: order the rows by available = max(event_time, known_at) and keep
// those that raise the running maximum of the comparator; the answer is the
// last one kept with available ≤ T. Then ttl, on event_time.
type asOf struct {
	ttl   int64 // µs; 0: none
	leaky bool  // known_at does not matter: what Feast does by default
	facts []fact
	ready bool
	chain []int32 // facts that raise the maximum, by available
}

func (a *asOf) reset() {
	clear(a.facts)
	a.facts, a.ready = a.facts[:0], false
}

func (a *asOf) add(f fact) {
	a.facts = append(a.facts, f)
	a.ready = false
}

// prepare orders the facts and builds the chain.
func (a *asOf) prepare() {
	byVersion := func(x, y fact) int { return x.v.Compare(y.v) }
	if !slices.IsSortedFunc(a.facts, byVersion) {
		slices.SortFunc(a.facts, byVersion)
	}
	a.chain = a.chain[:0]
	for i := range a.facts {
		a.chain = append(a.chain, int32(i))
	}
	// By available; facts of one moment stay in the comparator's order, so that
	// the largest of them is the last.
	byAvailable := func(x, y int32) int {
		return cmp.Or(cmp.Compare(a.facts[x].available(), a.facts[y].available()), cmp.Compare(x, y))
	}
	if !slices.IsSortedFunc(a.chain, byAvailable) {
		slices.SortFunc(a.chain, byAvailable)
	}
	kept, largest := a.chain[:0], int32(-1)
	for _, i := range a.chain { // facts are in the comparator's order: its index is its rank
		if i > largest {
			largest = i
			kept = append(kept, i)
		}
	}
	a.chain, a.ready = kept, true
}

// at answers for a time.
func (a *asOf) at(t int64) verdict {
	if !a.ready {
		a.prepare()
	}
	byEvent, _ := slices.BinarySearchFunc(a.facts, t, func(f fact, t int64) int {
		if f.v.EventTime <= t {
			return -1
		}
		return 1
	})
	known, _ := slices.BinarySearchFunc(a.chain, t, func(i int32, t int64) int {
		if a.facts[i].available() <= t {
			return -1
		}
		return 1
	})
	latest, winner := byEvent-1, -1
	if known > 0 {
		winner = int(a.chain[known-1])
	}
	early := latest != winner
	if a.leaky {
		winner, early = latest, false
	}
	out := a.verdict(winner, t)
	out.early = early
	return out
}

func (a *asOf) verdict(winner int, t int64) verdict {
	if winner < 0 {
		return verdict{}
	}
	f := &a.facts[winner]
	switch {
	case f.deleted:
		return verdict{}
	case a.ttl > 0 && f.v.EventTime < t-a.ttl:
		return verdict{status: OutsideMaxAge, at: f.v.EventTime}
	}
	return verdict{batch: f.batch, row: f.row, status: Present, at: f.v.EventTime, choice: choice{f.v, f.known}}
}

// prune forgets the facts that can be neither an answer from t on, nor the one
// that was not known yet.
func (a *asOf) prune(t int64) {
	if !a.ready {
		a.prepare()
	}
	kept := make([]fact, 0, 8)
	earliest, past := int64(maxTime), false // of available, over the larger facts; whether one of them is of t or before
	for _, f := range slices.Backward(a.facts) {
		latest := f.v.EventTime <= t && !past
		past = past || latest
		if f.v.EventTime > t || latest || max(f.available(), t) < earliest {
			kept = append(kept, f)
		}
		earliest = min(earliest, f.available())
	}
	slices.Reverse(kept)
	a.facts = append(a.facts[:0], kept...)
	a.ready = false
}
