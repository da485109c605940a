// Package failpoint lets tests end or pause a process at a named point of its
// work. It does so only in builds with the tag "failpoint"; in all others a
// [Set] is empty and its methods compile to nothing.
//
// In a tagged build [FromEnv] reads two variables:
//
//	KEDGE_FAILPOINT        name=action[@n][;…]; actions: exit, kill, stop, pause
//	KEDGE_FAILPOINT_PHASES path of a file that shows the current phase of each slot
//
// exit ends the process with status 86, kill sends it SIGKILL, stop SIGSTOP;
// pause blocks for ever, so that whoever reads the phases file can kill it
// there. @n waits for the n-th hit, from 1. The phases file is mapped into
// memory and outlives a kill: 64 slots of 32 bytes, each the name of the point
// its slot passed last, padded with zeros.
package failpoint
