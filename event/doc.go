// Package event holds facts with a time: feature rows, predictions and labels,
// as columns.
//
// It turns envelope bytes into a columnar [Batch] and back, and knows what a
// table looks like ([Schema]). A Batch is a pure function of the records, the
// decoder version and the definitions it was decoded with; nothing here reads
// a clock or does I/O.
//
// Units: every time is an int64 of microseconds since the Unix epoch, UTC.
//
// May not: know Kafka, SQL, HTTP servers or Grafana.
package event
