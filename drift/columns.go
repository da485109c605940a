package drift

import (
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
)

// columns are those of the table that can be watched, or those asked for.
func (s *MonitorSpec) columns(sc *event.Schema) []WatchedColumn {
	var out []WatchedColumn
	add := func(w WatchedColumn) {
		w.Importance = 0.5
		if v, ok := s.Weights[w.Name]; ok {
			w.Importance = v
		}
		if !slices.ContainsFunc(out, func(o WatchedColumn) bool { return o.Name == w.Name }) {
			out = append(out, w)
		}
	}
	for _, f := range sc.Fields {
		output := f.Role == event.System && sc.Kind == event.Predictions && slices.Contains([]string{"score", "class", "value", "vector"}, f.Name)
		if f.Role != event.ValueRole && !output || slices.Contains(s.Ignore, f.Name) {
			continue
		}
		if categorical, ok := countable(f); ok && s.wants(f.Name, calendar(f.Name) || identifier(f.Name)) {
			add(WatchedColumn{Name: f.Name, Categorical: categorical, Optional: output})
		}
		for _, d := range f.Descriptors() {
			if !s.wants(d.String(), output && !f.Type.List) {
				continue
			}
			w := WatchedColumn{Name: d.String(), Categorical: d.Function == event.ScriptOf, Optional: output}
			if !f.Type.List && len(s.Columns) == 0 {
				w.Optional, w.OfText = true, f.Name
			}
			add(w)
		}
	}
	return out
}

// wants says whether a column is to be watched: those that are named, else all
// but those that are left out unless named.
func (s *MonitorSpec) wants(name string, unlessNamed bool) bool {
	if len(s.Columns) > 0 {
		return slices.Contains(s.Columns, name)
	}
	return !unlessNamed && !slices.Contains(s.Ignore, name)
}

// countable says whether a field's values are counted as they are, and how.
func countable(f event.Field) (categorical, ok bool) {
	if f.Type.List {
		return false, false
	}
	switch f.Type.Elem {
	case event.Int32, event.Int64, event.Float32, event.Float64:
		return false, true
	case event.String, event.Bool:
		return true, true
	}
	return false, false
}

// calendar says that a column tells the time: it moves by itself, and is
// watched only when it is named.
func calendar(name string) bool {
	return slices.Contains([]string{"minute", "hour", "hour_of_day", "day", "weekday", "day_of_week", "day_of_month", "day_of_year", "week", "month", "year", "date", "time"}, strings.ToLower(name))
}

// identifier says that a column names things. Texts that do show by their
// values, numbers only by what they are called.
func identifier(name string) bool {
	name = strings.ToLower(name)
	return name == "id" || name == "uuid" || strings.HasSuffix(name, "_id")
}
