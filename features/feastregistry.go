package features

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Imported is one definition made of a foreign one; Spec is of the kind's
// type.
type Imported struct {
	Kind string `yaml:"kind"`
	Name string `yaml:"name"`
	Spec any    `yaml:"spec"`
}

// feastImport reads a Feast registry (feast.core.Registry of 0.67, whose field
// numbers stand below).
type feastImport struct {
	entities map[string]message
	out      []Imported
	notes    []string
	pushed   map[string]*PushSourceSpec
}

// ImportFeast turns Feast's registry file into definitions: entities, views,
// push sources and services. notes say what has to be written by hand: on-demand
// views are Python, of which the names, types and text are told.
func ImportFeast(registry []byte) (defs []Imported, notes []string, err error) {
	r, err := parseMessage(registry)
	if err != nil {
		return nil, nil, fmt.Errorf("feast registry: %w", err)
	}
	if len(r[6])+len(r[14])+len(r[7]) == 0 {
		return nil, nil, fmt.Errorf("feast registry: it has no feature views or services: run feast apply first")
	}
	im := &feastImport{entities: map[string]message{}, pushed: map[string]*PushSourceSpec{}}
	for _, e := range r.all(1) {
		im.entity(e.one(1))
	}
	for _, v := range r.all(6) {
		s := v.one(1)
		im.view(s, feastView{ttl: s.one(6), online: s.number(8) != 0, push: s.one(9), columns: s.all(12), disabled: s.number(20) != 0}, s.text(10), s.text(11))
	}
	for _, v := range r.all(14) {
		s := v.one(1)
		im.view(s, feastView{ttl: s.one(9), online: s.number(12) != 0, push: s.one(11), columns: s.all(5), disabled: s.number(23) != 0}, s.text(6), s.text(8))
		if len(s[15]) > 0 {
			im.note("stream view %s has aggregations: write a WindowView over %[1]s", s.text(1))
		}
	}
	for _, name := range sortedNames(im.pushed) {
		im.out = append(im.out, Imported{PushSourceKind, name, im.pushed[name]})
	}
	for _, v := range r.all(8) {
		im.onDemand(v.one(1))
	}
	for _, s := range r.all(7) {
		im.service(s.one(1))
	}
	return im.out, im.notes, nil
}

