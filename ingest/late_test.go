package ingest_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestFormerOwnerIsLate has a member write the ledger row of a unit, and die,
// while the next owner of the partition repeats that unit: what the former sent
// before it lost the partition arrives when the successor has looked already. A
// long fence stands for the time that a request is under way.
func TestFormerOwnerIsLate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		broken bool // the engine has the unit's tokens and not its rows
		late   bool // the row arrives after the successor has counted
	}{
		{name: "the unit is whole"},
		{name: "the unit is broken", broken: true},
		{name: "the unit is broken, and counted already", broken: true, late: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, false)
			w.startStore()
			w.produce(3000) // so that units have rows
			load := w.sustain(10, 10*time.Millisecond)
			w.cfg.Fence = time.Hour
			former := w.consumer("KEDGE_FAILPOINT=ledger=stop@6;ledgered=kill@6")
			former.stands(t)
			load.stop()
			pending := w.unfinished()
			if c.broken {
				pending = w.takeRows()
			}
			w.cfg.Fence, w.cfg.Insert, w.cfg.Session = time.Second, 3*time.Second, time.Minute
			var next *child
			if c.late {
				w.cfg.Insert = 10 * time.Second
				next = w.consumer()
				next.waitsFor(t, "former owner")
			} else {
				next = w.consumer("KEDGE_FAILPOINT=insert=stop@1")
				next.stands(t)
			}
			former.signal(syscall.SIGCONT)
			<-former.ended
			late := 0
			for tp, from := range pending {
				if w.ledgered(tp, from) == "1" {
					late++
				}
			}
			if late == 0 {
				t.Fatalf("of %v the former owner wrote no ledger row: %v", pending, former.err)
			}
			next.signal(syscall.SIGCONT)
			w.await(next, 2*time.Minute)
			next.stop(t)
			w.store.stop(t)
			w.verify()
		})
	}
}

// TestBrokenUnitInTheLedger takes the rows of a repeated unit away when they
// have been counted: the unit is found broken with its ledger row there, and
// what replaces it leaves neither.
func TestBrokenUnitInTheLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.produce(3000) // so that units have rows
	w.crashAt("ledger", 6)
	w.startStore()
	w.cfg.Session, w.cfg.Fence, w.cfg.Insert = time.Minute, time.Second, 3*time.Second
	next := w.consumer("KEDGE_FAILPOINT=counted=stop@1") // a new unit is not counted, and one may be the first at its ledger row
	next.stands(t)
	w.takeRows()
	next.signal(syscall.SIGCONT)
	w.await(next, 2*time.Minute)
	next.stop(t)
	if !strings.Contains(next.stderr.String(), "and 1 ledger rows stored") {
		t.Fatalf("no unit with a ledger row was found broken:\n%s", next.stderr.String())
	}
	w.store.stop(t)
	w.verify()
}

// waitsFor waits until a consumer's status gives such a reason for waiting.
func (c *child) waitsFor(t *testing.T, reason string) {
	t.Helper()
	testenv.Eventually(t, time.Minute, func() error {
		for _, p := range c.state().Partitions {
			if strings.Contains(p.Waiting, reason) {
				return nil
			}
		}
		return fmt.Errorf("nothing waits for %q: %+v", reason, c.state())
	})
}
