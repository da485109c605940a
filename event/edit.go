package event

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Effect says what an edit of a definition does to what is stored and served.
type Effect string

// Effects, from the harmless to the impossible.
const (
	EffectNone      Effect = "none"      // text that tools show: nothing is rebuilt
	EffectRead      Effect = "read"      // reading changes at once, stored rows stay as they are
	EffectAlias     Effect = "alias"     // events may use another name for a column
	EffectColumn    Effect = "column"    // a column more: rows before it have null there
	EffectWidening  Effect = "widening"  // Int64 becomes Float64, stored values too
	EffectRetire    Effect = "retire"    // events are refused from now on, stored rows stay
	EffectRetention Effect = "retention" // rows that are older than it are removed, or kept longer, or move to a volume
	EffectOverflow  Effect = "overflow"  // values go to the overflow column from now on
	EffectSignature Effect = "signature" // a model's versions get another input table
	EffectVersion   Effect = "version"   // rows get the columns of a new version, stored ones by conversion
	EffectRefused   Effect = "refused"   // stored rows contradict it: a new view or signature is needed
)

// Edit is one difference between two versions of a definition.
type Edit struct {
	Path   string `json:"path"` // columns.price.type
	Was    string `json:"was,omitempty"`
	Now    string `json:"now,omitempty"`
	Effect Effect `json:"effect"`
	Remedy string `json:"remedy,omitempty"` // of a refused one
}

// CompareSpecs lists what differs between two specs of a view or a model, in a
// stable order, and says of each difference what it does. Specs of other kinds
// are compared member by member, and everything is [EffectRead].
func CompareSpecs(kind string, was, now json.RawMessage) ([]Edit, error) {
	switch kind {
	case FeatureViewKind:
		a, err := ParseView(was)
		if err != nil {
			return nil, err
		}
		b, err := ParseView(now)
		if err != nil {
			return nil, err
		}
		return compareViews(a, b), nil
	case ModelKind:
		a, err := ParseModel(was)
		if err != nil {
			return nil, err
		}
		b, err := ParseModel(now)
		if err != nil {
			return nil, err
		}
		return compareModels(a, b), nil
	}
	return compareMembers(was, now)
}

func compareViews(a, b *ViewSpec) []Edit {
	c := &comparison{}
	c.ownership(a.Ownership, b.Ownership)
	c.plain("origin", a.Origin, b.Origin, EffectRead)
	c.keys(a.Keys, b.Keys)
	c.from(a, b)
	if a.From != nil && b.From != nil {
		c.outsideFields("columns", a.Columns, b.Columns)
	} else {
		c.versions(a, b)
	}
	c.plain("ttl", a.TTL, b.TTL, EffectRead)
	c.plain("online", a.Online, b.Online, EffectRead)
	c.retired("retired", a.Retired, b.Retired)
	c.plain("retention", a.Retention, b.Retention, EffectRetention)
	return c.edits
}

func compareModels(a, b *ModelSpec) []Edit {
	c := &comparison{}
	c.ownership(a.Ownership, b.Ownership)
	c.plain("origin", a.Origin, b.Origin, EffectRead)
	c.plain("task", a.Task, b.Task, EffectRead)
	c.plain("labels", a.Labels, b.Labels, EffectRead)
	c.retired("retired", a.Retired, b.Retired)
	c.plain("retention", a.Retention, b.Retention, EffectRetention)
	for _, sig := range b.Signatures {
		path := fmt.Sprintf("signatures.%d", sig.ID)
		i := slices.IndexFunc(a.Signatures, func(o SignatureSpec) bool { return o.ID == sig.ID })
		if i < 0 {
			c.add(path, "", fmt.Sprintf("%d columns, versions %s", len(sig.Columns), strings.Join(sig.Versions, ", ")), EffectSignature)
			continue
		}
		c.fields(path+".columns", a.Signatures[i].Columns, sig.Columns)
		c.plain(path+".versions", strings.Join(a.Signatures[i].Versions, ", "), strings.Join(sig.Versions, ", "), EffectSignature)
	}
	for _, sig := range a.Signatures {
		if !slices.ContainsFunc(b.Signatures, func(o SignatureSpec) bool { return o.ID == sig.ID }) {
			c.add(fmt.Sprintf("signatures.%d", sig.ID), strings.Join(sig.Versions, ", "), "", EffectSignature)
		}
	}
	return c.edits
}

