package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk mounts a file system of so many bytes on a new folder, or skips:
// mounting needs root.
func SmallDisk(t testing.TB, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	MountSmall(t, dir, bytes)
	return dir
}

// MountSmall mounts a file system of so many bytes on a folder, or skips.
func MountSmall(t testing.TB, dir string, bytes int) {
	t.Helper()
	if err := syscall.Mount("kedge", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			Skip(t, Short, "mounting a small disk needs root: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			used, err := exec.Command("du", "-B1024", "--max-depth=6", dir).Output()
			t.Logf("the small disk holds (%v), in KiB:\n%s", err, used)
		}
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
}

// Fill writes a file into a folder until its disk takes no more, and returns
// the file's path.
func Fill(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return path
}
