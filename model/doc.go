// Package model is the artefact that a trained model travels in: everything
// needed to serve, watch, explain and reproduce it, in one folder whose name is
// its content's digest.
//
// Holds: the signature (ordered inputs, outputs, training-time summaries), the
// artefact's encoding, predictors for trees and linear models. Promises: what
// was loaded is what was written (sha256 of every file) and answers as it did
// on the day of training (golden rows within 1e-5), or an error says which
// file and why; nothing is registered half (written, synced, then renamed).
// Units: rows are row-major float32, NaN is missing, categories are codes.
// May not: reach outside a given [os.Root] and, in model/bucket, a given bucket
// of S3-compatible storage; know where rows come from.
package model
