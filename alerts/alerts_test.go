package alerts

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dashboards"
	"github.com/kedge-ml/kedge/query"
)

// TestCommitted holds that the YAML is what the code writes.
func TestCommitted(t *testing.T) {
	rules, err := Render(All(), dashboards.PanelID)
	if err != nil {
		t.Fatal(err)
	}
	own, err := RenderPrometheus(Prometheus())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"kedge-rules.yaml": rules, "prometheus-rules.yaml": own} {
		if got, err := os.ReadFile(name); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what the code writes: run go generate ./alerts (%v)", name, err)
		}
	}
	if _, err := Render([]Group{{Rules: []Rule{{UID: "x", Dashboard: "kedge-overview", Panel: "nothing"}}}}, dashboards.PanelID); err == nil {
		t.Error("a rule of a panel that there is not was rendered")
	}
}

var label = regexp.MustCompile(`\$labels\.(\w+)`)

// TestLint holds what every rule must say.
func TestLint(t *testing.T) {
	uids := map[string]bool{}
	for _, g := range All() {
		if g.Interval < 10*time.Second {
			t.Errorf("%s: Grafana refuses intervals below 10 s", g.Name)
		}
		for _, r := range g.Rules {
			k, ok := query.KindNamed(r.Query.Kind)
			switch {
			case uids[r.UID] || !strings.HasPrefix(r.UID, "kedge-") || len(r.UID) > 40:
				t.Errorf("%s: a uid that is taken or strange", r.UID)
			case !ok || r.Query.Detector != "" && !slices.Contains(k.Reads, "detector"):
				t.Errorf("%s asks %+v", r.UID, r.Query)
			case r.Numeric != (k.Frame == query.Table) || (r.Reduce != "") != (k.Frame == query.TimeSeriesWide || k.Frame == query.TimeSeriesMulti):
				t.Errorf("%s: a %s needs other steps", r.UID, k.Frame)
			case r.Reduce == "" && len(r.Values) != 1:
				t.Errorf("%s: numbers need one value, or two instances share their labels", r.UID)
			case !slices.Contains([]string{"warning", "critical"}, r.Severity) || !slices.Contains([]string{StateOK, StateNoData, StateAlerting}, r.NoData):
				t.Errorf("%s: severity %q, no data %q", r.UID, r.Severity, r.NoData)
			case r.For%g.Interval != 0 || r.Range == 0 || label.FindString(r.Summary) == "" || len(r.Text) < 30:
				t.Errorf("%s: for %v, range %v, %q, %q", r.UID, r.For, r.Range, r.Summary, r.Text)
			}
			uids[r.UID] = true
			runbook(t, r.UID+".md", "# "+r.Title)
		}
	}
	for _, r := range Prometheus() {
		runbook(t, "prometheus.md", "## "+r.Name+"\n")
	}
	files, _ := filepath.Glob("../docs/runbooks/kedge-*.md")
	if len(files) != len(uids) {
		t.Errorf("%d runbooks for %d rules", len(files), len(uids))
	}
}

func runbook(t *testing.T, name, heading string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../docs/runbooks", name))
	if err != nil || !strings.Contains(string(b), heading) {
		t.Errorf("runbook %s lacks %q (%v)", name, heading, err)
	}
}
