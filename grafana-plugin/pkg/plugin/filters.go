package plugin

import (
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/query"
)

// adhocFilter is one filter that a dashboard puts over all of its panels.
type adhocFilter struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Value    string   `json:"value"`
	Values   []string `json:"values"` // of the operator "=|"
}

// applyFilters puts a dashboard's filters into a request. One that the kind
// cannot heed is told of, because a panel that silently ignores a filter lies.
func applyFilters(r query.Request, k query.Kind, filters []adhocFilter) (query.Request, []query.Notice, error) {
	var notices []query.Notice
	for _, f := range filters {
		if f.Operator != "=" && !(f.Operator == "=|" && f.Key == "column") {
			return r, nil, fmt.Errorf("the filter %s %s %s: Kedge compares with = alone", f.Key, f.Operator, f.Value)
		}
		if !applyFilter(&r, k, f) {
			notices = append(notices, query.Notice{Severity: "warning", Text: fmt.Sprintf("The filter %s = %s does not apply to %s.", f.Key, f.Value, k.Title)})
		}
	}
	return r, notices, nil
}

func applyFilter(r *query.Request, k query.Kind, f adhocFilter) bool {
	reads := func(member string) bool { return slices.Contains(k.Reads, member) }
	takes := func(s query.Subject) bool {
		return k.Subject == s || k.Subject == query.ViewOrModel || k.Subject == query.Optional
	}
	switch {
	case f.Key == "model" && takes(query.ModelOnly):
		r.Model, r.View = f.Value, ""
	case f.Key == "view" && takes(query.ViewOnly):
		r.View, r.Model = f.Value, ""
	case f.Key == "version" && reads("version"):
		r.Version = f.Value
	case f.Key == "detector" && reads("detector"):
		r.Detector = f.Value
	case f.Key == "column" && reads("columns"):
		if r.Columns = f.Values; len(r.Columns) == 0 {
			r.Columns = []string{f.Value}
		}
	case reads("filter") && !slices.Contains([]string{"model", "view", "version", "detector", "column"}, f.Key):
		filter := map[string]string{f.Key: f.Value}
		for name, v := range r.Filter {
			filter[name] = v
		}
		r.Filter = filter
	default:
		return false
	}
	return true
}
