//go:build !cgo || !linux

package gpu

import "fmt"

// Inventory is empty in this build.
type Inventory struct{}

// Open answers [ErrNoGPU].
func Open() (*Inventory, error) { return nil, fmt.Errorf("%w: built without cgo", ErrNoGPU) }

// OpenLibrary answers [ErrNoGPU].
func OpenLibrary(string) (*Inventory, error) { return Open() }

// Devices answers [ErrNoGPU].
func (*Inventory) Devices() ([]Device, error) { _, err := Open(); return nil, err }

// Close does nothing.
func (*Inventory) Close() error { return nil }
