package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// traces is an OTLP collector.
type traces struct {
	mu    sync.Mutex
	spans map[string][]*trace.Span // by trace id
}

func (c *traces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in collector.ExportTraceServiceRequest
	if err != nil || !strings.HasSuffix(r.URL.Path, "/v1/traces") || proto.Unmarshal(body, &in) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, res := range in.ResourceSpans {
		for _, scope := range res.ScopeSpans {
			for _, s := range scope.Spans {
				id := hex.EncodeToString(s.TraceId)
				c.spans[id] = append(c.spans[id], s)
			}
		}
	}
}

// chain walks from a span of this name to its root and names what it meets.
func (c *traces) chain(id, name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var at *trace.Span
	for _, s := range c.spans[id] {
		if s.Name == name {
			at = s
		}
	}
	if at == nil {
		return ""
	}
	out := at.Name
	for parent := at.ParentSpanId; ; {
		var up *trace.Span
		for _, s := range c.spans[id] {
			if string(s.SpanId) == string(parent) {
				up = s
			}
		}
		if up == nil {
			return out + " < " + hex.EncodeToString(parent)
		}
		out, parent = out+" < "+up.Name, up.ParentSpanId
	}
}

// countsOutcomes holds that a bad request is counted beside those that were
// answered.
func (p *kedgeProcess) countsOutcomes(t *testing.T) {
	t.Helper()
	if status, body := post(t, p.http+"/v1/predict/elec", `{"data":{"nswprice":"dear"}}`); status/100 != 4 {
		t.Fatalf("a bad request: %d %s", status, body)
	}
	testenv.Eventually(t, time.Minute, func() error {
		f := p.ask(query.Request{Kind: "serving_errors", Model: "elec"})[0]
		sums := map[string]float64{}
		for _, c := range f.Columns[1:] {
			for _, v := range c.Values.([]float64) {
				sums[c.Name] += v
			}
		}
		if sums["answered"] == 0 || sums["refused"] == 0 || sums["rejected"] != 0 {
			return fmt.Errorf("outcomes: %v", sums)
		}
		return nil
	})
}

// TestTraceReachesTheInsert asks for a prediction within a caller's trace: every part
// of it, and the insert of its record behind Kafka, are in that trace; a
// request that its caller does not sample leaves none.
func TestTraceReachesTheInsert(t *testing.T) {
	c := &traces{spans: map[string][]*trace.Span{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	t.Setenv("KEDGE_TELEMETRY_OTLP", srv.URL)
	t.Setenv("KEDGE_TELEMETRY_SAMPLE_RATIO", "0")
	dir := t.TempDir()
	p := startKedge(t, dir)
	out := p.must("train", plantedMarket(t), "--name", "elec", "--label", "class", "--backend", "linear", "--drop", "period", "--artifacts", filepath.Join(dir, "artifacts"))
	digest := regexp.MustCompile(`artefact ([0-9a-f]{64})`).FindStringSubmatch(out)
	file := filepath.Join(dir, "deployment.yaml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf("kind: Deployment\nname: elec\nspec:\n  versions: [{version: '1', artifact: %s}]\n  champion: '1'\n", digest[1])), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("apply", "-f", file)
	const caller = "00f067aa0ba902b7"
	ask := func(id, flags string) error {
		req, err := http.NewRequest("POST", p.http+"/v1/predict/elec", strings.NewReader(`{"data":{"nswprice":0.1,"nswdemand":0.2,"vicprice":0.1,"vicdemand":0.2,"transfer":0.3}}`))
		if err != nil {
			return err
		}
		req.Header.Set("Traceparent", "00-"+id+"-"+caller+"-"+flags)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
			return fmt.Errorf("%d %s", res.StatusCode, body)
		}
		return nil
	}
	const seen, unseen = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"
	testenv.Eventually(t, 30*time.Second, func() error { return ask(unseen, "00") })
	p.caughtUp(1) // a unit of its own
	if err := ask(seen, "01"); err != nil {
		t.Fatal(err)
	}
	p.hasExemplar(seen, "kedge_serving_request_duration_seconds_bucket", "kedge_serving_queue_duration_seconds_bucket", "kedge_serving_compute_duration_seconds_bucket", "kedge_serving_features_duration_seconds_bucket")
	const request = "POST /v1/predict/{model} < " + caller
	for span, want := range map[string]string{
		"features": "features < " + request, "compute": "compute < " + request, "record": "record < " + request,
		"ingest unit": "ingest unit < record < " + request,
	} {
		testenv.Eventually(t, time.Minute, func() error {
			if got := c.chain(seen, span); got != want {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
	}
	p.countsOutcomes(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans[unseen]) != 0 {
		t.Errorf("not sampled, but told: %v", c.spans[unseen])
	}
}

// hasExemplar wants a trace beside a bucket of each histogram, as Prometheus reads them.
func (p *kedgeProcess) hasExemplar(trace string, histograms ...string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.http+"/metrics", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range histograms {
		if !regexp.MustCompile(`(?m)^` + name + `\{.*# \{[^}]*trace_id="` + trace + `"`).Match(body) {
			p.t.Errorf("%s has no exemplar of trace %s", name, trace)
		}
	}
}
