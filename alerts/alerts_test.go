package alerts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

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

// frame is a data frame of a type that says so.
func frame(typ data.FrameType, fields ...*data.Field) *data.Frame {
	f := data.NewFrame("f", fields...)
	f.Meta = &data.FrameMeta{Type: typ, TypeVersion: data.FrameTypeVersion{0, 1}}
	return f
}

func ruleOf(t *testing.T, r Rule) FileRule {
	t.Helper()
	f, err := r.file(func(string, string) (int, bool) { return 1, true })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func times(n int) *data.Field {
	out := make([]time.Time, n)
	for i := range out {
		out[i] = time.Unix(int64(i), 0)
	}
	return data.NewField("time", nil, out)
}

// TestEvaluate holds the evaluation against what a Grafana 9.4 was seen to do
// with the same shapes, except where it lacked the data plane's reader.
func TestEvaluate(t *testing.T) {
	number, series := ruleOf(t, Rule{Above: 1}), ruleOf(t, Rule{Above: 1, Reduce: "last"})
	a, b := data.Labels{"column": "a"}, data.Labels{"column": "b"}
	long := frame(data.FrameTypeNumericLong, data.NewField("v", nil, []float64{1, 2}), data.NewField("column", nil, []string{"a", "b"}))
	twice := frame(data.FrameTypeNumericLong, data.NewField("v", nil, []float64{1, 2}), data.NewField("column", nil, []string{"a", "a"}))
	null := frame(data.FrameTypeNumericLong, data.NewField("v", nil, []*float64{nil}), data.NewField("column", nil, []string{"a"}))
	wide := frame(data.FrameTypeTimeSeriesWide, times(2), data.NewField("v", a, []float64{5, 1}), data.NewField("v", b, []float64{0, 5}))
	multi := frame(data.FrameTypeTimeSeriesMulti, times(2), data.NewField("v", a, []float64{0, 5}))
	empty := frame(data.FrameTypeNumericLong, data.NewField("v", nil, []float64{}), data.NewField("column", nil, []string{}))
	untyped := data.NewFrame("f", times(1), data.NewField("v", nil, []float64{1}))
	heat := frame("heatmap-rows", times(1), data.NewField("a", nil, []float64{1}))
	for _, c := range []struct {
		name   string
		rule   FileRule
		frames data.Frames
		err    error
		want   string
	}{
		{"numbers fire without reduce", number, data.Frames{long}, nil, "[a:false b:true]"},
		{"a wide series is reduced to its last", series, data.Frames{wide}, nil, "[a:false b:true]"},
		{"so is a multi one", series, data.Frames{multi}, nil, "[a:true]"},
		{"a series without reduce", number, data.Frames{wide}, nil, "error"},
		{"numbers with reduce", series, data.Frames{long}, nil, "error"},
		{"a null is there, without a value", number, data.Frames{null}, nil, "[a:nodata]"},
		{"two of the same labels", number, data.Frames{twice}, nil, "error"},
		{"no rows", number, data.Frames{empty}, nil, "nodata"},
		{"no frames", number, nil, nil, "nodata"},
		{"a heat map", number, data.Frames{heat}, nil, "error"},
		{"no type", series, data.Frames{untyped}, nil, "error"},
		{"a failed question", number, nil, errors.New("no"), "error"},
	} {
		if got := told(Evaluate(c.rule, c.frames, c.err)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	delete(number.Data[1].Model["conditions"].([]any)[0].(map[string]any), "query")
	if got := told(Evaluate(number, data.Frames{long}, nil)); got != "error" {
		t.Errorf("a condition that older editors crash on: %s", got)
	}
}

func told(o Outcome) string {
	switch {
	case o.Err != nil:
		return "error"
	case o.NoData:
		return "nodata"
	}
	var out []string
	for _, i := range o.Instances {
		state := fmt.Sprint(i.Firing)
		if i.NoData {
			state = "nodata"
		}
		out = append(out, i.Labels["column"]+":"+state)
	}
	return fmt.Sprint(out)
}

// TestWatch walks a rule through pending, alerting, no data, error and clear.
func TestWatch(t *testing.T) {
	w, err := NewWatch(ruleOf(t, Rule{Title: "T", For: 2 * time.Minute, NoData: StateNoData, Severity: "warning"}))
	if err != nil {
		t.Fatal(err)
	}
	on, off := Outcome{Instances: []Instance{{Labels: data.Labels{"column": "a"}, Firing: true}}}, Outcome{Instances: []Instance{{Labels: data.Labels{"column": "a"}}}}
	for minute, c := range []struct {
		o    Outcome
		want string
	}{
		{on, ""}, {on, ""}, {on, "T a"}, {on, "T a"}, {off, ""}, {on, ""}, {off, ""},
		{Outcome{NoData: true}, ""}, {Outcome{NoData: true}, ""}, {Outcome{NoData: true}, "DatasourceNoData "},
		{Outcome{Err: errors.New("x")}, ""}, {Outcome{Err: errors.New("x")}, ""}, {Outcome{Err: errors.New("x")}, "DatasourceError "}, {off, ""},
	} {
		var got []string
		for _, l := range w.Step(c.o, time.Unix(int64(60*minute), 0)) {
			got = append(got, l["alertname"]+" "+l["column"])
			if l["alertname"] == "T" && (l["severity"] != "warning" || l["service"] != "kedge") {
				t.Errorf("labels %v", l)
			}
		}
		if strings.Join(got, ",") != c.want {
			t.Errorf("minute %d: %q, want %q", minute, got, c.want)
		}
	}
	quiet, _ := NewWatch(ruleOf(t, Rule{NoData: StateOK}))
	if got := quiet.Step(Outcome{NoData: true}, time.Unix(0, 0)); len(got) != 0 {
		t.Errorf("no data is no trouble here: %v", got)
	}
}
