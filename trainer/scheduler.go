package trainer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

// ErrUnknownRun says that no run has the id.
var ErrUnknownRun = errors.New("unknown run")

// ErrState says that a run is not where the request needs it.
var ErrState = errors.New("the run's state does not allow it")

// SchedulerConfig is what a process trains with.
type SchedulerConfig struct {
	Owner       string               // of this process's life: a run with another one is nobody's
	Capacity    Resources            // what runs may occupy together
	GPUs        []string             // UUIDs of the GPUs in it; a run sees those that it is given
	Quotas      map[string]Resources // per namespace; one that is absent may take all
	Commands    map[string][]string  // programs that jobs may name
	Library     string               // libxgboost; empty: NoLibrary says why
	NoLibrary   error
	Artifacts   *model.Library
	Checkpoints *os.Root
	// Live answers the model in service, nil where there is none.
	Live func(ctx context.Context, namespace, model string) (*Incumbent, error)
	// Deploy carries out [RegisterSpec].Deploy for a version of a model.
	Deploy func(ctx context.Context, v ModelVersion, r Run, how string) error
	Log    *slog.Logger
}

// Scheduler runs training jobs one behind the other or beside each other, as
// capacity and quotas allow: the highest priority first, the oldest among
// equals. Its queue is the stored runs that are not final, so that it outlives
// the process.
type Scheduler struct {
	cfg    SchedulerConfig
	data   *Stored
	reg    *registry.Registry
	rec    *recorder
	wake   chan struct{}
	leads  atomic.Bool // this process runs the queue
	models *Models
	owners owners

	running sync.WaitGroup

	mu     sync.Mutex
	queue  []Run
	active map[string]*active
	// elsewhere are the runs under way in other processes, as of the newest look:
	// they are not of this machine, but of their namespaces' quotas.
	elsewhere []Run
}

// active is a run under way.
type active struct {
	run    Run
	gpus   []string // given to it
	cancel context.CancelCauseFunc
}

// NewScheduler returns a scheduler over stored rows.
func NewScheduler(cfg SchedulerConfig, data *Stored) *Scheduler {
	return &Scheduler{cfg: cfg, data: data, reg: data.Registry, rec: newRecorder(cfg, data.Store), wake: make(chan struct{}, 1),
		models: NewModels(data.Registry), active: map[string]*active{}, owners: newOwners(cfg.Owner)}
}

// Request asks for a run: of a defined job, or of a spec under a name.
type Request struct {
	Namespace, Name string
	Spec            *JobSpec // nil: the definition of that name
	Who, Why        string
	Trigger         string // hand, api, schedule or alert
}

// Submit queues a run. What can be known to be wrong is refused here.
func (s *Scheduler) Submit(ctx context.Context, q Request) (Run, error) {
	if err := event.CheckName(q.Name); err != nil {
		return Run{}, fmt.Errorf("%w: name: %w", ErrParam, err)
	}
	spec := q.Spec
	if spec == nil {
		d, ok := s.reg.State().Get(JobKind, q.Namespace, q.Name)
		if !ok {
			return Run{}, fmt.Errorf("%w: no %s named %q: apply one, or send its spec", ErrUnknownRun, JobKind, q.Name)
		}
		var err error
		if spec, err = ParseJob(d.Spec); err != nil {
			return Run{}, err
		}
	}
	now := time.Now()
	frozen := spec.frozen(q.Name, now)
	frozen.Resources.GPUs = frozen.wantsGPUs(s.limit(q.Namespace).GPUs)
	if err := s.fits(q.Namespace, frozen.Resources); err != nil {
		return Run{}, err
	}
	if _, err := s.backend(&frozen, nil); err != nil {
		return Run{}, err
	}
	r := Run{ID: NewRunID(), Namespace: q.Namespace, Job: q.Name, Owner: s.cfg.Owner, Who: q.Who, Why: q.Why, Trigger: q.Trigger,
		Spec: &frozen, State: Queued, Created: now, Revision: 1, Backend: frozen.Backend, Params: frozen.Params}
	if err := s.rec.run(r); err != nil {
		return Run{}, err
	}
	return r, s.place(ctx, r)
}

