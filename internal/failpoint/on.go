//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled says whether this build has failpoints.
const Enabled = true

const (
	slots    = 64
	slotSize = 32
)

// Set holds what should happen at which point. A nil Set does nothing.
type Set struct {
	mu     sync.Mutex
	points map[string]*point
	phases []byte
}

type point struct {
	action string
	left   int // hits until it happens
}

// FromEnv reads the environment; nil when it asks for nothing.
func FromEnv() (*Set, error) {
	spec, path := os.Getenv("KEDGE_FAILPOINT"), os.Getenv("KEDGE_FAILPOINT_PHASES")
	if spec == "" && path == "" {
		return nil, nil
	}
	s := &Set{points: map[string]*point{}}
	if err := s.parse(spec); err != nil {
		return nil, fmt.Errorf("KEDGE_FAILPOINT %q: %w", spec, err)
	}
	if path == "" {
		return s, nil
	}
	if err := s.mapPhases(path); err != nil {
		return nil, fmt.Errorf("KEDGE_FAILPOINT_PHASES: %w", err)
	}
	return s, nil
}

func (s *Set) parse(spec string) error {
	for part := range strings.SplitSeq(spec, ";") {
		if part == "" {
			continue
		}
		name, action, ok := strings.Cut(part, "=")
		if !ok {
			return fmt.Errorf("%q: want name=action", part)
		}
		p := &point{left: 1}
		if what, n, counted := strings.Cut(action, "@"); counted {
			var err error
			if p.left, err = strconv.Atoi(n); err != nil {
				return err
			}
			action = what
		}
		switch p.action = action; action {
		case "exit", "kill", "stop", "pause":
		default:
			return fmt.Errorf("action %q: want exit, kill, stop or pause", action)
		}
		s.points[name] = p
	}
	return nil
}

func (s *Set) mapPhases(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(slots * slotSize); err != nil {
		return err
	}
	s.phases, err = syscall.Mmap(int(f.Fd()), 0, slots*slotSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	return err
}

// Hit says that the work in a slot reached a point, and does there what the
// environment asked for.
func (s *Set) Hit(slot int, name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	if s.phases != nil {
		at := s.phases[slot%slots*slotSize:][:slotSize]
		clear(at[copy(at, name):])
	}
	p := s.points[name]
	fire := false
	if p != nil && p.left > 0 {
		p.left--
		fire = p.left == 0
	}
	s.mu.Unlock()
	if fire {
		act(p.action)
	}
}

func act(action string) {
	switch action {
	case "exit":
		os.Exit(86)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "stop":
		stopHere()
	case "pause":
		select {}
	}
}

// stopHere stops the process before this thread goes on: a signal to the process
// would be another thread's to take, at its leisure.
func stopHere() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGSTOP))
}
