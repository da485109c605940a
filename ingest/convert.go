package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
)

// ConversionKind is the registry kind that says that the stored rows of a view
// are of its newest version: one definition per view, under its name.
const ConversionKind = "Conversion"

// ConversionSpec says to which version the rows are converted.
type ConversionSpec struct {
	TableID uint64 `json:"table_id"`
}

// Converter makes stored rows of older versions of views rows of the newest. It
// reads them by units of the ledger and decodes them again as events of their
// version, so that what is stored and what comes late are converted by the same
// code. The new rows keep their positions, and so their order; the ledger has
// them under a topic of their own, one row per chunk, last. Rows of units that
// were under way when the version changed are found by the next look. One
// process converts at a time.
type Converter struct {
	c       *Consumer
	decoder *event.Decoder
}

// Converter returns what converts beside the consumer.
func (c *Consumer) Converter() *Converter {
	return &Converter{c: c, decoder: newConvertDecoder(c)}
}

// newConvertDecoder takes times that were taken before.
func newConvertDecoder(c *Consumer) *event.Decoder {
	cfg := c.cfg.Decoder
	cfg.FutureBound = 100 * 365 * 24 * time.Hour
	return event.NewDecoder(cfg)
}

const (
	convertEvery = 2 * time.Second
	convertRows  = 50_000 // a chunk ends at the unit that exceeds them
	convertUnits = 10_000 // looked at at a time
)

// Run converts until ctx ends.
func (v *Converter) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := v.Tick(ctx); err != nil && ctx.Err() == nil {
			v.c.scope.Log.Warn("rows of an older version of a view are not converted yet", telemetry.LogError, err)
		}
		_ = pause(ctx, convertEvery)
	}
}

// Tick converts what there is.
func (v *Converter) Tick(ctx context.Context) error {
	catalog, offset, err := v.c.defs.now()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range catalog.VersionedViews() {
		errs = append(errs, v.view(ctx, catalog, offset, s))
	}
	return errors.Join(errs...)
}

func (v *Converter) view(ctx context.Context, catalog *event.Catalog, offset int64, s *event.Schema) error {
	if err := v.c.sink.Prepare(ctx, append(catalog.Former(s.Namespace, s.Subject), s)); err != nil {
		return err
	}
	prefix := event.ConvertTopicPrefix(s.Namespace, s.TableID)
	for _, former := range catalog.Former(s.Namespace, s.Subject) {
		for {
			units, err := v.c.sink.Unconverted(ctx, former, prefix, convertUnits)
			if err != nil {
				return err
			}
			if len(units) == 0 {
				break
			}
			for len(units) > 0 {
				n := chunk(units)
				if err := v.convert(ctx, catalog, offset, s, former, prefix, units[:n]); err != nil {
					return fmt.Errorf("convert view %s/%s from version %d: %w", s.Namespace, s.Subject, event.ViewVersion(former.TableID), err)
				}
				units = units[n:]
			}
		}
	}
	return v.caughtUp(ctx, s)
}

// chunk is how many units are converted together: those of one partition and
// epoch, up to some rows.
func chunk(units []event.ConvertUnit) int {
	n, rows := 0, int64(0)
	for n < len(units) && rows < convertRows && units[n].Topic == units[0].Topic && units[n].Partition == units[0].Partition && units[n].Epoch == units[0].Epoch {
		rows += units[n].Rows
		n++
	}
	return n
}

// convert stores what becomes of some units' rows, the ledger row last. What a
// broken try left is removed before.
func (v *Converter) convert(ctx context.Context, catalog *event.Catalog, offset int64, s, former *event.Schema, prefix string, units []event.ConvertUnit) error {
	first, last := units[0], units[len(units)-1]
	first.To = last.To
	u := &event.Unit{Topic: prefix + first.Topic, Namespace: s.Namespace, Kind: event.Features, Epoch: first.Epoch}
	stored, err := v.c.sink.Epochs(ctx, u.Topic, first.Partition)
	if err != nil {
		return err
	}
	from := first.From
	for _, e := range stored {
		if e.Epoch == first.Epoch {
			from = e.Next // units between without rows of the view are part of this chunk
		}
	}
	if rows, ledger, err := v.c.sink.Beyond(ctx, u.Topic, first.Partition, first.Epoch, from); err != nil {
		return err
	} else if rows+ledger > 0 {
		if err := v.c.sink.Trim(ctx, u.Topic, first.Partition, first.Epoch, from); err != nil {
			return err
		}
	}
	u.Reset(catalog)
	if err := v.decode(ctx, u, former, first); err != nil {
		return err
	}
	r := u.Ledger()
	r.Partition, r.From, r.To, r.Registry = first.Partition, from, first.To, offset
	r.Dropped = r.To - r.From + 1 - r.Records
	if r.Records == 0 { // its rows were erased or have expired
		now := time.Now().UnixMicro()
		r.MinAppended, r.MaxAppended = now, now
	}
	t := newTokens(fmt.Sprintf("%s-%016x", v.c.cfg.Sink, rand.Uint64()), first.Epoch, "convert", u.Topic, first.Partition, r.From, r.To)
	return v.c.storeUnit(ctx, u, t, r)
}

