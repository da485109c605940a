package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dataplane/sdata/numeric"
	"github.com/grafana/dataplane/sdata/timeseries"
	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/config"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// builtPlugin builds the plugin's backend once, as `make plugin` does.
var builtPlugin = sync.OnceValues(func() (string, error) { return buildPlugin("grafana-plugin/pkg") })

// buildPlugin builds the backend of a plugin from one of our packages.
func buildPlugin(pkg string) (string, error) {
	dir, err := os.MkdirTemp("", "kedge-plugin")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "gpx_kedge")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "github.com/kedge-ml/kedge/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
}

// pluginProcess is the plugin's backend as Grafana runs it: a process of its
// own, spoken to over gRPC after a handshake.
type pluginProcess struct {
	t      testing.TB
	client *plugin.Client
	data   pluginv2.DataClient
	health pluginv2.DiagnosticsClient
	res    pluginv2.ResourceClient
	source backend.DataSourceInstanceSettings
}

// startPlugin starts the backend with a data source that asks a Kedge.
func startPlugin(t testing.TB, url string, jsonData string, secrets map[string]string) *pluginProcess {
	t.Helper()
	file, err := builtPlugin()
	if err != nil {
		t.Fatal(err)
	}
	return startBackend(t, file, url, jsonData, secrets)
}

// startBackend starts the backend of a plugin as Grafana does.
func startBackend(t testing.TB, file, url, jsonData string, secrets map[string]string) *pluginProcess {
	t.Helper()
	p := &pluginProcess{t: t, source: backend.DataSourceInstanceSettings{UID: "kedge", Name: "Kedge", Type: "kedgeml-kedge-datasource", URL: url,
		JSONData: []byte(jsonData), DecryptedSecureJSONData: secrets, Updated: time.Now()}}
	p.client = plugin.NewClient(&plugin.ClientConfig{
		Cmd:              exec.Command(file),
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: grpcplugin.ProtocolVersion, MagicCookieKey: grpcplugin.MagicCookieKey, MagicCookieValue: grpcplugin.MagicCookieValue},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		VersionedPlugins: map[int]plugin.PluginSet{grpcplugin.ProtocolVersion: {
			"data": &grpcplugin.DataGRPCPlugin{}, "diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{}, "resource": &grpcplugin.ResourceGRPCPlugin{},
		}},
		Logger: hclog.NewNullLogger(),
	})
	t.Cleanup(p.client.Kill)
	conn, err := p.client.Client()
	if err != nil {
		t.Fatal(err)
	}
	p.data = dispense[pluginv2.DataClient](t, conn, "data")
	p.health = dispense[pluginv2.DiagnosticsClient](t, conn, "diagnostics")
	p.res = dispense[pluginv2.ResourceClient](t, conn, "resource")
	return p
}

func dispense[T any](t testing.TB, conn plugin.ClientProtocol, name string) T {
	t.Helper()
	raw, err := conn.Dispense(name)
	if err != nil {
		t.Fatal(err)
	}
	client, ok := raw.(T)
	if !ok {
		t.Fatalf("the plugin's %s is a %T", name, raw)
	}
	return client
}

func (p *pluginProcess) context() backend.PluginContext {
	//lint:ignore SA1019 the Grafanas that the plugin runs in send it
	return backend.PluginContext{OrgID: 1, PluginID: p.source.Type, DataSourceInstanceSettings: &p.source,
		GrafanaConfig: config.NewGrafanaCfg(nil), User: &backend.User{Login: "tess"}}
}

// panel is one query of a dashboard; its members are Kedge's own.
func panel(ref string, q query.Request, from, to time.Time) backend.DataQuery {
	body, _ := json.Marshal(q)
	return backend.DataQuery{RefID: ref, JSON: body, MaxDataPoints: 500, Interval: 15 * time.Second, TimeRange: backend.TimeRange{From: from, To: to}}
}

// ask sends queries as one refresh of a dashboard does.
func (p *pluginProcess) ask(queries ...backend.DataQuery) backend.Responses {
	p.t.Helper()
	req := &backend.QueryDataRequest{PluginContext: p.context(), Queries: queries, Headers: map[string]string{"http_X-Grafana-Id": "signed"}}
	res, err := p.data.QueryData(p.t.Context(), backend.ToProto().QueryDataRequest(req))
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := backend.FromProto().QueryDataResponse(res)
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Responses
}

