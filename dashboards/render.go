package dashboards

import (
	"encoding/json"
	"fmt"

	"github.com/kedge-ml/kedge/query"
)

// schemaVersion is the dashboard form written here, which Grafana 9.4 and
// everything after it loads.
const schemaVersion = 38

// The JSON model of a dashboard, as far as it is used here. Members stand in
// the order in which Grafana's own export has them.
type (
	source struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	fieldConfig struct {
		Defaults  defaults `json:"defaults"`
		Overrides []any    `json:"overrides"`
	}
	defaults struct {
		Unit       string         `json:"unit,omitempty"`
		NoValue    string         `json:"noValue,omitempty"`
		Min        *float64       `json:"min,omitempty"`
		Max        *float64       `json:"max,omitempty"`
		Thresholds map[string]any `json:"thresholds"`
		Custom     map[string]any `json:"custom,omitempty"`
	}
	panelJSON struct {
		ID          int            `json:"id"`
		Type        string         `json:"type"`
		Title       string         `json:"title"`
		Description string         `json:"description,omitempty"`
		Datasource  *source        `json:"datasource,omitempty"`
		GridPos     gridPos        `json:"gridPos"`
		FieldConfig *fieldConfig   `json:"fieldConfig,omitempty"`
		Options     map[string]any `json:"options,omitempty"`
		Targets     []target       `json:"targets,omitempty"`
		Links       []Link         `json:"links,omitempty"`
		Repeat      string         `json:"repeat,omitempty"`
		MaxPerRow   int            `json:"maxPerRow,omitempty"`
		Transform   []any          `json:"transformations,omitempty"`
		Collapsed   *bool          `json:"collapsed,omitempty"`
		Panels      []any          `json:"panels,omitempty"`
	}
	target struct {
		RefID      string   `json:"refId"`
		Datasource source   `json:"datasource"`
		Values     []string `json:"values,omitempty"`
		Expr       string   `json:"expr,omitempty"`
		Legend     string   `json:"legendFormat,omitempty"`
		request
	}
	templating struct {
		List []variableJSON `json:"list"`
	}
	variableJSON struct {
		Name       string         `json:"name"`
		Label      string         `json:"label"`
		Type       string         `json:"type"`
		Datasource *source        `json:"datasource,omitempty"`
		Query      any            `json:"query"`
		Refresh    int            `json:"refresh,omitempty"`
		Regex      string         `json:"regex,omitempty"`
		Multi      bool           `json:"multi,omitempty"`
		IncludeAll bool           `json:"includeAll,omitempty"`
		Current    map[string]any `json:"current,omitempty"`
	}
	dashboardJSON struct {
		UID           string            `json:"uid"`
		Title         string            `json:"title"`
		Description   string            `json:"description"`
		Tags          []string          `json:"tags"`
		Editable      bool              `json:"editable"`
		GraphTooltip  int               `json:"graphTooltip"`
		SchemaVersion int               `json:"schemaVersion"`
		Time          map[string]string `json:"time"`
		Refresh       string            `json:"refresh"`
		Timezone      string            `json:"timezone"`
		Templating    templating        `json:"templating"`
		Annotations   map[string]any    `json:"annotations"`
		Links         []map[string]any  `json:"links"`
		Panels        []panelJSON       `json:"panels"`
	}
)

// request is a query.Request without the time range: the panel's own goes in
// its place.
type request struct {
	Kind     string            `json:"kind,omitempty"`
	View     string            `json:"view,omitempty"`
	Model    string            `json:"model,omitempty"`
	Version  string            `json:"version,omitempty"`
	Columns  []string          `json:"columns,omitempty"`
	Segment  map[string]string `json:"segment,omitempty"`
	Detector string            `json:"detector,omitempty"`
	GroupBy  []string          `json:"group_by,omitempty"`
	Filter   map[string]string `json:"filter,omitempty"`
	Step     string            `json:"step,omitempty"`
	Limit    int               `json:"limit,omitempty"`
	Params   json.RawMessage   `json:"params,omitempty"`
}

func requestOf(q query.Request) request {
	r := request{Kind: q.Kind, View: q.View, Model: q.Model, Version: q.Version, Columns: q.Columns, Segment: q.Segment,
		Detector: q.Detector, GroupBy: q.GroupBy, Filter: q.Filter, Limit: q.Limit, Params: q.Params}
	if q.Step != 0 {
		text, _ := q.Step.MarshalText() // never fails
		r.Step = string(text)
	}
	return r
}

// asked is the data source that the dashboard's own variable names.
func asked() source { return source{Type: pluginID, UID: "${datasource}"} }

