package dashboards

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/query"
)

// TestCommitted holds that the JSON is what the code writes.
func TestCommitted(t *testing.T) {
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, d := range All() {
		want, err := d.Render()
		if err != nil {
			t.Fatal(err)
		}
		name := d.UID + ".json"
		written = append(written, name)
		if got, err := os.ReadFile(name); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what the code writes: run go generate ./dashboards (%v)", name, err)
		}
	}
	slices.Sort(written)
	if !slices.Equal(files, written) {
		t.Errorf("files %v, dashboards %v", files, written)
	}
}

// TestLint holds what Grafana's own linter asks, and more, for every type of
// panel.
func TestLint(t *testing.T) {
	ids := map[string]bool{}
	for _, d := range All() {
		if ids[d.UID] || d.Description == "" || d.From == "" {
			t.Errorf("%s: uid twice, or no description or range", d.UID)
		}
		ids[d.UID] = true
		for _, link := range d.Links {
			if titleOf(link) == "" {
				t.Errorf("%s links to %s, which has no title", d.UID, link)
			}
		}
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				lintPanel(t, d, p)
			}
		}
		lintJSON(t, d)
	}
}

func lintPanel(t *testing.T, d Dashboard, p Panel) {
	t.Helper()
	at := d.UID + ": " + p.Title
	if p.Title == "" || len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
		t.Errorf("%s: a title and a sentence of description are required", at)
	}
	if p.Unit == "percentunit" && p.Type == timeseries && (p.SoftMax <= 0 || p.SoftMax > 1) {
		t.Errorf("%s: where a share is zero all the time its axis would reach to 10,000 %%", at)
	}
	if p.Query.Kind == "drift_heatmap" && p.ColorMax != 3 {
		t.Errorf("%s: one column that is 500 times its floor away leaves all others white; 3 times is critical", at)
	}
	if p.Type != timeseries && p.SoftMax != 0 {
		t.Errorf("%s has no axis of values", at)
	}
	if len(p.Prometheus) > 0 {
		lintMetrics(t, at, d, p)
		return
	}
	k, ok := query.KindNamed(p.Query.Kind)
	if !ok {
		t.Errorf("%s asks kind %q, which there is not", at, p.Query.Kind)
	}
	reads := func(member string, set bool) {
		if set && !slices.Contains(k.Reads, member) {
			t.Errorf("%s sets %s, which kind %s does not read", at, member, k.Name)
		}
	}
	reads("columns", len(p.Query.Columns) > 0)
	reads("group_by", len(p.Query.GroupBy) > 0)
	reads("limit", p.Query.Limit > 0)
	reads("filter", len(p.Query.Filter) > 0)
	reads("version", p.Query.Version != "")
	named := p.Query.View != "" || p.Query.Model != ""
	if named && k.Subject == query.NoSubject || !named && (k.Subject == query.ViewOnly || k.Subject == query.ModelOnly || k.Subject == query.ViewOrModel) {
		t.Errorf("%s: kind %s wants subject %s", at, k.Name, k.Subject)
	}
	if p.Width > 24 {
		t.Errorf("%s is wider than a dashboard", at)
	}
	for _, v := range variablesIn(p.Query) {
		if !slices.ContainsFunc(d.Variables, func(x Variable) bool { return "$"+x.Name == v }) {
			t.Errorf("%s names %s, which the dashboard lacks", at, v)
		}
	}
}

var windows = regexp.MustCompile(`\[(\$__rate_interval|\dh)\]`)

// lintMetrics looks at a panel about Kedge's own metrics: a unit, a legend, and
// rates over the interval that Grafana chooses or over hours, as budgets burn.
func lintMetrics(t *testing.T, at string, d Dashboard, p Panel) {
	t.Helper()
	if !d.Metrics || p.Unit == "" || p.Query.Kind != "" {
		t.Errorf("%s: no variable for Prometheus, no unit, or a kind beside it", at)
	}
	for _, m := range p.Prometheus {
		if m.Legend == "" || strings.Contains(m.Expr, "rate(") && !windows.MatchString(m.Expr) {
			t.Errorf("%s: %s", at, m.Expr)
		}
	}
}

// TestPanelID holds that ids found by title are those in the JSON.
func TestPanelID(t *testing.T) {
	for _, d := range All() {
		b, err := d.Render()
		if err != nil {
			t.Fatal(err)
		}
		var out dashboardJSON
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		for _, p := range out.Panels {
			if id, ok := PanelID(d.UID, p.Title); p.Type != "row" && (!ok || id != p.ID) {
				t.Errorf("%s: %q is panel %d in the JSON, %d by its title", d.UID, p.Title, p.ID, id)
			}
		}
	}
	if _, ok := PanelID(OverviewUID, "nothing"); ok {
		t.Error("found a panel that there is not")
	}
}

func variablesIn(q query.Request) (out []string) {
	for _, s := range append([]string{q.View, q.Model, q.Version}, q.Columns...) {
		if strings.HasPrefix(s, "$") {
			out = append(out, s)
		}
	}
	return out
}

// lintJSON looks at what was rendered: unique ids, no panel over another, the
// data source by variable and never by address.
func lintJSON(t *testing.T, d Dashboard) {
	t.Helper()
	b, err := d.Render()
	if err != nil {
		t.Fatal(err)
	}
	var out dashboardJSON
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "__inputs") || out.Editable {
		t.Errorf("%s: inputs or an editable dashboard", d.UID)
	}
	seen := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range out.Panels {
		if seen[p.ID] {
			t.Errorf("%s: panel id %d twice", d.UID, p.ID)
		}
		seen[p.ID] = true
		if p.Type != "row" && (p.Datasource == nil || p.Datasource.UID != "${datasource}" && (!d.Metrics || p.Datasource.UID != "${prometheus}")) {
			t.Errorf("%s: %s does not ask the data source variable", d.UID, p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s: %s lies over %s", d.UID, p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// TestBundled holds that the data source's plugin.json offers every dashboard, so
// that it can be imported from the data source's own page.
func TestBundled(t *testing.T) {
	b, err := os.ReadFile("../grafana-plugin/src/plugin.json")
	if err != nil {
		t.Fatal(err)
	}
	var plugin struct {
		Includes []struct{ Type, Name, Path string }
	}
	if err := json.Unmarshal(b, &plugin); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, i := range plugin.Includes {
		got = append(got, i.Type+" "+i.Name+" "+i.Path)
	}
	for _, d := range All() {
		want = append(want, "dashboard "+d.Title+" dashboards/"+d.UID+".json")
	}
	if !slices.Equal(got, want) {
		t.Errorf("plugin.json bundles %q, want %q", got, want)
	}
}