// fits refuses what no amount of waiting makes room for.
func (s *Scheduler) fits(namespace string, want Resources) error {
	limit := s.limit(namespace)
	if want.CPUs > limit.CPUs || want.GPUs > limit.GPUs {
		return fmt.Errorf("%w: resources: %d CPUs and %d GPUs asked for; namespace %s may take %d and %d here", ErrParam, want.CPUs, want.GPUs, namespace, limit.CPUs, limit.GPUs)
	}
	return nil
}

// limit is what a namespace may occupy at once.
func (s *Scheduler) limit(namespace string) Resources {
	out := s.cfg.Capacity
	if q, ok := s.cfg.Quotas[namespace]; ok {
		out.CPUs, out.GPUs = min(out.CPUs, q.CPUs), min(out.GPUs, q.GPUs)
	}
	return out
}

func (s *Scheduler) enqueue(r Run) {
	s.mu.Lock()
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.poke()
}

func (s *Scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. hold calls its argument while this process runs the
// queue, and returns when ctx has ended or nothing more can be held. Runs that
// were begun go on when another process takes the queue over; they stop with
// this process, and whoever runs the queue then resumes those that have a
// checkpoint at hand and marks the others.
func (s *Scheduler) Run(ctx context.Context, hold func(ctx context.Context, lead func(context.Context)) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var attending sync.WaitGroup
	attending.Go(func() { s.attend(ctx) })
	err := hold(ctx, func(lease context.Context) { s.lead(lease, ctx) })
	stop()
	attending.Wait()
	s.running.Wait()
	return errors.Join(err, s.rec.flush(context.WithoutCancel(ctx)))
}

// lead runs the queue until the lease ends: it takes up what was left, starts
// what is queued and triggers what is due. Runs live as long as the process.
func (s *Scheduler) lead(lease, process context.Context) {
	s.leads.Store(true) // before the queue is read: what is submitted from here on is this process's
	defer s.leads.Store(false)
	if err := s.recover(lease); err != nil {
		if lease.Err() == nil {
			s.cfg.Log.ErrorContext(lease, "the queue of training runs cannot be read; it is taken up again", "error", err)
			pause(lease, 5*time.Second)
		}
		return
	}
	states := make(chan *registry.State)
	go s.follow(lease, states)
	due := time.NewTicker(10 * time.Second)
	defer due.Stop()
	for {
		s.start(lease, process)
		select {
		case <-lease.Done():
			return
		case <-s.wake:
		case st := <-states:
			s.answer(lease, st)
		case now := <-due.C:
			s.trigger(lease, now)
			s.sweep(lease)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// recover takes up the runs that no process runs any more.
func (s *Scheduler) recover(ctx context.Context) error {
	left, err := s.Runs(ctx, store.AllNamespaces, "", Queued, Running)
	if err != nil {
		return err
	}
	var elsewhere []Run
	for _, r := range left {
		if r.Trigger == ByMLflow || s.known(r.ID) {
			continue // nobody's, or under way here
		}
		if r.State == Queued && r.Spec != nil {
			s.enqueue(r)
			continue
		}
		goesOn, err := s.inherit(ctx, r)
		if err != nil {
			return err
		}
		if goesOn {
			elsewhere = append(elsewhere, r)
		}
	}
	s.note(elsewhere)
	return nil
}

// note keeps the runs that go on in other processes.
func (s *Scheduler) note(elsewhere []Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elsewhere = slices.DeleteFunc(elsewhere, func(r Run) bool { return r.Spec == nil }) // trials take what their search does
}

// sweep takes up the runs whose process has gone since.
func (s *Scheduler) sweep(ctx context.Context) {
	left, err := s.Runs(ctx, store.AllNamespaces, "", Running)
	var elsewhere []Run
	for _, r := range left {
		if r.Trigger == ByMLflow || s.known(r.ID) {
			continue
		}
		goesOn, failed := s.inherit(ctx, r)
		if err = errors.Join(err, failed); goesOn {
			elsewhere = append(elsewhere, r)
		}
	}
	s.note(elsewhere)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "runs of processes that are gone were not taken up; this is tried again", "error", err)
	}
}

// inherit takes up an unfinished run whose process is gone: from its
// checkpoint where there is one here, else it is marked as an orphan. It answers
// whether the run goes on in its process.
func (s *Scheduler) inherit(ctx context.Context, r Run) (goesOn bool, err error) {
	if !s.owners.gone(r, time.Now(), s.rec.holds(r.ID)) {
		return true, nil
	}
	if now, err := s.Get(ctx, r.Namespace, r.ID); err != nil || now.State != Running || now.Revision != r.Revision {
		return false, err // it ended meanwhile
	}
	at, err := loadCheckpoint(s.cfg.Checkpoints, r.ID)
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "a checkpoint cannot be read; the run is not resumed", "run", r.ID, "error", err)
	}
	if err != nil || at == nil || r.Spec == nil {
		return false, s.rec.run(orphan(r, time.Now()))
	}
	r.State, r.Resumed, r.Revision = Queued, r.Resumed+1, r.Revision+1
	if err := s.rec.run(r); err != nil {
		return false, err
	}
	s.enqueue(r)
	return false, nil
}

