// Package control keeps false alarms in check: corrections for many columns,
// e-processes for looking all the time, null distributions of distances, the
// relevance floor that a reference's own windows set, and the policy that
// turns verdicts into incidents.
//
// Promises: pure; time is an argument; randomness comes from a seed that the
// data decide, so the same windows always give the same answer.
// Units: p-values in [0, 1]; e-values are evidence against "no drift", 1 is
// none; log e-values are natural.
// May not: read a clock, do I/O.
package control
