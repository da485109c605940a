// Package pair joins requests with their responses where both are records of
// their own, before ingest sees them.
//
// What becomes of a record of ingest depends on its unit alone; the other half of
// a pair may lie anywhere. So one process at a time (the holder of a lease) reads
// the foreign topics of every source with a Pair, keeps halves in memory until the
// other one comes, and writes each pair as one record to a topic of Kedge's own,
// of one partition, which ingest reads as the source's ([source.PairsTopic]).
//
// Promises:
//   - Each half has exactly one outcome in that topic: in a pair; as a dead letter
//     (it cannot be read, or the other half did not come in time); or as one that
//     came twice.
//   - A crash at any point changes nothing. The outcomes name the records that they
//     are of, so the topic itself says what is done: whoever takes over reads on from
//     the smallest offset of a waiting half, which is what the group committed, and
//     leaves out what the topic names from the offset on that the commit's metadata
//     states.
//   - Of a former holder that wakes late, commits are refused; a pair that it wrote
//     all the same has the ids of the other one and counts as a duplicate in ingest,
//     within the id window.
//   - The halves that wait are bounded in bytes and in time. The time is the
//     records' own; where a topic has been read to its end, the clock's.
//
// Units: times are microseconds since the Unix epoch.
//
// May not: write to a foreign topic; know SQL or HTTP.
package pair
