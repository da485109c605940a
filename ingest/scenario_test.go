package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// commit writes group offsets as another program, or a forgetful broker,
// would.
func (w *world) commit(commits map[stream.TopicPartition]stream.Committed) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	group, err := w.client.JoinGroup(ctx, stream.GroupConfig{ID: "kedge", Match: func(t string) bool { _, ok := ingest.ParseTopic(t); return ok }, Session: 6 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	defer group.Close()
	gen, err := group.Next(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	var list []stream.OffsetCommit
	for tp, c := range commits {
		list = append(list, stream.OffsetCommit{TopicPartition: tp, Offset: c.Offset, Metadata: c.Metadata})
	}
	if err := gen.Commit(ctx, list); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) committed() map[stream.TopicPartition]stream.Committed {
	w.t.Helper()
	ends, err := w.ends()
	if err != nil {
		w.t.Fatal(err)
	}
	var tps []stream.TopicPartition
	for tp := range ends {
		tps = append(tps, tp)
	}
	c, err := w.client.Committed(w.t.Context(), "kedge", tps...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// TestForgottenCommit sets the group back to what it had committed before, as
// a broker does that lost its last writes, with rows of an unfinished unit in
// the tables.
func TestForgottenCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.crashAt("inserted", 5)
	old := w.committed()
	w.crashAt("inserted", 9)
	w.commit(old)
	w.cfg.MaxRows = 123
	w.settle()
}

// refusal waits until a partition is refused and returns the reason.
func refusal(t *testing.T, c *child, tp stream.TopicPartition) (reason string) {
	t.Helper()
	testenv.Eventually(t, time.Minute, func() error {
		for _, p := range c.state().Partitions {
			if p.Topic == tp.Topic && p.Partition == tp.Partition && p.Refused {
				reason = p.Waiting
				return nil
			}
		}
		return fmt.Errorf("not refused: %+v", c.state())
	})
	return reason
}

// TestOperatorMovedTheGroup sees the consumer refuse an offset that somebody
// else set, leave it as it is, and read from there once an epoch is opened.
func TestOperatorMovedTheGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.produce(1500)
	c := w.consumer()
	w.await(c, time.Minute)
	c.stop(t)
	tp := stream.TopicPartition{Topic: "kedge.t.features"}
	w.commit(map[stream.TopicPartition]stream.Committed{tp: {Offset: 10}})
	c = w.consumer()
	reason := refusal(t, c, tp)
	if !strings.Contains(reason, "open an epoch from 10") {
		t.Errorf("refused with %q", reason)
	}
	if s := c.state(); s.Ready {
		t.Errorf("ready although a partition is refused: %+v", s)
	}
	if at := w.committed()[tp].Offset; at != 10 {
		t.Errorf("a refused partition's offset moved to %d", at)
	}
	w.openEpoch(tp, 10)
	w.await(c, time.Minute)
	c.stop(t)
	w.inEpoch(tp, 1, 10)
}

// openEpoch opens an epoch through the registry, as the command line does.
func (w *world) openEpoch(tp stream.TopicPartition, from int64) {
	w.t.Helper()
	reg := w.registry()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	_, err := ingest.OpenEpoch(ctx, reg, noEpochs{}, tp, from, "test", "to see it work")
	cancel()
	if err := errors.Join(err, <-done); err != nil {
		w.t.Fatal(err)
	}
}

// noEpochs is a ledger of one epoch, the first.
type noEpochs struct{ ingest.Sink }

func (noEpochs) Epochs(context.Context, string, int32) ([]event.EpochRange, error) {
	return []event.EpochRange{{Epoch: 0}}, nil
}

// inEpoch checks that an epoch begins at an offset and is whole.
func (w *world) inEpoch(tp stream.TopicPartition, epoch, first int64) {
	w.t.Helper()
	ends, err := w.ends()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range w.read().Audit {
		if a.Topic == tp.Topic && int32(a.Partition) == tp.Partition && a.Epoch == epoch {
			if a.First != first || a.Next != ends[tp] || a.GapRecords+a.OverlapRecords+a.GapRows+a.DuplicateRows+a.Unbalanced != 0 {
				w.t.Errorf("epoch %d: %+v, want it whole from %d to %d", epoch, a, first, ends[tp])
			}
			return
		}
	}
	w.t.Errorf("the ledger has no epoch %d of %v", epoch, tp)
}

// TestRecreatedTopic makes the remembered record another one, as it is when a
// topic was deleted and created again and has grown past the old end.
func TestRecreatedTopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.produce(1500)
	c := w.consumer()
	w.await(c, time.Minute)
	c.stop(t)
	tp := stream.TopicPartition{Topic: "kedge.t.labels", Partition: 1}
	was := w.committed()[tp]
	other := strings.Replace(was.Metadata, `"t":17`, `"t":16`, 1)
	if other == was.Metadata {
		t.Fatalf("no time in %s", was.Metadata)
	}
	w.commit(map[stream.TopicPartition]stream.Committed{tp: {Offset: was.Offset, Metadata: other}})
	c = w.consumer()
	if reason := refusal(t, c, tp); !strings.Contains(reason, "created again") {
		t.Errorf("refused with %q", reason)
	}
	w.openEpoch(tp, ingest.LogStart)
	w.await(c, time.Minute)
	c.stop(t)
	w.inEpoch(tp, 1, 0)
}

// TestPendingUnitThatCannotBeRepeated changes what a pending unit was begun
// with: its rows are removed and its records read again in a new epoch.
func TestPendingUnitThatCannotBeRepeated(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string][2]string{
		"decoder upgraded":  {`"d":1`, `"d":99`},
		"registry restored": {`"r":`, `"r":9999`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			w.crashAt("inserted", 6)
			edited := map[stream.TopicPartition]stream.Committed{}
			for tp, c := range w.committed() {
				if strings.Contains(c.Metadata, `"b"`) {
					c.Metadata = strings.Replace(c.Metadata, edit[0], edit[1], 1)
					edited[tp] = c
				}
			}
			if len(edited) == 0 {
				t.Fatal("no unit is pending")
			}
			w.commit(edited)
			w.settle()
			t.Logf("%d partitions went on in a new epoch", len(edited))
		})
	}
}

