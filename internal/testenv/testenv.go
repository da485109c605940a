// Package testenv finds what tests need from their surroundings: the
// repository root, shared data, fetched libraries.
//
// Promises: a test that cannot run says why, and under CI=true it fails
// instead of passing by absence, unless the reason is one that a build machine
// is allowed to have ([NoGPU]).
package testenv

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Class says what is missing when a test skips.
type Class string

// Reasons to skip. Only NoGPU and Short are accepted under CI=true.
const (
	NoGPU     Class = "no gpu"
	NoData    Class = "no shared data"
	NoLibrary Class = "no library"
	NoTool    Class = "no tool"
	Short     Class = "short run"
	NoRight   Class = "no right" // of this user, to mount a disk and the like
)

// Skip ends the test with a printed reason; under CI=true it fails the test
// unless the class is accepted there.
func Skip(t testing.TB, c Class, format string, args ...any) {
	t.Helper()
	format = string(c) + ": " + format
	if os.Getenv("CI") == "true" && c != NoGPU && c != Short && c != NoRight {
		t.Fatalf("would skip, which CI refuses: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	t.Fatalf("find repository root: no go.mod above the working directory (%v)", err)
	return ""
}

// Shared returns a path under the data folder that lies beside the repository,
// and skips the test where it is missing.
func Shared(t testing.TB, rel string) string {
	t.Helper()
	path := filepath.Join(Root(t), "..", "shared", filepath.FromSlash(rel))
	if _, err := os.Stat(path); err != nil {
		Skip(t, NoData, "%s is not beside the repository", filepath.Join("shared", rel))
	}
	return path
}

// Dep returns a path under .deps, what `make deps` fetched, and skips the test
// where it is missing.
func Dep(t testing.TB, rel string) string {
	t.Helper()
	path := filepath.Join(Root(t), ".deps", filepath.FromSlash(rel))
	if _, err := os.Stat(path); err != nil {
		Skip(t, NoLibrary, "%s is missing: run make deps", filepath.Join(".deps", rel))
	}
	return path
}

// LibCHDB returns the path of the embedded engine's library.
func LibCHDB(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("KEDGE_LIBCHDB"); p != "" {
		return p
	}
	return Dep(t, "chdb/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so")
}

// Eventually polls cond until it returns nil, and fails the test with its last
// error when that takes longer than limit. Under CI every limit is two minutes
// at least: whoever waits wants the answer, and a machine that others share
// may stand still for longer than a test's author thought.
func Eventually(t testing.TB, limit time.Duration, cond func() error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		limit = max(limit, 2*time.Minute)
	}
	deadline := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
