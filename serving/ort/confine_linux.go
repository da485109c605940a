package ort

import (
	"fmt"
	"syscall"
)

// confine limits what this process may take: memory for data, no file that
// grows, no core file. What asks for more gets an error or ends the process;
// the parent's is not touched.
func confine(memory int64) error {
	const core, data, size = syscall.RLIMIT_CORE, syscall.RLIMIT_DATA, syscall.RLIMIT_FSIZE
	limits := map[int]uint64{core: 0, size: 0}
	if memory > 0 {
		limits[data] = uint64(memory)
	}
	for what, n := range limits {
		if err := syscall.Setrlimit(what, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit the worker (resource %d to %d): %w", what, n, err)
		}
	}
	return nil
}
