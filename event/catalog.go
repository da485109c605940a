package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Kinds of definitions that a [Catalog] reads, beside [NamespaceKind] and
// [ErasureKind].
const (
	FeatureViewKind = "FeatureView"
	ModelKind       = "Model"
)

// CatalogKinds are all kinds that a [Catalog] reads.
func CatalogKinds() []string { return []string{FeatureViewKind, ModelKind, NamespaceKind, ErasureKind} }

// CatalogEntry is one definition as the registry holds it.
type CatalogEntry struct {
	Kind      string // one of [CatalogKinds]
	Namespace string
	Name      string
	UID       uint64 // never reused; decides the table's name
	Spec      json.RawMessage
}

// Catalog is what the decoder knows of views and models. It is immutable and
// safe for concurrent use; a change of definitions makes a new one.
type Catalog struct {
	spaces  map[string]*space
	schemas []*Schema
}

type space struct {
	views   map[string]*target
	models  map[string]*modelTargets
	columns int64 // of all views and signatures
	series  int64 // how many there may be by inference; 0: no bound
	erased  erasures
}

type modelTargets struct {
	labels   *target
	declared bool
	retired  bool
	versions map[string]*target
	any      *target // signature of the version "*", or nil
}

// target is where events of one table go, with the lookups decoding needs.
type target struct {
	schema   *Schema
	inferred bool
	retired  bool
	draft    bool // stands for a subject that has no definition yet
	stored   int  // slots that have a column
	keys     []slot
	slots    []slot
	names    map[string]int32 // name or alias → index of slots

	version int         // of a view that has versions; else 0
	former  []*target   // of the newest version of a view: the older ones, oldest first
	convert *conversion // of an older one: to the next
}

// slot is one defined column.
type slot struct {
	name    string
	aliases []string
	quoted  string // the name as JSON writes it; empty when that needs escapes
	typ     ColumnType
	col     int32 // index of Batch.Columns; -1 while the type is unknown
	fixed   bool
	retired bool

	plainFloat bool // a stored Float64 column that takes values
}

// PredictionTableID is the table id of one signature of a model.
func PredictionTableID(modelUID uint64, signature int) uint64 {
	return modelUID*(MaxSignatures+1) + uint64(signature)
}

// NewCatalog reads definitions. Entries of other kinds are ignored; a spec
// that does not parse is an error that names it.
func NewCatalog(defs []CatalogEntry) (*Catalog, error) {
	c := &Catalog{spaces: map[string]*space{}}
	for _, d := range defs {
		if err := c.add(d); err != nil {
			return nil, fmt.Errorf("definition %s %s/%s: %w", d.Kind, d.Namespace, d.Name, err)
		}
	}
	slices.SortFunc(c.schemas, func(a, b *Schema) int { return strings.Compare(a.Table(), b.Table()) })
	return c, nil
}

func (c *Catalog) add(d CatalogEntry) error {
	sp := c.spaces[d.Namespace]
	if sp == nil {
		sp = &space{views: map[string]*target{}, models: map[string]*modelTargets{}}
		c.spaces[d.Namespace] = sp
	}
	switch d.Kind {
	case NamespaceKind:
		spec, err := ParseNamespace(d.Spec)
		if err != nil {
			return err
		}
		sp.series = spec.Quotas.Series
	case ErasureKind:
		spec, err := ParseErasure(d.Spec)
		if err != nil {
			return err
		}
		sp.erased.add(spec)
	case FeatureViewKind:
		spec, err := ParseView(d.Spec)
		if err != nil {
			return err
		}
		t, err := newViewTarget(d, spec)
		if err != nil {
			return err
		}
		sp.views[d.Name] = t
		sp.columns += int64(len(spec.Columns))
		c.schemas = append(c.schemas, t.schema)
		for _, f := range t.former {
			c.schemas = append(c.schemas, f.schema)
		}
	case ModelKind:
		spec, err := ParseModel(d.Spec)
		if err != nil {
			return err
		}
		m := newModelTargets(d, spec)
		for _, sig := range spec.Signatures {
			sp.columns += int64(len(sig.Columns))
		}
		sp.models[d.Name] = m
		c.schemas = append(c.schemas, m.schemas(spec)...)
	}
	return nil
}

// newViewTarget makes the targets of a view's versions and returns the newest.
func newViewTarget(d CatalogEntry, spec *ViewSpec) (*target, error) {
	t := newTarget(Features, d, ViewTableID(d.UID, spec.Number()), spec.Keys, spec.Columns, spec.Origin)
	t.retired, t.version, t.schema.From = spec.Retired, spec.Version, spec.From
	for i, f := range spec.Former {
		old := newTarget(Features, d, ViewTableID(d.UID, f.Version), spec.Keys, f.Columns, spec.Origin)
		old.version = f.Version
		var err error
		if old.convert, err = newConversion(f, spec.after(i)); err != nil {
			return nil, err
		}
		t.former = append(t.former, old)
	}
	return t, nil
}

