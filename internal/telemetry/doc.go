// Package telemetry is how Kedge speaks of itself: structured logs, metrics and
// traces.
//
// Holds the names of every metric and attribute ([names.go]) and the [Scope]
// that rooms are given. Promises: a log line inside a span carries its trace
// id; metrics are always readable at the Prometheus handler and go to an OTLP
// collector when one is configured; entity ids are never metric attributes.
// Units: base units (seconds, bytes, rows), stated in each metric's name.
//
// May not: import any other room.
package telemetry
