package features

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/registry"
)

// View is a feature view.
type View struct {
	Name   string
	UID    uint64
	Spec   *event.ViewSpec
	Schema *event.Schema

	table   rowTable     // nil: not served online
	next    rowTable     // of the view's new version, until stored rows are converted and loaded
	windows *windowTable // of a window view, which has no table and no rows of its own
}

// source is the schema of the stored rows that the view is made of.
func (v *View) source() *event.Schema {
	if v.windows != nil {
		return v.windows.plan.source
	}
	return v.Schema
}

// online reports whether requests can read the view.
func (v *View) online() bool { return v.table != nil || v.windows != nil }

// Windows reports whether the view aggregates another one's rows.
func (v *View) Windows() bool { return v.windows != nil }

// layout is how the view's rows are laid out now.
func (v *View) layout() *layout {
	if v.windows != nil {
		return v.windows.plan.layout
	}
	return v.table.state().layout.Load()
}

// Look looks keys up as of now. rows are there when r is done.
func (v *View) Look(keys *Keys, now int64, rows *Rows, r *Round) {
	if v.windows == nil {
		v.table.look(keys, now, rows, r)
		return
	}
	for i := range keys.Len() {
		v.windows.get(keys.at(i), now, rows)
	}
}

// stats are the size of what is kept online.
func (v *View) stats() Stats {
	if v.windows != nil {
		return v.windows.stats()
	}
	return v.table.Stats()
}

// Expired reports whether a row of event_time is older than the ttl at now.
func (v *View) Expired(eventTime, now int64) bool {
	return v.table != nil && v.table.state().Expired(eventTime, now)
}

// mixed reports whether rows of foreign topics came: an offset then does not
// say of which topic it is.
func (v *View) mixed() bool {
	if v.windows != nil {
		return v.windows.mixed.Load()
	}
	return v.table != nil && v.table.state().mixed.Load()
}

// pushTarget is where rows pushed under one name go.
type pushTarget struct {
	views         []*View
	timestamp     string
	created       string
	createdNeeded bool
}

// book is what one namespace defines, resolved. It is immutable but for the
// rows of its tables and the plans that requests leave behind.
type book struct {
	namespace string
	views     map[string]*View
	services  map[string]*ServiceSpec
	sources   map[string]*pushTarget
	onDemand  map[string]*onDemandView
	joinKeys  map[string]bool   // every key column of every view, and every entity's join key
	entities  map[string]string // entity name → join key
	unkept    map[string]bool   // window views that a shared store does not keep
	plans     planCache
}

// Online holds the online tables of one or more namespaces and what is defined
// about them. Define brings it up to a registry state; everything else may run
// at the same time.
type Online struct {
	books   atomic.Pointer[map[string]*book]
	shared  *SharedStore            // nil: rows are kept in memory
	tables  map[uint64]rowTable     // by table id; owned by Define
	loaded  map[uint64]bool         // tables of new versions that the stored rows are in; owned by who calls Define
	windows map[uint64]*windowTable // by UID; owned by Define
	ids     int64                   // offsets for which window views remember event ids
	defined atomic.Int64            // registry offset that Define has reached
}

// defaultIDs is the id window that ingest has by default.
const defaultIDs = 1_000_000

// NewOnline returns an Online without definitions that keeps rows in memory.
func NewOnline() *Online { return NewOnlineIn(nil) }

// NewOnlineIn returns an Online without definitions that keeps rows in a shared
// store, or in memory if it is nil. A shared store keeps no windows.
func NewOnlineIn(shared *SharedStore) *Online {
	o := &Online{shared: shared, tables: map[uint64]rowTable{}, loaded: map[uint64]bool{}, windows: map[uint64]*windowTable{}, ids: defaultIDs}
	o.books.Store(&map[string]*book{})
	o.defined.Store(-2)
	return o
}

// Define makes the tables and lookups for a registry state. A definition that
// cannot be used is left out, and the joined error names it; the others work.
// Calls must not overlap.
func (o *Online) Define(st *registry.State) error {
	var errs []error
	books := map[string]*book{}
	seen := map[uint64]bool{}
	for _, d := range st.List("", "") {
		b := books[d.Namespace]
		if b == nil {
			b = newBook(d.Namespace)
			books[d.Namespace] = b
		}
		if err := o.define(st, b, d, seen); err != nil {
			errs = append(errs, fmt.Errorf("definition %s %s/%s: %w", d.Kind, d.Namespace, d.Name, err))
		}
	}
	errs = append(errs, o.link(st, books, seen)...)
	o.books.Store(&books)
	for uid, t := range o.tables {
		if !seen[uid] {
			t.Close()
			delete(o.tables, uid)
			delete(o.loaded, uid)
		}
	}
	for uid, t := range o.windows {
		if !seen[uid] {
			t.close()
			delete(o.windows, uid)
		}
	}
	o.defined.Store(st.Offset())
	return errors.Join(errs...)
}

