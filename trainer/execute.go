package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/store"
)

// Get reads a run.
func (s *Scheduler) Get(ctx context.Context, namespace, id string) (Run, error) {
	found, err := s.Runs(ctx, namespace, id)
	if err != nil {
		return Run{}, err
	}
	if len(found) == 0 {
		return Run{}, fmt.Errorf("%w %s: `kedge query runs` lists them", ErrUnknownRun, id)
	}
	return found[0], nil
}

// Runs reads runs of a namespace, or of [store.AllNamespaces], newest first: all,
// one by its id, or those in some states.
func (s *Scheduler) Runs(ctx context.Context, namespace, id string, states ...State) ([]Run, error) {
	var names []string
	for _, st := range states {
		names = append(names, string(st))
	}
	records, err := s.data.Store.RunRecords(ctx, namespace, id, names...)
	if err != nil {
		return nil, err
	}
	var out []Run
	for _, text := range records {
		var r Run
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("read a run's record: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Verification is whether a run's rows are still what they were.
type Verification struct {
	Run    string `json:"run"`
	Digest string `json:"digest"` // recomputed
	Was    string `json:"was"`
	Rows   int    `json:"rows"`
	Before int    `json:"rows_then"`
	Same   bool   `json:"same"`
}

// Verify reads the rows of a run again and compares their digest.
func (s *Scheduler) Verify(ctx context.Context, namespace, id string) (Verification, error) {
	r, err := s.Get(ctx, namespace, id)
	if err != nil {
		return Verification{}, err
	}
	if r.Data.Digest == "" {
		return Verification{}, fmt.Errorf("%w: run %s (%s) has read no rows", ErrState, id, r.State)
	}
	v := Verification{Run: id, Was: r.Data.Digest}
	for _, n := range r.Data.Rows {
		v.Before += n
	}
	m, err := s.data.Verify(ctx, r)
	if err != nil {
		return v, err
	}
	v.Digest, v.Rows, v.Same = m.Digest, m.Rows(), m.Digest == r.Data.Digest
	return v, nil
}

// backend is what a job learns with; nil for auto, which chooses.
func (s *Scheduler) backend(j *JobSpec, gpus []string) (Backend, error) {
	switch j.Backend {
	case "linear":
		return Linear{}, nil
	case "command":
		argv := s.cfg.Commands[j.Command]
		if len(argv) == 0 {
			return nil, fmt.Errorf("%w: command %q: the server's configuration (trainer.commands) does not name it", ErrParam, j.Command)
		}
		return &Command{Argv: argv, GPUs: gpus}, nil
	case "xgboost":
		if s.cfg.Library == "" {
			return nil, fmt.Errorf("backend xgboost: %w", s.cfg.NoLibrary)
		}
		return &XGBoost{Library: s.cfg.Library, GPUs: gpus}, nil
	}
	return nil, nil
}

// execute does a run to its end, on the GPUs that it was given, and records it.
func (s *Scheduler) execute(ctx context.Context, r Run, gpus []string) {
	job, err := s.job(ctx, r, gpus)
	if err == nil {
		_, err = s.train(ctx, job, r, gpus)
	} else {
		t := newRunning(s.cfg.Owner, &job, s.rec.record(ctx, r))
		_, err = t.finish(nil, err)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errByHand):
		return // the process stops: the checkpoint stays for the next start
	default:
		s.cfg.Log.WarnContext(ctx, "a training run failed", "run", r.ID, "job", r.Job, "error", err)
	}
	if err := s.rec.flush(context.WithoutCancel(ctx)); err != nil {
		s.cfg.Log.WarnContext(ctx, "metrics of a run were not stored", "run", r.ID, "error", err)
	}
	if err == nil || errors.Is(err, ErrParam) {
		dropCheckpoint(s.cfg.Checkpoints, r.ID)
	}
}

// job is what a queued run asks for, with the rows that it saw if it ran before.
func (s *Scheduler) job(ctx context.Context, r Run, gpus []string) (Job, error) {
	spec := r.Spec
	j := Job{Name: spec.Model, Namespace: r.Namespace, Params: spec.Params, Segments: spec.Segments, Gate: spec.Gate, Split: spec.Split.cut, Run: &r}
	var until store.Bounds
	if r.Data.Offsets != nil {
		until = boundsOf(r.Data.Offsets)
	}
	j.Source = s.data.Source(r.Namespace, spec.Data, until)
	j.Params.Threads = spec.Resources.CPUs
	var err error
	if j.Backend, err = s.backend(spec, gpus); err != nil {
		return j, err
	}
	if spec.Backend == "xgboost" && j.Params.Rounds == 0 {
		j.Params.Rounds = 100
	}
	if j.Resume, err = loadCheckpoint(s.cfg.Checkpoints, r.ID); err != nil {
		return j, fmt.Errorf("resume: %w", err)
	}
	if j.Live, err = s.cfg.Live(ctx, r.Namespace, spec.Model); err != nil {
		s.cfg.Log.Warn("the live model cannot be read; the run is not held against it", "model", spec.Model, "error", err)
	}
	j.Deliver = s.deliver
	return j, nil
}

// train chooses between one fit and many.
func (s *Scheduler) train(ctx context.Context, j Job, r Run, gpus []string) (*Result, error) {
	rec := s.rec.record(ctx, r)
	if r.Spec.Search == nil && r.Spec.Backend != "auto" {
		return Train(ctx, s.cfg.Owner, j, rec)
	}
	t := newRunning(s.cfg.Owner, &j, rec)
	if err := t.save(); err != nil {
		return nil, err
	}
	spent := &tally{}
	rec = spent.beside(rec, r.ID)
	rows, err := j.Load(ctx)
	if err != nil {
		return t.finish(nil, err)
	}
	t.run.Data = rows.Data
	if err := t.save(); err != nil {
		return nil, err
	}
	best, err := s.many(ctx, j, rows, r, rec, gpus)
	if err != nil {
		return t.finish(nil, err)
	}
	return t.take(ctx, best, spent, time.Now())
}

// many searches: with the job's own search, or with everything chosen for it.
func (s *Scheduler) many(ctx context.Context, j Job, rows *Prepared, r Run, rec Record, gpus []string) (*Result, error) {
	child := j
	child.Run, child.Deliver, child.Resume, child.Parent = nil, nil, nil, r.ID
	if r.Spec.Search == nil {
		var trees Backend
		if s.cfg.Library != "" {
			trees = &XGBoost{Library: s.cfg.Library, GPUs: gpus}
		}
		out, err := trainAuto(ctx, s.cfg.Owner, child, rows, trees, rec)
		for _, c := range out.Choices {
			rec.Log(r.ID, c)
		}
		if out.Best != nil {
			out.Best.Run.Choices = out.Choices
		}
		return out.Best, err
	}
	before, err := s.trials(ctx, r)
	if err != nil {
		return nil, err
	}
	h, err := r.Spec.Search.hunt(ctx, s.cfg.Owner, child, rows, rec, r.ID, before)
	if err != nil {
		return nil, err
	}
	if best := bestOf(before); best != nil && best.Loss < h.loss { // its model was not kept: it is fitted again
		child.Params.Extra = maps.Clone(child.Params.Extra)
		if child.Params.Extra == nil {
			child.Params.Extra = map[string]string{}
		}
		maps.Copy(child.Params.Extra, best.Params)
		return TrainPrepared(ctx, s.cfg.Owner, child, rows, rec, nil)
	}
	if h.best == nil {
		return nil, fmt.Errorf("no trial of %d succeeded: %w", len(h.trials), h.lastErr)
	}
	return h.best, nil
}

// tally adds up what the trials of a run cost.
type tally struct {
	mu   sync.Mutex
	cost model.Cost
}

// beside returns what records as rec does and counts the runs that end, but for
// the one that they are trials of.
func (s *tally) beside(rec Record, parent string) Record {
	to := rec.Run
	rec.Run = func(r Run) error {
		if r.ID != parent && r.State.Final() {
			s.mu.Lock()
			s.cost.DataCPU += r.Cost.DataCPU
			s.cost.CPU, s.cost.GPU, s.cost.GPUIdle, s.cost.EnergyKWh = s.cost.CPU+r.Cost.CPU, s.cost.GPU+r.Cost.GPU, s.cost.GPUIdle+r.Cost.GPUIdle, s.cost.EnergyKWh+r.Cost.EnergyKWh
			s.cost.Trials++
			s.mu.Unlock()
		}
		return to(r)
	}
	return rec
}

// bestOf is the trial with the least loss among those that succeeded.
func bestOf(trials []Trial) (best *Trial) {
	for i := range trials {
		if t := &trials[i]; t.State == Succeeded && (best == nil || t.Loss < best.Loss) {
			best = t
		}
	}
	return best
}

// trials are those that a search had done before it was interrupted.
func (s *Scheduler) trials(ctx context.Context, r Run) ([]Trial, error) {
	if r.Resumed == 0 {
		return nil, nil
	}
	all, err := s.Runs(ctx, r.Namespace, "")
	if err != nil {
		return nil, err
	}
	return trialsOf(all, r), nil
}

// take makes the best of many fits the run's own.
func (t *running) take(ctx context.Context, best *Result, spent *tally, now time.Time) (*Result, error) {
	from := &best.Run
	t.run.Backend, t.run.Params, t.run.Device, t.run.Rounds, t.run.Round = from.Backend, from.Params, from.Device, from.Rounds, from.Round
	t.run.Metrics, t.run.Metric, t.run.Passed, t.run.Refused, t.run.Warnings = from.Metrics, from.Metric, from.Passed, from.Refused, from.Warnings
	t.run.Cost, t.run.Choices = spent.cost, from.Choices
	t.run.Cost.Wall = now.Sub(t.run.Started).Seconds()
	best.Artifact.Card.Run, best.Artifact.Card.Cost = t.run.ID, t.run.Cost
	t.run.Finished = now
	return t.finish(best, t.deliver(ctx, best))
}

// deliver keeps the artefact and, where the gate lets it, makes it a version.
func (s *Scheduler) deliver(ctx context.Context, r *Run, res *Result) error {
	digest, err := s.cfg.Artifacts.Write(ctx, res.Artifact)
	if err != nil {
		return fmt.Errorf("keep the artefact: %w", err)
	}
	r.Artifact = digest
	how := r.Spec.Register
	if how == nil {
		how = &RegisterSpec{}
	}
	if how.Off || !r.Passed {
		return nil
	}
	v, err := s.models.Register(ctx, r.Namespace, r.Spec.Model, ModelVersion{Run: r.ID, Artifact: digest, Metrics: r.Metrics["test"], Digest: r.Data.Digest}, how.Alias, r.Who, orText(r.Why, "run "+r.ID+" passed its gate"))
	if err != nil {
		return fmt.Errorf("register the model: %w", err)
	}
	r.Version = v.Version
	if how.Deploy == "" {
		return nil
	}
	if err := s.cfg.Deploy(ctx, v, *r, how.Deploy); err != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("version %s is registered, but was not deployed as %s: %v", v.Version, how.Deploy, err))
	}
	return nil
}

func orText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
