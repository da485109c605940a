package app

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/ingest/pair"
	"github.com/kedge-ml/kedge/stream"
)

// pairsGroup is the group whose member joins requests and responses; the
// positions in their topics are its.
const pairsGroup = "kedge.leases.pairs"

// openPairs prepares what joins the requests and responses of sources.
func (a *App) openPairs(c ingest.Config) (err error) {
	cfg := pair.Config{Group: pairsGroup, Leases: LeasesTopic, Topic: a.cfg.pairsTopic, Schemas: c.Schemas,
		MemoryBytes: int64(a.cfg.Sources.PairMemory), MaxRecord: c.Decoder.MaxRecordBytes - pairMargin, MaxDead: c.Decoder.MaxDeadBytes}
	a.pairer, err = pair.New(cfg, a.client, a.registry, a.producer, a.tel.Scope("ingest"))
	return err
}

// pairMargin is more than what a pair's record has beside its halves.
const pairMargin = 1 << 10

// pairsTopic has a data topic's settings, one partition, and takes the largest
// record that ingest does.
func (c *Config) pairsTopic(name string) stream.TopicSpec {
	spec := c.dataTopics(c.Namespace)[0].Spec
	spec.Name, spec.Partitions = name, 1
	spec.Config["max.message.bytes"] = strconv.FormatInt(int64(c.Ingest.MaxRecord)+64<<10, 10)
	return spec
}

// pairsHealth says whose requests and responses are not joined, and why: a detail,
// since one team's source, whose topic is not there yet, stops nobody else.
func (a *App) pairsHealth(context.Context) PartHealth {
	waiting, sources := 0, a.pairer.Statuses()
	why := ""
	for _, s := range sources {
		waiting += s.Waiting
		if s.Reason != "" {
			why += fmt.Sprintf("; %s/%s: %s", s.Namespace, s.Name, s.Reason)
		}
	}
	return PartHealth{Name: "pairs", Ready: true, Detail: plural(len(sources), "source") + ", " + plural(waiting, "half record") + " waiting" + why}
}

// pairSample is what a sample of a paired source holds.
type pairSample struct {
	records int               // that were read
	pairs   []source.Record   // as their topic has them
	single  int               // without the other half
	refused []source.RowError // that are no halves
}

// rows are those of the pairs, after what cannot be read.
func (s *pairSample) rows(pairs iter.Seq2[source.Row, error]) iter.Seq2[source.Row, error] {
	return func(yield func(source.Row, error) bool) {
		for _, bad := range s.refused {
			if !yield(source.Row{}, bad) {
				return
			}
		}
		pairs(yield)
	}
}

// samplePairs joins what lies in the sample of a paired source: those of its own
// topic that were read already, and those of the responses' topic.
func (a *App) samplePairs(ctx context.Context, d *source.Definition, own []source.Record, n int) (out pairSample, err error) {
	reader, err := source.NewHalfReader(d)
	if err != nil {
		return out, invalid(err)
	}
	waiting := map[string]*source.Half{}
	for _, topic := range d.Topics() {
		records := own
		if topic != d.Topic {
			if records, err = a.sample(ctx, topic, n); err != nil {
				return out, err
			}
		}
		out.records += len(records)
		for _, r := range records {
			var h *source.Half
			err := a.withSchema(ctx, reader.AddSchema, func() (err error) { h, err = reader.Read(topic, r); return err })
			var bad source.RowError
			switch {
			case errors.As(err, &bad):
				out.refused = append(out.refused, bad)
			case err != nil:
				return out, err
			case h == nil:
			case waiting[h.ID] == nil:
				waiting[h.ID] = h
			case waiting[h.ID].Response != h.Response:
				out.pairs = append(out.pairs, pairRecord(waiting[h.ID], h, r.Time))
				delete(waiting, h.ID)
			}
		}
	}
	out.single = len(waiting)
	return out, nil
}

func pairRecord(a, b *source.Half, at int64) source.Record {
	if a.Response {
		a, b = b, a
	}
	return source.Record{Key: []byte(a.ID), Value: source.AppendPair(nil, a, b), Time: at}
}
