// Package special evaluates the distributions that drift tests need and that
// gonum does not have: Kolmogorov's in its finite, limiting and exact
// two-sample forms, Smirnov's, the limiting Cramér–von Mises law and the exact
// Mann–Whitney law.
//
// Promises: pure functions; probabilities in [0, 1], never NaN for arguments in
// range; the same numbers as SciPy 1.17 within 1e-8 relative or 1e-12 absolute.
// May not: know samples, grids or columns.
package special