func newBook(namespace string) *book {
	return &book{namespace: namespace, views: map[string]*View{}, services: map[string]*ServiceSpec{},
		sources: map[string]*pushTarget{}, onDemand: map[string]*onDemandView{}, joinKeys: map[string]bool{}, entities: map[string]string{},
		unkept: map[string]bool{}}
}

// define reads what stands on its own: views, services, entities.
func (o *Online) define(st *registry.State, b *book, d registry.Definition, seen map[uint64]bool) (err error) {
	switch d.Kind {
	case event.FeatureViewKind:
		return o.defineView(st, b, d, seen)
	case FeatureServiceKind:
		b.services[d.Name], err = ParseService(d.Spec)
		if err != nil {
			delete(b.services, d.Name)
		}
	case EntityKind:
		e, err := ParseEntity(d.Spec)
		if err != nil {
			return err
		}
		b.entities[d.Name] = e.JoinKey
		b.joinKeys[e.JoinKey] = true
	}
	return err
}

func (o *Online) defineView(st *registry.State, b *book, d registry.Definition, seen map[uint64]bool) error {
	c, err := event.NewCatalog([]event.CatalogEntry{{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec}})
	if err != nil {
		return err
	}
	spec, err := event.ParseView(d.Spec)
	if err != nil {
		return err
	}
	schema := c.View(d.Namespace, d.Name)
	for _, f := range schema.Keys() {
		b.joinKeys[f.Name] = true
	}
	v := &View{Name: d.Name, UID: d.UID, Spec: spec, Schema: schema}
	b.views[d.Name] = v
	former := o.servedBefore(st, d, c.Former(d.Namespace, d.Name), schema)
	if former != nil {
		v.Schema = former
	}
	if !spec.Online {
		return nil
	}
	if former != nil {
		if v.next, err = o.table(schema, spec, seen); err != nil {
			return err
		}
	}
	v.table, err = o.table(v.Schema, spec, seen)
	return err
}

// table finds or makes the online table of a schema.
func (o *Online) table(s *event.Schema, spec *event.ViewSpec, seen map[uint64]bool) (rowTable, error) {
	t := o.tables[s.TableID]
	if t == nil {
		t = o.newTable(s)
		o.tables[s.TableID] = t
	}
	seen[s.TableID] = true
	t.state().SetTTL(time.Duration(spec.TTL))
	return t, t.Evolve(s)
}

// conversionKind is ingest's kind that says to which version a view's stored
// rows are converted.
const conversionKind = "Conversion"

// converted reports whether all stored rows of a view are of a version.
func converted(st *registry.State, d registry.Definition, tableID uint64) bool {
	def, ok := st.Get(conversionKind, d.Namespace, d.Name)
	var spec struct {
		TableID uint64 `json:"table_id"`
	}
	return ok && json.Unmarshal(def.Spec, &spec) == nil && spec.TableID == tableID
}

// servedBefore is the older version of a view that is still served: until the
// stored rows are converted and, where this process has that version's table,
// loaded. It is nil when the newest is served.
func (o *Online) servedBefore(st *registry.State, d registry.Definition, older []*event.Schema, newest *event.Schema) *event.Schema {
	if len(older) == 0 {
		return nil
	}
	before := older[len(older)-1]
	for _, s := range slices.Backward(older) {
		if o.tables[s.TableID] != nil {
			before = s
			break
		}
	}
	if converted(st, d, newest.TableID) && (o.loaded[newest.TableID] || o.tables[before.TableID] == nil) {
		return nil
	}
	return before
}

// changingOver are the views whose stored rows are converted as of a state, and
// whose new table lacks them.
func (o *Online) changingOver(st *registry.State) (out []*View) {
	for _, v := range o.Views("") {
		if v.next == nil {
			continue
		}
		d, ok := st.Get(event.FeatureViewKind, v.Schema.Namespace, v.Name)
		if id := v.next.state().Schema().TableID; ok && !o.loaded[id] && converted(st, d, id) {
			out = append(out, v)
		}
	}
	return out
}

func (o *Online) newTable(s *event.Schema) rowTable {
	if o.shared != nil {
		return o.shared.table(s.TableID, s)
	}
	return NewTable(s, 0)
}

// link resolves what refers to views: window views first, because the others
// may refer to them.
func (o *Online) link(st *registry.State, books map[string]*book, seen map[uint64]bool) (errs []error) {
	note := func(d registry.Definition, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("definition %s %s/%s: %w", d.Kind, d.Namespace, d.Name, err))
		}
	}
	for _, d := range st.List(WindowViewKind, "") {
		if o.shared != nil {
			books[d.Namespace].unkept[d.Name] = true
			note(d, errors.New("a shared online store keeps no windows: the view is not served by this process"))
			continue
		}
		note(d, o.defineWindows(books[d.Namespace], d, seen))
	}
	for _, d := range st.List("", "") {
		note(d, books[d.Namespace].link(d))
	}
	return errs
}

