// Package ingest carries records from Kafka into tables, each exactly once.
//
// Holds: a [Consumer], a member of one consumer group that reads its share of
// partitions and writes units of work to a [Sink]. A unit is the records a..b
// of one partition in one epoch.
//
// The cycle of a unit: decode the records once into columns; let the registry
// learn what they need; commit the intent {a, b, decoder, registry offset} as
// metadata of the group's offset a, which a member that lost the partition can
// no longer do; insert one block per table, then the dead letters, then the
// ledger row, each with a token made of epoch, partition and a-b. The next
// unit's intent commits offset b+1. Whatever is repeated after a crash is
// repeated with the same records, the same definitions and the same tokens, and
// so changes nothing.
//
// Promises: after any sequence of crashes and rebalances, every record that
// the broker acknowledged is accounted for once in the ledger, and its rows
// are stored once. What cannot be promised (retention removed records, offsets
// moved, a topic was recreated, the store was restored from before) is noticed
// and either named in the ledger and in [Consumer.Status], or waits for an
// operator to open an epoch ([OpenEpoch]). Nothing is skipped silently. Memory
// is bounded; a slow store pauses reading.
//
// An event is a duplicate iff a stored row of the same partition and table has
// its id at a smaller offset within [Config.IDWindow] offsets. The window
// takes about 33 MB per million ids.
//
// Units: offsets are Kafka's; times are microseconds; a unit's range a-b is
// inclusive.
//
// May not: write SQL; know the features or the store by name.
package ingest
