//go:build !failpoint

package failpoint

// Enabled says whether this build has failpoints.
const Enabled = false

// Set is empty in this build.
type Set struct{}

// FromEnv returns a set that does nothing.
func FromEnv() (*Set, error) { return nil, nil }

// Hit does nothing.
func (*Set) Hit(int, string) {}
