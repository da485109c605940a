package ingest_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// killer kills consumers under load and keeps count of where kills landed.
type killer struct {
	w      *world
	random *rand.Rand
	phases string // the file that consumers write their phases to
	landed map[string]int
	more   int // kills beyond the share while a phase has met too few
}

// atLeast is how many kills every phase must have seen.
const atLeast = 3

// current reads the phase of every reader and writer.
func (k *killer) current() map[string]bool {
	b, err := os.ReadFile(k.phases)
	if err != nil {
		return nil
	}
	out := map[string]bool{}
	for ; len(b) >= 32; b = b[32:] {
		if name := string(bytes.TrimRight(b[:32], "\x00")); name != "" {
			out[name] = true
		}
	}
	return out
}

// rarest returns the phase that kills have met least, if that is too few.
func (k *killer) rarest() (string, bool) {
	least := ""
	for _, p := range points() {
		if least == "" || k.landed[p] < k.landed[least] {
			least = p
		}
	}
	return least, k.landed[least] < atLeast
}

func (k *killer) scarce() bool {
	_, rare := k.rarest()
	return rare
}

// kill runs a consumer, kills it at a random moment, or, steered, while one of
// its goroutines stands at the rarest phase, and notes what everything was
// doing.
func (k *killer) kill(steer bool) {
	w := k.w
	w.t.Helper()
	_ = os.Remove(k.phases)
	env := []string{"KEDGE_FAILPOINT_PHASES=" + k.phases}
	phase, rare := k.rarest()
	steer = steer && rare
	if steer {
		nth := 1 + k.random.IntN(3)
		if strings.HasPrefix(phase, "learn") || strings.HasPrefix(phase, "idle") { // which happens once in a while
			nth = 1
		}
		env = append(env, fmt.Sprintf("KEDGE_FAILPOINT=%s=pause@%d", phase, nth))
	}
	c := w.consumer(env...)
	c.await(w.t, "ready")
	if steer {
		if phase == "idle" || phase == "idled" {
			w.running(c)
			defer w.pause()() // else no partition becomes idle
		}
		k.reach(c, phase)
	} else {
		w.running(c)
		time.Sleep(time.Duration(k.random.IntN(700)) * time.Millisecond) // the moment of a kill, not a wait for anything
	}
	c.kill()
	for p := range k.current() {
		k.landed[p]++
	}
}

// running waits until the consumer has stored a unit.
func (w *world) running(c *child) {
	w.t.Helper()
	testenv.Eventually(w.t, time.Minute, func() error {
		if c.working() == 0 {
			return fmt.Errorf("no unit yet: %+v", c.state())
		}
		return nil
	})
}

// working is of how many partitions the process has stored a unit.
func (c *child) working() (n int) {
	for _, p := range c.state().Partitions {
		if p.Units > 0 {
			n++
		}
	}
	return n
}

// reach waits until a goroutine stays at a phase, or for so long that it will
// not come there: the histogram says in the end whether that was too often.
func (k *killer) reach(c *child, phase string) {
	k.w.t.Helper()
	limit := time.After(30 * time.Second)
	for stays := 0; stays < 20; stays++ {
		if !k.current()[phase] {
			stays = 0
		}
		select {
		case <-limit:
			k.w.t.Logf("no goroutine comes to %s", phase)
			return
		case <-c.ended:
			k.w.t.Fatalf("%s ended: %v\n%s", c.name, c.err, tail(c.stderr.String(), 4000))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (k *killer) histogram() string {
	var b strings.Builder
	for _, p := range points() {
		fmt.Fprintf(&b, "%14s %4d %s\n", p, k.landed[p], strings.Repeat("#", min(k.landed[p], 60)))
	}
	return b.String()
}

// killSeed is printed; KEDGE_SEED repeats a run.
func killSeed(t testing.TB) uint64 {
	if s := os.Getenv("KEDGE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("KEDGE_SEED: %v", err)
		}
		return n
	}
	return uint64(time.Now().UnixNano())
}

// campaign is how many kills, and over how many events at least.
type campaign struct {
	kills  int
	events int64
	batch  int
	seed   uint64
	landed map[string]int
}

// TestKillUnderLoad kills consumers with SIGKILL while events keep coming: with
// a broker beside (it is killed as well, now and then), with everything in one
// process, and with a real Kafka. Everything must be there once at the end.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	(&campaign{kills: 30, batch: 10}).run(t)
}

// TestTortureKills is the same for as many kills as KEDGE_KILLS says, over
// twenty thousand events for each.
func TestTortureKills(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "make torture runs it")
	}
	c := &campaign{kills: 1000, batch: 2000}
	if text := os.Getenv("KEDGE_KILLS"); text != "" {
		if _, err := fmt.Sscan(text, &c.kills); err != nil {
			t.Fatalf("KEDGE_KILLS: %v", err)
		}
	}
	c.events = int64(c.kills) * 20_000
	c.run(t)
}