type comparison struct{ edits []Edit }

func (c *comparison) add(path, was, now string, e Effect) {
	c.edits = append(c.edits, Edit{Path: path, Was: was, Now: now, Effect: e})
}

func (c *comparison) refuse(path, was, now, remedy string) {
	c.edits = append(c.edits, Edit{Path: path, Was: was, Now: now, Effect: EffectRefused, Remedy: remedy})
}

func (c *comparison) plain(path string, was, now any, e Effect) {
	if !reflect.DeepEqual(was, now) {
		c.add(path, plain(was), plain(now), e)
	}
}

func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.Trim(string(b), `"`)
}

func (c *comparison) ownership(a, b Ownership) {
	for _, f := range []struct{ name, was, now string }{
		{"description", a.Description, b.Description}, {"owner", a.Owner, b.Owner}, {"team", a.Team, b.Team}, {"tier", a.Tier, b.Tier},
		{"runbook", a.Runbook, b.Runbook}, {"contact", a.Contact, b.Contact},
	} {
		c.plain(f.name, f.was, f.now, EffectNone)
	}
	if len(a.Tags)+len(b.Tags) > 0 {
		c.plain("tags", a.Tags, b.Tags, EffectNone)
	}
}

func (c *comparison) retired(path string, was, now bool) {
	effect := EffectRetire
	if was {
		effect = EffectRead
	}
	c.plain(path, was, now, effect)
}

const newView = "the key is what rows are stored by: define a view of another name, and retire this one"

func (c *comparison) keys(a, b []FieldSpec) {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			c.refuse("keys."+b[i].Name, "", b[i].Type.String(), newView)
		case i >= len(b):
			c.refuse("keys."+a[i].Name, a[i].Type.String(), "", newView)
		case a[i].Name != b[i].Name:
			c.refuse(fmt.Sprintf("keys[%d]", i), a[i].Name, b[i].Name, newView)
		case a[i].Type != b[i].Type && a[i].Type.Elem != Unknown:
			c.refuse("keys."+a[i].Name+".type", a[i].Type.String(), b[i].Type.String(), newView)
		default:
			c.field("keys."+a[i].Name, a[i], b[i])
		}
	}
}

// fields compares columns by name; their order means nothing.
func (c *comparison) fields(path string, a, b []FieldSpec) {
	for _, now := range b {
		at := path + "." + now.Name
		i := slices.IndexFunc(a, func(f FieldSpec) bool { return f.Name == now.Name })
		if i < 0 {
			c.add(at, "", now.Type.String(), EffectColumn)
			continue
		}
		c.columnType(at+".type", a[i].Type, now.Type)
		c.field(at, a[i], now)
	}
	for _, was := range a {
		if !slices.ContainsFunc(b, func(f FieldSpec) bool { return f.Name == was.Name }) {
			c.add(path+"."+was.Name, was.Type.String(), "", EffectOverflow)
		}
	}
}

func (c *comparison) columnType(path string, was, now ColumnType) {
	switch {
	case was == now:
	case was.Elem == Unknown:
		c.add(path, was.String(), now.String(), EffectColumn)
	case was.List == now.List && was.Elem == Int64 && now.Elem == Float64:
		c.add(path, was.String(), now.String(), EffectWidening)
	default:
		c.refuse(path, was.String(), now.String(), "stored values have the other type: add a column of another name (a source can fill it by an expression), and retire this one")
	}
}

func (c *comparison) field(path string, a, b FieldSpec) {
	c.plain(path+".aliases", strings.Join(a.Aliases, ", "), strings.Join(b.Aliases, ", "), EffectAlias)
	c.plain(path+".fixed", a.Fixed, b.Fixed, EffectRead)
	c.retired(path+".retired", a.Retired, b.Retired)
	c.plain(path+".description", a.Description, b.Description, EffectNone)
}

// compareMembers compares JSON objects by their top members.
func compareMembers(was, now json.RawMessage) ([]Edit, error) {
	var a, b map[string]any
	if err := json.Unmarshal(was, &a); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(now, &b); err != nil {
		return nil, err
	}
	c := &comparison{}
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	owned := []string{"description", "owner", "team", "tier", "runbook", "contact", "tags"}
	for _, name := range names {
		effect := EffectRead
		if slices.Contains(owned, name) {
			effect = EffectNone
		}
		c.plain(name, a[name], b[name], effect)
	}
	return c.edits, nil
}
