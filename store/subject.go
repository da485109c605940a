package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store/chdb"
)

// subjectOf finds the tables that a request is about: one for a view, one per
// input signature for a model. Params {"labels": true} asks for a model's
// labels instead of its predictions.
func (s *Store) subjectOf(r query.Request) ([]*table, error) {
	kind, name := event.Features, r.View
	switch {
	case r.View != "" && r.Model != "":
		return nil, invalid("both a view and a model are named")
	case r.Model != "":
		kind, name = event.Predictions, r.Model
		labels, err := wantsLabels(r)
		if err != nil {
			return nil, err
		}
		if labels {
			kind = event.Labels
		}
	case r.View == "":
		return nil, invalid("neither a view nor a model is named")
	}
	var out []*table
	for _, t := range s.tables() {
		if t.schema.Kind == kind && t.schema.Subject == name && (r.Namespace == "" || t.schema.Namespace == r.Namespace) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no %s of %q are stored", ErrUnknown, kind, name)
	}
	out = ofNewestDefinition(out)
	slices.SortFunc(out, func(a, b *table) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// ofNewestDefinition leaves out what a view or model was before it was deleted
// and defined anew: that was another.
func ofNewestDefinition(tables []*table) []*table {
	type subject struct {
		kind            event.Kind
		namespace, name string
	}
	of := func(t *table) subject { return subject{t.schema.Kind, t.schema.Namespace, t.schema.Subject} }
	newest := map[subject]uint64{}
	for _, t := range tables {
		newest[of(t)] = max(newest[of(t)], definitionOf(t.schema))
	}
	return slices.DeleteFunc(tables, func(t *table) bool { return definitionOf(t.schema) < newest[of(t)] })
}

// definitionOf is the UID of the definition that a table belongs to: see
// [event.PredictionTableID] and [event.ViewTableID].
func definitionOf(s *event.Schema) uint64 {
	switch s.Kind {
	case event.Predictions:
		return s.TableID / (event.MaxSignatures + 1)
	case event.Features:
		return event.ViewUID(s.TableID)
	}
	return s.TableID
}

func wantsLabels(r query.Request) (bool, error) {
	var p struct {
		Labels bool `json:"labels"`
	}
	if len(r.Params) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(r.Params, &p); err != nil {
		return false, invalid("params: %v", err)
	}
	return p.Labels, nil
}

// envelope is the prefix that asks for the table's own column where a value or
// a key has the same name.
const envelope = "envelope."

// find returns a column by the name that requests use: a value's own name
// first, then a key's, then the table's own columns.
func (t *table) find(name string) (column, event.Field, bool) {
	roles := []event.Role{event.ValueRole, event.KeyRole, event.System}
	if own, ok := strings.CutPrefix(name, envelope); ok {
		name, roles = own, roles[2:]
	}
	for _, role := range roles {
		for _, c := range t.columns {
			if f := t.schema.Fields[c.index]; f.Role == role && f.Name == name {
				return c, f, true
			}
		}
	}
	return column{}, event.Field{}, false
}

// label is the name by which find returns the column.
func (t *table) label(c column) string {
	f := t.schema.Fields[c.index]
	if found, _, _ := t.find(f.Name); found != c && f.Role == event.System {
		return envelope + f.Name
	}
	return f.Name
}

// filterOf is the condition that columns equal given values.
func (t *table) filterOf(r query.Request, p params) (string, error) {
	conditions := []string{"1"}
	if r.Version != "" {
		if _, _, ok := t.find("version"); !ok {
			return "", invalid("a version can be asked of a model's predictions only")
		}
		p["version"] = r.Version
		conditions = append(conditions, "version = {version:String}")
	}
	i := 0
	for _, name := range sortedKeys(r.Filter) {
		c, f, ok := t.find(name)
		if !ok {
			return "", fmt.Errorf("%w: %s has no column %q to filter by", ErrUnknown, t.schema.Subject, name)
		}
		if f.Type.List || isMap(f.Type.Elem) {
			return "", invalid("column %q is a %s, which cannot be filtered by", name, f.Type)
		}
		if r.Filter[name] == "" && f.Role == event.System && f.Name == "trace_id" {
			conditions = append(conditions, "0") // "" is stored where there is no trace: that is none, not all of those
			continue
		}
		if err := fits(r.Filter[name], f.Type.Elem); err != nil {
			return "", invalid("filter %s: %v", name, err)
		}
		key := fmt.Sprintf("f%d", i)
		conditions = append(conditions, fmt.Sprintf("%s = {%s:%s}", chdb.QuoteIdent(c.name), key, elementType(f.Type.Elem)))
		p[key] = r.Filter[name]
		i++
	}
	return strings.Join(conditions, " AND "), nil
}

// fits says why a text is no value of a column. The engine would take a number
// beyond the column's for another one, and no time at all for 1970.
func fits(text string, t event.Type) (err error) {
	switch t {
	case event.Bool:
		_, err = strconv.ParseBool(text)
	case event.Int32:
		_, err = strconv.ParseInt(text, 10, 32)
	case event.Int64:
		_, err = strconv.ParseInt(text, 10, 64)
	case event.Float32, event.Float64:
		_, err = strconv.ParseFloat(text, 64)
	case event.Timestamp:
		if text == "" {
			err = strconv.ErrSyntax
		}
	}
	if err != nil {
		return fmt.Errorf("%.70q is no %s", text, t)
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