// checkHealth is what "Save & test" shows.
func (p *pluginProcess) checkHealth() (backend.HealthStatus, string) {
	p.t.Helper()
	res, err := p.health.CheckHealth(p.t.Context(), &pluginv2.CheckHealthRequest{PluginContext: backend.ToProto().PluginContext(p.context())})
	if err != nil {
		p.t.Fatal(err)
	}
	return backend.HealthStatus(res.Status), res.Message
}

// resource asks what the editor asks.
func (p *pluginProcess) resource(path, body string) (int, string) {
	p.t.Helper()
	stream, err := p.res.CallResource(p.t.Context(), &pluginv2.CallResourceRequest{PluginContext: backend.ToProto().PluginContext(p.context()), Path: path, Method: "POST", Url: path, Body: []byte(body)})
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	return int(res.Code), string(res.Body)
}

// checkFrames reads frames with the data plane's own readers: what they refuse,
// alerting would refuse too. It answers how many values or series there are.
func checkFrames(t *testing.T, at string, frames data.Frames) int {
	t.Helper()
	if len(frames) == 0 {
		t.Fatalf("%s: no frame", at)
	}
	for _, f := range frames {
		if f.Meta == nil || f.Meta.Type == "" || f.Meta.TypeVersion.IsZero() {
			t.Errorf("%s: frame %q says no type: %+v", at, f.Name, f.Meta)
		}
		if f.Meta != nil && f.Meta.Type == data.FrameTypeTimeSeriesLong {
			t.Errorf("%s: a long series is drawn as a zigzag", at)
		}
	}
	first := frames[0]
	switch first.Meta.Type {
	case data.FrameTypeTimeSeriesWide, data.FrameTypeTimeSeriesMulti:
		var same data.Frames
		for _, f := range frames {
			if f.Meta.Type == first.Meta.Type {
				same = append(same, f)
			}
		}
		r, err := timeseries.CollectionReaderFromFrames(same)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		c, err := r.GetCollection(true)
		if err != nil || len(c.RemainderIndices) > 0 {
			t.Fatalf("%s: %v; frames that no reader takes: %v, %v", at, err, c.RemainderIndices, c.Warning)
		}
		return len(c.Refs)
	case data.FrameTypeNumericLong, data.FrameTypeNumericWide:
		r, err := numeric.CollectionReaderFromFrames(frames[:1])
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		c, err := r.GetCollection(false)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return len(c.Refs)
	case "heatmap-rows":
		checkHeatmap(t, at, first)
	case data.FrameTypeLogLines:
		checkLogLines(t, at, first)
	}
	return first.Rows()
}

// checkHeatmap holds what the data plane says of heatmap-rows, which its
// library does not read: a time, then numbers.
func checkHeatmap(t *testing.T, at string, f *data.Frame) {
	t.Helper()
	for i, field := range f.Fields {
		if i == 0 != field.Type().Time() || i > 0 && !field.Type().Numeric() {
			t.Errorf("%s: field %d is a %v", at, i, field.Type())
		}
	}
}

func checkLogLines(t *testing.T, at string, f *data.Frame) {
	t.Helper()
	var names []string
	for _, field := range f.Fields {
		names = append(names, field.Name)
	}
	if !slices.Equal(names[:2], []string{"timestamp", "body"}) {
		t.Errorf("%s: log lines with fields %v", at, names)
	}
}

