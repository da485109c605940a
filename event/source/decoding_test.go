package source

import (
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// sums is what a kind's rows add up to.
type sums struct {
	rows        int64
	first, last time.Time
	columns     map[string]float64 // sum of the numeric columns
	years       map[int]int64      // rows per year of event_time
}

// decoding decodes mapped events as ingest does, with definitions inferred.
type decoding struct {
	t     *testing.T
	defs  []event.CatalogEntry
	d     *event.Decoder
	kinds map[event.Kind]*stream
}

type stream struct {
	unit    *event.Unit
	pending []event.Record
	next    int64
	sums    *sums
}

func newDecoding(t *testing.T) *decoding {
	return &decoding{t: t, d: event.NewDecoder(event.DefaultDecoderConfig()), kinds: map[event.Kind]*stream{}}
}

func (c *decoding) add(m Mapped) {
	s := c.kinds[m.Kind]
	if s == nil {
		s = &stream{unit: &event.Unit{Namespace: "default", Kind: m.Kind}, sums: &sums{columns: map[string]float64{}, years: map[int]int64{}}}
		c.kinds[m.Kind] = s
	}
	s.pending = append(s.pending, event.Record{Offset: s.next, Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), Value: append([]byte(nil), m.Text...)})
	s.next++
	if len(s.pending) == 10_000 {
		c.flush(s)
	}
}

func (c *decoding) flush(s *stream) {
	c.t.Helper()
	for range 5 {
		cat, err := event.NewCatalog(c.defs)
		if err != nil {
			c.t.Fatal(err)
		}
		s.unit.Reset(cat)
		for _, r := range s.pending {
			c.d.Decode(s.unit, r)
		}
		if len(s.unit.Proposals) == 0 {
			break
		}
		c.merge(s.unit.Proposals)
	}
	if u := s.unit; len(u.Dead) > 0 || u.Counts.Rows != int64(len(s.pending)) {
		c.t.Fatalf("%+v, first dead letter %s", u.Counts, u.Dead[0].Detail)
	}
	for _, b := range s.unit.Batches {
		s.sums.add(b)
	}
	s.pending = s.pending[:0]
}

func (c *decoding) merge(ps []event.Proposal) {
	for _, p := range ps {
		i := 0
		for ; i < len(c.defs) && (c.defs[i].Kind != p.Kind || c.defs[i].Name != p.Name); i++ {
		}
		if i == len(c.defs) {
			c.defs = append(c.defs, event.CatalogEntry{Kind: p.Kind, Namespace: "default", Name: p.Name, UID: uint64(i + 1)})
		}
		_, _, _, spec, err := event.Merge(c.defs[i].Spec, []event.Proposal{p})
		if err != nil {
			c.t.Fatal(err)
		}
		c.defs[i].Spec = spec
	}
}

func (c *decoding) finish() map[event.Kind]*sums {
	c.t.Helper()
	all := map[event.Kind]*sums{}
	for k, s := range c.kinds {
		c.flush(s)
		all[k] = s.sums
	}
	return all
}

func (s *sums) add(b *event.Batch) {
	s.rows += int64(b.Rows)
	for _, micros := range b.Columns[event.ColEventTime].Int64s {
		at := time.UnixMicro(micros).UTC()
		s.years[at.Year()]++
		if s.first.IsZero() || at.Before(s.first) {
			s.first = at
		}
		if at.After(s.last) {
			s.last = at
		}
	}
	for i, f := range b.Schema.Fields {
		if f.Role == event.System && i < event.FeatureDelete {
			continue
		}
		c := &b.Columns[i]
		for _, v := range c.Float64s {
			s.columns[f.ColumnName()] += v
		}
		for _, v := range c.Int64s {
			s.columns[f.ColumnName()] += float64(v)
		}
	}
}
