// Package proto publishes Kedge's envelopes as Protocol Buffers say them: for
// producers, which compile the file in their own language. Kedge reads records
// by hand (event/proto.go).
package proto

import _ "embed" // the file is served

//go:embed kedge/v1/events.proto
var events string

// Events is the text of kedge/v1/events.proto.
func Events() string { return events }
