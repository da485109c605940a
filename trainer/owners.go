package trainer

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/registry"
)

// A process says every beatEvery that its runs go on. One that was silent for
// silence, by the clock of who runs the queue, is gone.
const (
	beatEvery = 10 * time.Second
	silence   = time.Minute
)

// owners tells whose process is gone. It is safe for concurrent use.
type owners struct {
	self string

	mu   *sync.Mutex
	seen map[string]beat // by run
}

// beat is the newest revision of a run and when it was seen first.
type beat struct {
	revision uint64
	at       time.Time
}

func newOwners(self string) owners {
	return owners{self: self, mu: new(sync.Mutex), seen: map[string]beat{}}
}

// gone reports whether nobody runs a run that is recorded as running. here says
// that this process does. An owner is host/pid/start: another life of this very
// process is over, and so is a process of this host that is not there; of other
// hosts, one whose run has had no newer revision for a while.
func (o owners) gone(r Run, now time.Time, here bool) bool {
	if r.Owner == o.self || r.Owner == "" {
		return !here
	}
	host, rest, _ := strings.Cut(r.Owner, "/")
	pid, _, _ := strings.Cut(rest, "/")
	ourHost, ourRest, _ := strings.Cut(o.self, "/")
	ourPid, _, _ := strings.Cut(ourRest, "/")
	if n, err := strconv.Atoi(pid); host == ourHost && (pid == ourPid || err == nil && !processLives(n)) {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	last, ok := o.seen[r.ID]
	if !ok || r.Revision > last.revision {
		o.seen[r.ID] = beat{r.Revision, now}
		return false
	}
	if now.Sub(last.at) < silence {
		return false
	}
	delete(o.seen, r.ID)
	return true
}

// processLives reports whether this host has such a process, as far as that can
// be told.
func processLives(pid int) bool {
	if _, err := os.Stat("/proc/self"); err != nil {
		return true // no /proc here
	}
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

// attend does, until ctx ends, what every process does for its own runs whoever
// runs the queue: stores their metrics, says that they go on, and cancels those
// that others asked for.
func (s *Scheduler) attend(ctx context.Context) {
	states := make(chan *registry.State)
	go s.follow(ctx, states)
	flush, beats := time.NewTicker(time.Second), time.NewTicker(beatEvery)
	defer flush.Stop()
	defer beats.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case st := <-states:
			s.cancelOwn(ctx, st)
		case <-flush.C:
			if err := s.rec.flush(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.WarnContext(ctx, "metrics of runs were not stored; the next second tries again", "error", err)
			}
		case <-beats.C:
			if err := s.rec.beat(); err != nil && ctx.Err() == nil {
				s.cfg.Log.WarnContext(ctx, "it was not recorded that runs go on; this is tried again", "error", err)
			}
		}
	}
}
