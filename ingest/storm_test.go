package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// ask puts a statement to the store's process and returns its answer.
func (w *world) ask(sql string) string {
	w.t.Helper()
	res, err := http.Post("http://"+w.storeAddr, "text/plain", strings.NewReader(sql))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s %v", sql, text, err)
	}
	return strings.TrimSpace(string(text))
}

// forgetTokens makes the engine forget the tokens of each table but the last.
// What it returns makes it remember the next ones again, as many as before.
func (w *world) forgetTokens() (remember func()) {
	w.t.Helper()
	const setting = "non_replicated_deduplication_window"
	windows := w.ask("SELECT name, extract(engine_full, '" + setting + " = ([0-9]+)') FROM system.tables WHERE database = 'kedge' AND engine = 'MergeTree' AND (match(name, '_[0-9]+$') OR name IN ('ledger', 'dead_letters')) FORMAT TSV")
	each := func(size func(before string) string) {
		for _, row := range strings.Split(windows, "\n") {
			name, before, ok := strings.Cut(row, "\t")
			if !ok || before == "" {
				w.t.Fatalf("tables and their windows: %q", windows)
			}
			w.ask("ALTER TABLE kedge." + name + " MODIFY SETTING " + setting + " = " + size(before))
		}
	}
	each(func(string) string { return "1" })
	return func() { each(func(before string) string { return before }) }
}

// TestRebalanceStorm has ten members come, go, die and sleep.
func TestRebalanceStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.broker.stop(t)
	w.partitions = 4
	w.dir = t.TempDir()
	w.startBroker()
	w.makeTopics()
	w.startStore()
	r := rand.New(rand.NewPCG(w.seed, 2))
	members := make([]*child, 10)
	for i := range members {
		members[i] = w.consumer()
	}
	load := w.sustain(10, 20*time.Millisecond)
	w.shared(members...)
	for range 24 {
		i := r.IntN(len(members))
		switch r.IntN(3) {
		case 0:
			members[i].kill()
			members[i] = w.consumer()
		case 1:
			members[i].stop(t)
			members[i] = w.consumer()
		case 2:
			members[i].signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond) // the length of its sleep: sometimes beyond its session
			members[i].signal(syscall.SIGCONT)
		}
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
	w.shared(members...)
	load.stop()
	w.awaitAll(4*time.Minute, members...)
	for _, c := range members {
		c.stop(t)
	}
	w.store.stop(t)
	w.verify()
}

// TestFullDiskUnderIngest lets the store's disk run full under load: reading
// waits, the status says why, and all goes on when there is space again. With
// kill -9 the process dies on the full disk, and its successor, which finds the
// disk as full, opens, waits in the same way and heals.
func TestFullDiskUnderIngest(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"full": false, "full and kill -9": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			w.storeDir = testenv.SmallDisk(t, 256<<20)
			w.produce(3000)
			c := w.consumer()
			c.await(t, "ready")
			load := w.sustain(10, 10*time.Millisecond)
			w.running(c)
			ballast := testenv.Fill(t, w.storeDir)
			w.namesSpace(c)
			if kill {
				for range 3 {
					c.kill()
					c = w.consumer()
					c.await(t, "ready")
					w.namesSpace(c)
				}
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			w.running(c)
			load.stop()
			w.await(c, 2*time.Minute)
			c.stop(t)
			w.verify()
		})
	}
}

// namesSpace waits until a consumer's status names the full disk.
func (w *world) namesSpace(c *child) {
	w.t.Helper()
	testenv.Eventually(w.t, time.Minute, func() error {
		select {
		case <-c.ended:
			w.t.Fatalf("the consumer ended on the full disk: %v\n%s", c.err, tail(c.stderr.String(), 4000))
		default:
		}
		if s := c.state(); s.Ready || !strings.Contains(strings.ToLower(s.Reason), "space") {
			return fmt.Errorf("the status does not name the full disk: %+v", s)
		}
		return nil
	})
	w.t.Logf("waiting: %.200s", c.state().Reason)
}

