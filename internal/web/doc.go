// Package web is how Kedge's rooms speak HTTP: typed handlers, one form of
// error, and servers with limits.
//
// Promises: a client sees a code and a message, the operator sees the cause in
// the log with the trace id of the answer; no panic ends the process; every
// server has header, body and idle timeouts; answers carry secure headers.
//
// May not: import other rooms than query and internal/telemetry.
package web
