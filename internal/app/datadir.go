package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dataFormat is the version of the data directory's layout that this binary
// writes. A change of layout raises it and adds a step to migrations.
const dataFormat = 1

// ErrDataDirNewer means that a newer Kedge wrote the directory.
var ErrDataDirNewer = errors.New("data directory was written by a newer kedge")

// ErrDataDirLocked means that another process uses the directory.
var ErrDataDirLocked = errors.New("data directory is in use by another process")

// dataDir is a locked data directory. Layout:
//
//	FORMAT   version of the layout
//	LOCK     held while a process uses the directory; holds its pid
//	broker/  the embedded broker
//	store/   the embedded engine
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir creates the directory if need be, locks it, and checks that this
// binary may use it.
func openDataDir(path string) (*dataDir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if err := os.MkdirAll(abs, 0o750); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(abs, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", abs, err)
	}
	d := &dataDir{path: abs, lock: lock}
	if err := d.checkFormat(); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", abs, err), d.Close())
	}
	return d, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(path)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (pid %s): stop it or choose another --data-dir", ErrDataDirLocked, strings.TrimSpace(string(owner)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // the pid only helps the reader of an error
	}
	return f, nil
}

func (d *dataDir) checkFormat() error {
	path := filepath.Join(d.path, "FORMAT")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(strconv.Itoa(dataFormat)+"\n"), 0o640)
	}
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return fmt.Errorf("FORMAT holds %.20q: not a data directory of kedge", b)
	}
	if v > dataFormat {
		return fmt.Errorf("%w: it has format %d and this binary knows up to %d: use the newer binary", ErrDataDirNewer, v, dataFormat)
	}
	return nil
}

// Sub returns the path of a part of the directory.
func (d *dataDir) Sub(name string) string { return filepath.Join(d.path, name) }

// Close releases the lock.
func (d *dataDir) Close() error { return d.lock.Close() }
