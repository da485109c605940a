package trainer

import "errors"

// What can be wrong with a training set or a job. Each wraps with the column,
// the numbers and the remedy.
var (
	ErrNoRows      = errors.New("no rows to train on")
	ErrOneClass    = errors.New("only one class in the label")
	ErrLabel       = errors.New("unusable label")
	ErrType        = errors.New("wrong type of value")
	ErrCardinality = errors.New("too many distinct categories")
	ErrMemory      = errors.New("too many rows for the memory that a run may take")
	ErrLeakage     = errors.New("a feature gives the label away")
	ErrParam       = errors.New("wrong parameter")
	ErrCancelled   = errors.New("run cancelled")
	ErrPruned      = errors.New("run stopped by the search")
	ErrWorker      = errors.New("training process failed")
	ErrDevice      = errors.New("device not available")
)
