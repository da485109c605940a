// Package registry holds definitions: what is watched, how it is laid out, who
// owns it, what is deployed. It knows no kind's meaning.
//
// Holds: an append-only [Log] of entries and its fold in memory. The log is the
// truth; a [Registry] can be thrown away and folded again.
//
// Promises: every registry that folds the same log holds the same definitions.
// An entry names the version it expects to replace; the fold, not the writer,
// decides, and [Registry.Apply] answers only after it has read its own entry
// back. An entry ID takes effect at most once, so a retry after a lost answer is
// harmless. A [State] never changes, and [Registry.At] gives the definitions as
// they were at any log offset, which is what replays are decoded with.
//
// Entries hold references to values and blobs, never bulk or personal data.
//
// Units: offsets are log offsets; times are microseconds since the Unix epoch,
// as the log stamped them. An entry is at most [MaxEntry] bytes.
//
// May not: know Kafka, SQL, HTTP servers or what a kind's spec means.
package registry
