package ingest_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/kafkatest"
)

// points are the named points of a unit's life, in order, with the crash
// point of docs/exactly-once.md that each stands for.
func points() []string {
	return []string{
		"decode",        // a record was read
		"learn",         // definitions are about to change
		"learned",       // they have, and the records are to be decoded again
		"prepare",       // the unit is cut
		"before-intent", // nothing is written yet
		"intent",        // the intent is committed, nothing is inserted
		"insert",        // an insert is about to be sent
		"inserted",      // one table has its rows, others may not
		"dead",          // the tables have their rows, the dead letters are missing
		"ledger",        // all rows are there, the ledger row is missing
		"ledgered",      // the ledger row is there, the group does not know
		"idle",          // about to commit without an intent
		"idled",         // committed, waiting for records
	}
}

func exitedBy(c *child, s syscall.Signal) error {
	var exit interface{ Sys() any }
	if !errors.As(c.err, &exit) {
		return fmt.Errorf("ended with %v", c.err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != s {
		return fmt.Errorf("ended with %v", c.err)
	}
	return nil
}

// crashAt runs a consumer that dies at its n-th visit of a point, while events
// arrive.
func (w *world) crashAt(point string, n int) {
	w.t.Helper()
	began := time.Now()
	defer func() { w.t.Logf("%s after %v", point, time.Since(began)) }()
	c := w.consumer(fmt.Sprintf("KEDGE_FAILPOINT=%s=kill@%d", point, n))
	load := w.sustain(30, 10*time.Millisecond)
	defer load.stop()
	for deadline := time.After(3 * time.Minute); ; {
		select {
		case <-c.ended:
			if err := exitedBy(c, syscall.SIGKILL); err != nil {
				w.t.Fatalf("%s: %v\n%s", point, err, tail(c.stderr.String(), 2000))
			}
			if !w.inside { // TestKillUnderLoad waits for sessions to end
				kafkatest.Evict(w.t, w.brokers, "kedge")
			}
			return
		case <-deadline:
			w.t.Fatalf("the consumer does not reach %s: %+v", point, c.state())
		case <-time.After(300 * time.Millisecond):
			if (point == "idle" || point == "idled") && c.working() >= n {
				load.stop() // so that partitions become idle, each of which does so once
			}
		}
	}
}

func (w *world) settle() {
	w.t.Helper()
	c := w.consumer()
	c.await(w.t, "ready")
	w.await(c, 2*time.Minute)
	c.stop(w.t)
	w.verify()
}

func TestCrashAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, inside := range []bool{false, true} {
		t.Run(map[bool]string{false: "broker beside", true: "broker inside"}[inside], func(t *testing.T) {
			w := newWorld(t, inside)
			if inside {
				c := w.consumer()
				c.await(t, "ready")
				w.makeTopics()
				c.kill()
			}
			for i, point := range points() {
				nth := 1 + int(w.seed>>i&3)
				if point == "dead" { // which happens once in a while
					nth = 1
				}
				w.crashAt(point, nth)
			}
			w.settle()
		})
	}
}

// TestGuards takes each guard away and sees the comparison fail, then does the
// same with the guard and sees it hold.
func TestGuards(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		point  string
		guards ingest.Guards
		after  func(*world) // between crash and restart
		holds  bool
	}{
		{name: "tokens", point: "ledger", guards: ingest.Guards{NoTokens: true}},
		{name: "intent and orphans", point: "ledger", guards: ingest.Guards{NoIntent: true, NoOrphans: true}, after: func(w *world) { w.cfg.MaxRows = 41 }},
		{name: "ledger and orphans", point: "idled", guards: ingest.Guards{NoLedger: true, NoOrphans: true}, after: func(w *world) { w.cfg.Group = "another"; w.cfg.MaxRows = 41 }},
		{name: "none, group offsets expired", point: "ledgered", after: func(w *world) { w.cfg.Group = "another"; w.cfg.MaxRows = 41 }, holds: true},
		{name: "intent alone: orphans are found and removed", point: "inserted", guards: ingest.Guards{NoIntent: true}, after: func(w *world) { w.cfg.MaxRows = 41 }, holds: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, false)
			w.cfg.Guards = c.guards
			if c.point == "idled" { // partitions may idle before anything is stored, and then there is nothing to double
				w.produce(1500)
				first := w.consumer()
				w.await(first, time.Minute)
				first.stop(t)
			}
			w.crashAt(c.point, 4)
			if c.after != nil {
				c.after(w)
			}
			if c.holds {
				w.settle()
				return
			}
			again := w.consumer()
			again.await(t, "ready")
			w.await(again, time.Minute)
			again.stop(t)
			w.verifyFails()
		})
	}
}
