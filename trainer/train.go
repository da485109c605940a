package trainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/model"
)

// Job is one training to be done: which rows, which back-end, how to judge.
type Job struct {
	Name      string
	Namespace string
	Parent    string // of a trial
	Source    func(ctx context.Context) (*Matrix, model.Data, error)
	Split     func(*Matrix) (Split, error) // nil: 70 % train, 15 % validation, 15 % test, by time
	Backend   Backend
	Params    Params // an empty Task is inferred from the label
	Segments  []string
	Gate      Gate
	Live      *Incumbent // the model in service; nil: none
	Tags      map[string]string
	Resume    *Checkpoint
	// Run is the queued run that this job carries on; nil: a new one.
	Run *Run
	// Deliver is called once the model is judged and proven, before the run
	// counts as succeeded: what it fails to keep fails the run. It may set the
	// run's Artifact and Version. Nil: nothing is kept.
	Deliver func(context.Context, *Run, *Result) error
}

// Incumbent is the model in service that a new one is held against.
type Incumbent struct {
	Version  string
	Artifact *model.Artifact
}

// Result is a finished run and what it made.
type Result struct {
	Run      Run
	Artifact *model.Artifact
	Report   *Report
	Leaks    []Leak
}

// Prepared are the rows of a job, cut and checked, ready for any number of
// fits.
type Prepared struct {
	Train, Valid, Test *Matrix
	Task               model.Task
	Leaks              []Leak
	Data               model.Data
}

// Load reads a job's rows, checks them and cuts them by time.
func (j *Job) Load(ctx context.Context) (*Prepared, error) {
	m, from, err := j.Source(ctx)
	if err != nil && ctx.Err() != nil { // what was cut off says so in its own words
		err = fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("read training rows: %w", err)
	}
	if m.Rows() == 0 {
		return nil, ErrNoRows
	}
	p := &Prepared{Task: j.Params.Task, Data: from}
	if p.Task == "" {
		p.Task = InferTask(m)
	}
	if err := Prepare(m, p.Task); err != nil {
		return nil, err
	}
	if err := j.cut(m, p); err != nil {
		return nil, err
	}
	p.Leaks = Leaks(p.Train, p.Task)
	p.Data.Digest = m.Digest
	p.Data.Rows = map[string]int{"train": p.Train.Rows(), "valid": p.Valid.Rows(), "test": p.Test.Rows()}
	return p, nil
}

func (j *Job) cut(m *Matrix, p *Prepared) (err error) {
	split := j.Split
	if split == nil {
		split = func(m *Matrix) (Split, error) { return SplitByShare(m, 0.7, 0.15) }
	}
	s, err := split(m)
	if err != nil {
		return err
	}
	if p.Train, p.Valid, p.Test, err = s.Apply(m); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		m    *Matrix
	}{{"train", p.Train}, {"test", p.Test}} {
		if part.m.Rows() == 0 {
			return fmt.Errorf("%w: the %s part is empty: train before %s, validation before %s, test from there on",
				ErrNoRows, part.name, s.TrainTo.UTC().Format(time.RFC3339), s.ValidTo.UTC().Format(time.RFC3339))
		}
	}
	if err := Prepare(p.Train, p.Task); err != nil {
		return fmt.Errorf("the training part: %w", err)
	}
	return nil
}

// Train does a job: read, check, fit, evaluate, gate, pack. What happens is
// recorded as it happens. The artefact is complete but not written: a run that
// failed leaves nothing behind. Result.Run is set also with an error.
func Train(ctx context.Context, owner string, j Job, rec Record) (*Result, error) {
	t := newRunning(owner, &j, rec)
	if err := t.save(); err != nil {
		return &Result{Run: t.run}, err
	}
	p, err := j.Load(ctx)
	if err != nil {
		return t.finish(nil, err)
	}
	return t.fit(ctx, p)
}

// TrainPrepared is Train on rows that were loaded before, for searches.
func TrainPrepared(ctx context.Context, owner string, j Job, p *Prepared, rec Record, stop func(round int, value float64) bool) (*Result, error) {
	t := newRunning(owner, &j, rec)
	t.stop = stop
	if err := t.save(); err != nil {
		return &Result{Run: t.run}, err
	}
	return t.fit(ctx, p)
}

