package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func newTest(t *testing.T, cfg Config) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func TestLogLinesCarryTheTrace(t *testing.T) {
	var out bytes.Buffer
	tel := newTest(t, Config{LogFormat: "json", LogLevel: "info", LogTo: &out})
	sc := tel.Scope("ingest")
	ctx, span := sc.Tracer.Start(ContextFrom(t.Context(), parent, ""), "unit")
	sc.With("topic", "a").Log.InfoContext(ctx, "hello")
	span.End()
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line[LogTraceID] != "0af7651916cd43dd8448eb211c80319c" || line[LogRoom] != "ingest" || line["topic"] != "a" {
		t.Fatalf("got %v", line)
	}
	if got := Traceparent(ctx); !strings.HasPrefix(got, "00-0af7651916cd43dd8448eb211c80319c-") || got == parent {
		t.Fatalf("traceparent %q: want the same trace and the new span", got)
	}
	if TraceID(t.Context()) != "" || TraceID(ContextFrom(t.Context(), "nonsense", "")) != "" {
		t.Fatal("a trace out of nothing")
	}
}

func TestPrometheusNames(t *testing.T) {
	tel := newTest(t, Config{LogFormat: "text", LogLevel: "info", LogTo: io.Discard})
	c, err := tel.Scope("ingest").Meter.Int64Counter(MetricIngestRows, metric.WithUnit("{row}"))
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3, metric.WithAttributes(AttrKind.String("features")))
	for i := range maxSeries + 500 {
		c.Add(t.Context(), 1, metric.WithAttributes(attribute.Int("leak", i)))
	}
	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := rec.Body.String()
	for _, want := range []string{`kedge_ingest_rows_total{kedge_event_kind="features"} 3`, "go_goroutines", "process_resident_memory_bytes", "go_gc_duration_seconds", `otel_metric_overflow="true"`} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^kedge_ingest_rows_total`).FindAllString(text, -1)); n > maxSeries+1 {
		t.Errorf("%d series: the cap is %d", n, maxSeries)
	}
}

func TestOTLPGetsSpansAndMetrics(t *testing.T) {
	got := make(chan string, 16)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path }))
	defer collector.Close()
	tel, err := New(t.Context(), Config{LogFormat: "text", LogLevel: "info", LogTo: io.Discard, OTLPEndpoint: collector.URL, SampleRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	sc := tel.Scope("x")
	_, span := sc.Tracer.Start(t.Context(), "s")
	span.End()
	if c, err := sc.Meter.Int64Counter("c"); err != nil {
		t.Fatal(err)
	} else {
		c.Add(t.Context(), 1)
	}
	if err := tel.Close(t.Context()); err != nil { // flushes
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(got) > 0 {
		seen[<-got] = true
	}
	if !seen["/v1/traces"] || !seen["/v1/metrics"] {
		t.Fatalf("the collector got %v", seen)
	}
}

func TestBadLogSettings(t *testing.T) {
	for _, cfg := range []Config{{LogFormat: "xml", LogLevel: "info"}, {LogFormat: "text", LogLevel: "loud"}} {
		cfg.LogTo = io.Discard
		if _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
