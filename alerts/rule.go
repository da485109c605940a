// Package alerts holds Kedge's alert rules as typed code. The YAML beside the
// code is what it wrote: `go generate ./alerts` writes it anew. alerts/expr
// evaluates them as Grafana does, alerts/push without one.
//
// Promises: a rule asks one question of the data source whose uid is "kedge",
// says what having no data and failing mean, and names a runbook page, a
// dashboard and a panel that exist. Thresholds of drift live in monitors: rules
// on verdicts ask whether an incident is open, not how large a distance is.
//
// May not: ask a Kedge by itself.
package alerts

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/dashboards"
	"github.com/kedge-ml/kedge/query"
)

//go:generate go run ./gen

// SourceUID is the uid that the data source must have for the rules to find it.
const SourceUID = "kedge"

// Folder is where Grafana shows the rules.
const Folder = "Kedge"

// runbooks is where the pages of docs/runbooks are read.
const runbooks = "https://github.com/kedge-ml/kedge/blob/main/docs/runbooks/"

// NoData and error states, in Grafana's words.
const (
	StateOK       = "OK"
	StateNoData   = "NoData"
	StateAlerting = "Alerting"
	StateError    = "Error"
)

// Rule is one alert rule before it is rendered.
type Rule struct {
	UID, Title string
	Query      query.Request
	Values     []string // of the answer, by name; the plugin leaves the others out
	Numeric    bool     // a table is read as one number for each combination of its texts
	Reduce     string   // of series: last, max, mean; empty for numbers
	Above      float64  // fires above this
	For        time.Duration
	Range      time.Duration // how far back the question looks
	NoData     string
	Severity   string
	Summary    string // one line, with {{ $labels.x }}
	Text       string // what it means
	Dashboard  string // uid
	Panel      string // its title
}

// Group is rules that are evaluated together.
type Group struct {
	Name     string
	Interval time.Duration // at least 10 s, or Grafana refuses to start
	Rules    []Rule
}

// The file that Grafana provisions rules from.
type (
	// File is a provisioning file.
	File struct {
		APIVersion int         `yaml:"apiVersion" json:"apiVersion"`
		Groups     []FileGroup `yaml:"groups" json:"groups"`
	}
	// FileGroup is a group of a [File].
	FileGroup struct {
		OrgID    int        `yaml:"orgId" json:"orgId"`
		Name     string     `yaml:"name" json:"name"`
		Folder   string     `yaml:"folder" json:"folder"`
		Interval string     `yaml:"interval" json:"interval"`
		Rules    []FileRule `yaml:"rules" json:"rules"`
	}
	// FileRule is a rule of a [FileGroup].
	FileRule struct {
		UID          string            `yaml:"uid" json:"uid"`
		Title        string            `yaml:"title" json:"title"`
		Condition    string            `yaml:"condition" json:"condition"`
		Data         []FileQuery       `yaml:"data" json:"data"`
		DashboardUID string            `yaml:"dashboardUid" json:"dashboardUid"`
		PanelID      int               `yaml:"panelId" json:"panelId"`
		NoDataState  string            `yaml:"noDataState" json:"noDataState"`
		ExecErrState string            `yaml:"execErrState" json:"execErrState"`
		For          string            `yaml:"for" json:"for"`
		Annotations  map[string]string `yaml:"annotations" json:"annotations"`
		Labels       map[string]string `yaml:"labels" json:"labels"`
	}
	// FileQuery is one step of a rule: a question, or an expression over others.
	FileQuery struct {
		RefID             string         `yaml:"refId" json:"refId"`
		DatasourceUID     string         `yaml:"datasourceUid" json:"datasourceUid"`
		RelativeTimeRange RelativeRange  `yaml:"relativeTimeRange" json:"relativeTimeRange"`
		Model             map[string]any `yaml:"model" json:"model"`
	}
	// RelativeRange is seconds before now.
	RelativeRange struct {
		From int `yaml:"from" json:"from"`
		To   int `yaml:"to" json:"to"`
	}
)

// Expression is the uid by which Grafana knows its own steps.
const Expression = "__expr__"