// running is one run under way.
type running struct {
	job  *Job
	rec  Record
	run  Run
	told time.Time                           // when progress was recorded last
	stop func(round int, value float64) bool // the search's opinion
}

func newRunning(owner string, j *Job, rec Record) *running {
	now := time.Now()
	run := Run{ID: NewRunID(), Namespace: j.Namespace, Job: j.Name, Parent: j.Parent, Tags: j.Tags, Created: now}
	if j.Run != nil {
		run = *j.Run
	}
	run.Owner, run.State, run.Started, run.Params = owner, Running, now, j.Params
	if j.Backend != nil {
		run.Backend = j.Backend.Name()
	}
	return &running{job: j, rec: rec, run: run}
}

func (t *running) save() error {
	t.run.Revision++
	if t.rec.Run == nil {
		return nil
	}
	if err := t.rec.Run(t.run); err != nil {
		return fmt.Errorf("record run %s: %w", t.run.ID, err)
	}
	return nil
}

// finish records how the run ended.
func (t *running) finish(res *Result, err error) (*Result, error) {
	t.run.State, t.run.Finished = stateOf(err), time.Now()
	t.run.Cost.Wall = t.run.Finished.Sub(t.run.Started).Seconds()
	if err != nil {
		t.run.Error = err.Error()
		res = &Result{}
	}
	err = errors.Join(err, t.save())
	res.Run = t.run
	return res, err
}

func (t *running) fit(ctx context.Context, p *Prepared) (*Result, error) {
	params := t.job.Params
	params.Task = p.Task
	t.run.Params, t.run.Data, t.run.Metric = params, p.Data, params.Metric
	if t.run.Metric == "" {
		t.run.Metric = metricOf(p.Task)
	}
	for _, l := range p.Leaks {
		t.run.Warnings = append(t.run.Warnings, l.String())
	}
	data := Data{Train: p.Train, Valid: p.Valid, Golden: goldenRows(p.Train)}
	f, err := t.job.Backend.Fit(ctx, data, params, t.watch(params))
	if err != nil {
		return t.finish(nil, err)
	}
	t.run.Backend, t.run.Device, t.run.Rounds, t.run.Cost = f.Backend, f.Device, f.Rounds, f.Cost
	t.run.Warnings = append(t.run.Warnings, f.Warnings...)
	res := &Result{Leaks: p.Leaks}
	if res.Artifact, err = pack(f, data, params); err != nil {
		return t.finish(nil, err)
	}
	if err := t.judge(res, p); err != nil {
		return t.finish(nil, err)
	}
	t.describe(res)
	if _, err := res.Artifact.Files(); err != nil { // the golden rows, on the runtime that will serve
		return t.finish(nil, err)
	}
	return t.finish(res, t.deliver(ctx, res))
}

func (t *running) deliver(ctx context.Context, res *Result) error {
	if t.job.Deliver == nil {
		return nil
	}
	return t.job.Deliver(ctx, &t.run, res)
}

// judge evaluates on the test and asks the gate.
func (t *running) judge(res *Result, p *Prepared) error {
	predictor, err := res.Artifact.Predictor(model.DefaultLimits())
	if errors.Is(err, model.ErrNoPredictor) {
		t.run.Warnings = append(t.run.Warnings, "not evaluated: no Go predictor for ONNX; the serving runtime must do it")
		return nil
	}
	if err != nil {
		return err
	}
	quantiles := t.run.Params.Quantiles
	if res.Report, err = Evaluate(predictor, p.Test, p.Train, p.Task, quantiles, t.job.Segments); err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	t.run.Metrics = map[string]map[string]float64{"test": res.Report.Metrics, "baseline": res.Report.Baseline}
	if p.Valid.Rows() > 0 {
		valid, err := Measure(p.Valid, p.Task, PredictAll(predictor, p.Valid), quantiles)
		if err != nil {
			return err
		}
		t.run.Metrics["valid"] = valid
	}
	if err := t.beside(res.Report, p, quantiles); err != nil {
		return err
	}
	t.run.Refused = t.job.Gate.Check(res.Report, p.Leaks, metricOf(p.Task))
	t.run.Passed = len(t.run.Refused) == 0
	return nil
}

