// Package dist says what a column looked like in a window: a [Grid] cuts the
// column's values into cells once, from a reference sample, and a [Summary]
// counts what fell where.
//
// Holds: grids and summaries, nothing that knows where rows come from.
// Promises: Merge adds counts exactly (UInt64), so merging windows in any order
// gives the counts of the rows themselves; a summary never merges with one of
// another grid; a decoder never trusts a length it reads.
// Units: values are the column's own; counts are rows; cells are half-open,
// [edge i-1, edge i).
// May not: import anything but the standard library.
package dist
