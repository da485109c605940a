// Package trainer turns rows into models that one can trust and trace.
//
// Holds: the training matrix and its digest, the back-ends (XGBoost in a child
// process, linear in Go, any program as a command), search, evaluation, and
// the record of every run. Promises: bad input is a named error before any
// work starts; a native library that dies takes one run with it, never the
// process; a run says which device it asked for, which it got, and why; a
// resumed run ends in the very model of an uninterrupted one. Units: event
// times are microseconds since the Unix epoch, durations are seconds in
// records. May not: serve predictions, write SQL, know Kafka.
package trainer