// beside measures the live model on the same test rows. One that takes other
// inputs cannot be, which is a warning.
func (t *running) beside(r *Report, p *Prepared, quantiles []float64) error {
	if t.job.Live == nil {
		return nil
	}
	sig := &t.job.Live.Artifact.Signature
	rows := recode(p.Test, sig)
	old, err := t.job.Live.Artifact.Predictor(model.DefaultLimits())
	if rows == nil || err != nil || sig.Task != p.Task || old.Outputs() != t.outputs(p) || !slices.Equal(sig.Outputs[0].Classes, p.Train.Classes) {
		t.run.Warnings = append(t.run.Warnings, fmt.Sprintf("not held against live version %s: it has other inputs or outputs, or no Go predictor", t.job.Live.Version))
		return nil
	}
	live, err := Measure(rows, p.Task, PredictAll(old, rows), quantiles)
	if err != nil {
		return err
	}
	r.Live, t.run.Metrics["live"] = live, live
	return nil
}

// outputs is how many values a model of the job's task answers per row.
func (t *running) outputs(p *Prepared) int {
	switch p.Task {
	case model.MultiClass:
		return len(p.Train.Classes)
	case model.Quantiles:
		return len(t.run.Params.Quantiles)
	}
	return 1
}

// describe fills the card.
func (t *running) describe(res *Result) {
	r := &t.run
	c := &res.Artifact.Card
	*c = model.Card{
		Name: r.Job, Namespace: r.Namespace, Run: r.ID, Created: r.Started, Backend: r.Backend,
		Objective: res.Artifact.Signature.Objective, Params: cardParams(r.Params), Data: r.Data, Device: r.Device,
		Metrics: r.Metrics, Cost: r.Cost, Warnings: r.Warnings,
	}
	if res.Report != nil {
		c.Segments, c.Importance, c.Calibration = res.Report.Segments, res.Report.Importance, res.Report.Calibration
	}
}

func cardParams(p Params) map[string]string {
	out := map[string]string{"task": string(p.Task), "rounds": fmt.Sprint(p.Rounds), "early_stop": fmt.Sprint(p.EarlyStop), "seed": fmt.Sprint(p.Seed)}
	for k, v := range p.Extra {
		out[k] = v
	}
	return out
}

// watch records rounds, logs and checkpoints, and lets the search stop.
func (t *running) watch(p Params) Watch {
	metric := p.Metric
	if metric == "" {
		metric = metricOf(p.Task)
	}
	w := Watch{Resume: t.job.Resume}
	w.Round = func(round int, metrics map[string]map[string]float64) error {
		if err := t.round(round, metrics); err != nil {
			return err
		}
		if v, ok := metrics["valid"][metric]; ok && t.stop != nil && t.stop(round, v) {
			return fmt.Errorf("%w after round %d: %s %.5g", ErrPruned, round, metric, v)
		}
		return nil
	}
	w.Log = func(line string) {
		if t.rec.Log != nil {
			t.rec.Log(t.run.ID, line)
		}
	}
	w.Checkpoint = func(c Checkpoint) error {
		if t.rec.Checkpoint == nil {
			return nil
		}
		return t.rec.Checkpoint(t.run.ID, c)
	}
	return w
}

// progressEvery is how often a run's record follows its rounds.
const progressEvery = time.Second

func (t *running) round(round int, metrics map[string]map[string]float64) error {
	if t.run.Round = round + 1; time.Since(t.told) >= progressEvery {
		t.told = time.Now()
		if err := t.save(); err != nil {
			return err
		}
	}
	if t.rec.Metrics == nil {
		return nil
	}
	var out []Metric
	now := time.Now()
	for set, values := range metrics {
		for name, v := range values {
			out = append(out, Metric{Run: t.run.ID, Key: set + "-" + name, Step: round, Value: v, Time: now})
		}
	}
	return t.rec.Metrics(out)
}
