package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// holders records who holds a lease, and complains when two do at once.
type holders struct {
	t *testing.T

	mu    sync.Mutex
	now   int
	calls []string
}

func (h *holders) enter(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now++; h.now != 1 {
		h.t.Errorf("%s holds the lease beside another; so far %v", name, h.calls)
	}
	h.calls = append(h.calls, name)
}

func (h *holders) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
}

func (h *holders) called(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(h.calls), func(s string) bool { return s != name }))
}

// A lease has one holder at a time; who returns early is called again, and who
// leaves is followed by another.
func testLease(w *world) {
	w.create(1, nil)
	h := &holders{t: w.T}
	var busy sync.WaitGroup
	join := func(name string) (leave context.CancelFunc) {
		ctx, cancel := context.WithCancel(w.ctx())
		c := newClient(w.T, w.addr)
		busy.Go(func() {
			early := true
			err := c.HoldLease(ctx, "lease-"+w.topic, w.topic, func(ctx context.Context) {
				h.enter(name)
				defer h.leave()
				if early {
					early = false
					return
				}
				<-ctx.Done()
			})
			if err != nil {
				w.Errorf("%s: %v", name, err)
			}
		})
		return cancel
	}
	held := func(name string) {
		w.Helper()
		testenv.Eventually(w.T, time.Minute, func() error {
			if n := h.called(name); n < 2 {
				return fmt.Errorf("%s held the lease %d times, want 2", name, n)
			}
			return nil
		})
	}
	first := join("first")
	held("first")
	second := join("second")
	w.members("lease-"+w.topic, 2)
	first()
	held("second")
	second()
	busy.Wait()
}

// members waits until a group is stable with so many of them.
func (w *world) members(group string, n int) {
	w.Helper()
	client := w.franz()
	testenv.Eventually(w.T, time.Minute, func() error {
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups = []string{group}
		found, err := describe.RequestWith(w.ctx(), client)
		if err != nil {
			return err
		}
		if g := found.Groups[0]; len(g.Members) != n || g.State != "Stable" {
			return fmt.Errorf("group %s is %s with %d members, want %d", group, g.State, len(g.Members), n)
		}
		return nil
	})
}