// TestPowerLossLevel repeats a pending unit by removing what it stored.
func TestPowerLossLevel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.cfg.Power = true
	w.cfg.Guards.NoTokens = true // as if the engine had lost them
	w.crashAt("ledger", 5)
	w.crashAt("inserted", 7)
	w.settle()
}

// TestRetentionOvertakes lets the broker remove records that were not read
// yet: the ledger names the gap and everything else is whole.
func TestRetentionOvertakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.produce(1000)
	c := w.consumer()
	w.await(c, time.Minute)
	c.stop(t)
	w.broker.stop(t)
	w.retention = 60_000
	w.startBroker()
	w.produce(6000)
	tp := stream.TopicPartition{Topic: "kedge.t.features"}
	at := w.committed()[tp].Offset
	testenv.Eventually(t, 3*time.Minute, func() error { // the broker looks at sizes now and then
		o, err := w.client.Offsets(t.Context(), tp)
		if err == nil && o[tp].First <= at {
			w.produce(500) // another segment: the one being written is never removed
			err = fmt.Errorf("the log starts at %d, the consumer stands at %d", o[tp].First, at)
		}
		return err
	})
	c = w.consumer()
	w.await(c, time.Minute)
	missing := int64(0)
	for _, p := range c.state().Partitions {
		missing += p.Missing
	}
	c.stop(t)
	inLedger := int64(0)
	for _, a := range w.read().Audit {
		inLedger += a.Missing
		if a.GapRecords+a.OverlapRecords+a.Unbalanced+a.GapRows+a.DuplicateRows+a.Unledgered != 0 {
			t.Errorf("beside what is missing, something is wrong: %+v", a)
		}
	}
	if missing == 0 || missing != inLedger {
		t.Errorf("status says %d records are missing, the ledger %d", missing, inLedger)
	}
	t.Logf("%d records missing", missing)
}

// TestStoreAway takes the store away under load: reading pauses, the status
// says why, and everything arrives when it is back. Then it is killed again and
// again, inserts under way, while the consumer goes on.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.startStore()
	c := w.consumer()
	c.await(t, "ready")
	load := w.sustain(10, 10*time.Millisecond)
	w.running(c)
	w.store.kill()
	testenv.Eventually(t, time.Minute, func() error {
		if s := c.state(); !s.Ready && strings.Contains(s.Reason, "refused") {
			return nil
		}
		return fmt.Errorf("status does not name the store: %+v", c.state())
	})
	t.Logf("waiting: %s", c.state().Reason)
	w.startStore()
	for range 4 {
		w.moves(50, c)
		w.store.kill()
		w.startStore()
	}
	load.stop()
	w.await(c, 2*time.Minute)
	c.stop(t)
	w.store.stop(t)
	w.verify()
}

// TestRebalanceAndZombie has three members share the partitions; they come and
// go, one is stopped in the middle of a unit until others have its partitions,
// and then goes on as if nothing had happened.
func TestRebalanceAndZombie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.broker.stop(t)
	w.partitions = 3 // each topic's partitions are dealt out by themselves
	w.dir = t.TempDir()
	w.startBroker()
	w.makeTopics()
	w.startStore()
	load := w.sustain(10, 10*time.Millisecond)
	a, b := w.consumer(), w.consumer()
	w.running(a)
	zombie := w.consumer("KEDGE_FAILPOINT=insert=stop@5")
	zombie.stands(t)
	w.shared(a, b) // its session is over
	c := w.consumer()
	w.running(c)
	a.kill()
	w.shared(b, c)
	zombie.signal(syscall.SIGCONT)
	w.shared(b, c, zombie)
	b.stop(t)
	load.stop()
	w.awaitAll(2*time.Minute, c, zombie)
	zombie.stop(t)
	c.stop(t)
	w.store.stop(t)
	w.verify()
}

// stands waits until a process has stopped itself.
func (c *child) stands(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, time.Minute, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
		if err == nil && !strings.Contains(string(b), ") T ") {
			err = fmt.Errorf("the process goes on: %+v", c.state())
		}
		return err
	})
}

// shared waits until the members have all partitions among themselves and each
// of them has one.
func (w *world) shared(cs ...*child) {
	w.t.Helper()
	testenv.Eventually(w.t, 4*time.Minute, func() error {
		total := 0
		for _, c := range cs {
			n := len(c.state().Partitions)
			if n == 0 {
				return fmt.Errorf("a member has no partitions: %+v", c.state())
			}
			total += n
		}
		if total != 3*w.partitions {
			return fmt.Errorf("%d partitions of %d are assigned", total, 3*w.partitions)
		}
		return nil
	})
}
