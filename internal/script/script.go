// Package script runs scenarios: text files of commands and what they print,
// against a whole Kedge in a process of its own.
//
// Commands:
//
//	produce KIND view=V|model=M rows=N COLUMN=GENERATOR… at=HHMM [over=DUR] [key=N]
//	produce raw topic=KIND       the lines below are sent as they are
//	query KIND view=… model=… columns=… from=HHMM to=HHMM step=… show=a,b frame=NAME
//	ledger                       the books, summed over partitions
//	restart                      stop with SIGTERM and start again
//	kill                         stop with SIGKILL and start again
//
// Times are of 2026-03-01, UTC. GENERATOR is normal,MEAN,DEVIATION, const,VALUE,
// seq (0, 1, 2 …) or null. What a command produces depends on the command alone.
//
// May not: be imported by anything: all else of it are tests.
package script
