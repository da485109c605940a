// Package demo is the built-in stream: taxi drivers' statistics as a feature
// view, a model that says which rides will be cancelled, and the truth, which
// arrives minutes later. Some minutes after it began, a storm sets in: waiting
// times grow, one feature moves, and the model no longer knows why people
// cancel.
//
// Promises: what happens in a second depends only on the seed, on when the
// stream began, and on that second, so that a restarted stream continues as if
// it had never stopped. Event ids are derived from it too: an event that is
// produced twice is the same event.
//
// May not: know Kafka or read a clock.
package demo