func (s *Scheduler) known(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[id] != nil || slices.ContainsFunc(s.queue, func(r Run) bool { return r.ID == id })
}

// start begins every queued run that there is room for. That it runs here is
// recorded first, so that whoever reads the queue next does not begin it too.
func (s *Scheduler) start(lease, process context.Context) {
	for lease.Err() == nil {
		r, gpus, runCtx, ok := s.next(process)
		if !ok {
			return
		}
		r.State, r.Owner, r.Revision = Running, s.cfg.Owner, r.Revision+1
		if err := s.rec.begin(r); err != nil {
			s.cfg.Log.WarnContext(lease, "a run cannot be recorded as begun; it waits on", "run", r.ID, "error", err)
			s.end(r.ID)
			r.State = Queued
			s.enqueue(r)
			pause(lease, time.Second)
			return
		}
		s.running.Go(func() {
			s.execute(runCtx, r, gpus)
			s.end(r.ID)
			s.poke()
		})
	}
}

// end forgets a run that was under way.
func (s *Scheduler) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[id].cancel(nil)
	delete(s.active, id)
	s.rec.forget(id)
}

// next takes the run to start now. A run that waits for its namespace's quota
// is passed over; one that waits for capacity is not, or small runs would keep
// a large one waiting for ever. It is given GPUs that no other run has.
func (s *Scheduler) next(ctx context.Context) (Run, []string, context.Context, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return Run{}, nil, nil, false
	}
	var runs []Run
	for _, a := range s.active {
		runs = append(runs, a.run)
	}
	at := pick1(s.queue, runs, s.elsewhere, s.cfg.Capacity, s.limit)
	if at < 0 {
		return Run{}, nil, nil, false
	}
	r := s.queue[at]
	s.queue = slices.Delete(s.queue, at, at+1)
	gpus := s.free(r.Spec.Resources.GPUs)
	runCtx, cancel := context.WithCancelCause(ctx)
	s.active[r.ID] = &active{r, gpus, cancel}
	return r, gpus, runCtx, true
}

