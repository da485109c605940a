package event

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// FromSpec says that a view's rows are those of a table outside Kedge, which is
// only ever read. The table is one that the configuration of the installation
// names and allows to the view's namespace.
type FromSpec struct {
	Table     string `json:"table" yaml:"table"`                           // its name in the configuration
	EventTime string `json:"event_time" yaml:"event_time"`                 // column: when a row was true
	Created   string `json:"created,omitempty" yaml:"created,omitempty"`   // column: of rows of one key and time the largest counts; default: event_time
	KnownAt   string `json:"known_at,omitempty" yaml:"known_at,omitempty"` // column: when a row could first be known; default: created, or event_time
	Columns   Names  `json:"columns,omitempty" yaml:"columns,omitempty"`   // columns of the table by key part or column of the view, where the names differ
}

// Names maps one name to another.
type Names map[string]string

// Column is the column of the outside table that a key part or column of the
// view is read from.
func (f *FromSpec) Column(name string) string {
	if c, ok := f.Columns[name]; ok {
		return c
	}
	return name
}

// validateFrom finds what a view over an outside table cannot have.
func (s *ViewSpec) validateFrom() error {
	f := s.From
	if f == nil {
		return nil
	}
	var errs []error
	for what, name := range map[string]string{"table": f.Table, "event_time": f.EventTime} {
		if name == "" {
			errs = append(errs, fmt.Errorf("from: %s is missing", what))
		}
	}
	if s.Origin != Declared {
		errs = append(errs, errors.New("from: nothing is inferred about an outside table: state origin: declared"))
	}
	if s.Online {
		errs = append(errs, errors.New("from: a view over an outside table has no online rows, its rows are read where they lie: leave out online, or send events to a view of its own"))
	}
	if s.Version > 1 || len(s.Former) > 0 {
		errs = append(errs, errors.New("from: a view over an outside table has no versions: convert in the table, or define another view"))
	}
	if s.Retention != (Retention{}) {
		errs = append(errs, errors.New("from: nothing is removed from an outside table: leave out retention"))
	}
	names := map[string]bool{}
	for where, list := range map[string][]FieldSpec{"keys": s.Keys, "columns": s.Columns} {
		for _, c := range list {
			names[c.Name] = true
			if len(c.Aliases) > 0 {
				errs = append(errs, fmt.Errorf("from: %s: %q has aliases, which are for events: name the table's column under from.columns", where, c.Name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Columns)) {
		if !names[name] {
			errs = append(errs, fmt.Errorf("from: columns: the view has no key part or column %q", name))
		}
	}
	return errors.Join(errs...)
}

// from compares where rows come from. Rows that Kedge stores never become an
// outside table's or the reverse: the stored ones would be lost.
func (c *comparison) from(a, b *ViewSpec) {
	switch {
	case (a.From == nil) != (b.From == nil):
		c.refuse("from", plain(a.From), plain(b.From), "a view either stores rows or reads an outside table: define a view of another name, and retire this one")
	case a.From != nil:
		c.plain("from", a.From, b.From, EffectRead)
	}
}

// outsideFields compares columns that are read where they lie: nothing is stored
// that an edit could contradict.
func (c *comparison) outsideFields(path string, a, b []FieldSpec) {
	find := func(list []FieldSpec, name string) (FieldSpec, bool) {
		i := slices.IndexFunc(list, func(f FieldSpec) bool { return f.Name == name })
		if i < 0 {
			return FieldSpec{}, false
		}
		return list[i], true
	}
	for _, now := range b {
		at := path + "." + now.Name
		was, ok := find(a, now.Name)
		if !ok {
			c.add(at, "", now.Type.String(), EffectRead)
			continue
		}
		c.plain(at+".type", was.Type.String(), now.Type.String(), EffectRead)
		c.plain(at+".description", was.Description, now.Description, EffectNone)
	}
	for _, was := range a {
		if _, ok := find(b, was.Name); !ok {
			c.add(path+"."+was.Name, was.Type.String(), "", EffectRead)
		}
	}
}
