// Package features is the feature store: the online table that requests read,
// the point-in-time history that training reads, and the HTTP that both are
// asked over.
//
// Promises: one comparator, [Version], decides everywhere which of two rows of
// a key is the newer; late data never overwrites newer data; what the online
// table holds at T is what the point-in-time join answers at T. A request never
// waits for SQL. Keys are tuples: ("1","23") and ("12","3") never meet.
//
// Units: every time is an int64 of microseconds since the Unix epoch, UTC,
// unless its name says otherwise.
//
// May not: know serving or drift, write SQL, or read a clock outside Run and
// the HTTP handlers' injected one.
package features
