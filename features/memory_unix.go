//go:build unix

package features

import (
	"fmt"
	"syscall"
)

// mapThreshold is the size from which memory comes from the kernel rather than
// from Go's heap, where a large table would double the heap that the collector
// lets grow.
const mapThreshold = 256 << 10

// allocate returns n zeroed bytes that hold no pointers.
func allocate(n int) []byte {
	if n < mapThreshold {
		return make([]byte, n)
	}
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("online table: map %d bytes: %v: out of memory, as a failed make would be", n, err))
	}
	return b
}

// release gives back what allocate returned. Nobody may hold a slice of it.
func release(b []byte) {
	if cap(b) < mapThreshold {
		return
	}
	if err := syscall.Munmap(b); err != nil {
		panic(fmt.Sprintf("online table: unmap %d bytes: %v: a slice that allocate did not return", cap(b), err))
	}
}
