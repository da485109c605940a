package features

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// foreignTopic is a topic of others, or of pairs, that a Source maps to features.
type foreignTopic struct {
	definition registry.Definition
	spec       *source.Definition
}

// foreignTopics are the topics that sources of the tailed namespaces map to
// features, as ingest reads them: of several sources the oldest has a topic.
func (t *Tail) foreignTopics(s *registry.State) map[string]foreignTopic {
	changed := s.Changed(source.Kind)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.foreign != nil && t.foreignAt == changed {
		return t.foreign
	}
	out := map[string]foreignTopic{}
	for _, d := range s.List(source.Kind, "") {
		spec, err := source.ParseDefinition(d.Spec)
		if err != nil {
			continue // what checks definitions lets none in
		}
		topic := spec.Maps(d.Namespace, d.Name)
		if other, taken := out[topic]; !taken || d.UID < other.definition.UID {
			out[topic] = foreignTopic{d, spec}
		}
	}
	for topic, f := range out {
		features := slices.ContainsFunc(f.spec.Mapping.Events, func(e source.Event) bool { return e.Kind == event.Features.String() })
		if !features || !slices.Contains(t.cfg.Namespaces, f.definition.Namespace) {
			delete(out, topic)
		}
	}
	t.foreign, t.foreignAt = out, changed
	return out
}

// feeding are the topics that bring a view's rows: its own, and those that
// sources map to it.
func (t *Tail) feeding(view *event.Schema) []string {
	out := []string{FeatureTopic(view.Namespace)}
	for topic, f := range t.foreignTopics(t.registry.State()) {
		if f.definition.Namespace == view.Namespace && slices.ContainsFunc(f.spec.Mapping.Events, func(e source.Event) bool { return e.View == view.Subject }) {
			out = append(out, topic)
		}
	}
	return out
}

func isForeign(topic string) bool {
	return !strings.HasPrefix(topic, "kedge.") || source.IsPairsTopic(topic)
}

// storedBefore says, of each foreign topic, up to where its rows are stored.
// Asked before the tables are filled, so that what fills them holds at least
// that much.
func (t *Tail) storedBefore(ctx context.Context, topics map[string]foreignTopic) (map[string]map[int32]int64, error) {
	out := map[string]map[int32]int64{}
	if t.cfg.Stored == nil {
		return out, nil
	}
	for topic := range topics {
		next, err := t.cfg.Stored(ctx, topic)
		if err != nil {
			return nil, fmt.Errorf("find what is stored of %s: %w", topic, err)
		}
		out[topic] = next
	}
	return out, nil
}

// join adds the partitions of a foreign topic to what is read, from what the
// tables hold of it on. A topic that the broker does not have is left out until
// definitions change.
func (t *Tail) join(ctx context.Context, topic string, stored map[int32]int64, starts map[stream.TopicPartition]int64) error {
	counts, err := t.client.Partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("find partitions of %s: %w", topic, err)
	}
	if counts[topic] == 0 {
		t.cfg.Scope.Log.Warn("the broker does not have a source's topic: its features are not online until definitions change again", telemetry.LogTopic, topic)
		return nil
	}
	var tps []stream.TopicPartition
	for p := range counts[topic] {
		tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	offsets, err := t.client.Offsets(ctx, tps...)
	if err != nil {
		return fmt.Errorf("find offsets of %s: %w", topic, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	goal := !t.filled // who joins later makes nobody wait
	for tp, o := range offsets {
		from := min(max(o.First, stored[tp.Partition]), o.Last)
		starts[tp] = from
		p := &position{next: from, read: from, start: from, goal: from, first: o.First}
		if goal {
			p.goal = o.Last
		}
		t.positions[tp] = p
	}
	return nil
}

// rejoin makes what is read follow the sources: a new one's topic is read from
// its beginning, for the tables hold nothing of it yet.
func (t *Tail) rejoin(ctx context.Context, starts map[stream.TopicPartition]int64) error {
	topics := t.foreignTopics(t.registry.State())
	t.mu.Lock()
	followed := map[string]bool{}
	for tp := range starts {
		if _, ok := topics[tp.Topic]; isForeign(tp.Topic) && !ok {
			delete(starts, tp)
			delete(t.positions, tp)
			continue
		}
		followed[tp.Topic] = true
	}
	t.mu.Unlock()
	for topic := range topics {
		if followed[topic] {
			continue
		}
		if err := t.join(ctx, topic, nil, starts); err != nil {
			return err
		}
	}
	return nil
}

// translated is a source's translation as of one version of its definition.
type translated struct {
	*source.Translator
	uid, version uint64
}

// translate decodes the records of a foreign topic as its source says now. A
// record that names a schema for the first time waits for the schema registry.
func (t *Tail) translate(ctx context.Context, d *decoding, tp stream.TopicPartition, records []stream.Record, epoch int32, f foreignTopic) error {
	tr := d.sources[tp.Topic]
	if def := f.definition; tr == nil || tr.uid != def.UID || tr.version != def.Version {
		made, err := source.NewTranslator(f.spec, source.Options{HashKey: t.cfg.HashKey})
		if err != nil {
			return fmt.Errorf("source %s/%s version %d: %w", def.Namespace, def.Name, def.Version, err)
		}
		tr = &translated{made, def.UID, def.Version}
		if d.sources == nil {
			d.sources = map[string]*translated{}
		}
		d.sources[tp.Topic] = tr
	}
	d.unit.Topic, d.unit.Epoch, d.unit.Namespace = tp.Topic, epoch, f.definition.Namespace
	d.unit.Reset(d.catalog.c)
	for i := range records {
		r := &records[i]
		rec := event.Record{Partition: tp.Partition, Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value}
		for {
			err := tr.Translate(&d.unit, d.decoder, rec, r.Headers)
			var need *source.NeedSchemaError
			if err == nil {
				break
			}
			if !errors.As(err, &need) {
				return err
			}
			if err := t.learnSchema(ctx, tr, need.ID); err != nil {
				return err
			}
		}
	}
	d.unit.Proposals = slices.DeleteFunc(d.unit.Proposals, func(p event.Proposal) bool { return p.Kind != event.FeatureViewKind })
	return nil
}

// learnSchema asks the schema registry until it answers.
func (t *Tail) learnSchema(ctx context.Context, tr *translated, id int) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := errors.New("no schema registry is configured")
		if t.cfg.Schemas != nil {
			var text string
			if text, err = t.cfg.Schemas(ctx, id); err == nil {
				_ = tr.AddSchema(id, text) // one that cannot be read makes its records dead letters: ingest says so
				return nil
			}
		}
		t.cfg.Scope.Log.Warn("a source's features wait for the schema registry", "schema", id, telemetry.LogError, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