// measured is the Prometheus that scrapes Kedge.
func measured() source { return source{Type: "prometheus", UID: "${prometheus}"} }

// Render writes the dashboard as Grafana's classic JSON.
func (d *Dashboard) Render() ([]byte, error) {
	out := dashboardJSON{
		UID: d.UID, Title: d.Title, Description: d.Description, Tags: append([]string{"kedge"}, d.Tags...),
		GraphTooltip: 1, SchemaVersion: schemaVersion, Time: map[string]string{"from": d.From, "to": "now"}, Refresh: d.Refresh,
		Templating:  templating{d.variables()},
		Annotations: map[string]any{"list": d.annotations()}, Links: d.links(),
	}
	y, id := 0, 0
	for _, r := range d.Rows {
		open := false
		id++
		out.Panels = append(out.Panels, panelJSON{ID: id, Type: "row", Title: r.Title, Repeat: r.Repeat, Collapsed: &open, GridPos: gridPos{H: 1, W: 24, Y: y}})
		placed, height := place(r.Panels, y+1, &id)
		out.Panels = append(out.Panels, placed...)
		y += 1 + height
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render dashboard %s: %w", d.UID, err)
	}
	return append(b, '\n'), nil
}

// place sets panels from left to right and wraps at 24 columns.
func place(panels []Panel, y int, last *int) (out []panelJSON, height int) {
	x, line := 0, 0
	for i := range panels {
		p := panels[i].render(panels[i].number(last))
		if x+p.GridPos.W > 24 {
			x, height, line = 0, height+line, 0
		}
		p.GridPos.X, p.GridPos.Y = x, y+height
		x, line = x+p.GridPos.W, max(line, p.GridPos.H)
		out = append(out, p)
	}
	return out, height + line
}

// number is the panel's id: its own, or the one after the last given in order.
func (p *Panel) number(last *int) int {
	if p.ID != 0 {
		return p.ID
	}
	*last++
	return *last
}

func (p *Panel) render(id int) panelJSON {
	from := asked()
	targets := []target{{RefID: "A", Datasource: from, Values: p.Values, request: requestOf(p.Query)}}
	if len(p.Prometheus) > 0 {
		from, targets = measured(), nil
		for i, m := range p.Prometheus {
			targets = append(targets, target{RefID: string(rune('A' + i)), Datasource: from, Expr: m.Expr, Legend: m.Legend})
		}
	}
	w, h := p.Width, p.Height
	if w == 0 {
		w = 12
	}
	if h == 0 {
		h = 8
	}
	perRow := 0
	if p.Repeat != "" {
		perRow = 24 / w
	}
	return panelJSON{
		ID: id, Type: p.Type, Title: p.Title, Description: p.Description, Datasource: &from,
		GridPos:     gridPos{H: h, W: w},
		FieldConfig: &fieldConfig{Defaults: p.defaults(), Overrides: widths(p.Type)},
		Options:     p.options(),
		Targets:     targets,
		Links:       p.Links, Repeat: p.Repeat, MaxPerRow: perRow, Transform: p.organize(),
	}
}

// organize puts what matters into the columns that a narrow table shows.
func (p *Panel) organize() []any {
	if len(p.First)+len(p.Hide) == 0 {
		return nil
	}
	index, hidden := map[string]int{}, map[string]bool{}
	for i, name := range p.First {
		index[name] = i
	}
	for _, name := range p.Hide {
		hidden[name] = true
	}
	return []any{map[string]any{"id": "organize", "options": map[string]any{"indexByName": index, "excludeByName": hidden, "renameByName": map[string]string{}}}}
}

// noThresholds stand where the frame brings none of its own: without them Grafana
// draws a red line at 80.
func noThresholds() map[string]any {
	return map[string]any{"mode": "absolute", "steps": []any{map[string]any{"color": "green", "value": nil}}}
}

func (p *Panel) defaults() defaults {
	out := defaults{Unit: p.Unit, Thresholds: noThresholds()}
	switch p.Type {
	case timeseries: // not filled: twenty areas over each other are mud
		out.Custom = map[string]any{"lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": false, "thresholdsStyle": map[string]any{"mode": "dashed"}}
		if p.SoftMax != 0 {
			out.Custom["axisSoftMin"], out.Custom["axisSoftMax"] = 0, p.SoftMax
		}
	case stat:
		out.NoValue = p.Empty
	case bargauge:
		out.NoValue = p.Empty
		if p.Unit == "percentunit" { // else bars reach from the smallest to the largest share that there is
			none, whole := 0.0, 1.0
			out.Min, out.Max = &none, &whole
		}
	}
	return out
}

