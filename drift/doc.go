// Package drift compares distributions. Detectors are pure: no clock, no I/O.
//
// Three shapes of detector: two summaries on one grid ([SummaryDetector]), two
// sets of rows ([RowDetector]), and a stream taken value by value
// ([online.Detector]). From summaries a statistic comes with the interval that
// holds the value the rows themselves would give.
//
// Sub-packages: stat (the statistics), special (their laws), online (streams),
// peer (as Evidently and NannyML decide), perf (model performance), control
// (false alarms).
//
// Promises: an answer is a number or a [stat.NotComputable] with a reason.
// Units: the reference comes first, the window under watch second.
// May not: read a clock or do I/O in detectors.
package drift
