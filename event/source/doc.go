// Package source maps foreign records onto Kedge's envelopes.
//
// A [Mapping] is written in YAML: which fields of a row are the key, the time,
// the values, a model's inputs and output, a label. One row can give several
// events. The same mapping serves a file (`kedge replay --map`) and a topic.
// Files are read as rows by [Open]: CSV, JSON lines and Parquet.
//
// A mapped event is a pure function of the row, its number, the mapping and
// the key for hashed columns. Expressions see the row's fields and nothing
// else, and are bounded in size and memory.
//
// May not: know Kafka, SQL or HTTP.
package source
