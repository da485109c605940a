package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/store"
)

// retentions are what definitions and settings say of how long rows are kept.
type retentions struct {
	own    map[definitionKey]event.Retention // of views, models and namespaces, where they say one
	others time.Duration
}

// definitionKey names a definition.
type definitionKey struct{ kind, namespace, name string }

func (a *App) retentions() *retentions {
	r := &retentions{own: map[definitionKey]event.Retention{}, others: time.Duration(a.settings().Retention.Rows)}
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
	if said, ok := retentionOf(k.kind, spec); ok {
		r.own[k] = said
	}
}

// keep is how the rows of a table are kept; see [store.Keep]. Rows that would be
// removed before they move stay where they are.
func (r *retentions) keep(s *event.Schema) (k store.Kept) {
	kind := event.ModelKind
	if s.Kind == event.Features {
		kind = event.FeatureViewKind
	}
	for _, of := range []definitionKey{{kind, s.Namespace, s.Subject}, {event.NamespaceKind, s.Namespace, s.Namespace}} {
		said := r.own[of]
		if k.For == 0 {
			k.For = time.Duration(said.Rows)
		}
		if k.Volume == "" {
			k.Volume, k.After = said.Volume, time.Duration(said.MoveAfter)
		}
	}
	if k.For == 0 {
		k.For = r.others
	}
	if k.For > 0 && k.After >= k.For {
		k.Volume, k.After = "", 0
	}
	return k
}

// checkVolume refuses a retention that names a volume which there is not.
func (a *App) checkVolume(ctx context.Context, d Definition) error {
	said, ok := retentionOf(d.Kind, d.Spec)
	if !ok || said.Volume == "" || a.store == nil {
		return nil
	}
	have, err := a.store.Volumes(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(have, said.Volume) {
		return fmt.Errorf("retention: volume %q: this installation has none of that name (%s): add it to clickhouse.volumes, or name another", said.Volume, strings.Join(have, ", "))
	}
	return nil
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

// removesOf counts what the retention of a definition would remove, and what it
// would move to another volume, for whoever may set it: others may not know how
// much a namespace holds.
func (a *App) removesOf(ctx context.Context, c auth.Caller, d Definition) (*Removal, *Move) {
	need := auth.Erase
	if d.Kind == event.NamespaceKind {
		need = auth.SystemWrite
	}
	if _, ok := retentionOf(d.Kind, d.Spec); !ok || a.store == nil || !c.May(need) {
		return nil, nil
	}
	home, r := homeOf(c, d.Kind, d.Name), a.retentions()
	r.say(definitionKey{d.Kind, home, d.Name}, d.Spec)
	now := time.Now()
	var shortest, soonest store.Kept // of the tables concerned
	keep := func(s *event.Schema) (k store.Kept) {
		if s.Namespace != home || d.Kind != event.NamespaceKind && (s.Subject != d.Name || (s.Kind == event.Features) != (d.Kind == event.FeatureViewKind)) {
			return k
		}
		k = r.keep(s)
		if k.For > 0 && (shortest.For == 0 || k.For < shortest.For) {
			shortest = k
		}
		if k.Volume != "" && (soonest.Volume == "" || k.After < soonest.After) {
			soonest = k
		}
		return k
	}
	rows, err := a.store.Expired(ctx, now, keep)
	var moving store.Moving
	if err == nil {
		moving, err = a.store.Moves(ctx, now, keep)
	}
	if err != nil {
		a.tel.Scope("app").Log.WarnContext(ctx, "what a retention would remove or move is not known", "kind", d.Kind, "name", d.Name, "error", err)
		return nil, nil
	}
	var removes *Removal // none: all of it is kept for ever, or nothing is stored
	var moves *Move
	if shortest.For > 0 {
		removes = &Removal{Rows: rows, Before: now.Add(-shortest.For).UTC()}
	}
	if soonest.Volume != "" {
		moves = &Move{Rows: moving.Rows, Bytes: moving.Bytes, Volume: soonest.Volume, Before: now.Add(-soonest.After).UTC()}
	}
	return removes, moves
}
