package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/dashboards"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// renderedPanel is what a test reads of a dashboard's JSON.
type renderedPanel struct {
	ID      int               `json:"id"`
	Title   string            `json:"title"`
	Type    string            `json:"type"`
	Targets []json.RawMessage `json:"targets"`
}

// TestDashboardPanels sends the committed query of every panel through the
// plugin to a kedge that has the demo stream: each is answered with frames that
// the panel draws, and with rows unless it says why not. Panels about Kedge's
// own metrics ask for metrics that it has.
func TestDashboardPanels(t *testing.T) {
	k := startKedge(t, stormyDemo(t), "--demo")
	waitForDemo(t, k)
	p := startPlugin(t, k.http, `{}`, nil)
	_, metrics := get(t, k.http+"/metrics")
	panels := 0
	for _, d := range dashboards.All() {
		b, err := d.Render()
		if err != nil {
			t.Fatal(err)
		}
		var rendered struct {
			Panels []renderedPanel `json:"panels"`
		}
		if err := json.Unmarshal(b, &rendered); err != nil {
			t.Fatal(err)
		}
		empty, refused := map[string]string{}, map[string]string{}
		for _, r := range d.Rows {
			for _, panel := range r.Panels {
				empty[panel.Title], refused[panel.Title] = panel.Empty, panel.Refused
			}
		}
		var queries []backend.DataQuery
		byRef := map[string]renderedPanel{}
		for _, panel := range rendered.Panels {
			for _, target := range panel.Targets {
				if strings.Contains(string(target), `"expr"`) {
					checkMetrics(t, d.UID+": "+panel.Title, string(target), metrics)
					continue
				}
				q := demoQuery(d.UID+": "+panel.Title, target)
				queries, byRef[q.RefID] = append(queries, q), panel
			}
		}
		if len(queries) == 0 {
			continue
		}
		for ref, r := range p.ask(queries...) { // one refresh of the dashboard
			panels++
			if r.Error != nil {
				if refused[byRef[ref].Title] == "" {
					t.Errorf("%s: %v", ref, r.Error)
				}
				continue
			}
			checkFits(t, ref, byRef[ref].Type, r.Frames)
			if n := checkFrames(t, ref, r.Frames); n == 0 && empty[byRef[ref].Title] == "" {
				t.Errorf("%s holds no rows", ref)
			}
		}
	}
	if panels < 30 {
		t.Errorf("%d panels were asked", panels)
	}
	walkToTrace(t, p, provisioned(t)["kedge-drift"])
	checkOrdersAndLimits(t, k)
}

// TestLinksLeadToRows holds that the data source's links to rows name the panels
// that show them.
func TestLinksLeadToRows(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(testenv.Root(t), "grafana-plugin/pkg/plugin/fieldconfig.go"))
	if err != nil {
		t.Fatal(err)
	}
	for uid, title := range map[string]string{dashboards.ModelUID: "Newest predictions", dashboards.ViewUID: "Newest rows"} {
		id, ok := dashboards.PanelID(uid, title)
		if want := fmt.Sprintf("/d/%s?viewPanel=%d&", uid, id); !ok || !strings.Contains(string(source), want) {
			t.Errorf("the data source does not link to %s", want)
		}
	}
}

// demoQuery is a panel's query with its variables filled in.
func demoQuery(ref string, target json.RawMessage) backend.DataQuery {
	values := strings.NewReplacer("$view", "driver_stats", "$model", "ride_cancel", "$column", "COLUMN", "$trace", "")
	text := values.Replace(string(target))
	column := "acceptance_rate"
	if strings.Contains(text, "ride_cancel") {
		column = "wait_minutes"
	}
	now := time.Now()
	return backend.DataQuery{RefID: ref, JSON: []byte(strings.ReplaceAll(text, "COLUMN", column)), MaxDataPoints: 800, Interval: 5 * time.Second,
		TimeRange: backend.TimeRange{From: now.Add(-time.Hour), To: now}}
}

// checkFits holds that a panel of a type gets frames that it draws.
func checkFits(t *testing.T, at, panel string, frames data.Frames) {
	t.Helper()
	if len(frames) == 0 {
		t.Errorf("%s: no frame", at)
		return
	}
	fits := map[string][]data.FrameType{
		"timeseries": {data.FrameTypeTimeSeriesWide, data.FrameTypeTimeSeriesMulti}, "heatmap": {"heatmap-rows"}, "logs": {data.FrameTypeLogLines},
		"stat": {data.FrameTypeNumericLong}, "bargauge": {data.FrameTypeNumericLong}, "table": {data.FrameTypeTable, data.FrameTypeNumericLong}, "barchart": {data.FrameTypeTable}, "nodeGraph": {data.FrameTypeTable}, "traces": {data.FrameTypeTable},
	}[panel]
	for _, typ := range fits {
		if frames[0].Meta.Type == typ {
			if panel == "nodeGraph" && (len(frames) != 2 || frames[0].Meta.PreferredVisualization != data.VisTypeNodeGraph) {
				t.Errorf("%s: a node graph needs nodes and edges", at)
			}
			return
		}
	}
	t.Errorf("%s: a %s panel gets %s", at, panel, frames[0].Meta.Type)
}

// metricName finds the metrics of an expression.
var metricName = regexp.MustCompile(`\b(kedge|http_server|process|go)_[a-z0-9_]+`)

func checkMetrics(t *testing.T, at, target, metrics string) {
	t.Helper()
	names := metricName.FindAllString(target, -1)
	if len(names) == 0 {
		t.Errorf("%s asks for no metric of ours: %s", at, target)
	}
	for _, n := range names {
		if !strings.Contains(metrics, "\n"+n) && !strings.Contains(metrics, n+"=") { // a metric or a label
			t.Errorf("%s asks for %s, which a running kedge does not have", at, n)
		}
	}
}
