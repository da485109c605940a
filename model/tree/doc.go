// Package tree evaluates gradient boosted trees as XGBoost does, in Go.
//
// Holds: the XGBoost JSON reader, the compiled Ensemble, its contributions.
// Promises: outputs equal XGBoost's within 1e-6 because sums are made in
// float32, tree after tree, on top of the base score; prediction allocates
// nothing and is safe for concurrent use; a reader never trusts an index, a
// count or a shape that a file states. Units: rows are row-major float32, NaN
// is missing, categories are codes from 0. May not: read files.
package tree
