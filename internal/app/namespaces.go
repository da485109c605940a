package app

import (
	"context"
	"fmt"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// homeOf is the registry namespace of a definition that a caller names: the
// caller's own, except for a Namespace, which is held in the one it defines.
func homeOf(c auth.Caller, kind, name string) string {
	if kind == event.NamespaceKind && c.May(auth.SystemWrite) {
		return name
	}
	return c.Namespace
}

// listed are the live definitions that a caller sees: those of its namespace,
// and to whoever administers the installation all namespaces.
func listed(s *registry.State, c auth.Caller, kind string) []registry.Definition {
	out := s.List(kind, c.Namespace)
	if kind != "" && kind != event.NamespaceKind || !c.May(auth.SystemWrite) {
		return out
	}
	for _, d := range s.List(event.NamespaceKind, "") {
		if d.Namespace != c.Namespace {
			out = append(out, d)
		}
	}
	return out
}

// ensureNamespace makes the topics of a namespace that are missing.
func (a *App) ensureNamespace(ctx context.Context, name string) error {
	var specs []stream.TopicSpec
	for _, t := range a.cfg.dataTopics(name) {
		specs = append(specs, t.Spec)
	}
	if err := a.client.EnsureTopics(ctx, specs); err != nil {
		return fmt.Errorf("create the topics of namespace %s: %w", name, err)
	}
	return nil
}

// ensureNamespaces does the same for all that are defined: a restored registry
// may meet a new broker.
func (a *App) ensureNamespaces(ctx context.Context) error {
	for _, d := range a.registry.State().List(event.NamespaceKind, "") {
		if err := a.ensureNamespace(ctx, d.Name); err != nil {
			return err
		}
	}
	return nil
}