// decode reads rows as the events that they were. A record that gave several
// counts once.
func (v *Converter) decode(ctx context.Context, u *event.Unit, former *event.Schema, span event.ConvertUnit) error {
	record := int64(-1)
	var text []byte
	for b, err := range v.c.sink.RowsOf(ctx, former, span) {
		if err != nil {
			return err
		}
		appended := b.Columns[event.ColAppended].Int64s
		i := 0
		for row := range b.FeatureRows() {
			row.Version = event.ViewVersion(former.TableID)
			text = event.AppendFeatureJSON(text[:0], row)
			rec := event.Record{Partition: row.Partition, Offset: row.Offset, Time: appended[i], Value: text}
			if row.Offset != record {
				record = row.Offset
				u.Begin(rec, 0)
			}
			v.decoder.DecodePart(u, rec, row.Index, text)
			i++
		}
	}
	return nil
}

// storeUnit writes a unit that did not come from Kafka: tables, dead letters,
// then the ledger row.
func (c *Consumer) storeUnit(ctx context.Context, u *event.Unit, t tokens, r event.LedgerRow) error {
	insert := func(rows int, fn func(context.Context) error) error {
		leave, err := c.turn(ctx, u.Namespace, rows)
		if err != nil {
			return err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, c.cfg.InsertTimeout)
		defer cancel()
		return fn(ctx)
	}
	var list []*event.Schema
	for _, b := range u.Batches {
		list = append(list, b.Schema)
	}
	if err := c.sink.Prepare(ctx, list); err != nil {
		return err
	}
	for _, b := range u.Batches {
		if err := insert(b.Rows, func(ctx context.Context) error { return c.sink.Insert(ctx, t.table(b.Schema.Table()), b) }); err != nil {
			return err
		}
	}
	if len(u.Dead) > 0 {
		if err := c.capDead(ctx, u.Namespace, u.Dead); err != nil {
			return err
		}
		if err := insert(len(u.Dead), func(ctx context.Context) error { return c.sink.InsertDeadLetters(ctx, t.dead(), u.Dead) }); err != nil {
			return err
		}
	}
	return insert(1, func(ctx context.Context) error { return c.sink.InsertLedger(ctx, t.ledger(), r) })
}

// caughtUp says in the registry, once, that nothing older is left to convert:
// online tables then change over.
func (v *Converter) caughtUp(ctx context.Context, s *event.Schema) error {
	for {
		d, ok := v.c.reg.State().Get(ConversionKind, s.Namespace, s.Subject)
		if ok {
			var was ConversionSpec
			if err := json.Unmarshal(d.Spec, &was); err != nil {
				return fmt.Errorf("definition %s %s: %w", ConversionKind, s.Subject, err)
			}
			if was.TableID == s.TableID {
				return nil
			}
		}
		spec, err := json.Marshal(ConversionSpec{TableID: s.TableID})
		if err != nil {
			return err
		}
		_, err = v.c.reg.Apply(ctx, registry.Entry{Kind: ConversionKind, Namespace: s.Namespace, Name: s.Subject, Op: registry.Put, Expect: d.Version, Spec: spec, Who: "ingest", Why: "stored rows are converted"})
		if !isStale(err) {
			return err
		}
	}
}

// CheckConversion tries a view's conversion on its newest stored rows, at most
// limit of each version, and says why the first one fails.
func (c *Consumer) CheckConversion(ctx context.Context, entry event.CatalogEntry, limit int) error {
	catalog, err := event.NewCatalog([]event.CatalogEntry{entry})
	if err != nil {
		return err
	}
	d := newConvertDecoder(c)
	u := &event.Unit{Namespace: entry.Namespace, Kind: event.Features}
	for _, former := range catalog.Former(entry.Namespace, entry.Name) {
		u.Reset(catalog)
		for b, err := range c.sink.NewestRows(ctx, former, limit) {
			if err != nil {
				return err
			}
			appended := b.Columns[event.ColAppended].Int64s
			i := 0
			for row := range b.FeatureRows() {
				row.Version = event.ViewVersion(former.TableID)
				d.Decode(u, event.Record{Time: appended[i], Value: event.AppendFeatureJSON(nil, row)})
				i++
			}
		}
		if n := len(u.Dead); n > 0 {
			return fmt.Errorf("former: of the newest %d stored rows of version %d, %d cannot be converted; the first: %s", u.Counts.Records, event.ViewVersion(former.TableID), n, u.Dead[0].Detail)
		}
	}
	return nil
}
