package plugin

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/grafana/dataplane/sdata/numeric"
	"github.com/grafana/dataplane/sdata/timeseries"
	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/query"
)

func two() []time.Time {
	t := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []time.Time{t, t.Add(time.Minute)}
}

// TestDataPlane reads our frames with the data plane's own reader: what it
// refuses, alerting would refuse too.
func TestDataPlane(t *testing.T) {
	wide := query.Frame{Type: query.TimeSeriesWide, Columns: []query.Column{
		{Name: "time", Type: query.Time, Values: two()},
		{Name: "psi", Type: query.Float, Labels: map[string]string{"column": "a"}, Values: []float64{1, 2}},
		{Name: "psi", Type: query.Float, Labels: map[string]string{"column": "b"}, Values: []float64{3, 4}},
	}}
	f, err := toGrafana(&wide, leads{})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := timeseries.CollectionReaderFromFrames(data.Frames{f})
	if err != nil {
		t.Fatal(err)
	}
	got, err := reader.GetCollection(true)
	if err != nil || len(got.Refs) != 2 || len(got.RemainderIndices) != 0 {
		t.Errorf("wide: %d series, remainder %v, %v", len(got.Refs), got.RemainderIndices, err)
	}

	long := query.Frame{Type: query.NumericLong, Columns: []query.Column{
		{Name: "age", Type: query.Float, Unit: "s", Values: []float64{1, 2}},
		{Name: "model", Type: query.Text, Values: []string{"a", "b"}},
	}}
	if f, err = toGrafana(&long, leads{}); err != nil {
		t.Fatal(err)
	}
	numbers, err := numeric.CollectionReaderFromFrames(data.Frames{f})
	if err != nil {
		t.Fatal(err)
	}
	all, err := numbers.GetCollection(false) // true is not built for this type
	if err != nil || len(all.Refs) != 2 || all.Refs[1].GetLabels()["model"] != "b" {
		t.Errorf("long: %+v, %v", all, err)
	}
}

func TestFieldConfig(t *testing.T) {
	f, err := toGrafana(&query.Frame{Type: query.Table, Notices: []query.Notice{{Severity: "warning", Text: "cut"}}, Columns: []query.Column{
		{Name: "x", Type: query.Float, Unit: "percentunit", Display: "X", Thresholds: []query.Threshold{{Value: 0.2, State: "critical"}}},
		{Name: "trace_id", Type: query.Text, Values: []string{}},
		{Name: "j", Type: query.RawJSON, Values: []json.RawMessage{}},
	}}, leads{traces: "http://t/${__value.raw}"})
	if err != nil {
		t.Fatal(err)
	}
	c := f.Fields[0].Config
	if c.Unit != "percentunit" || c.DisplayNameFromDS != "X" || len(c.Thresholds.Steps) != 2 || !math.IsInf(float64(c.Thresholds.Steps[0].Value), -1) || c.Thresholds.Steps[1].Color != "red" {
		t.Errorf("config: %+v", c)
	}
	if links := f.Fields[1].Config.Links; len(links) != 1 || links[0].URL != "http://t/${__value.raw}" {
		t.Errorf("trace link: %+v", links)
	}
	if f.Meta.Notices[0].Severity != data.NoticeSeverityWarning || f.Meta.TypeVersion != dataPlane {
		t.Errorf("meta: %+v", f.Meta)
	}
	if _, err := json.Marshal(f); err != nil {
		t.Errorf("the frame has no JSON form: %v", err)
	}
	share := query.Frame{Type: query.NumericLong, Columns: []query.Column{{Name: "share", Type: query.Float, Unit: "percentunit"}, {Name: "age", Type: query.Float, Unit: "s"}}}
	if f, err = toGrafana(&share, leads{}); err != nil || f.Fields[0].Config.Min == nil || *f.Fields[0].Config.Min != 0 || *f.Fields[0].Config.Max != 1 || f.Fields[1].Config.Max != nil {
		t.Errorf("a gauge of shares reaches from none to all: %v", err)
	}
	series := query.Frame{Type: query.TimeSeriesWide, Columns: []query.Column{{Name: "time", Type: query.Time}, {Name: "v", Type: query.Float, Labels: map[string]string{"view": "user"}}, {Name: "w", Type: query.Float}}}
	if f, err = toGrafana(&series, leads{}); err != nil || len(f.Fields[0].Config.Links)+len(f.Fields[2].Config.Links) > 0 || len(f.Fields[1].Config.Links) != 1 || f.Fields[1].Config.Links[0].Title != "Rows of user" {
		t.Errorf("links to rows: %v", err)
	}
}

// TestRequest holds that the panel's range, interval and width reach Kedge, so
// an alert rule asks what the panel asks.
func TestRequest(t *testing.T) {
	d := &Datasource{options: Options{Namespace: "team"}, known: knownKinds()}
	times := two()
	q := backend.DataQuery{RefID: "A", MaxDataPoints: 300, Interval: 15 * time.Second,
		TimeRange: backend.TimeRange{From: times[0], To: times[1]},
		JSON:      []byte(`{"refId":"A","datasource":{"uid":"x"},"kind":"summary","view":"v","columns":["a"],"hide":false,"intervalMs":15000}`)}
	r, _, err := d.request(t.Context(), &d.client, q)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "summary" || r.Namespace != "team" || !r.From.Equal(times[0]) || !r.To.Equal(times[1]) || time.Duration(r.Step) != 15*time.Second || r.MaxPoints != 300 {
		t.Errorf("request: %+v", r)
	}
	q.JSON = []byte(`{"kind":"summary","step":"1h","namespace":"other","max_points":7}`)
	if r, _, err = d.request(t.Context(), &d.client, q); err != nil || time.Duration(r.Step) != time.Hour || r.Namespace != "other" || r.MaxPoints != 7 {
		t.Errorf("what the query states wins: %+v, %v", r, err)
	}
	for _, bad := range []string{`{}`, `{"kind":`, `{"kind":"x","step":"soon"}`} {
		q.JSON = []byte(bad)
		if _, _, err := d.request(t.Context(), &d.client, q); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}