func (c *campaign) run(t *testing.T) {
	c.seed, c.landed = killSeed(t), map[string]int{}
	t.Logf("repeat with KEDGE_SEED=%d", c.seed)
	for _, s := range []struct {
		name  string
		share int
		more  int
		make  func(*testing.T) *world
	}{
		{"broker beside", c.kills * 2 / 5, 0, func(t *testing.T) *world { return newWorld(t, false) }},
		{"broker inside", c.kills / 5, 0, insideWorld},
		{"kafka", c.kills - c.kills*2/5 - c.kills/5, 12, func(t *testing.T) *world { w, _ := newKafkaWorld(t, 1, nil); return w }},
	} {
		t.Run(s.name, func(t *testing.T) {
			w := s.make(t)
			w.seed = c.seed
			w.cfg.MinDelay, w.cfg.MaxRows = 50*time.Millisecond, 5000
			k := &killer{w: w, more: s.more, random: rand.New(rand.NewPCG(c.seed, uint64(s.share))), phases: filepath.Join(w.dir, "phases"), landed: c.landed}
			began := time.Now()
			k.run(s.share, c.batch, c.events*int64(s.share)/int64(c.kills))
			t.Logf("%s: %d kills, %d events sent, %v; landed so far:\n%s", s.name, s.share, w.next, time.Since(began).Round(time.Second), k.histogram())
		})
	}
	text := (&killer{landed: c.landed}).histogram()
	t.Logf("%d kills; at the moment of a kill, goroutines had passed last:\n%s", c.kills, text)
	for _, p := range points() {
		if c.landed[p] < atLeast {
			t.Errorf("only %d kills at %s, want %d", c.landed[p], p, atLeast)
		}
	}
}

func insideWorld(t *testing.T) *world {
	w := newWorld(t, true)
	c := w.consumer()
	c.await(t, "ready")
	w.makeTopics()
	c.kill()
	return w
}

// run kills share times, and some times more while a phase has met too few: on
// a crowded machine a consumer does not come to every phase before its kill. It
// goes on until so many events were produced, and compares.
func (k *killer) run(share, batch int, events int64) {
	w := k.w
	w.want(events / int64(share))
	load := w.sustain(batch, 10*time.Millisecond)
	for i := 0; i < share || i < share+k.more && k.scarce(); i++ {
		w.want(events * int64(i+1) / int64(share)) // so that a partition can become idle
		k.kill(i%2 == 1 || i > share*2/3)
		if w.broker != nil && i%6 == 5 {
			w.broker.kill()
			w.startBroker()
		}
		if !w.inside && i%3 > 0 { // else its session has to end first
			kafkatest.Evict(w.t, w.brokers, "kedge")
		}
	}
	c := w.consumer()
	c.await(w.t, "ready")
	testenv.Eventually(w.t, 4*time.Hour, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.next < events {
			return fmt.Errorf("%d of %d events produced", w.next, events)
		}
		return nil
	})
	load.stop()
	w.await(c, time.Hour)
	c.stop(w.t)
	w.verify()
}
