package ingest_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// stored is the sum of the positions of all partitions, as far as the
// consumers have them.
func stored(cs ...*child) (sum int64) {
	most := map[stream.TopicPartition]int64{}
	for _, c := range cs {
		for _, p := range c.state().Partitions {
			tp := stream.TopicPartition{Topic: p.Topic, Partition: p.Partition}
			most[tp] = max(most[tp], p.Position)
		}
	}
	for _, n := range most {
		sum += n
	}
	return sum
}

// moves waits until the consumers have stored n more records.
func (w *world) moves(n int64, cs ...*child) {
	w.t.Helper()
	before := stored(cs...)
	testenv.Eventually(w.t, 3*time.Minute, func() error {
		if now := stored(cs...); now < before+n {
			return fmt.Errorf("%d records are stored, were %d: %+v", now, before, cs[0].state())
		}
		return nil
	})
}

// TestNetworkFaults puts a proxy before a real Kafka and another before a
// store in a process of its own, and makes each network bad in every way that
// the proxy knows, under load.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	var kafka *proxy
	w, _ := newKafkaWorld(t, 1, func(addr string) string {
		kafka = newProxy(t, addr)
		return kafka.addr
	})
	w.startStore()
	db := newProxy(t, w.storeAddr)
	w.storeVia = db.addr
	c := w.consumer()
	c.await(t, "ready")
	load := w.sustain(10, 10*time.Millisecond)
	w.running(c)
	for name, p := range map[string]*proxy{"kafka": kafka, "store": db} {
		for _, x := range toxics() {
			began := time.Now()
			p.add(x)
			time.Sleep(500 * time.Millisecond) // the length of the fault, not a wait for anything
			p.heal()
			w.moves(50, c)
			t.Logf("%s %v: records move again %v after the fault began", name, x, time.Since(began).Round(10*time.Millisecond))
		}
	}
	load.stop()
	w.await(c, 3*time.Minute)
	c.stop(t)
	w.store.stop(t)
	w.verify()
}

// TestLostAnswers cuts off every answer of the store for a while: inserts
// happen and nobody learns of it. Without tokens, that doubles rows.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		t.Run(map[bool]string{true: "tokens", false: "without tokens"}[guarded], func(t *testing.T) {
			w := newWorld(t, false)
			w.cfg.Guards = ingest.Guards{NoTokens: !guarded}
			w.startStore()
			db := newProxy(t, w.storeAddr)
			w.storeVia = db.addr
			w.produce(3000)
			c := w.consumer()
			w.await(c, 2*time.Minute)
			db.add(toxic{"limit_data", "downstream", `{"bytes":0}`})
			load := w.sustain(10, 10*time.Millisecond)
			testenv.Eventually(t, time.Minute, func() error {
				s := c.state()
				for _, p := range s.Partitions {
					if strings.Contains(p.LastError, "insert over HTTP") && strings.Contains(p.LastError, "rows into") {
						return nil
					}
				}
				return fmt.Errorf("no insert lost its answer: %+v", s)
			})
			load.stop()
			db.heal()
			w.await(c, 2*time.Minute)
			c.stop(t)
			w.store.stop(t)
			if guarded {
				w.verify()
			} else {
				w.verifyFails()
			}
		})
	}
}

// TestTortureRealBrokersFailUnderIngest runs two processes of ingest on three real
// brokers, of which each is killed and started again, one is paused, and an
// ingest process is killed too.
func TestTortureRealBrokersFailUnderIngest(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "make torture runs it: it takes two minutes, and its brokers want the machine")
	}
	t.Parallel()
	w, k := newKafkaWorld(t, 3, nil)
	w.startStore()
	a, b := w.consumer(), w.consumer()
	a.await(t, "ready")
	b.await(t, "ready")
	load := w.sustain(10, 10*time.Millisecond)
	w.shared(a, b)
	w.moves(100, a, b)
	for i := range k.Len() {
		k.Kill(t, i)
		w.moves(100, a, b)
		t.Logf("records move without broker %d", i)
		k.Restart(t, i)
		if i == 0 {
			a.kill()
			a = w.consumer()
		}
		k.Ready(t)
	}
	k.Pause(t, 1)
	time.Sleep(4 * time.Second) // longer than the brokers wait for one of them: its partitions get other leaders
	w.moves(100, a, b)
	t.Log("records move with a broker paused")
	k.Resume(t, 1)
	w.shared(a, b)
	w.moves(100, a, b)
	load.stop()
	w.awaitAll(3*time.Minute, a, b)
	a.stop(t)
	b.stop(t)
	w.store.stop(t)
	w.verify()
}

// TestZombieBeyondTheWindow stops a member while some of its inserts are about
// to begin and others are under way, or before it reads that the broker took an
// intent, lets another member store so much that the engine has forgotten the
// tokens, and wakes it. Inserts that had begun are too late, for others it asks
// the broker first, and so it adds nothing; without asking, it doubles rows.
func TestZombieBeyondTheWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		at    string
		holds bool
	}{
		{name: "fence", at: "insert=stop@9", holds: true},
		{name: "fence, before an answer is read", at: "declared=stop@4", holds: true},
		{name: "without fence", at: "insert=stop@9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, false)
			w.cfg.Guards = ingest.Guards{NoFence: !c.holds}
			w.cfg.Fence, w.cfg.Insert = time.Second, 4*time.Second
			w.startStore()
			load := w.sustain(10, 10*time.Millisecond)
			zombie := w.consumer("KEDGE_FAILPOINT=" + c.at)
			zombie.stands(t)
			remember := w.forgetTokens()
			b := w.consumer()
			w.running(b)
			w.moves(500, b)
			time.Sleep(6 * time.Second) // how long the zombie sleeps: beyond an insert's time
			remember()                  // of members that only got no time to run, on a busy machine, tokens are remembered
			zombie.signal(syscall.SIGCONT)
			w.shared(b, zombie)
			load.stop()
			w.awaitAll(2*time.Minute, b, zombie)
			b.stop(t)
			zombie.stop(t)
			w.store.stop(t)
			if c.holds {
				w.verify()
			} else {
				w.verifyFails()
			}
		})
	}
}
