package serving

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// newcomers are requests that have arrived and that no goroutine has read yet.
//
// A connection's goroutine reads, computes and answers. Where all processors
// compute, who arrives waits for one before the gate has seen it: the queue that
// should fill and refuse stays empty, and a thousand connections wait in the
// scheduler's, which knows no bound and no deadline. So who has a place to compute
// lets the newcomers go first: each is read, and joins the queue or is refused,
// which takes a hundredth of what most computations take.
//
// The scheduler asks the kernel who has arrived only when nobody can run, or every
// 10 ms. Waiting for a byte of a pipe makes the caller one of those who cannot.
type newcomers struct {
	met   atomic.Int64 // requests that any gate has seen
	pause atomic.Int64 // between two times, ns
	next  atomic.Int64 // not before this time (UnixNano); far away while somebody lets them go first

	once sync.Once
	r, w *os.File
	wait syscall.RawConn // nil: this system has no such pipe
}

// How often newcomers are let first: seldom while they are few, since a place rests
// meanwhile.
const (
	crowd      = 8
	shortPause = time.Millisecond
	longPause  = 16 * shortPause
	farAway    = 1<<63 - 1
)

// first returns when those who had arrived were read, if it is time for that.
func (n *newcomers) first(at time.Time, now func() time.Time) {
	if n == nil {
		return
	}
	next := n.next.Load()
	if at.UnixNano() < next || !n.next.CompareAndSwap(next, farAway) {
		return
	}
	met := n.met.Load()
	n.poll()
	runtime.Gosched() // behind those whom the poll found
	pause := shortPause
	if n.met.Load()-met < crowd {
		pause = min(2*max(time.Duration(n.pause.Load()), shortPause), longPause)
	}
	n.pause.Store(int64(pause))
	n.next.Store(now().Add(pause).UnixNano())
}

// poll waits for a byte that it writes itself, by way of the network poller.
func (n *newcomers) poll() {
	n.once.Do(n.open)
	if n.wait == nil {
		return
	}
	var one [1]byte
	wrote := false
	_ = n.wait.Read(func(fd uintptr) bool {
		if !wrote {
			_, err := n.w.Write(one[:])
			wrote = true
			return err != nil
		}
		_, _ = syscall.Read(int(fd), one[:])
		return true
	})
}

func (n *newcomers) open() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	n.r, n.w = r, w
	if n.wait, err = r.SyscallConn(); err != nil {
		n.wait = nil
	}
}
