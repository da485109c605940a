package trainer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/model"
)

// State is where a run is in its life.
type State string

// States. The last four are final.
const (
	Queued    State = "queued"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Pruned    State = "pruned" // a trial that the search stopped
)

// Final reports whether nothing more will happen.
func (s State) Final() bool { return s != Queued && s != Running }

// ByMLflow is the trigger of a run that a client of MLflow's protocol logs: no
// process of ours runs it.
const ByMLflow = "mlflow"

// Run is the record of one training, as of its latest change. A store keeps
// the newest Revision per ID.
type Run struct {
	ID        string                        `json:"id"`
	Namespace string                        `json:"namespace"`
	Job       string                        `json:"job"`               // name of the model or the definition
	Parent    string                        `json:"parent,omitempty"`  // the search that this trial belongs to
	Owner     string                        `json:"owner"`             // process that runs it; a run whose owner is gone is an orphan
	Who       string                        `json:"who,omitempty"`     // asked for it
	Trigger   string                        `json:"trigger,omitempty"` // hand, api, schedule, alert, mlflow
	Why       string                        `json:"why,omitempty"`
	Spec      *JobSpec                      `json:"spec,omitempty"` // frozen: what it reads and does
	Revision  uint64                        `json:"revision"`
	State     State                         `json:"state"`
	Created   time.Time                     `json:"created"`
	Started   time.Time                     `json:"started,omitzero"`
	Finished  time.Time                     `json:"finished,omitzero"`
	Backend   string                        `json:"backend"`
	Params    Params                        `json:"params"`
	Data      model.Data                    `json:"data"`
	Device    model.Device                  `json:"device"`
	Round     int                           `json:"round,omitempty"`   // done so far
	Rounds    int                           `json:"rounds,omitempty"`  // kept in the model
	Resumed   int                           `json:"resumed,omitempty"` // times that it went on from a checkpoint
	Metrics   map[string]map[string]float64 `json:"metrics,omitempty"` // split → metric → value
	Metric    string                        `json:"metric,omitempty"`  // that it is judged by
	Artifact  string                        `json:"artifact,omitempty"`
	Version   string                        `json:"version,omitempty"` // in the registry of models
	Passed    bool                          `json:"passed"`            // the gate
	Refused   []string                      `json:"refused,omitempty"` // why the gate said no
	Warnings  []string                      `json:"warnings,omitempty"`
	Choices   []string                      `json:"choices,omitempty"` // of back-end auto, one sentence each
	Error     string                        `json:"error,omitempty"`
	Cost      model.Cost                    `json:"cost"`
	Tags      map[string]string             `json:"tags,omitempty"`
}

// Metric is one number of one round.
type Metric struct {
	Run   string    `json:"run"`
	Key   string    `json:"key"` // "valid-logloss"
	Step  int       `json:"step"`
	Value float64   `json:"value"`
	Time  time.Time `json:"time"`
}

// Record receives what happens in runs, to be stored. Every member may be nil.
// They are called from the goroutines of the runs, several at a time.
type Record struct {
	Run        func(Run) error
	Metrics    func([]Metric) error
	Log        func(run, line string)
	Checkpoint func(run string, c Checkpoint) error
}

// NewRunID returns 32 random hexadecimal digits, the shape MLflow uses.
func NewRunID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// orphan is a run that was left unfinished, by another process or by this one
// when it led before, as failed.
func orphan(r Run, now time.Time) Run {
	r.State, r.Finished, r.Revision = Failed, now, r.Revision+1
	r.Error = orphanedError + ": the process that ran it is gone; resume it from its last checkpoint, or start it again"
	return r
}

const orphanedError = "orphaned"

func (r *Run) orphaned() bool { return r.State == Failed && strings.HasPrefix(r.Error, orphanedError) }

// stateOf maps how a fit ended to the run's state.
func stateOf(err error) State {
	switch {
	case err == nil:
		return Succeeded
	case errors.Is(err, ErrPruned):
		return Pruned
	case errors.Is(err, ErrCancelled):
		return Cancelled
	}
	return Failed
}
