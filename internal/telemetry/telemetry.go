package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Config says where logs, metrics and traces go.
type Config struct {
	LogFormat    string       // "text" or "json"
	LogLevel     string       // "debug", "info", "warn", "error"
	OTLPEndpoint string       // base URL of an OTLP/HTTP collector; "" = none
	OTLPClient   *http.Client // nil: the exporters' own
	SampleRatio  float64      // share of new traces recorded, 0..1; a caller's own decision wins
	Service      string       // service.name
	Version      string       // service.version
	Instance     string       // service.instance.id
	LogTo        io.Writer
}

// maxSeries caps the attribute sets of one metric; beyond it the SDK folds the
// rest into one series marked otel.metric.overflow.
const maxSeries = 2000

// Telemetry owns the exporters. Close it last.
type Telemetry struct {
	log      *slog.Logger
	level    slog.LevelVar
	traces   *sdktrace.TracerProvider
	kept     *spans
	metrics  *sdkmetric.MeterProvider
	registry *prometheus.Registry
}

// New builds exporters and providers; it sends nothing yet and sets no global.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	t := &Telemetry{registry: prometheus.NewRegistry(), kept: &spans{most: keptSpans}}
	err := t.SetLogLevel(cfg.LogLevel)
	if err == nil {
		t.log, err = newLogger(cfg.LogTo, cfg.LogFormat, &t.level)
	}
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	res := resource.NewSchemaless(
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Instance),
	)
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if t.traces, err = newTraces(ctx, cfg, res, t.kept); err != nil {
		return nil, fmt.Errorf("telemetry: traces: %w", err)
	}
	if t.metrics, err = newMetrics(ctx, cfg, res, t.registry); err != nil {
		return nil, fmt.Errorf("telemetry: metrics: %w", err)
	}
	return t, nil
}

func newTraces(ctx context.Context, cfg Config, res *resource.Resource, own *spans) (*sdktrace.TracerProvider, error) {
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSpanProcessor(own),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
	}
	if cfg.OTLPEndpoint != "" {
		to := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cfg.OTLPEndpoint + "/v1/traces")}
		if cfg.OTLPClient != nil {
			to = append(to, otlptracehttp.WithHTTPClient(cfg.OTLPClient))
		}
		exp, err := otlptracehttp.New(ctx, to...)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sdktrace.WithBatcher(exp))
	}
	return sdktrace.NewTracerProvider(opts...), nil
}

func newMetrics(ctx context.Context, cfg Config, res *resource.Resource, reg *prometheus.Registry) (*sdkmetric.MeterProvider, error) {
	prom, err := otelprom.New(otelprom.WithRegisterer(reg), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	opts := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(prom), sdkmetric.WithCardinalityLimit(maxSeries)}
	if cfg.OTLPEndpoint != "" {
		to := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(cfg.OTLPEndpoint + "/v1/metrics")}
		if cfg.OTLPClient != nil {
			to = append(to, otlpmetrichttp.WithHTTPClient(cfg.OTLPClient))
		}
		exp, err := otlpmetrichttp.New(ctx, to...)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp, sdkmetric.WithInterval(30*time.Second))))
	}
	return sdkmetric.NewMeterProvider(opts...), nil
}

// Scope returns the voice of one room.
func (t *Telemetry) Scope(room string) Scope {
	name := "github.com/kedge-ml/kedge/" + room
	return Scope{
		Log:    t.log.With(LogRoom, room),
		Tracer: t.traces.Tracer(name),
		Meter:  t.metrics.Meter(name),
	}
}

// Handler serves the metrics in the Prometheus text format.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// Close flushes what was not yet exported.
func (t *Telemetry) Close(ctx context.Context) error {
	return errors.Join(t.traces.Shutdown(ctx), t.metrics.Shutdown(ctx))
}
