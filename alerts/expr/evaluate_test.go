package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
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

// recorded is what a Grafana was seen to do: see its member "seen".
type recorded struct {
	Seen  string `json:"seen"`
	Cases []struct {
		Name    string `json:"name"`
		Rule    string `json:"rule"` // numbers or series
		For     string `json:"for"`
		NoData  string `json:"no_data"`
		ExecErr string `json:"exec_err"`
		Looks   []struct {
			After  int                `json:"after"`  // seconds
			Answer string             `json:"answer"` // numbers, series, two frames, nothing, failure
			Values map[string]float64 `json:"values"` // by the label "of"; fires above 0
			States map[string]string  `json:"states"` // by "of"; "rule": the rule itself, "no data" and "error": alerts of their own
		} `json:"looks"`
	} `json:"cases"`
}

// TestAsRecorded holds the evaluation and its states against a recording of a
// real Grafana, which evaluated our rules over our data source's frames.
func TestAsRecorded(t *testing.T) {
	b, err := os.ReadFile("testdata/grafana-9.4.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec recorded
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	if len(rec.Cases) < 8 {
		t.Fatalf("%d cases", len(rec.Cases))
	}
	for _, c := range rec.Cases {
		rule := alerts.Rule{Title: "T", NoData: c.NoData, Severity: "warning"}
		if c.Rule == "series" {
			rule.Reduce = "last"
		}
		f := ruleOf(t, rule)
		f.For, f.ExecErrState = c.For, c.ExecErr
		w, err := NewWatch(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range c.Looks {
			o := Evaluate(f, answer(l.Answer, l.Values), map[bool]error{true: errors.New("no")}[l.Answer == "failure"])
			got := w.states(o, w.Step(o, time.Unix(int64(l.After), 0)))
			if !maps.Equal(got, l.States) {
				t.Errorf("%s, after %d s: %v, recorded %v", c.Name, l.After, got, l.States)
			}
		}
	}
}

// TestEveryRule holds for each committed rule what it does at, below and above its
// limit, without data and in trouble, and that its patience is kept.
func TestEveryRule(t *testing.T) {
	rules := 0
	for _, g := range alerts.All() {
		for _, r := range g.Rules {
			rules++
			f := ruleOf(t, r)
			limit := f.Data[len(f.Data)-1].Model["conditions"].([]any)[0].(map[string]any)["evaluator"].(map[string]any)["params"].([]any)[0].(float64)
			ask := func(value float64) Outcome {
				form := "numbers"
				if r.Reduce != "" {
					form = "series"
				}
				return Evaluate(f, answer(form, map[string]float64{"some": value}), nil)
			}
			// after looks at an outcome now and when the rule's patience is over.
			after := func(o Outcome) (now, later []data.Labels) {
				w, err := NewWatch(f)
				if err != nil {
					t.Fatal(err)
				}
				return w.Step(o, time.Unix(0, 0)), w.Step(o, time.Unix(0, 0).Add(r.For))
			}
			for _, quiet := range []float64{limit, limit - 1} {
				if now, later := after(ask(quiet)); len(now)+len(later) > 0 {
					t.Errorf("%s fires at %v, its limit is %v", r.UID, quiet, limit)
				}
			}
			now, later := after(ask(limit + 1))
			if (len(now) > 0) != (r.For == 0) || len(later) != 1 || later[0]["alertname"] != r.Title || later[0]["of"] != "some" || later[0]["severity"] != r.Severity {
				t.Errorf("%s, patient for %v, above its limit: %v, then %v", r.UID, r.For, now, later)
			}
			none := Evaluate(f, answer("nothing", nil), nil)
			if _, later = after(none); !none.NoData || (len(later) > 0) != (r.NoData != alerts.StateOK) {
				t.Errorf("%s without data, state %s: %+v, %v", r.UID, r.NoData, none, later)
			}
			if _, later = after(Evaluate(f, nil, errors.New("no"))); len(later) != 1 || later[0]["alertname"] != "DatasourceError" || later[0]["rulename"] != r.Title {
				t.Errorf("%s in trouble: %v", r.UID, later)
			}
		}
	}
	if rules < 14 {
		t.Errorf("%d rules", rules)
	}
}

// states are what the recording calls them.
func (w *Watch) states(o Outcome, alerting []data.Labels) map[string]string {
	out := map[string]string{}
	name := func(l data.Labels) string {
		switch {
		case l["alertname"] == "DatasourceError":
			return "error"
		case l["alertname"] == "DatasourceNoData":
			return "no data"
		case l["of"] == "":
			return "rule"
		}
		return l["of"]
	}
	for _, i := range o.Instances {
		out[i.Labels["of"]] = "Normal"
	}
	for _, h := range w.known {
		out[name(h.labels)] = "Pending"
	}
	for _, l := range alerting {
		out[name(l)] = "Alerting"
	}
	return out
}

func answer(form string, values map[string]float64) data.Frames {
	var of []string
	var v []float64
	for _, k := range slices.Sorted(maps.Keys(values)) {
		of, v = append(of, k), append(v, values[k])
	}
	numbers := frame(data.FrameTypeNumericLong, data.NewField("of", nil, of), data.NewField("v", nil, v))
	switch form {
	case "numbers":
		return data.Frames{numbers}
	case "two frames":
		return data.Frames{numbers, numbers}
	case "series":
		f := frame(data.FrameTypeTimeSeriesWide, times(2))
		for i, k := range of {
			f.Fields = append(f.Fields, data.NewField("v", data.Labels{"of": k}, []float64{0, v[i]}))
		}
		return data.Frames{f}
	}
	return data.Frames{frame(data.FrameTypeNumericLong)}
}
