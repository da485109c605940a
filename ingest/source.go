package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/stream"
)

// route says what a topic's records are, as of now.
func (c *Consumer) route(topic string) (Route, bool) {
	if r, ok := c.cfg.Route(topic); ok {
		return r, true
	}
	d, _, ok := c.defs.source(c.reg.State(), topic)
	return Route{Namespace: d.Namespace, Source: true}, ok
}

// translator is a source's translation as of one version of its definition.
type translator struct {
	*source.Translator
	uid, version uint64
	namespace    string
}

// translate prepares a unit for the records of a source: in the namespace and
// by the mapping that its registry offset has.
func (p *partition) translate(ctx context.Context, w *work) error {
	if !p.route.Source {
		return nil
	}
	s, err := p.c.reg.At(ctx, w.registry)
	if err != nil {
		return err
	}
	d, spec, ok := p.c.defs.source(s, p.tp.Topic)
	if !ok { // deleted: the group's next generation does not have the topic
		p.log().Warn("the source of this topic was deleted: nothing more of it is read")
		<-ctx.Done()
		return ctx.Err()
	}
	if t := p.translator; t == nil || t.uid != d.UID || t.version != d.Version {
		made, err := source.NewTranslator(spec, source.Options{HashKey: p.c.cfg.HashKey})
		if err != nil {
			return fmt.Errorf("source %s/%s version %d: %w", d.Namespace, d.Name, d.Version, err)
		}
		p.translator = &translator{made, d.UID, d.Version, d.Namespace}
	}
	w.unit.Namespace = d.Namespace
	return nil
}

// fill decodes a batch into a unit. A record that names a schema for the first
// time waits for the schema registry, as long as that takes.
func (p *partition) fill(ctx context.Context, w *work, b *stream.Batch) error {
	if !p.route.Source {
		w.add(p.decoder, b)
		return nil
	}
	w.begin()
	for i := range b.Records {
		r := &b.Records[i]
		rec := event.Record{Partition: b.Partition, Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Trace: w.met(r)}
		if len(b.Faults) > 0 && w.unread(p.decoder, b, rec) {
			continue
		}
		for {
			err := p.translator.Translate(&w.unit, p.decoder, rec, r.Headers)
			var need *source.NeedSchemaError
			if err == nil {
				break
			}
			if !errors.As(err, &need) {
				return err
			}
			if err := p.learnSchema(ctx, need.ID); err != nil {
				return err
			}
		}
	}
	w.end(b)
	return nil
}

func (p *partition) learnSchema(ctx context.Context, id int) error {
	return p.c.insist(ctx, p, fmt.Sprintf("ask the schema registry for schema %d", id), func(ctx context.Context) error {
		if p.c.cfg.Schemas == nil {
			return errors.New("no schema registry is configured")
		}
		text, err := p.c.cfg.Schemas(ctx, id)
		if err != nil {
			return err
		}
		if err := p.translator.AddSchema(id, text); err != nil {
			p.log().Warn("a schema cannot be read: its records become dead letters", "schema", id, "error", err)
		}
		return nil
	})
}