// widths of columns in pixels, by name: times whole, short words narrow. What is
// not named shares what is left, at 150 or more each, so that without these a
// panel of a third of the screen shows two columns of four.
func widths(panelType string) []any {
	if panelType != table {
		return []any{}
	}
	width := func(matcher, of string, pixels int) any {
		return map[string]any{
			"matcher":    map[string]any{"id": matcher, "options": of},
			"properties": []any{map[string]any{"id": "custom.width", "value": pixels}},
		}
	}
	return []any{
		width("byType", "time", 190),
		width("byRegexp", "/^(partition|epoch|times|tier|role)$/", 80),
		width("byRegexp", "/^(kind|seconds|behind|severity|state|detector|version|score|rows|records|gap_rows|duplicate_rows)$/", 95),
		width("byName", "topic", 230),
		width("byName", "sentence", 480),
	}
}

func (p *Panel) options() map[string]any {
	switch p.Type {
	case timeseries:
		legend := p.Legend
		if legend == "" {
			legend = "bottom"
		}
		return map[string]any{"legend": map[string]any{"displayMode": "list", "placement": legend, "showLegend": true}, "tooltip": map[string]any{"mode": "multi", "sort": "desc"}}
	case bargauge:
		return map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "values": true}, "displayMode": "gradient", "orientation": "horizontal", "text": map[string]any{"titleSize": 14, "valueSize": 20}}
	case logs:
		return map[string]any{"showTime": true, "wrapLogMessage": true, "enableLogDetails": true, "sortOrder": "Descending"}
	case stat:
		return map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "values": true}, "colorMode": "value", "graphMode": "area"}
	case heatmap:
		colour := map[string]any{"mode": "scheme", "scheme": "Oranges", "steps": 64}
		if p.ColorMax != 0 {
			colour["min"], colour["max"] = 0, p.ColorMax
		}
		return map[string]any{"calculate": false, "yAxis": map[string]any{"axisPlacement": "left"}, "color": colour}
	case table:
		return map[string]any{"showHeader": true, "cellHeight": "sm"}
	}
	return nil
}

// annotations mark what changed on the time axes.
func (d *Dashboard) annotations() []any {
	if d.Marks == "" {
		return []any{}
	}
	mark := func(name, kind, colour string) map[string]any {
		q := map[string]any{"refId": "Anno", "kind": "annotations", "filter": map[string]string{"type": kind}}
		switch d.Marks {
		case "$model":
			q["model"] = d.Marks
		case "$view":
			q["view"] = d.Marks
		}
		return map[string]any{"name": name, "enable": true, "hide": false, "iconColor": colour, "datasource": asked(), "target": q}
	}
	out := []any{mark("Drift", "drift", "orange")}
	if d.Marks != "$view" {
		out = append(out, mark("Deployments", "deployment", "blue"), mark("Rollbacks", "rollback", "red"), mark("Retrainings", "retraining", "purple"))
	}
	return out
}

func (d *Dashboard) variables() []variableJSON {
	out := []variableJSON{{Name: "datasource", Label: "Kedge", Type: "datasource", Query: pluginID}}
	if d.Metrics {
		out[0] = variableJSON{Name: "prometheus", Label: "Prometheus", Type: "datasource", Query: "prometheus"}
	}
	for _, v := range d.Variables {
		if v.Text {
			out = append(out, variableJSON{Name: v.Name, Label: v.Label, Type: "textbox", Query: ""})
			continue
		}
		from := asked()
		q := map[string]any{"refId": "kedge", "list": v.List}
		if v.Model != "" {
			q["model"] = v.Model
		}
		if v.View != "" {
			q["view"] = v.View
		}
		out = append(out, variableJSON{Name: v.Name, Label: v.Label, Type: "query", Datasource: &from, Query: q, Refresh: 2, Multi: v.Multi, IncludeAll: v.Multi})
	}
	if !d.Metrics { // what a reader narrows all panels by; a panel that cannot heed a filter says so
		from := asked()
		out = append(out, variableJSON{Name: "filters", Label: "Filters", Type: "adhoc", Datasource: &from, Query: ""})
	}
	return out
}

func (d *Dashboard) links() []map[string]any {
	out := []map[string]any{}
	for _, uid := range d.Links {
		out = append(out, map[string]any{"title": titleOf(uid), "type": "link", "url": "/d/" + uid, "keepTime": true, "includeVars": true, "icon": "dashboard"})
	}
	return out
}
