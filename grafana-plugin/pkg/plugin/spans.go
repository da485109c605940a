package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/query"
)

// pair is a tag as Grafana's trace view reads it.
type pair struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// spansToGrafana writes the spans of a trace in the fields that Grafana's trace
// view reads: times in milliseconds, tags as pairs.
func spansToGrafana(f *query.Frame, out *data.Frame) (*data.Frame, error) {
	texts := map[string][]string{}
	var starts []time.Time
	var took []float64
	var attributes []json.RawMessage
	for i := range f.Columns {
		switch v := f.Columns[i].Values.(type) {
		case []string:
			texts[f.Columns[i].Name] = v
		case []time.Time:
			starts = v
		case []float64:
			took = v
		case []json.RawMessage:
			attributes = v
		}
	}
	n := len(starts)
	for _, name := range []string{"trace_id", "span_id", "parent_id", "name", "room", "failed"} {
		if len(texts[name]) != n || len(took) != n || len(attributes) != n {
			return nil, fmt.Errorf("spans without %s, or with too few of a column: is the server of this version?", name)
		}
	}
	begins, tags, about := make([]float64, n), make([]json.RawMessage, n), make([]json.RawMessage, n)
	for i := range n {
		begins[i] = float64(starts[i].UnixMicro()) / 1000
		var err error
		if tags[i], err = tagsOf(attributes[i], texts["failed"][i]); err != nil {
			return nil, fmt.Errorf("span %s: %w", texts["span_id"][i], err)
		}
		if about[i], err = json.Marshal([]pair{{"room", texts["room"][i]}}); err != nil {
			return nil, err
		}
	}
	service := make([]string, n)
	for i := range service {
		service[i] = "kedge"
	}
	text := func(name, from string) *data.Field {
		return data.NewField(name, nil, append([]string{}, texts[from]...))
	}
	ms := &data.FieldConfig{Unit: "ms"}
	out.Fields = []*data.Field{
		text("traceID", "trace_id"), text("spanID", "span_id"), text("parentSpanID", "parent_id"), text("operationName", "name"),
		data.NewField("serviceName", nil, service), data.NewField("serviceTags", nil, about),
		data.NewField("startTime", nil, begins), data.NewField("duration", nil, append([]float64{}, took...)).SetConfig(ms), data.NewField("tags", nil, tags),
	}
	return out, nil
}

// tagsOf are a span's attributes by name; a fault is told as the view marks it.
func tagsOf(attributes json.RawMessage, failed string) (json.RawMessage, error) {
	var all map[string]any
	if err := json.Unmarshal(attributes, &all); err != nil {
		return nil, fmt.Errorf("attributes: %w", err)
	}
	pairs := []pair{}
	if failed != "" {
		pairs = append(pairs, pair{"error", true}, pair{"status.message", failed})
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, pair{k, all[k]})
	}
	return json.Marshal(pairs)
}
