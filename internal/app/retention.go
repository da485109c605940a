package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
)

// retentions are what definitions and settings say of how long rows are kept.
type retentions struct {
	own    map[definitionKey]time.Duration // of views, models and namespaces, where they say one
	others time.Duration
}

// definitionKey names a definition.
type definitionKey struct{ kind, namespace, name string }

func (a *App) retentions() *retentions {
	r := &retentions{own: map[definitionKey]time.Duration{}, others: time.Duration(a.settings().Retention.Rows)}
	for _, kind := range []string{event.NamespaceKind, event.FeatureViewKind, event.ModelKind} {
		for _, d := range a.registry.State().List(kind, "") {
			r.say(definitionKey{kind, d.Namespace, d.Name}, d.Spec)
		}
	}
	return r
}

// say takes what a definition says.
func (r *retentions) say(k definitionKey, spec json.RawMessage) {
	delete(r.own, k)
	if said, ok := retentionOf(k.kind, spec); ok && said.Rows > 0 {
		r.own[k] = time.Duration(said.Rows)
	}
}

// keep is how long the rows of a table are kept; see [store.Keep].
func (r *retentions) keep(s *event.Schema) time.Duration {
	kind := event.ModelKind
	if s.Kind == event.Features {
		kind = event.FeatureViewKind
	}
	for _, k := range []definitionKey{{kind, s.Namespace, s.Subject}, {event.NamespaceKind, s.Namespace, s.Namespace}} {
		if d := r.own[k]; d > 0 {
			return d
		}
	}
	return r.others
}

// retentionOf reads what a definition of a kind that has a retention says.
func retentionOf(kind string, spec json.RawMessage) (event.Retention, bool) {
	switch kind {
	case event.NamespaceKind:
		if s, err := event.ParseNamespace(spec); err == nil {
			return s.Retention, true
		}
	case event.FeatureViewKind:
		if s, err := event.ParseView(spec); err == nil {
			return s.Retention, true
		}
	case event.ModelKind:
		if s, err := event.ParseModel(spec); err == nil {
			return s.Retention, true
		}
	}
	return event.Retention{}, false
}

// mayRetain says whether a caller may give a view or model the retention that it
// would have: a shorter one removes rows, a longer one is the installation's cost.
func (a *App) mayRetain(c auth.Caller, d Definition) bool {
	if d.Kind != event.FeatureViewKind && d.Kind != event.ModelKind || c.May(auth.Erase) {
		return true
	}
	live, _ := a.registry.State().Get(d.Kind, homeOf(c, d.Kind, d.Name), d.Name)
	was, _ := retentionOf(d.Kind, live.Spec)
	now, _ := retentionOf(d.Kind, d.Spec)
	return was == now
}

// removesOf counts what the retention of a definition would remove, for whoever may
// set it: others may not know how much a namespace holds.
func (a *App) removesOf(ctx context.Context, c auth.Caller, d Definition) *Removal {
	need := auth.Erase
	if d.Kind == event.NamespaceKind {
		need = auth.SystemWrite
	}
	if _, ok := retentionOf(d.Kind, d.Spec); !ok || a.store == nil || !c.May(need) {
		return nil
	}
	home, r := homeOf(c, d.Kind, d.Name), a.retentions()
	r.say(definitionKey{d.Kind, home, d.Name}, d.Spec)
	now, oldest := time.Now(), time.Duration(0)
	rows, err := a.store.Expired(ctx, now, func(s *event.Schema) time.Duration {
		if s.Namespace != home || d.Kind != event.NamespaceKind && (s.Subject != d.Name || (s.Kind == event.Features) != (d.Kind == event.FeatureViewKind)) {
			return 0
		}
		keep := r.keep(s)
		if keep > 0 && (oldest == 0 || keep < oldest) {
			oldest = keep
		}
		return keep
	})
	if err != nil {
		a.tel.Scope("app").Log.WarnContext(ctx, "what a retention would remove is not known", "kind", d.Kind, "name", d.Name, "error", err)
		return nil
	}
	if oldest == 0 {
		return nil // all of it is kept for ever, or nothing is stored
	}
	return &Removal{Rows: rows, Before: now.Add(-oldest).UTC()}
}
