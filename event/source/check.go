package source

import (
	"errors"
	"iter"

	"github.com/kedge-ml/kedge/event"
)

// Report says what a mapping makes of a sample.
type Report struct {
	Rows       int64                // rows looked at
	Silent     int64                // rows that gave no event: filtered, or no label yet
	Events     map[event.Kind]int64 // events that would become rows
	Rejected   int64                // rows that could not be read or mapped, and events that would be dead letters
	Rejections []Rejection          // the first of them
	Samples    []Sample             // the first events
	Proposals  []event.Proposal     // what definitions would be made from the sample
}

// Rejection is one row or event that would not get in.
type Rejection struct {
	Row    int64
	Reason event.Reason
	Detail string
}

// Sample is a mapped event as it would be sent.
type Sample struct {
	Row  int64
	Kind event.Kind
	Time int64 // µs
	Text string
}

// RejectRate is the share of rows and events that would not get in.
func (r *Report) RejectRate() float64 {
	all := r.Rejected
	for _, n := range r.Events {
		all += n
	}
	if all == 0 {
		return 0
	}
	return float64(r.Rejected) / float64(all)
}

const (
	checkListed = 20 // rejections and samples that a report lists
	checkRounds = 4  // decodings until inference settles
)

// Check maps at most limit rows and decodes what they give, with definitions
// inferred from them alone. now, in µs, stands for the broker's clock. An
// error is one of the file; faults of rows are in the report.
func Check(m *Mapper, rows iter.Seq2[Row, error], limit int64, now int64) (*Report, error) {
	c := &checker{report: &Report{Events: map[event.Kind]int64{}}, now: now, texts: map[event.Kind][]Sample{}}
	for row, err := range rows {
		if c.report.Rows == limit {
			break
		}
		c.report.Rows++
		var bad RowError
		if err != nil && !errors.As(err, &bad) {
			return nil, err
		}
		if err == nil {
			err = c.row(m, row)
		}
		if err != nil {
			c.reject(row.Index, reasonOf(err), err.Error())
		}
	}
	return c.report, c.decode()
}

func reasonOf(err error) event.Reason {
	if refused, ok := event.IsRefused(err); ok {
		return refused.Reason
	}
	return event.ReasonType
}

type checker struct {
	report *Report
	now    int64
	texts  map[event.Kind][]Sample
	defs   []event.CatalogEntry
}

func (c *checker) reject(row int64, reason event.Reason, detail string) {
	c.report.Rejected++
	if len(c.report.Rejections) < checkListed {
		c.report.Rejections = append(c.report.Rejections, Rejection{row, reason, detail})
	}
}

func (c *checker) row(m *Mapper, row Row) error {
	events, err := m.Map(row)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		c.report.Silent++
	}
	for _, e := range events {
		s := Sample{row.Index, e.Kind, e.Time, string(e.Text)}
		c.texts[e.Kind] = append(c.texts[e.Kind], s)
		if len(c.report.Samples) < checkListed {
			c.report.Samples = append(c.report.Samples, s)
		}
	}
	return nil
}

func (c *checker) decode() error {
	for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		if len(c.texts[kind]) == 0 {
			continue
		}
		u, err := c.settle(kind)
		if err != nil {
			return err
		}
		c.report.Events[kind] = u.Counts.Rows
		for _, d := range u.Dead {
			c.reject(c.texts[kind][d.Offset].Row, d.Reason, d.Detail)
		}
	}
	return nil
}

// settle decodes one kind until inference proposes nothing more.
func (c *checker) settle(kind event.Kind) (*event.Unit, error) {
	d := event.NewDecoder(event.DefaultDecoderConfig())
	u := &event.Unit{Kind: kind}
	for range checkRounds {
		cat, err := event.NewCatalog(c.defs)
		if err != nil {
			return nil, err
		}
		u.Reset(cat)
		for i, s := range c.texts[kind] {
			d.Decode(u, event.Record{Offset: int64(i), Time: c.now, Value: []byte(s.Text)})
		}
		if len(u.Proposals) == 0 {
			return u, nil
		}
		c.report.Proposals = append(c.report.Proposals, u.Proposals...)
		if err := c.merge(u.Proposals); err != nil {
			return nil, err
		}
	}
	return u, errors.New("check mapping: the sample's types do not settle")
}

func (c *checker) merge(ps []event.Proposal) error {
	for _, p := range ps {
		at := -1
		for i, d := range c.defs {
			if d.Kind == p.Kind && d.Name == p.Name {
				at = i
			}
		}
		if at < 0 {
			at = len(c.defs)
			c.defs = append(c.defs, event.CatalogEntry{Kind: p.Kind, Name: p.Name, UID: uint64(at + 1)})
		}
		_, _, _, spec, err := event.Merge(c.defs[at].Spec, []event.Proposal{p})
		if err != nil {
			return err
		}
		c.defs[at].Spec = spec
	}
	return nil
}