// free picks n GPUs that no run holds; nil on a machine that has none to give.
func (s *Scheduler) free(n int) []string {
	if len(s.cfg.GPUs) == 0 {
		return nil
	}
	held := map[string]bool{}
	for _, a := range s.active {
		for _, g := range a.gpus {
			held[g] = true
		}
	}
	out := []string{}
	for _, g := range s.cfg.GPUs {
		if len(out) < n && !held[g] {
			out = append(out, g)
		}
	}
	return out
}

// pick1 is the place in the queue of the run to start beside those that run here
// and, for the quota of its namespace, elsewhere; -1: none.
func pick1(queue, running, elsewhere []Run, capacity Resources, limit func(namespace string) Resources) int {
	order := make([]int, len(queue))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if d := queue[b].Spec.Priority - queue[a].Spec.Priority; d != 0 {
			return d
		}
		return queue[a].Created.Compare(queue[b].Created)
	})
	for _, i := range order {
		want := queue[i].Spec.Resources
		var all, own Resources
		for _, r := range running {
			all.add(r.Spec.Resources)
			if r.Namespace == queue[i].Namespace {
				own.add(r.Spec.Resources)
			}
		}
		for _, r := range elsewhere {
			if r.Namespace == queue[i].Namespace {
				own.add(r.Spec.Resources)
			}
		}
		own.add(want)
		if q := limit(queue[i].Namespace); q.CPUs < capacity.CPUs && own.CPUs > q.CPUs || q.GPUs < capacity.GPUs && own.GPUs > q.GPUs {
			continue
		}
		all.add(want)
		if all.CPUs > capacity.CPUs || all.GPUs > capacity.GPUs {
			return -1
		}
		return i
	}
	return -1
}

func (r *Resources) add(o Resources) { r.CPUs, r.GPUs = r.CPUs+o.CPUs, r.GPUs+o.GPUs }

// errByHand is why a cancelled run ended.
var errByHand = errors.New("cancelled on request")

// Cancel ends a run between rounds, or takes it out of the queue.
func (s *Scheduler) Cancel(ctx context.Context, namespace, id, who string) (Run, error) {
	r, err := s.Get(ctx, namespace, id)
	if err != nil {
		return r, err
	}
	if r.State.Final() {
		return r, fmt.Errorf("%w: run %s has %s", ErrState, id, r.State)
	}
	s.mu.Lock()
	a := s.active[id]
	at := slices.IndexFunc(s.queue, func(q Run) bool { return q.ID == id })
	if at >= 0 {
		s.queue = slices.Delete(s.queue, at, at+1)
	}
	s.mu.Unlock()
	if a != nil {
		a.cancel(fmt.Errorf("%w by %s", errByHand, who))
		return r, nil
	}
	if at < 0 && (!s.leads.Load() || r.State == Running && !s.owners.gone(r, time.Now(), s.rec.holds(id))) {
		return r, s.tellRunner(ctx, namespace, id, opCancel, who)
	}
	if at < 0 && r.State == Running {
		return r, fmt.Errorf("%w: run %s is run by no process: the next start of the trainer marks it as orphaned", ErrState, id)
	}
	r.State, r.Finished, r.Revision, r.Error = Cancelled, time.Now(), r.Revision+1, "taken out of the queue by "+who
	return r, s.rec.run(r)
}

// Resume queues a failed or cancelled run again: from its newest checkpoint, or
// from the beginning, on the very rows that it read.
func (s *Scheduler) Resume(ctx context.Context, namespace, id string) (Run, error) {
	r, err := s.Get(ctx, namespace, id)
	if err != nil {
		return r, err
	}
	if !r.State.Final() || r.State == Succeeded || r.Spec == nil {
		return r, fmt.Errorf("%w: run %s has %s: only failed and cancelled runs of jobs are resumed", ErrState, id, r.State)
	}
	r.State, r.Finished, r.Error, r.Resumed, r.Revision = Queued, time.Time{}, "", r.Resumed+1, r.Revision+1
	if err := s.rec.run(r); err != nil {
		return r, err
	}
	return r, s.place(ctx, r)
}
