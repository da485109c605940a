package ingest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/store"
)

// verdict is the comparison of what is stored with what must be.
type verdict struct {
	truth  *truth
	found  found
	faults []string
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// audit stops nothing: the consumer must have ended, for a store has one
// process. It compares the tables with the broker's log and asks for the
// ledger's own audit.
func (w *world) audit() *verdict {
	w.t.Helper()
	if w.inside { // it ended with the last consumer
		w.startBroker()
		defer func() {
			w.broker.stop(w.t)
			w.broker = nil
		}()
	}
	v := &verdict{}
	var err error
	if v.truth, err = readTruth(w.t.Context(), w.client, w.registry(), w.seed, w.partitions); err != nil {
		w.t.Fatalf("read the log: %v", err)
	}
	v.found = w.read()
	w.compareAcked(v)
	v.comparePlaces()
	v.compareLedger()
	return v
}

// read asks a process of its own for what is stored.
func (w *world) read() (f found) {
	w.t.Helper()
	c := w.startAudit()
	select {
	case line := <-c.lines:
		if err := json.Unmarshal(line, &f); err != nil {
			w.t.Fatal(err)
		}
	case <-c.ended:
		w.t.Fatalf("audit ended: %v\n%s", c.err, tail(c.stderr.String(), 4000))
	case <-time.After(5 * time.Minute):
		w.t.Fatal("audit takes too long")
	}
	<-c.ended
	return f
}

func (w *world) startAudit() *child {
	w.t.Helper()
	c := w.start("audit", job{Lib: w.lib, StoreDir: w.storePath(), Audit: true}, nil)
	return c
}

// compareAcked checks the broker: what it acknowledged is in its log.
func (w *world) compareAcked(v *verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := 0
	for n, times := range w.acked {
		if times > 0 && v.truth.numbers.of(int64(n)) == 0 {
			lost++
		}
	}
	if lost > 0 {
		v.fault("the broker acknowledged %d events that are not in its log", lost)
	}
}

func (v *verdict) comparePlaces() {
	have := map[place]sums{}
	for _, p := range v.found.Places {
		have[p.place] = p.sums
	}
	for at, want := range v.truth.places {
		if got := have[at]; got != *want {
			v.fault("%+v: stored %d rows (%x, %x), want %d (%x, %x)", at, got.Count, got.Sum, got.Xor, want.Count, want.Sum, want.Xor)
		}
		delete(have, at)
	}
	for at, got := range have {
		v.fault("%+v: stored %d rows, want none", at, got.Count)
	}
}

// compareLedger checks the ledger's own audit, and its totals with the truth.
func (v *verdict) compareLedger() {
	var sum store.PartitionAudit
	for _, a := range v.found.Audit {
		sum.Records += a.Records
		sum.Rows += a.Rows
		sum.DeadLetters += a.DeadLetters
		sum.Duplicates += a.Duplicates
		sum.Missing += a.Missing
		if n := a.GapRecords + a.OverlapRecords + a.Unbalanced + a.GapRows + a.DuplicateRows + a.Unledgered + a.Missing; n != 0 {
			v.fault("ledger audit: %+v", a)
		}
	}
	for _, f := range v.found.Findings {
		v.fault("ledger finding: %+v", f)
	}
	t := v.truth
	if sum.Records != t.records || sum.Rows != t.rows || sum.DeadLetters != t.dead || sum.Duplicates != t.duplicates {
		v.fault("the ledger counts %d records, %d rows, %d dead letters, %d duplicates; want %d, %d, %d, %d",
			sum.Records, sum.Rows, sum.DeadLetters, sum.Duplicates, t.records, t.rows, t.dead, t.duplicates)
	}
}

// verify fails the test when anything is lost, doubled or unaccounted for.
func (w *world) verify() {
	w.t.Helper()
	v := w.audit()
	w.t.Logf("%d records: %d rows, %d dead letters, %d duplicates; %d acknowledged", v.truth.records, v.truth.rows, v.truth.dead, v.truth.duplicates, w.acked.total())
	slices.Sort(v.faults)
	for _, f := range v.faults[:min(20, len(v.faults))] {
		w.t.Error(f)
	}
	const enough = 5000 // records in which each kind of event is met for certain
	if v.truth.records >= enough && (v.truth.rows == 0 || v.truth.dead == 0 || v.truth.duplicates == 0) {
		w.t.Errorf("the events do not cover rows, dead letters and duplicates: %d, %d, %d", v.truth.rows, v.truth.dead, v.truth.duplicates)
	}
}

// verifyFails is the positive control: with a guard away the same comparison
// must find faults.
func (w *world) verifyFails() {
	w.t.Helper()
	v := w.audit()
	if len(v.faults) == 0 {
		w.t.Errorf("nothing is wrong although a guard was taken away")
		return
	}
	w.t.Logf("as it should, the comparison fails: %s", v.faults[0])
}
