package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/registry"
)

// One process runs the queue, and any may be asked. What another one is asked
// for goes through the registry's log, which all follow: an entry of this kind,
// named after the run, that the runner carries out and deletes.
const askKind = "TrainingRequest"

// ask is such an entry.
type ask struct {
	Op  string `json:"op"` // queue: take the run up; cancel: end it
	Who string `json:"who"`
}

const (
	opQueue  = "queue"
	opCancel = "cancel"
)

// tellRunner asks whichever process runs the queue. It answers before that has
// happened; while no process runs the queue, the next one to do so will.
func (s *Scheduler) tellRunner(ctx context.Context, namespace, id, op, who string) error {
	spec, err := json.Marshal(ask{op, who})
	if err != nil {
		return err
	}
	for {
		d, _ := s.reg.State().Get(askKind, namespace, id)
		_, err = s.reg.Apply(ctx, registry.Entry{Kind: askKind, Namespace: namespace, Name: id, Op: registry.Put, Expect: d.Version, Spec: spec, Who: who})
		if !errors.Is(err, registry.ErrStale) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("ask the process that runs the queue: %w", err)
	}
	return nil
}

// follow hands over every newer state of the registry until ctx ends.
func (s *Scheduler) follow(ctx context.Context, states chan<- *registry.State) {
	st := s.reg.State()
	for {
		select {
		case states <- st:
		case <-ctx.Done():
			return
		}
		var err error
		if st, err = s.reg.Next(ctx, st.Offset()); err != nil {
			return
		}
	}
}

// cancelOwn ends the runs under way here that another process was asked to
// cancel.
func (s *Scheduler) cancelOwn(ctx context.Context, st *registry.State) {
	for _, d := range st.List(askKind, "") {
		var a ask
		if err := event.DecodeStrict(d.Spec, &a); err != nil || a.Op != opCancel {
			continue
		}
		s.mu.Lock()
		own := s.active[d.Name]
		s.mu.Unlock()
		if own != nil {
			own.cancel(fmt.Errorf("%w by %s", errByHand, a.Who))
			s.drop(ctx, d)
		}
	}
}

// answer carries out what other processes were asked for. Runs that another one
// has under way are its own to cancel.
func (s *Scheduler) answer(ctx context.Context, st *registry.State) {
	for _, d := range st.List(askKind, "") {
		var a ask
		err := event.DecodeStrict(d.Spec, &a)
		switch {
		case err != nil:
		case a.Op == opCancel:
			r, getErr := s.Get(ctx, d.Namespace, d.Name)
			if getErr == nil && r.State == Running && !s.owners.gone(r, time.Now(), s.rec.holds(r.ID)) {
				continue
			}
			_, err = s.Cancel(ctx, d.Namespace, d.Name, a.Who)
		default:
			err = s.takeUp(ctx, d.Namespace, d.Name)
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "what another process was asked for was not done", "run", d.Name, "error", err)
		}
		s.drop(ctx, d)
	}
}

// drop takes a request out of the registry.
func (s *Scheduler) drop(ctx context.Context, d registry.Definition) {
	_, err := s.reg.Apply(ctx, registry.Entry{Kind: askKind, Namespace: d.Namespace, Name: d.Name, Op: registry.Delete, Expect: d.Version, Who: "trainer"})
	if err != nil && !errors.Is(err, registry.ErrStale) && ctx.Err() == nil { // a newer request comes with the next state
		s.cfg.Log.WarnContext(ctx, "a request to the trainer stays in the registry", "run", d.Name, "error", err)
	}
}

// takeUp queues a run that another process has recorded.
func (s *Scheduler) takeUp(ctx context.Context, namespace, id string) error {
	r, err := s.Get(ctx, namespace, id)
	if err != nil {
		return err
	}
	if r.State == Queued && r.Spec != nil && !s.known(id) {
		s.enqueue(r)
	}
	return nil
}

// place puts a run that is recorded into the queue: this process's where it runs
// the queue, else the runner's.
func (s *Scheduler) place(ctx context.Context, r Run) error {
	if s.leads.Load() {
		s.enqueue(r)
		return nil
	}
	return s.tellRunner(ctx, r.Namespace, r.ID, opQueue, r.Who)
}