func newModelTargets(d CatalogEntry, spec *ModelSpec) *modelTargets {
	m := &modelTargets{versions: map[string]*target{}, declared: spec.Origin == Declared, retired: spec.Retired}
	m.labels = newTarget(Labels, d, d.UID, nil, nil, spec.Origin)
	m.labels.retired = spec.Retired
	for _, sig := range spec.Signatures {
		t := newTarget(Predictions, d, PredictionTableID(d.UID, sig.ID), nil, sig.Columns, spec.Origin)
		t.retired = spec.Retired
		for _, v := range sig.Versions {
			if v == "*" {
				m.any = t
			}
			m.versions[v] = t
		}
	}
	return m
}

func (m *modelTargets) schemas(spec *ModelSpec) []*Schema {
	list := []*Schema{m.labels.schema}
	for _, sig := range spec.Signatures {
		if len(sig.Versions) > 0 {
			list = append(list, m.versions[sig.Versions[0]].schema)
		}
	}
	return list
}

func newTarget(kind Kind, d CatalogEntry, tableID uint64, keys, columns []FieldSpec, o Origin) *target {
	keyFields, _ := storedFields(keys)
	valueFields, stored := storedFields(columns)
	s := NewSchema(kind, d.Namespace, d.Name, tableID, keyFields, valueFields)
	t := &target{schema: s, inferred: o == Inferred, stored: stored, names: make(map[string]int32, len(columns))}
	t.keys = newSlots(keys, s.KeyStart())
	t.slots = newSlots(columns, s.ValueStart())
	for i, f := range columns {
		t.names[f.Name] = int32(i)
		for _, a := range f.Aliases {
			t.names[a] = int32(i)
		}
	}
	return t
}

func storedFields(specs []FieldSpec) (fields []Field, n int) {
	for _, f := range specs {
		if f.Type.Elem != Unknown {
			fields = append(fields, Field{Name: f.Name, Type: f.Type})
		}
	}
	return fields, len(fields)
}

func newSlots(specs []FieldSpec, first int) []slot {
	slots := make([]slot, len(specs))
	for i, f := range specs {
		slots[i] = slot{name: f.Name, aliases: f.Aliases, typ: f.Type, col: -1, fixed: f.Fixed, retired: f.Retired}
		if !strings.ContainsAny(f.Name, `"\`) {
			slots[i].quoted = `"` + f.Name + `"`
		}
		if f.Type.Elem != Unknown {
			slots[i].col = int32(first)
			slots[i].plainFloat = f.Type == ColumnType{Elem: Float64} && !f.Retired
			first++
		}
	}
	return slots
}

// View returns a view's table, or nil.
func (c *Catalog) View(ns, name string) *Schema {
	if t := c.view(ns, []byte(name)); t != nil {
		return t.schema
	}
	return nil
}

// VersionedViews returns the tables of views with older versions, ordered by
// table.
func (c *Catalog) VersionedViews() (out []*Schema) {
	for _, s := range c.schemas {
		if s.Kind == Features && len(c.Former(s.Namespace, s.Subject)) > 0 && c.View(s.Namespace, s.Subject) == s {
			out = append(out, s)
		}
	}
	return out
}

// Former returns the tables of a view's older versions, oldest first.
func (c *Catalog) Former(ns, name string) (out []*Schema) {
	if t := c.view(ns, []byte(name)); t != nil {
		for _, f := range t.former {
			out = append(out, f.schema)
		}
	}
	return out
}

// Model returns the table of a model version's predictions, or nil.
func (c *Catalog) Model(ns, name, version string) *Schema {
	if m := c.model(ns, []byte(name)); m != nil {
		if t := m.version([]byte(version)); t != nil {
			return t.schema
		}
	}
	return nil
}

// Labels returns the table of a model's labels, or nil.
func (c *Catalog) Labels(ns, model string) *Schema {
	if m := c.model(ns, []byte(model)); m != nil {
		return m.labels.schema
	}
	return nil
}

// Schemas returns every table, ordered by name.
func (c *Catalog) Schemas() []*Schema { return slices.Clone(c.schemas) }

func (c *Catalog) view(ns string, name []byte) *target {
	if sp := c.spaces[ns]; sp != nil {
		return sp.views[string(name)]
	}
	return nil
}

// full reports whether a namespace takes no more subjects by inference.
func (c *Catalog) full(ns string) bool {
	sp := c.spaces[ns]
	return sp != nil && len(sp.views)+len(sp.models) >= MaxSubjects
}

// spent reports whether a namespace's quota of series leaves no room for as many
// columns more.
func (c *Catalog) spent(ns string, more int) (quota int64, over bool) {
	sp := c.spaces[ns]
	if sp == nil || sp.series == 0 {
		return 0, false
	}
	return sp.series, sp.columns+int64(more) > sp.series
}

func (c *Catalog) model(ns string, name []byte) *modelTargets {
	if sp := c.spaces[ns]; sp != nil {
		return sp.models[string(name)]
	}
	return nil
}

func (m *modelTargets) version(v []byte) *target {
	if t := m.versions[string(v)]; t != nil {
		return t
	}
	return m.any
}
