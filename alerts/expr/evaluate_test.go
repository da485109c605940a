package expr

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/alerts"
)

// frame is a data frame of a type that says so.
func frame(typ data.FrameType, fields ...*data.Field) *data.Frame {
	f := data.NewFrame("f", fields...)
	f.Meta = &data.FrameMeta{Type: typ, TypeVersion: data.FrameTypeVersion{0, 1}}
	return f
}

func ruleOf(t *testing.T, r alerts.Rule) alerts.FileRule {
	t.Helper()
	f, err := r.File(func(string, string) (int, bool) { return 1, true })
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
	number, series := ruleOf(t, alerts.Rule{Above: 1}), ruleOf(t, alerts.Rule{Above: 1, Reduce: "last"})
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
		rule   alerts.FileRule
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
		{"numbers in two frames", number, data.Frames{long, long}, nil, "error"},
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
	w, err := NewWatch(ruleOf(t, alerts.Rule{Title: "T", For: 2 * time.Minute, NoData: alerts.StateNoData, Severity: "warning"}))
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
	quiet, _ := NewWatch(ruleOf(t, alerts.Rule{NoData: alerts.StateOK}))
	if got := quiet.Step(Outcome{NoData: true}, time.Unix(0, 0)); len(got) != 0 {
		t.Errorf("no data is no trouble here: %v", got)
	}
}
