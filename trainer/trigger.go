package trainer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/store"
)

// triggered are the ways in which a run starts without a person.
const (
	bySchedule = "schedule"
	byAlert    = "alert"
)

// Limits that a trigger has unless it says otherwise.
const (
	defaultCooldown = time.Hour
	defaultBudget   = 24
	budgetSpan      = 24 * time.Hour
)

// performanceColumn is the column of incidents about a model's performance.
const performanceColumn = "(performance)"

// past is what a trigger needs to know of a job's runs.
type past struct {
	created time.Time
	trigger string
	final   bool
}

// due says whether a trigger starts a run now, and why: never while a run of
// the job is unfinished, within the cool-down, or beyond the budget.
func (t *Trigger) due(defined time.Time, runs []past, incidents []store.Incident, now time.Time) (why string, ok bool) {
	last, spent := defined, 0
	for _, r := range runs {
		if !r.final {
			return "", false
		}
		if r.created.After(last) {
			last = r.created
		}
		if (r.trigger == bySchedule || r.trigger == byAlert) && now.Sub(r.created) < budgetSpan {
			spent++
		}
	}
	if spent >= cmp.Or(t.Budget, defaultBudget) {
		return "", false
	}
	if t.Every > 0 {
		return fmt.Sprintf("every %s", time.Duration(t.Every)), now.Sub(last) >= time.Duration(t.Every)
	}
	if now.Sub(last) < cmp.Or(time.Duration(t.Cooldown), defaultCooldown) && len(runs) > 0 {
		return "", false
	}
	levels := []string{"notice", "warning", "critical"}
	least := slices.Index(levels, cmp.Or(t.Severity, "warning"))
	for _, i := range incidents {
		performance := i.Column == performanceColumn
		wanted := t.Alert == "any" || (t.Alert == "performance") == performance
		if wanted && i.Ended.IsZero() && i.State == "open" && slices.Index(levels, i.Severity) >= least {
			return fmt.Sprintf("incident %s: %s", i.ID, i.Sentence), true
		}
	}
	return "", false
}

// trigger starts the jobs that are due.
func (s *Scheduler) trigger(ctx context.Context, now time.Time) {
	for _, d := range s.reg.State().List(JobKind, "") {
		spec, err := ParseJob(d.Spec)
		if err != nil || len(spec.Triggers) == 0 {
			continue
		}
		if err := s.triggerJob(ctx, d.Namespace, d.Name, spec, time.UnixMicro(d.Time), now); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "a training job could not be triggered", "job", d.Name, "error", err)
		}
	}
}

func (s *Scheduler) triggerJob(ctx context.Context, namespace, name string, spec *JobSpec, defined, now time.Time) error {
	history, err := s.data.Store.JobRuns(ctx, namespace, name, now.Add(-90*24*time.Hour))
	if err != nil {
		return err
	}
	var runs []past
	for _, h := range history {
		runs = append(runs, past{h.Created, h.Trigger, State(h.State).Final()})
	}
	incidents, err := s.data.Store.OpenIncidents(ctx, namespace, subjectsOf(name, spec))
	if err != nil {
		return err
	}
	for i := range spec.Triggers {
		t := &spec.Triggers[i]
		why, ok := t.due(defined, runs, incidents, now)
		if !ok {
			continue
		}
		kind := byAlert
		if t.Every > 0 {
			kind = bySchedule
		}
		r, err := s.Submit(ctx, Request{Namespace: namespace, Name: name, Who: "trigger", Why: why, Trigger: kind})
		if err == nil {
			s.cfg.Log.InfoContext(ctx, "a training job was triggered", "job", name, "run", r.ID, "trigger", kind, "why", why)
		}
		return err
	}
	return nil
}

// subjectsOf are the model and the views whose incidents concern a job.
func subjectsOf(name string, spec *JobSpec) []string {
	out := []string{orText(spec.Model, name)}
	for _, f := range spec.Data.Features {
		if view, _, ok := strings.Cut(f, ":"); ok && !slices.Contains(out, view) {
			out = append(out, view)
		}
	}
	return out
}