// defineWindows links a window view with its source. A table whose definition
// still keeps the same state stays as it is.
func (o *Online) defineWindows(b *book, d registry.Definition, seen map[uint64]bool) error {
	spec, err := ParseWindow(d.Spec)
	if err != nil {
		return err
	}
	source := b.views[spec.Source]
	switch {
	case b.views[d.Name] != nil:
		return errors.New("a view of that name exists: choose another")
	case source == nil || source.windows != nil:
		return fmt.Errorf("source: no feature view %q", spec.Source)
	case source.Schema.From != nil:
		return fmt.Errorf("source: view %s reads an outside table, of which no windows are kept: name a view that takes events", spec.Source)
	}
	p, err := compileWindow(spec, source.Schema, d.Name, d.UID)
	if err != nil {
		return err
	}
	t := o.windows[d.UID]
	if t == nil || !p.same(t.plan) {
		if t != nil {
			t.close()
		}
		t = newWindowTable(p, o.ids)
		o.windows[d.UID] = t
	}
	seen[d.UID] = true
	b.views[d.Name] = &View{Name: d.Name, UID: d.UID, Spec: &event.ViewSpec{Ownership: spec.Ownership, Origin: event.Declared, Online: true}, Schema: t.plan.schema, windows: t}
	return nil
}

// link reads what refers to views: push sources and on-demand views.
func (b *book) link(d registry.Definition) error {
	switch d.Kind {
	case PushSourceKind:
		return b.linkSource(d)
	case OnDemandViewKind:
		spec, err := ParseOnDemand(d.Spec)
		if err != nil {
			return err
		}
		v, err := newOnDemand(d.Name, spec, b.views)
		if err != nil {
			return err
		}
		b.onDemand[d.Name] = v
	}
	return nil
}

func (b *book) linkSource(d registry.Definition) error {
	spec, err := ParsePushSource(d.Spec)
	if err != nil {
		return err
	}
	t := &pushTarget{timestamp: "event_timestamp", created: "created"}
	if spec.TimestampField != "" {
		t.timestamp = spec.TimestampField
	}
	if spec.CreatedField != "" {
		t.created, t.createdNeeded = spec.CreatedField, true
	}
	for _, name := range spec.Views {
		v := b.views[name]
		if v == nil || v.windows != nil {
			return fmt.Errorf("no view %q that rows can be pushed to", name)
		}
		t.views = append(t.views, v)
	}
	b.sources[d.Name] = t
	return nil
}

// source finds the push target of a name; a view answers to its own.
func (b *book) source(name string) *pushTarget {
	if t := b.sources[name]; t != nil {
		return t
	}
	return b.viewTarget(name)
}

// viewTarget is how rows are written to one view by its name: with the columns
// of the push source that feeds it, if there is one.
func (b *book) viewTarget(name string) *pushTarget {
	v := b.views[name]
	if v == nil || v.windows != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(b.sources)) {
		if t := b.sources[name]; slices.Contains(t.views, v) {
			return &pushTarget{views: []*View{v}, timestamp: t.timestamp, created: t.created, createdNeeded: t.createdNeeded}
		}
	}
	return &pushTarget{views: []*View{v}, timestamp: "event_timestamp", created: "created"}
}

func (o *Online) book(namespace string) *book {
	if b := (*o.books.Load())[namespace]; b != nil {
		return b
	}
	return newBook(namespace)
}

// View returns an online view, or nil.
func (o *Online) View(namespace, name string) *View { return o.book(namespace).served(name) }

func (b *book) served(name string) *View {
	if v := b.views[name]; v != nil && v.online() {
		return v
	}
	return nil
}

// Views returns the online views of a namespace, ordered by name; of all
// namespaces when it is empty.
func (o *Online) Views(namespace string) []*View {
	var out []*View
	for ns, b := range *o.books.Load() {
		if namespace == "" || ns == namespace {
			for _, v := range b.views {
				if v.online() {
					out = append(out, v)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b *View) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(a.Schema.Namespace, b.Schema.Namespace)
	})
	return out
}

// Apply folds a batch of feature rows into its table, if the view is online.
// Rows in memory never fail; after another error the batch is applied again.
func (o *Online) Apply(ctx context.Context, b *event.Batch, now int64) error {
	v := o.View(b.Schema.Namespace, b.Schema.Subject)
	if v == nil || v.table == nil {
		return nil
	}
	for _, t := range []rowTable{v.table, v.next} {
		if t == nil || t.state().Schema().TableID != b.Schema.TableID {
			continue
		}
		if isForeign(b.Topic) {
			t.state().mixed.Store(true)
		}
		if err := t.apply(ctx, b, now); err != nil {
			return err
		}
	}
	return nil
}

// fold folds a batch of feature rows into the windows over its view. Unlike
// Apply it must be given the rows of a partition in order.
func (o *Online) fold(b *event.Batch, now int64) {
	for _, v := range o.book(b.Schema.Namespace).views {
		if w := v.windows; w != nil && w.plan.source.TableID == b.Schema.TableID && w.live.Load() {
			w.apply(b, now)
		}
	}
}

// dormant are the window views that stored rows were not folded into yet.
func (o *Online) dormant(namespace string) (out []*View) {
	for _, v := range o.Views(namespace) {
		if v.windows != nil && !v.windows.live.Load() {
			out = append(out, v)
		}
	}
	return out
}
