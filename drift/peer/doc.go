// Package peer decides as two known tools do, so that people who come from them
// find their numbers again and can see both side by side: Evidently 0.7 (its
// stattests, its automatic choice, its dataset rule) and NannyML 0.13 (chunks,
// distances on reference bins, mean ± 3 standard deviations of the reference
// chunks, PCA reconstruction error).
//
// Promises: pure functions; the tools' conventions, blind spots included, but
// not their failures: what they raise on is [stat.NotComputable].
// May not: be the default of anything. Its false alarms are the tools' own.
package peer
