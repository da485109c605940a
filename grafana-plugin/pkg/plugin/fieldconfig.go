package plugin

import (
	"net/url"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/query"
)

// colour of a state, by Grafana's palette names.
func colour(state string) string {
	switch state {
	case "critical", "error", "high":
		return "red"
	case "warning", "medium":
		return "orange"
	case "low", "notice":
		return "yellow"
	}
	return "green"
}

// leads are what links need to know of the question.
type leads struct {
	traces string // address of a trace, by settings; empty: Kedge's own view
	source string // uid of the data source
	model  string // that was asked about
}

// fieldConfig carries what Kedge knows of a column, so that panels are right
// without hand work.
func fieldConfig(c *query.Column, t query.FrameType, to leads) *data.FieldConfig {
	cfg := &data.FieldConfig{Unit: c.Unit, DisplayNameFromDS: c.Display, Mappings: mappings(c), Links: append(links(c, to), rowsBehind(c, t)...)}
	if len(c.Thresholds) > 0 {
		steps := []data.Threshold{{Value: data.ConfFloat64(negativeInfinity), Color: "green"}}
		for _, t := range c.Thresholds {
			steps = append(steps, data.NewThreshold(t.Value, colour(t.State), t.State))
		}
		cfg.Thresholds = &data.ThresholdsConfig{Mode: data.ThresholdsModeAbsolute, Steps: steps}
	}
	if c.Unit == "percentunit" && t == query.NumericLong { // a gauge would reach from the smallest to the largest that there is
		cfg.SetMin(0).SetMax(1)
	}
	if c.Type == query.Text && t == query.Table {
		filterable := true
		cfg.Filterable = &filterable
	}
	return cfg
}

// mappings give states their colours.
func mappings(c *query.Column) data.ValueMappings {
	switch {
	case c.Type == query.Text && (c.Name == "severity" || c.Name == "state"):
		words := data.ValueMapper{}
		for i, w := range []string{"ok", "quiet", "notice", "low", "warning", "medium", "high", "critical", "error"} {
			words[w] = data.ValueMappingResult{Text: w, Color: colour(w), Index: i}
		}
		return data.ValueMappings{words}
	case c.Type == query.Bool && c.Name == "drifted":
		return data.ValueMappings{data.ValueMapper{
			"true":  {Text: "drifted", Color: "red", Index: 0},
			"false": {Text: "as the reference", Color: "green", Index: 1},
		}}
	}
	return nil
}

// Panels that show the rows of a model and of a view: the dashboards' own.
const (
	modelRows = "/d/kedge-model?viewPanel=20&var-model="
	viewRows  = "/d/kedge-view?viewPanel=9&var-view="
)

// rowsBehind leads from a point of a series to the newest rows of whatever it is
// about, in the same range.
func rowsBehind(c *query.Column, t query.FrameType) []data.DataLink {
	if t != query.TimeSeriesWide && t != query.TimeSeriesMulti || c.Type == query.Time {
		return nil
	}
	for label, path := range map[string]string{"model": modelRows, "view": viewRows} {
		if c.Labels[label] != "" {
			return []data.DataLink{{Title: "Rows of " + c.Labels[label], URL: path + "${__field.labels." + label + "}&from=${__from}&to=${__to}"}}
		}
	}
	return nil
}

// links lead from a value to where it is told of in full: a trace, or the
// dashboard of the model or view that it names.
func links(c *query.Column, where leads) []data.DataLink {
	to := func(title, address string) data.DataLink { return data.DataLink{Title: title, URL: address} }
	const time = "&from=${__from}&to=${__to}"
	switch c.Name {
	case "trace_id":
		if where.traces != "" {
			return []data.DataLink{{Title: "Open trace", URL: where.traces, TargetBlank: true}}
		}
		// The dashboard shows what Kedge keeps of a trace, and says where it does not.
		return []data.DataLink{to("Open trace", "/d/kedge-trace?var-datasource="+url.QueryEscape(where.source)+"&var-model="+url.QueryEscape(where.model)+"&var-trace=${__value.raw}"+time)}
	case "model":
		return []data.DataLink{to("Model", "/d/kedge-model?var-model=${__value.raw}"+time)}
	case "view":
		return []data.DataLink{to("Feature view", "/d/kedge-view?var-view=${__value.raw}"+time)}
	case "subject":
		return []data.DataLink{
			to("As a model", "/d/kedge-model?var-model=${__value.raw}"+time),
			to("As a feature view", "/d/kedge-view?var-view=${__value.raw}"+time),
		}
	}
	return nil
}