func sortedNames[V any](m map[string]V) (names []string) {
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (im *feastImport) note(format string, args ...any) {
	im.notes = append(im.notes, fmt.Sprintf(format, args...))
}

func (im *feastImport) entity(s message) {
	name := s.text(1)
	im.entities[name] = s
	if name == "__dummy" {
		return
	}
	typ, _ := feastType(s.number(2))
	im.out = append(im.out, Imported{EntityKind, name, &EntitySpec{Ownership: event.Ownership{Description: s.text(3), Owner: s.text(10)}, JoinKey: s.text(4), Type: typ}})
}

// feastView is what feature views and stream feature views have under
// different numbers.
type feastView struct {
	ttl, push        message
	online, disabled bool
	columns          []message // of the entities
}

func (im *feastImport) view(s message, v feastView, description, owner string) {
	name := s.text(1)
	if v.disabled {
		im.note("view %s is disabled: left out", name)
		return
	}
	spec := &event.ViewSpec{Ownership: event.Ownership{Description: description, Owner: owner}, Origin: event.Declared, Online: v.online,
		TTL: event.Duration(time.Duration(v.ttl.number(1)) * time.Second)}
	for _, c := range v.columns {
		spec.Keys = append(spec.Keys, im.field(name, c))
	}
	if len(spec.Keys) == 0 {
		for _, e := range s.texts(3) {
			typ, _ := feastType(im.entities[e].number(2))
			spec.Keys = append(spec.Keys, event.FieldSpec{Name: im.entities[e].text(4), Type: typ})
		}
	}
	for _, c := range s.all(4) {
		spec.Columns = append(spec.Columns, im.field(name, c))
	}
	if err := spec.Validate(); err != nil {
		im.note("view %s is left out: %v", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	if !v.online {
		im.note("view %s is not served online (online=False): set online: true to serve it", name)
	}
	im.out = append(im.out, Imported{event.FeatureViewKind, name, spec})
	im.pushSource(name, v.push)
}

func (im *feastImport) pushSource(view string, s message) {
	if s.number(1) != 9 { // PUSH_SOURCE
		return
	}
	p := im.pushed[s.text(20)]
	if p == nil {
		batch := s.one(26)
		p = &PushSourceSpec{TimestampField: batch.text(3), CreatedField: batch.text(5)}
		im.pushed[s.text(20)] = p
	}
	p.Views = append(p.Views, view)
}

func (im *feastImport) field(view string, c message) event.FieldSpec {
	typ, note := feastType(c.number(2))
	if note != "" {
		im.note("view %s: column %s: %s", view, c.text(1), note)
	}
	return event.FieldSpec{Name: c.text(1), Type: typ, Description: c.text(4)}
}

// feastType is a feast.types.ValueType as a column type; the note says what is
// different.
func feastType(n uint64) (t event.ColumnType, note string) {
	scalars := []event.Type{event.Unknown, event.Bytes, event.String, event.Int32, event.Int64, event.Float64, event.Float32, event.Bool, event.Timestamp}
	texts := map[uint64]string{36: "UUID", 37: "TIME_UUID", 44: "DECIMAL", 48: "ZONED_TIMESTAMP"}
	textLists := map[uint64]string{38: "UUID_LIST", 39: "TIME_UUID_LIST", 40: "UUID_SET", 41: "TIME_UUID_SET", 45: "DECIMAL_LIST", 46: "DECIMAL_SET"}
	switch {
	case n >= 1 && n <= 8:
		return event.ColumnType{Elem: scalars[n]}, ""
	case n >= 11 && n <= 18:
		return event.ColumnType{Elem: scalars[n-10], List: true}, ""
	case n >= 22 && n <= 29:
		return event.ColumnType{Elem: scalars[n-21], List: true}, "a set becomes a list"
	case texts[n] != "":
		return event.ColumnType{Elem: event.String}, texts[n] + " becomes text"
	case textLists[n] != "":
		return event.ColumnType{Elem: event.String, List: true}, textLists[n] + " becomes a list of texts"
	case n == 32:
		return event.ColumnType{Elem: event.JSON}, ""
	}
	return event.ColumnType{Elem: event.JSON}, "a map, struct or list of lists becomes Json"
}

func (im *feastImport) service(s message) {
	spec := &ServiceSpec{Ownership: event.Ownership{Description: s.text(5), Owner: s.text(6)}}
	for _, p := range s.all(3) {
		view := p.text(1)
		if alias := p.text(3); alias != "" && alias != view {
			im.note("service %s reads view %s as %s: there are no aliases; ask for full feature names", s.text(1), view, alias)
		}
		if len(p[4]) > 0 {
			im.note("service %s joins view %s by other keys: send those under the view's own join keys", s.text(1), view)
		}
		for _, c := range p.all(2) {
			spec.Features = append(spec.Features, view+":"+c.text(1))
		}
	}
	if len(spec.Features) > 0 {
		im.out = append(im.out, Imported{FeatureServiceKind, s.text(1), spec})
	}
}

func (im *feastImport) onDemand(s message) {
	var b strings.Builder
	fmt.Fprintf(&b, "on-demand view %s is Python: write an OnDemandView of that name instead, with an expr for each feature:", s.text(1))
	for _, f := range s.all(3) {
		typ, _ := feastType(f.number(2))
		fmt.Fprintf(&b, "\n  {name: %s, type: %s, expr: \"…\"}", f.text(1), typ)
	}
	for _, src := range s.all(4) {
		for _, c := range src.one(2).one(2).one(18).all(3) {
			typ, _ := feastType(c.number(2))
			fmt.Fprintf(&b, "\n  request value: {name: %s, type: %s}", c.text(1), typ)
		}
	}
	text := s.one(10).one(1).text(3)
	if text == "" {
		text = s.one(5).text(3)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		fmt.Fprintf(&b, "\n  | %s", line)
	}
	im.note("%s", b.String())
}
