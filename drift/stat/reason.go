package stat

import "fmt"

// Reason says why a statistic does not exist for the data at hand.
type Reason string

// Reasons.
const (
	EmptyReference Reason = "empty reference" // no usable value on the reference side
	EmptyCurrent   Reason = "empty current"   // no usable value on the current side
	TooFew         Reason = "too few values"  // the test needs more
	Constant       Reason = "constant"        // no variation to measure against
	NotBinary      Reason = "not binary"      // more than two categories
	TooLarge       Reason = "too large"       // beyond what the method can count
	WrongData      Reason = "wrong kind"      // numbers where categories are needed, or the other way
	SizesDiffer    Reason = "sizes differ"    // a convention that needs equal sizes
	OneClass       Reason = "one class"       // labels of one class only
	Learning       Reason = "learning"        // the reference is not complete yet
	Unwatched      Reason = "not watched"     // the column is none of the monitor's
)

// NotComputable is the answer of a statistic that does not exist.
type NotComputable struct {
	Reason Reason
	Detail string
}

// Error says what is missing.
func (e *NotComputable) Error() string {
	if e.Detail == "" {
		return "not computable: " + string(e.Reason)
	}
	return "not computable: " + string(e.Reason) + ": " + e.Detail
}

func refuse(r Reason, format string, args ...any) error {
	return &NotComputable{r, fmt.Sprintf(format, args...)}
}

// Test is a test's statistic and p-value. DF is the number of degrees of
// freedom where the test has them.
type Test struct {
	Statistic, P, DF float64
}