// TestPluginAnswersEveryKind drives the built backend over its own protocol
// against a running kedge that has the demo stream: every kind answers with
// frames that Grafana's data plane reads.
func TestPluginAnswersEveryKind(t *testing.T) {
	t.Setenv("KEDGE_HTTP_QUERY_TIMEOUT", "2m") // forty questions at once, on any machine
	k := startKedge(t, t.TempDir(), "--demo")
	waitForDemo(t, k)
	now := time.Now().UTC()
	k.send(fmt.Sprintf(`{"model":"timed","version":"1","id":"slow","event_time":%q,"inputs":{"a":1},"output":{"score":0.5},"latency":{"queue":1,"features":30,"compute":40},"trace":"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}`, now.Format(time.RFC3339Nano)) + "\n" +
		`{"view":"driver_stats","key":{"driver_id":1},"event_time":"2199-01-01T00:00:00Z","values":{"trips_today":1}}`)
	testenv.Eventually(t, 30*time.Second, func() error {
		if landed(k, "predictions", "timed") != 1 {
			return fmt.Errorf("the timed prediction has not landed")
		}
		if k.ask(query.Request{Kind: "dead_letters"})[0].Rows() == 0 {
			return fmt.Errorf("the event of the year 2199 is no dead letter yet")
		}
		return nil
	})
	p := startPlugin(t, k.http, `{"traceUrl":"http://127.0.0.1/trace/${__value.raw}","timeoutSeconds":120}`, nil)
	if status, text := p.checkHealth(); status != backend.HealthStatusOk {
		t.Errorf("health: %v %s", status, text)
	}
	var served []query.Kind
	if status, body := p.resource("kinds", ""); status != 200 || json.Unmarshal([]byte(body), &served) != nil || len(served) < 20 {
		t.Fatalf("kinds: %d %s", status, body)
	}
	var all []backend.DataQuery
	for _, kind := range served {
		q := query.Request{Kind: kind.Name}
		switch kind.Subject {
		case query.ViewOnly, query.ViewOrModel:
			q.View = "driver_stats"
		case query.ModelOnly:
			q.Model = "ride_cancel"
		}
		if kind.Group == "Serving" && kind.Subject == query.ModelOnly {
			q.Model = "timed"
		}
		all = append(all, panel(kind.Name, q, now.Add(-30*time.Minute), now.Add(time.Minute)))
	}
	for ref, r := range p.ask(all...) {
		told := slices.Contains(toldOfDemo(), ref)
		if r.Error != nil {
			refused := r.Status == backend.StatusNotFound || r.Status == backend.StatusBadRequest
			if told || !refused { // no monitor watches it yet, or it is learning, or two versions have to be named
				t.Errorf("%s: %v", ref, r.Error)
			}
			continue
		}
		n := checkFrames(t, ref, r.Frames)
		t.Logf("%s: %s, %d frames, %d", ref, r.Frames[0].Meta.Type, len(r.Frames), n)
		if n == 0 && told {
			t.Errorf("%s holds nothing", ref)
		}
		if ref == "latency_heatmap" || ref == "serving_latency" {
			checkExemplar(t, ref, r.Frames)
		}
	}
}

// toldOfDemo are kinds that have something to say of a young demo stream. Others
// may not: nothing is deployed, and monitors may not have looked yet.
func toldOfDemo() []string {
	return []string{"catalog", "throughput", "ingest_lag", "ledger", "dead_letters", "disk", "freshness", "rows", "score_distribution", "label_coverage", "summary",
		"serving_latency", "latency_heatmap", "serving_throughput", "lineage", "dead_letter_log"}
}

// checkExemplar wants the slowest prediction in the form that Grafana's panels
// draw: topic annotations, the trace linked, and the label that the heat map's
// rows are matched by, without which the whole panel crashes.
func checkExemplar(t *testing.T, at string, frames data.Frames) {
	t.Helper()
	if len(frames) != 2 || frames[1].Name != "exemplar" || frames[1].Meta.DataTopic != data.DataTopicAnnotations {
		t.Fatalf("%s: no exemplar beside the panel's frame: %d frames", at, len(frames))
	}
	trace, _ := frames[1].FieldByName("trace_id")
	le, _ := frames[1].FieldByName("le")
	if trace == nil || len(trace.Config.Links) != 1 || trace.At(0) != "0123456789abcdef0123456789abcdef" || le == nil || le.At(0) != "100" {
		t.Errorf("%s: exemplar %v", at, frames[1].Fields)
	}
}

// waitForDemo returns once the demo stream's past has landed.
func waitForDemo(t *testing.T, k *kedgeProcess) {
	t.Helper()
	testenv.Eventually(t, 60*time.Second, func() error {
		if landed(k, "features", "driver_stats") < 1000 || landed(k, "predictions", "ride_cancel") < 1000 {
			return fmt.Errorf("the demo stream has not landed")
		}
		if _, metrics := get(t, k.http+"/metrics"); !strings.Contains(metrics, "kedge_ingest_unit_duration_seconds_bucket") {
			return fmt.Errorf("no unit is whole yet")
		}
		return nil
	})
}
