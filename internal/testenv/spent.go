package testenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Spent is how long the threads of a process, those that live, had a processor, and
// how long they had work and none: what the system gave to others meanwhile.
func Spent(pid int) (ran, away time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		var r, w int64
		if err == nil {
			_, err = fmt.Sscan(string(text), &r, &w)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", name, err)
		}
		ran, away = ran+time.Duration(r), away+time.Duration(w)
	}
	return ran, away, nil
}
