// Package stat computes two-sample statistics: distances between shares, tests
// on counts, and rank and moment tests on numbers.
//
// Promises: pure functions; a statistic that does not exist answers
// [NotComputable] with a reason, never NaN and never a panic; conventions are
// SciPy's unless a function says otherwise, and every function names its own.
// Units: the first sample is the reference ("ref", side A), the second the
// window under watch ("cur", side B).
// May not: read a clock, do I/O, draw random numbers, know grids or columns.
package stat