// Panels finds the id of a dashboard's panel by its title.
type Panels func(dashboard, title string) (id int, ok bool)

// Render writes the groups as the provisioning file of Grafana.
func Render(groups []Group, panels Panels) ([]byte, error) {
	f := File{APIVersion: 1}
	for _, g := range groups {
		fg := FileGroup{OrgID: 1, Name: g.Name, Folder: Folder, Interval: g.Interval.String()}
		for _, r := range g.Rules {
			fr, err := r.File(panels)
			if err != nil {
				return nil, err
			}
			fg.Rules = append(fg.Rules, fr)
		}
		f.Groups = append(f.Groups, fg)
	}
	b, err := yaml.MarshalWithOptions(f, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("render alert rules: %w", err)
	}
	return append([]byte("# Written by go generate ./alerts from alerts/all.go.\n"), b...), nil
}

// Runbook is the address of the page that says what to do.
func (r Rule) Runbook() string { return runbooks + r.UID + ".md" }

// PanelPath leads to the rule's panel in a Grafana; of a panel that there is
// not, to its dashboard.
func (r Rule) PanelPath() string {
	path := "/d/" + r.Dashboard
	if id, ok := dashboards.PanelID(r.Dashboard, r.Panel); ok {
		path += fmt.Sprintf("?viewPanel=%d", id)
	}
	return path
}

// File is the rule as Grafana's provisioning has it.
func (r Rule) File(panels Panels) (FileRule, error) {
	id, ok := panels(r.Dashboard, r.Panel)
	if !ok {
		return FileRule{}, fmt.Errorf("rule %s: dashboard %s has no panel %q", r.UID, r.Dashboard, r.Panel)
	}
	over := RelativeRange{From: int(r.Range.Seconds())}
	model := r.model()
	data := []FileQuery{{RefID: "A", DatasourceUID: SourceUID, RelativeTimeRange: over, Model: model}}
	input := "A"
	if r.Reduce != "" {
		data = append(data, FileQuery{RefID: "B", DatasourceUID: Expression, RelativeTimeRange: over, Model: map[string]any{
			"refId": "B", "type": "reduce", "expression": "A", "reducer": r.Reduce, "settings": map[string]any{"mode": "dropNN"},
			"datasource": map[string]any{"type": Expression, "uid": Expression}}})
		input = "B"
	}
	// query.params is read by the rule editor of older Grafanas, which crashes without it.
	condition := map[string]any{"evaluator": map[string]any{"type": "gt", "params": []any{r.Above}}, "query": map[string]any{"params": []any{input}}}
	data = append(data, FileQuery{RefID: "C", DatasourceUID: Expression, RelativeTimeRange: over, Model: map[string]any{
		"refId": "C", "type": "threshold", "expression": input, "conditions": []any{condition}, "datasource": map[string]any{"type": Expression, "uid": Expression}}})
	return FileRule{
		UID: r.UID, Title: r.Title, Condition: "C", Data: data, DashboardUID: r.Dashboard, PanelID: id,
		NoDataState: r.NoData, ExecErrState: StateError, For: r.For.String(),
		Annotations: map[string]string{"summary": r.Summary, "description": r.Text, "runbook_url": r.Runbook(),
			"__dashboardUid__": r.Dashboard, "__panelId__": fmt.Sprint(id)},
		Labels: map[string]string{"service": "kedge", "severity": r.Severity},
	}, nil
}

// model is the question as a panel would store it.
func (r Rule) model() map[string]any {
	m := map[string]any{"refId": "A", "kind": r.Query.Kind, "intervalMs": 60_000, "maxDataPoints": 1000,
		"datasource": map[string]any{"type": "kedgeml-kedge-datasource", "uid": SourceUID}}
	set := func(name, v string) {
		if v != "" {
			m[name] = v
		}
	}
	set("detector", r.Query.Detector)
	set("model", r.Query.Model)
	set("view", r.Query.View)
	if len(r.Query.Columns) > 0 {
		m["columns"] = r.Query.Columns
	}
	if len(r.Values) > 0 {
		m["values"] = r.Values
	}
	if r.Numeric {
		m["format"] = "numeric"
	}
	return m
}
