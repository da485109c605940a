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

	"github.com/kedge-ml/kedge/internal/testenv"
)

// killer kills consumers under load and keeps count of where kills landed.
type killer struct {
	w      *world
	random *rand.Rand
	phases string // the file that consumers write their phases to
	landed map[string]int
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
		env = append(env, fmt.Sprintf("KEDGE_FAILPOINT=%s=pause@%d", phase, 1+k.random.IntN(3)))
	}
	c := w.consumer(env...)
	c.await(w.t, "ready")
	if steer {
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
		for _, p := range c.state().Partitions {
			if p.Units > 0 {
				return nil
			}
		}
		return fmt.Errorf("no unit yet: %+v", c.state())
	})
}

// reach waits until a goroutine stays at a phase.
func (k *killer) reach(c *child, phase string) {
	k.w.t.Helper()
	stays := 0
	testenv.Eventually(k.w.t, time.Minute, func() error {
		if k.current()[phase] {
			stays++
		} else {
			stays = 0
		}
		if stays < 20 {
			return fmt.Errorf("no goroutine stays at %s: %+v", phase, c.state())
		}
		return nil
	})
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

// TestKillUnderLoad kills consumers with SIGKILL while events keep coming: with
// the broker beside (it is killed as well, now and then) and with everything in
// one process. Everything must be there once at the end.
func TestKillUnderLoad(t *testing.T) {
	kills, batch, events := 30, 10, int64(0)
	if os.Getenv("KEDGE_TORTURE") != "" {
		kills, batch, events = 1000, 2000, 20_000_000
	}
	seed := killSeed(t)
	t.Logf("repeat with KEDGE_SEED=%d", seed)
	landed := map[string]int{}
	for _, inside := range []bool{false, true} {
		w := newWorld(t, inside)
		w.seed = seed
		w.cfg.MinDelay, w.cfg.MaxRows = 50*time.Millisecond, 5000
		share := kills * 2 / 3
		if inside {
			share = kills - share
			c := w.consumer()
			c.await(t, "ready")
			w.makeTopics()
			c.kill()
		}
		k := &killer{w: w, random: rand.New(rand.NewPCG(seed, 1)), phases: filepath.Join(w.dir, "phases"), landed: landed}
		k.run(share, batch, events*int64(share)/int64(kills))
	}
	text := (&killer{landed: landed}).histogram()
	t.Logf("%d kills; at the moment of a kill, goroutines had passed last:\n%s", kills, text)
	for _, p := range points() {
		if landed[p] < atLeast {
			t.Errorf("only %d kills at %s, want %d", landed[p], p, atLeast)
		}
	}
}

// run kills share times, goes on until so many events were produced, and
// compares.
func (k *killer) run(share, batch int, events int64) {
	w := k.w
	load := w.sustain(batch, 10*time.Millisecond)
	for i := range share {
		k.kill(i%2 == 1 || i > share*2/3)
		if w.broker != nil && i%6 == 5 {
			w.broker.kill()
			w.startBroker()
		}
	}
	c := w.consumer()
	c.await(w.t, "ready")
	testenv.Eventually(w.t, 2*time.Hour, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.next < events {
			return fmt.Errorf("%d of %d events produced", w.next, events)
		}
		return nil
	})
	load.stop()
	w.await(c, 10*time.Minute)
	c.stop(w.t)
	w.verify()
}
