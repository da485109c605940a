//go:build failpoint

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain is also the process that dies.
func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_CHILD") == "" {
		os.Exit(m.Run())
	}
	s, err := FromEnv()
	if err != nil {
		os.Exit(3)
	}
	for range 5 {
		s.Hit(1, "first")
		s.Hit(2, "second")
	}
}

func TestProcessEndsAtTheNamedHit(t *testing.T) {
	for spec, want := range map[string]struct {
		code   int
		signal syscall.Signal
		phase  string // of slot 2
	}{
		"second=exit@3":         {code: 86, phase: "second"},
		"first=kill":            {code: -1, signal: syscall.SIGKILL},
		"first=exit@9":          {phase: "second"},
		"third=kill;first=exit": {code: 86},
		"first":                 {code: 3},
		"first=burn":            {code: 3},
		"first=exit@x":          {code: 3},
	} {
		phases := filepath.Join(t.TempDir(), "phases")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "KEDGE_FAILPOINT="+spec, "KEDGE_FAILPOINT_PHASES="+phases)
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if cmd.ProcessState.ExitCode() != want.code || want.signal != 0 && status.Signal() != want.signal {
			t.Errorf("%s: ended with %v, want code %d or signal %v", spec, cmd.ProcessState, want.code, want.signal)
		}
		if want.code == 3 {
			continue
		}
		b, err := os.ReadFile(phases)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b[64 : 64+len(want.phase)]); got != want.phase || b[64+len(want.phase)] != 0 {
			t.Errorf("%s: slot 2 shows %q, want %q", spec, b[64:96], want.phase)
		}
	}
}

func TestNilSetDoesNothing(*testing.T) {
	var s *Set
	s.Hit(0, "anything")
}
