package features

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
)

// Deleter deletes entities. A delete is a tombstone in the log: every online
// table and the second online store follow it there, and late rows stay hidden
// behind it. What the tombstone covers is then erased from the store, for good;
// so is, on each further look, what came late.
type Deleter struct {
	store  *store.Store
	online *Online
	source *EventSource
	writer *Writer
	scope  telemetry.Scope
	done   map[uint64]store.TopicEnds // per view: how far its logs were stored when it was last looked at
}

// eraseEvery is between two looks for what tombstones cover.
const eraseEvery = time.Minute

// NewDeleter makes a deleter for the views of o, whose rows src reads.
func NewDeleter(o *Online, src *EventSource, w *Writer, scope telemetry.Scope) *Deleter {
	return &Deleter{store: src.store, online: o, source: src, writer: w, scope: scope, done: map[uint64]store.TopicEnds{}}
}

// Run erases what was deleted until ctx ends.
func (d *Deleter) Run(ctx context.Context) error {
	tick := time.NewTicker(eraseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := d.Tick(ctx, now); err != nil && ctx.Err() == nil {
				d.scope.Log.Warn("deleted entities are not erased from the store yet", telemetry.LogError, err)
			}
		}
	}
}

// Tick erases, of every view with rows that it has not seen, what tombstones
// cover. Ticks must not overlap.
func (d *Deleter) Tick(ctx context.Context, now time.Time) error {
	var errs []error
	for _, v := range d.online.stored("") {
		ends, err := d.store.Ends(ctx, v.Schema) // of sources' topics and imports too: late rows come by any of them
		if err == nil && !ends.Equal(d.done[v.UID]) {
			var n int64
			if n, err = d.store.EraseDeleted(ctx, v.Schema, now.UnixMicro()); err == nil {
				d.done[v.UID] = ends
			}
			if n > 0 {
				d.scope.Log.Info("rows of deleted entities are erased", "view", v.Name, "rows", n)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Erasure says what deleting an entity took away.
type Erasure struct {
	View string `json:"view"`
	Keys int    `json:"keys"` // keys that got a tombstone
	Rows int64  `json:"rows"` // stored rows that were erased; rows of others that were due too are among them
}

// Delete deletes an entity from every view of a namespace that has all of the
// given key parts (text by join key, as {"driver_id": "1001"}) in its key; a
// composite key goes with each value that its other parts have in the store. It
// returns when the tombstones are readable here and the covered rows erased. When
// that takes longer than wait it returns [ErrBehind]: with what got tombstones,
// if everything did, and Run does the rest; with nothing, if the call has to be
// repeated.
func (d *Deleter) Delete(ctx context.Context, namespace string, parts map[string]string, wait time.Duration) ([]Erasure, error) {
	if len(parts) == 0 {
		return nil, errors.New("delete an entity: no part of its key is given")
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := d.awaitStored(ctx, namespace); err != nil { // keys that only the log holds yet are deleted too
		return nil, err
	}
	var out []Erasure
	var views []*View
	var behind error
	for _, v := range d.online.stored(namespace) {
		if !hasKeys(v.Schema, parts) {
			continue
		}
		n, err := d.bury(ctx, v, parts, wait)
		if errors.Is(err, ErrBehind) { // the tombstones are in the log
			behind, err = err, nil
		}
		if err != nil {
			return nil, fmt.Errorf("delete %v from view %s: %w", parts, v.Name, err)
		}
		views, out = append(views, v), append(out, Erasure{View: v.Name, Keys: n})
	}
	if len(views) == 0 {
		return nil, fmt.Errorf("%w: no view of namespace %s has a key that %v can be a part of", ErrUnknown, namespace, parts)
	}
	if behind != nil {
		return out, behind
	}
	if err := d.awaitStored(ctx, namespace); err != nil {
		return out, err
	}
	for i, v := range views {
		n, err := d.store.EraseDeleted(ctx, v.Schema, time.Now().UnixMicro())
		if err != nil {
			return out, overdue(ctx, err)
		}
		out[i].Rows = n
	}
	return out, nil
}

// overdue puts whatever failed because time was up under [ErrBehind].
func overdue(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("erase deleted rows: %w: %w", ErrBehind, err)
}

// hasKeys reports whether a view's key has all of the parts, and types that
// can hold them.
func hasKeys(s *event.Schema, parts map[string]string) bool {
	for name, text := range parts {
		if !slices.ContainsFunc(s.Keys(), func(f event.Field) bool { return f.Name == name && holdsText(f.Type.Elem, text) }) {
			return false
		}
	}
	return true
}

func holdsText(t event.Type, text string) bool {
	var err error
	switch t {
	case event.Int32:
		_, err = strconv.ParseInt(text, 10, 32)
	case event.Int64:
		_, err = strconv.ParseInt(text, 10, 64)
	case event.Float32, event.Float64:
		_, err = strconv.ParseFloat(text, 64)
	case event.Bool:
		return text == "true" || text == "false"
	case event.Timestamp:
		_, err = event.ParseTime([]byte(text))
	}
	return err == nil
}

// bury writes the tombstones of one view.
func (d *Deleter) bury(ctx context.Context, v *View, parts map[string]string, wait time.Duration) (int, error) {
	if err := d.store.Prepare(ctx, []*event.Schema{v.Schema}); err != nil {
		return 0, err
	}
	var msgs []stream.Message
	for b, err := range d.store.Keys(ctx, v.Schema, parts) {
		if err != nil {
			return 0, err
		}
		for row := range b.Rows {
			r := event.FeatureRow{View: v.Name, EventTime: time.Now().UnixMicro(), Delete: true}
			for i, f := range v.Schema.Keys() {
				r.Key = append(r.Key, event.NamedValue{Name: f.Name, Value: b.Columns[b.Schema.KeyStart()+i].Value(row)})
			}
			envelope := event.AppendFeatureJSON(nil, r)
			at, err := event.AddressOf(envelope)
			if err != nil {
				return 0, err
			}
			msgs = append(msgs, stream.Message{Key: at.Key, Value: envelope})
		}
	}
	return len(msgs), d.writer.Write(ctx, v.Schema.Namespace, msgs, wait)
}

// awaitStored waits until the ledger covers what the log of a namespace holds
// now.
func (d *Deleter) awaitStored(ctx context.Context, namespace string) (err error) {
	defer func() { err = overdue(ctx, err) }()
	topic := FeatureTopic(namespace)
	n, err := d.source.partitions(ctx, topic)
	if err != nil {
		return err
	}
	var tps []stream.TopicPartition
	for p := range int32(n) {
		tps = append(tps, stream.TopicPartition{Topic: topic, Partition: p})
	}
	log, err := d.writer.client.Offsets(ctx, tps...)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		stored, err := d.store.LatestOffsets(ctx, topic, n)
		if err != nil {
			return err
		}
		behind := slices.ContainsFunc(tps, func(tp stream.TopicPartition) bool { return stored[tp.Partition] < log[tp].Last })
		if !behind {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the log is not stored yet: %w", context.Cause(ctx))
		}
	}
}

// stored returns the views of a namespace that have rows of their own, online
// or not, ordered by name; of all namespaces when it is empty.
func (o *Online) stored(namespace string) (out []*View) {
	for ns, b := range *o.books.Load() {
		for _, v := range b.views {
			if v.windows == nil && v.Schema.From == nil && (namespace == "" || ns == namespace) {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b *View) int {
		return slices.Compare([]string{a.Schema.Namespace, a.Name}, []string{b.Schema.Namespace, b.Name})
	})
	return out
}
