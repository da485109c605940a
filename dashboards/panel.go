// Package dashboards makes Kedge's Grafana dashboards from typed code. The
// JSON beside the code is what it wrote: `go generate ./dashboards` writes it
// anew, and a test holds that nothing else did.
//
// Promises: every panel has a title, a description, a unit where it shows
// numbers, and a query that a running Kedge answers; uids and panel ids stay
// the same from one generation to the next, because alert rules and links name
// them.
package dashboards

import "github.com/kedge-ml/kedge/query"

// pluginID is the data source that the panels ask.
const pluginID = "kedgeml-kedge-datasource"

// Panel types of Grafana that the dashboards use.
const (
	timeseries = "timeseries"
	stat       = "stat"
	table      = "table"
	heatmap    = "heatmap"
	bargauge   = "bargauge"
	barchart   = "barchart"
	nodegraph  = "nodeGraph"
	logs       = "logs"
	traces     = "traces"
)

// Panel is one panel before it is placed.
type Panel struct {
	// ID is set for a panel that was put among others later: 101 and up. Those
	// without are numbered in order, rows included.
	ID          int
	Title       string
	Description string
	Type        string
	Query       query.Request
	Values      []string // of the answer, by name; empty: all
	Prometheus  []Metric // asked of Prometheus instead of a Kedge
	Unit        string   // Grafana unit id; empty where the frame says it by itself
	SoftMax     float64  // up to which the axis of values reaches at least; without one a line of zeros gets an axis to 100
	ColorMax    float64  // value of a heat map from which on all is equally dark; 0: the largest that there is
	Width       int      // of 24; 0 means half
	Height      int      // 0 means 8
	Legend      string   // where it stands beside many series; empty: at the bottom
	Repeat      string   // variable that the panel is drawn once for
	Links       []Link
	First       []string // columns of a table that come first, by name
	Hide        []string // columns of a table that are left out
	// Empty is the declared reason for which the panel may hold no rows, e.g.
	// "no GPU"; empty means that it must hold some on the demo stream.
	Empty string
	// Refused is the declared reason for which Kedge may refuse to answer.
	Refused string
}

// Metric is a query about Kedge's own metrics.
type Metric struct {
	Expr   string
	Legend string
}

// Link leads from a panel to a place that says more.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Row is a heading with panels under it.
type Row struct {
	Title  string
	Repeat string
	Panels []Panel
}

// Variable is a dashboard variable whose values Kedge lists.
type Variable struct {
	Name  string
	Label string
	List  string // models, views, columns, versions
	Model string // of which model, for columns and versions
	View  string
	Multi bool
	Text  bool // typed in, not listed
}

// Dashboard is one dashboard before it is rendered.
type Dashboard struct {
	UID         string
	Title       string
	Description string
	Tags        []string
	Variables   []Variable
	Rows        []Row
	From        string   // "now-6h"
	Refresh     string   // "30s"
	Links       []string // uids of dashboards to link to
	Marks       string   // variable whose deployments and drift are marked on the time axis; "*": everything's
	Metrics     bool     // asks Prometheus
}
