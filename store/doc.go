// Package store keeps events in ClickHouse and answers questions about them.
//
// Holds: all SQL of Kedge, the tables' shapes and their migrations, two ways to
// reach an engine (inside the process, or a server), one method per question.
//
// Promises: an insert with a token happens once, however often it is repeated
// within the deduplication window of 10,000 blocks per table. Values are bound
// parameters, identifiers come from checked schemas. Units: times are
// microseconds UTC in tables, time.Time in frames.
//
// May not: decide policy (how long rows live, what is too much).
package store
