// Package app wires the rooms into one process.
//
// Holds the configuration ([Config]), the data directory, the HTTP server with
// its routes and page, and the run groups ([App]). It is the only room that
// knows all others. Promises: what it starts it stops, in reverse order; a
// fault in any part ends the process with an error that names the part.
// Units: in the configuration, durations are written "90s", sizes "64MB".
//
// May not: hold domain rules.
package app
