// Package push tells an Alertmanager or a webhook what Kedge's alert rules see,
// for those who do not alert from Grafana.
//
// It asks the questions of the same rules, and takes the same steps over the
// answers: values, reduce, threshold, patience. Promises: an alert is known by
// its id, which is made of its rule and labels and so is the same for every
// revision of a verdict and after a restart; each receiver is told of each
// beginning and each end at least once, with a key by which it knows a
// repetition; a receiver that was away learns where every alert stands now.
// What cannot be asked changes nothing: ignorance ends no alert.
//
// May not: know rooms of Kedge. Who asks is given. Times are arguments but for
// Run's.
package push
