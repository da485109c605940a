package ingest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/registry"
)

// definitions keeps the newest catalog, made again only when a definition that
// it reads has changed.
type definitions struct {
	reg *registry.Registry

	mu      sync.Mutex
	changed int64 // what the catalog was made of
	catalog *event.Catalog

	sourcesAt int64 // what the sources were read at
	sources   map[string]mapped

	spacesAt int64 // what the namespaces were read at
	spaces   map[string]*event.NamespaceSpec
}

// mapped is a topic's source.
type mapped struct {
	definition registry.Definition
	spec       *source.Definition
}

// source returns the definition that maps a topic in a state.
func (d *definitions) source(s *registry.State, topic string) (registry.Definition, *source.Definition, bool) {
	changed := s.Changed(source.Kind)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources == nil || d.sourcesAt != changed {
		d.sources, d.sourcesAt = sourcesOf(s), changed
	}
	m, ok := d.sources[topic]
	return m.definition, m.spec, ok
}

// topicsOf are the topics that a namespace's sources map.
func (d *definitions) topicsOf(s *registry.State, namespace string) (topics []string) {
	d.source(s, "")
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, m := range d.sources {
		if m.definition.Namespace == namespace {
			topics = append(topics, topic)
		}
	}
	slices.Sort(topics)
	return topics
}

// space returns what a namespace is entitled to. A definition that cannot be
// read entitles to what none does: what checks definitions lets none in.
func (d *definitions) space(s *registry.State, namespace string) *event.NamespaceSpec {
	changed := s.Changed(event.NamespaceKind)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spaces == nil || d.spacesAt != changed {
		d.spaces, d.spacesAt = map[string]*event.NamespaceSpec{}, changed
		for _, def := range s.List(event.NamespaceKind, "") {
			if spec, err := event.ParseNamespace(def.Spec); err == nil {
				d.spaces[def.Name] = spec
			}
		}
	}
	if spec := d.spaces[namespace]; spec != nil {
		return spec
	}
	return &event.NamespaceSpec{}
}

// sourcesOf reads the sources of a state by topic. Where several name a topic,
// the oldest has it. A definition that cannot be read maps nothing: what checks
// definitions lets none in.
func sourcesOf(s *registry.State) map[string]mapped {
	out := map[string]mapped{}
	for _, d := range s.List(source.Kind, "") {
		spec, err := source.ParseDefinition(d.Spec)
		if err != nil {
			continue
		}
		topic := spec.Maps(d.Namespace, d.Name)
		if other, taken := out[topic]; !taken || d.UID < other.definition.UID {
			out[topic] = mapped{d, spec}
		}
	}
	return out
}

func newDefinitions(reg *registry.Registry) *definitions {
	return &definitions{reg: reg, changed: -2}
}

// now returns the catalog of the present and the registry offset that stands
// for it.
func (d *definitions) now() (*event.Catalog, int64, error) {
	return d.of(d.reg.State())
}

// at returns the catalog as of a registry offset.
func (d *definitions) at(ctx context.Context, offset int64) (*event.Catalog, error) {
	s, err := d.reg.At(ctx, offset)
	if err != nil {
		return nil, err
	}
	c, _, err := d.of(s)
	return c, err
}

func (d *definitions) of(s *registry.State) (*event.Catalog, int64, error) {
	changed := s.Changed(event.CatalogKinds()...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if changed == d.changed {
		return d.catalog, s.Offset(), nil
	}
	var defs []event.CatalogEntry
	for _, kind := range event.CatalogKinds() {
		for _, r := range s.List(kind, "") {
			defs = append(defs, event.CatalogEntry{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, UID: r.UID, Spec: r.Spec})
		}
	}
	c, err := event.NewCatalog(defs)
	if err != nil {
		return nil, 0, fmt.Errorf("definitions as of registry offset %d: %w", s.Offset(), err)
	}
	if changed > d.changed {
		d.changed, d.catalog = changed, c
	}
	return c, s.Offset(), nil
}

// subject is what proposals are grouped by: one definition.
type subject struct{ kind, namespace, name string }

// learn folds what records ask for into the registry and returns when the
// definitions hold it, written by this member or by another.
func (d *definitions) learn(ctx context.Context, proposals []event.Proposal) error {
	bySubject := map[subject][]event.Proposal{}
	var order []subject
	for _, p := range proposals {
		s := subject{p.Kind, p.Namespace, p.Name}
		if bySubject[s] == nil {
			order = append(order, s)
		}
		bySubject[s] = append(bySubject[s], p)
	}
	for _, s := range order {
		if err := d.learnOne(ctx, s, bySubject[s]); err != nil {
			return fmt.Errorf("define %s %s/%s as its events show it: %w", s.kind, s.namespace, s.name, err)
		}
	}
	return nil
}

func (d *definitions) learnOne(ctx context.Context, s subject, proposals []event.Proposal) error {
	for {
		current, _ := d.reg.State().Get(s.kind, s.namespace, s.name)
		_, _, _, spec, err := event.Merge(current.Spec, proposals)
		if err != nil {
			return err
		}
		if string(spec) == string(current.Spec) {
			return nil
		}
		_, err = d.reg.Apply(ctx, registry.Entry{Kind: s.kind, Namespace: s.namespace, Name: s.name, Op: registry.Put,
			Expect: current.Version, Spec: spec, Who: "ingest", Why: "inferred from events"})
		if !isStale(err) {
			return err
		}
	}
}
