package event

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

const newVersion = "write a version above it whose former lists the live columns, with convert for those that differ"

// versions compares what rows of a view look like: columns of the same version,
// or those of the next one.
func (c *comparison) versions(a, b *ViewSpec) {
	was, now := a.Number(), b.Number()
	switch {
	case now < was:
		c.refuse("version", fmt.Sprint(was), fmt.Sprint(now), "stored rows are of the later version: "+newVersion)
		return
	case now == was:
		c.fields("columns", a.Columns, b.Columns)
		c.former(a, b)
		return
	}
	i := slices.IndexFunc(b.Former, func(f FormerSpec) bool { return f.Version == was })
	switch {
	case i < 0:
		c.refuse("version", fmt.Sprint(was), fmt.Sprint(now), fmt.Sprintf("stored rows are of version %d: list it under former with its columns, and convert for those that differ", was))
		return
	case !sameColumns(typed(a.Columns), b.Former[i].Columns):
		c.refuse(fmt.Sprintf("former.%d.columns", was), columnList(typed(a.Columns)), columnList(b.Former[i].Columns), "these must be the columns that are live now")
		return
	}
	c.add("version", fmt.Sprint(was), fmt.Sprint(now), EffectVersion)
	f := b.Former[i]
	for _, t := range b.after(i) {
		at := "columns." + t.Name
		old := slices.IndexFunc(f.Columns, func(o FieldSpec) bool { return o.Name == t.Name })
		before := ""
		if old >= 0 {
			before = f.Columns[old].Type.String()
		}
		if text, ok := f.Convert[t.Name]; ok {
			c.add(at, before, t.Type.String()+" = "+text, EffectVersion)
		} else if before != t.Type.String() {
			c.add(at, before, t.Type.String(), EffectVersion)
		}
	}
	for _, o := range f.Columns {
		if !slices.ContainsFunc(b.after(i), func(t FieldSpec) bool { return t.Name == o.Name }) {
			c.add("columns."+o.Name, o.Type.String(), "", EffectVersion)
		}
	}
	c.former(a, b)
}

// former compares the older versions that both specs list, and those that one
// does not.
func (c *comparison) former(a, b *ViewSpec) {
	for _, f := range a.Former {
		at := fmt.Sprintf("former.%d", f.Version)
		i := slices.IndexFunc(b.Former, func(o FormerSpec) bool { return o.Version == f.Version })
		switch {
		case i < 0:
			c.add(at, columnList(f.Columns), "", EffectRetire)
		case !reflect.DeepEqual(f.Convert, b.Former[i].Convert) || !sameColumns(f.Columns, b.Former[i].Columns):
			c.refuse(at, plain(f.Convert), plain(b.Former[i].Convert), "rows are converted by it already: "+newVersion)
		}
	}
	for _, f := range b.Former {
		known := f.Version == a.Number() || slices.ContainsFunc(a.Former, func(o FormerSpec) bool { return o.Version == f.Version })
		if !known {
			c.refuse(fmt.Sprintf("former.%d", f.Version), "", columnList(f.Columns), "no version of that number was live before this edit")
		}
	}
}

// typed leaves out columns that were only null so far: nothing of them is stored.
func typed(fields []FieldSpec) []FieldSpec {
	return slices.DeleteFunc(slices.Clone(fields), func(f FieldSpec) bool { return f.Type.Elem == Unknown })
}

func sameColumns(a, b []FieldSpec) bool {
	if len(a) != len(b) {
		return false
	}
	for _, f := range a {
		if !slices.ContainsFunc(b, func(o FieldSpec) bool { return o.Name == f.Name && o.Type == f.Type }) {
			return false
		}
	}
	return true
}

func columnList(fields []FieldSpec) string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Name+" "+f.Type.String())
	}
	return strings.Join(out, ", ")
}
