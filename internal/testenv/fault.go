package testenv

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Preload compiles testdata/fault.c, which fails chosen writes of the process
// that it is loaded into, and returns the environment variable that loads it.
func Preload(t testing.TB) string {
	t.Helper()
	lib := filepath.Join(t.TempDir(), "fault.so")
	src := filepath.Join(Root(t), "internal/testenv/testdata/fault.c")
	if out, err := exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", lib, src).CombinedOutput(); err != nil {
		t.Fatalf("compile the fault injector: %v\n%s", err, out)
	}
	return "LD_PRELOAD=" + lib
}
