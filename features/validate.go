package features

import (
	"strings"
	"unicode/utf8"
)

// shape is a request body as Feast's server declares it; check reports every
// member that breaks it, the way pydantic does.
type shape []shapeField

type shapeField struct {
	name     string
	required bool
	check    func(n *node, loc []any) []fault
}

// bodies of the paths that take one.
func readShape() shape {
	return shape{
		{"entities", true, checkEntities},
		{"feature_service", false, optional(checkText)},
		{"features", false, listOf(checkText)},
		{"full_feature_names", false, checkFlag},
		{"include_feature_view_version_metadata", false, checkFlag},
		{"include_ages", false, checkFlag},
	}
}

func pushShape(nameField string) shape {
	return shape{
		{nameField, true, checkText},
		{"df", true, checkDict},
		{"allow_registry_cache", false, checkFlag},
		{"to", false, checkText},
		{"transform_on_write", false, checkFlag},
	}
}

func materializeShape(incremental bool) shape {
	end := shapeField{"end_ts", incremental, optional(checkText)}
	if incremental {
		end.check = checkText
	}
	return shape{
		{"start_ts", false, optional(checkText)}, end,
		{"feature_views", false, optional(listOf(checkText))},
		{"disable_event_timestamp", false, checkFlag},
		{"full_feature_names", false, checkFlag},
		{"version", false, optional(checkText)},
	}
}

// parseBody reads a body of a shape: *invalidError with Feast's 422 if it is
// not one.
func parseBody(body []byte, sh shape) (*node, error) {
	if len(body) == 0 {
		return nil, &invalidError{[]fault{{typ: "missing", loc: []any{"body"}, msg: "Field required", input: []byte("null")}}}
	}
	if !utf8.Valid(body) {
		return nil, &apiError{status: 400, message: "There was an error parsing the body"}
	}
	n, bad := parseNode(string(body))
	if bad != nil {
		return nil, &invalidError{[]fault{{typ: "json_invalid", loc: []any{"body", bad.at}, msg: "JSON decode error", input: []byte("{}"), cause: bad.msg}}}
	}
	if faults := sh.check(n); faults != nil {
		return nil, &invalidError{faults}
	}
	return n, nil
}

func (sh shape) check(n *node) (faults []fault) {
	switch n.kind {
	case kindObject:
	default:
		return []fault{newFault(n, []any{"body"}, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from")}
	}
	for _, f := range sh {
		loc := []any{"body", f.name}
		switch m := n.member(f.name); {
		case m != nil:
			faults = append(faults, f.check(m, loc)...)
		case f.required:
			faults = append(faults, newFault(n, loc, "missing", "Field required"))
		}
	}
	return faults
}

func newFault(n *node, loc []any, typ, msg string) fault {
	return fault{typ: typ, loc: loc, msg: msg, input: n.appendJSON(nil)}
}

func checkText(n *node, loc []any) []fault {
	if n.kind == kindString {
		return nil
	}
	return []fault{newFault(n, loc, "string_type", "Input should be a valid string")}
}

func checkDict(n *node, loc []any) []fault {
	if n.kind == kindObject {
		return nil
	}
	return []fault{newFault(n, loc, "dict_type", "Input should be a valid dictionary")}
}

func checkFlag(n *node, loc []any) []fault {
	if _, ok := flagValue(n); ok {
		return nil
	}
	switch n.kind {
	case kindString, kindInteger, kindFloat:
		return []fault{newFault(n, loc, "bool_parsing", "Input should be a valid boolean, unable to interpret input")}
	}
	return []fault{newFault(n, loc, "bool_type", "Input should be a valid boolean")}
}

// flagValue is what pydantic takes for a bool.
func flagValue(n *node) (value, ok bool) {
	word := string(n.raw)
	if n.kind == kindString {
		word = strings.ToLower(n.text)
	}
	switch word {
	case "true", "1", "1.0":
		return true, n.kind != kindString || word != "1.0"
	case "false", "0", "0.0":
		return false, n.kind != kindString || word != "0.0"
	case "t", "y", "yes", "on":
		return true, n.kind == kindString
	case "f", "n", "no", "off":
		return false, n.kind == kindString
	}
	return false, false
}

func optional(check func(*node, []any) []fault) func(*node, []any) []fault {
	return func(n *node, loc []any) []fault {
		if n.kind == kindNull {
			return nil
		}
		return check(n, loc)
	}
}

func listOf(check func(*node, []any) []fault) func(*node, []any) []fault {
	return func(n *node, loc []any) (faults []fault) {
		if n.kind != kindArray {
			return []fault{newFault(n, loc, "list_type", "Input should be a valid list")}
		}
		for i := range n.items {
			faults = append(faults, check(&n.items[i], append(loc[:len(loc):len(loc)], i))...)
		}
		return faults
	}
}

func checkEntities(n *node, loc []any) (faults []fault) {
	if faults = checkDict(n, loc); faults != nil {
		return faults
	}
	anything := listOf(func(*node, []any) []fault { return nil })
	for i, name := range n.names {
		faults = append(faults, anything(&n.items[i], append(loc[:len(loc):len(loc)], name))...)
	}
	return faults
}

// fromNode fills the request from the slow reader's tree.
func (r *request) fromNode(n *node) {
	r.reset()
	r.hasEntity = true
	entities := n.member("entities")
	for i, name := range entities.names {
		if entities.member(name) != &entities.items[i] {
			continue // named again later
		}
		c := r.addEntity(name)
		for j := range entities.items[i].items {
			c.values = append(c.values, entityOf(&entities.items[i].items[j]))
		}
	}
	if f := n.member("features"); f != nil {
		r.features = f.appendJSON(nil)
	}
	if s := n.member("feature_service"); s != nil && s.kind == kindString {
		r.service = []byte(s.text)
	}
	for name, to := range map[string]*bool{"full_feature_names": &r.fullNames, "include_feature_view_version_metadata": &r.versions, "include_ages": &r.ages} {
		if f := n.member(name); f != nil {
			*to, _ = flagValue(f)
		}
	}
}

func entityOf(n *node) entityValue {
	v := entityValue{kind: n.kind, raw: n.raw, i: n.integer, fits: n.fits}
	switch n.kind {
	case kindString:
		v.raw = []byte(n.text)
	case kindArray, kindObject:
		v.raw = n.appendJSON(nil)
	}
	return v
}
