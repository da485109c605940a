// Package serving answers predictions: it admits a request, routes it to a
// version, computes, answers, and puts what happened on the record.
//
// Promises: a request is served whole by the version that it was routed to,
// also while another takes its place; nothing waits without a bound; every
// prediction is either recorded or counted as not recorded, by the model's own
// policy.
//
// May not: touch the store or SQL. What turned out true reaches the guard-rails
// as verdicts.
package serving
