// Package stream speaks Kafka. It owns the client library and knows nothing
// of what its records mean.
//
// Holds: one [Client] per cluster, with a shared connection pool; consumer
// groups for membership and fenced commits with metadata ([Group],
// [Generation]); a [Fetcher] that reads all partitions of a leader in one
// request; exact replays ([Client.FetchRange]); a [Producer]; single-partition
// logs ([Log]).
//
// Promises:
//   - Records of aborted transactions and control records are never delivered,
//     and every offset of a consumed range is accounted for: a [Batch] covers
//     [From, Next) and Next − From = len(Records) + Dropped + Missing.
//   - A partition's batches arrive in offset order, one at a time, without
//     overlap; a slow receiver pauses its own partition only, and the bytes
//     held are bounded.
//   - Records that retention removed before they were read are reported as
//     Missing, never skipped silently; an offset beyond the partition's end is
//     [ErrOffsetBackwards], never a silent jump.
//   - A commit of a stale generation is [ErrFenced] and changes nothing.
//
// Units: offsets are Kafka's; times are microseconds since the Unix epoch
// (Kafka itself keeps milliseconds).
//
// The room works below the library's Reader and Writer: Reader delivers the
// records of aborted transactions, and neither lets a caller fetch several
// partitions at once or see where a batch ends.
package stream
