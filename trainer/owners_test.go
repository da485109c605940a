package trainer

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestOwnersGone holds when a run is taken for nobody's.
func TestOwnersGone(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	self := fmt.Sprintf("here/%d/7", os.Getpid())
	o := newOwners(self)
	for name, c := range map[string]struct {
		owner string
		here  bool
		want  bool
	}{
		"this process's, under way":         {self, true, false},
		"this process's, not under way":     {self, false, true},
		"an earlier life of this process":   {fmt.Sprintf("here/%d/6", os.Getpid()), false, true},
		"a process that this host has not":  {"here/2147483646/1", false, true},
		"a process that this host has":      {fmt.Sprintf("here/%d/1", os.Getppid()), false, false},
		"another host's, met for the first": {"there/1/1", false, false},
		"nobody's":                          {"", false, true},
	} {
		if got := o.gone(Run{ID: name, Owner: c.owner, Revision: 1}, now, c.here); got != c.want {
			t.Errorf("%s: gone is %v", name, got)
		}
	}
	r := Run{ID: "x", Owner: "there/1/1", Revision: 4}
	for _, step := range []struct {
		after    time.Duration
		revision uint64
		want     bool
	}{{0, 4, false}, {silence - 1, 4, false}, {silence, 5, false}, {2*silence - 1, 5, false}, {2 * silence, 5, true}} {
		r.Revision = step.revision
		if got := o.gone(r, now.Add(step.after), false); got != step.want {
			t.Errorf("after %v at revision %d: gone is %v", step.after, step.revision, got)
		}
	}
}