// TestLittleMemory bounds the memory of a consumer and its engine by a cgroup
// that the kernel kills it in, and lets it catch up from behind.
func TestLittleMemory(t *testing.T) {
	group := filepath.Join("/sys/fs/cgroup/memory", fmt.Sprint("kedge-test-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		testenv.Skip(t, testenv.Short, "no memory cgroup of its own: %v", err)
	}
	w := newWorld(t, false)
	t.Cleanup(func() { _ = os.Remove(group) })
	const limit = 640 << 20
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		testenv.Skip(t, testenv.Short, "the memory cgroup takes no limit: %v", err)
	}
	w.produce(20_000)
	w.cfg.MaxRows = 5000
	c := w.consumer()
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(c.cmd.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	w.await(c, 2*time.Minute)
	peak, err := os.ReadFile(filepath.Join(group, "memory.max_usage_in_bytes"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("peak %s of %d bytes", strings.TrimSpace(string(peak)), limit)
	c.stop(t)
	w.verify()
}

// TestDefinitionsChangeBetweenTries lets the definitions grow between a crash
// and the repetition: the unit is repeated with those it was begun with. An id
// that stands on both sides of the crash makes one row. Where a crash falls is
// chance, so it is repeated until there was such an id.
func TestDefinitionsChangeBetweenTries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	across := 0
	for round := 0; across == 0; round++ {
		if round == 10 {
			t.Fatal("no id stood on both sides of ten crashes")
		}
		w.produce(3000) // ids that come again are among the latest two hundred or so
		w.crashAt("inserted", 6)
		w.growViews(fmt.Sprint("meanwhile_", round))
		pending := map[stream.TopicPartition]int64{}
		for tp, c := range w.committed() {
			if strings.Contains(c.Metadata, `"b"`) {
				pending[tp] = c.Offset
			}
		}
		if len(pending) == 0 {
			t.Fatal("no unit is pending: nothing is tested")
		}
		w.produce(3000)
		w.settle()
		for tp, offset := range pending {
			across += w.duplicatesAcross(tp, offset)
		}
	}
	t.Logf("%d ids stand on both sides", across)
}

// growViews gives every feature view a further column.
func (w *world) growViews(column string) {
	t := w.t
	reg := w.registry()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	changed := 0
	for _, d := range reg.State().List(event.FeatureViewKind, namespace) {
		p := event.Proposal{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Columns: []event.Evidence{{Name: column, Type: event.ColumnType{Elem: event.String}}}}
		_, _, _, spec, err := event.Merge(d.Spec, []event.Proposal{p})
		if err == nil {
			_, err = reg.Apply(ctx, registry.Entry{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Op: registry.Put, Expect: d.Version, Spec: json.RawMessage(spec), Who: "test", Why: "between two tries"})
		}
		if err != nil {
			t.Fatal(err)
		}
		changed++
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if changed == 0 {
		t.Fatal("there is no view yet: nothing is tested")
	}
}

// TestTokensWithoutRows takes a pending unit's rows away and leaves the
// engine its tokens, as a crash does between the engine's noting of a token and
// its making the rows visible. The repeated inserts are dropped; counting finds
// it, and without counting the rows are lost.
func TestTokensWithoutRows(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		t.Run(map[bool]string{true: "counted", false: "not counted"}[guarded], func(t *testing.T) {
			w := newWorld(t, false)
			w.produce(3000)
			w.crashAt("inserted", 6)
			w.startStore()
			w.takeRows()
			w.store.stop(t)
			w.storeAddr = ""
			w.cfg.Guards = ingest.Guards{NoCount: !guarded}
			if guarded {
				w.settle()
				return
			}
			c := w.consumer()
			c.await(t, "ready")
			w.await(c, 2*time.Minute)
			c.stop(t)
			w.verifyFails()
		})
	}
}

// unfinished are the partitions whose pending unit has no ledger row, and the
// offsets at which the units begin.
func (w *world) unfinished() map[stream.TopicPartition]int64 {
	w.t.Helper()
	out := map[stream.TopicPartition]int64{}
	for tp, c := range w.committed() {
		if strings.Contains(c.Metadata, `"b"`) && w.ledgered(tp, c.Offset) == "0" {
			out[tp] = c.Offset
		}
	}
	return out
}

// ledgered counts a partition's ledger rows at and beyond an offset.
func (w *world) ledgered(tp stream.TopicPartition, from int64) string {
	w.t.Helper()
	return w.ask(fmt.Sprintf("SELECT count() FROM kedge.ledger WHERE topic = '%s' AND partition = %d AND from_offset >= %d", tp.Topic, tp.Partition, from))
}

// takeRows removes the rows of unfinished units, not the engine's tokens, and
// returns where it did.
func (w *world) takeRows() map[stream.TopicPartition]int64 {
	w.t.Helper()
	out := map[stream.TopicPartition]int64{}
	for tp, from := range w.unfinished() {
		where := fmt.Sprintf("_topic = '%s' AND _partition = %d AND _offset >= %d", tp.Topic, tp.Partition, from)
		for _, name := range strings.Fields(w.ask("SELECT name FROM system.tables WHERE database = 'kedge' AND match(name, '^(features|predictions|labels)_[0-9]+$')")) {
			n, err := strconv.Atoi(w.ask("SELECT count() FROM kedge." + name + " WHERE " + where))
			if err != nil {
				w.t.Fatal(err)
			}
			if n > 0 {
				out[tp] = from
			}
			w.ask("ALTER TABLE kedge." + name + " DELETE WHERE " + where + " SETTINGS mutations_sync = 2")
		}
	}
	if len(out) == 0 {
		w.t.Fatal("the pending units had no rows yet")
	}
	return out
}

// duplicatesAcross counts the duplicates at or after an offset whose first
// event stands before it.
func (w *world) duplicatesAcross(tp stream.TopicPartition, at int64) (n int) {
	w.t.Helper()
	o, err := w.client.Offsets(w.t.Context(), tp)
	if err != nil {
		w.t.Fatal(err)
	}
	before := map[string]bool{}
	for b, err := range w.client.FetchRange(w.t.Context(), tp, o[tp].First, o[tp].Last-1) {
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range b.Records {
			h, _ := b.Records[i].Header("n")
			m := eventOf(w.seed, numberOf(h))
			switch key := m.subject + "/" + m.id; {
			case m.id == "" || m.dead:
			case b.Records[i].Offset < at:
				before[key] = true
			case before[key]:
				n++
			}
		}
		b.Release()
	}
	return n
}
